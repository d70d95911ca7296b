"""The settings, their JSON Schema, and the connection that they describe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from melisma.errors import ConfigError
from melisma.sql.pem import pem_file

__all__ = ["CONFIG", "connection_string"]

METHODS = ("FULL_TABLE", "INCREMENTAL", "LOG_BASED")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def _text(title: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "title": title, "description": description, **more}


def _switch(title: str, description: str) -> dict[str, Any]:
    return {"type": "boolean", "title": title, "description": description, "default": False}


CONFIG: dict[str, Any] = {
    "type": "object",
    "properties": {
        "host": _text("Host", "The server's name or address; by default what libpq takes: PGHOST, a service, ..."),
        "port": {
            "type": "integer",
            "minimum": 1,
            "maximum": 65535,
            "title": "Port",
            "description": "The server's port.",
        },
        "user": _text("User", "Who to log in as."),
        "password": _text("Password", "That user's password; PGPASSWORD and the password file work too.", secret=True),
        "database": _text("Database", "The database to read."),
        "sqlalchemy_url": _text(
            "URL",
            "A postgresql:// URL with all of these in it, and any of libpq's parameters; it goes before them.",
            secret=True,
        ),
        "ssl_enable": _switch("SSL", "Whether the settings below, which begin with ssl_, count."),
        "ssl_mode": _text("SSL mode", "How much the server has to prove.", enum=list(SSL_MODES), default="verify-full"),
        "ssl_certificate_authority": _text(
            "Certificate authority", "Whose certificates are trusted: a path, or the certificate itself (PEM)."
        ),
        "ssl_client_certificate_enable": _switch(
            "Client certificate", "Whether the tap shows a certificate of its own."
        ),
        "ssl_client_certificate": _text("Client certificate", "The tap's certificate: a path, or itself (PEM)."),
        "ssl_client_private_key": _text("Client key", "Its key: a path, or itself (PEM).", secret=True),
        "ssh_tunnel": {
            "type": "object",
            "title": "SSH tunnel",
            "description": "A server that leads to the database by SSH; needs the extra ssh.",
            "properties": {
                "enable": _switch("SSH tunnel", "Whether the tunnel is used."),
                "host": _text("SSH host", "The SSH server."),
                "port": {"type": "integer", "title": "SSH port", "description": "Its port.", "default": 22},
                "username": _text("SSH user", "Who to log in as there; by default who runs the tap."),
                "password": _text("SSH password", "That user's password.", secret=True),
                "private_key": _text("SSH key", "In place of a password: a path, or the key itself.", secret=True),
                "private_key_password": _text("SSH key password", "The private key's password.", secret=True),
                "known_hosts": _text(
                    "Known hosts",
                    "A file with the SSH server's key; by default ~/.ssh/known_hosts. It is always checked.",
                ),
            },
        },
        "filter_schemas": {
            "type": "array",
            "items": {"type": "string"},
            "title": "Schemas",
            "description": "The schemas to look at; by default all but the system's own.",
        },
        "default_replication_method": _text(
            "Default replication method",
            "The method of streams for which the catalog has none.",
            enum=list(METHODS),
            default="FULL_TABLE",
        ),
        "dates_as_string": _switch(
            "Dates as strings",
            "Whether date, timestamp and timestamptz are sent as text, as PostgreSQL writes them: for infinity and for "
            "years outside 1 to 9999.",
        ),
        "max_record_count": {
            "type": "integer",
            "minimum": 1,
            "title": "Record limit",
            "description": "The most rows to read of each stream, for trying out.",
        },
        "resume_full_table": _switch(
            "Resume full tables",
            "Whether FULL_TABLE streams are read in an order, that of the primary key or of the blocks on the server's "
            "disk, with a STATE as it goes, so that a run that was cut short goes on within the table. For targets "
            "that append or upsert.",
        ),
        "parallel_reads": {
            "type": "integer",
            "minimum": 1,
            "maximum": 32,
            "default": 1,
            "title": "Parallel reads",
            "description": "Over how many connections at once a large table is read in FULL_TABLE, in ranges of its "
            "blocks, all in one snapshot.",
        },
        "replication_slot_name": _text(
            "Replication slot",
            "The slot that LOG_BASED streams are read through, made if it is missing; one for each pipeline.",
            pattern="^[a-z0-9_]{1,40}$",
            default="melisma",
        ),
        "replication_publication": _text(
            "Publication",
            "The publication of their tables; it is made, and tables are added to it, where the user may do so.",
            default="melisma",
        ),
        "connect_retries": {
            "type": "integer",
            "minimum": 0,
            "default": 5,
            "title": "Retries",
            "description": "How often a connection that fails or drops is made again before the run fails.",
        },
    },
}


def connection_string(config: Mapping[str, Any]) -> str:
    """What libpq needs to connect, as its keywords and values; what is not set is libpq's own to find.

    With an SSH tunnel, which is opened if it is not open yet, it leads there. The server's name stays what its
    certificate has to bear.

    Raises:
        ConfigError: the URL is no PostgreSQL URL, a certificate is missing, or the tunnel cannot work.
    """
    where, tunnel = _direct(config), config.get("ssh_tunnel") or {}
    if not tunnel.get("enable"):
        return where
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    from melisma_tap_postgres.tunnel import local_port

    server = conninfo_to_dict(where)
    if not server.get("host"):
        raise ConfigError("host", "must be set with an SSH tunnel")
    port = local_port(tunnel, str(server["host"]), int(server.get("port") or 5432))
    return make_conninfo(where, hostaddr="127.0.0.1", port=port)


def _direct(config: Mapping[str, Any]) -> str:
    url = config.get("sqlalchemy_url")
    if url:
        plain = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
        if not plain.startswith("postgresql://"):
            raise ConfigError("sqlalchemy_url", "is no PostgreSQL URL", "It begins with postgresql://")
        return plain
    names = {"host": "host", "port": "port", "user": "user", "password": "password", "database": "dbname"}
    values = {theirs: str(config[ours]) for ours, theirs in names.items() if config.get(ours) is not None}
    if config.get("ssl_enable"):
        values["sslmode"] = config.get("ssl_mode", "verify-full")
        files = {"sslrootcert": "ssl_certificate_authority"}
        if config.get("ssl_client_certificate_enable"):
            files |= {"sslcert": "ssl_client_certificate", "sslkey": "ssl_client_private_key"}
        values |= {
            key: pem_file(setting, config[setting], "tap-postgres")
            for key, setting in files.items()
            if config.get(setting)
        }
    values.setdefault("application_name", "tap-postgres")
    return " ".join(f"{key}='{_escaped(value)}'" for key, value in values.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
