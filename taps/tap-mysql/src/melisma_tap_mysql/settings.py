"""The settings, their JSON Schema, and the connection that they describe."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from melisma.errors import ConfigError
from melisma.sql.pem import pem_file

__all__ = ["CONFIG", "chosen_database", "connection_arguments", "wanted_schemas"]

METHODS = ("FULL_TABLE", "INCREMENTAL", "LOG_BASED")
OWNER = "tap-mysql"
CONNECT_SECONDS = 30
_SCHEMES = {"mysql", "mariadb"}
_IN_URL = {"ssl_ca", "ssl_cert", "ssl_key", "unix_socket"}


def _text(title: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "title": title, "description": description, **more}


def _switch(title: str, description: str, *, default: bool = False) -> dict[str, Any]:
    return {"type": "boolean", "title": title, "description": description, "default": default}


CONFIG: dict[str, Any] = {
    "type": "object",
    "properties": {
        "host": _text("Host", "The server's name or address.", default="localhost"),
        "port": {
            "type": "integer",
            "minimum": 1,
            "maximum": 65535,
            "title": "Port",
            "description": "The server's port.",
            "default": 3306,
        },
        "unix_socket": _text("Socket", "The path of the server's socket, in place of host and port."),
        "user": _text("User", "Who to log in as."),
        "password": _text("Password", "That user's password.", secret=True),
        "database": _text("Database", "The database to read; all that the user may read if none is given."),
        "sqlalchemy_url": _text(
            "URL",
            "A mysql:// or mariadb:// URL with all of these in it, and ssl_ca, ssl_cert, ssl_key and unix_socket "
            "after the question mark; it goes before them.",
            secret=True,
        ),
        "ssl": {
            "type": "boolean",
            "title": "TLS",
            "description": (
                "true: the connection is encrypted, and the server proves who it is; false: it is not encrypted. If "
                "not set, it is encrypted if the server can, without a proof."
            ),
        },
        "ssl_ca": _text(
            "Certificate authority",
            "Whose certificates are trusted: a path, or the certificate itself (PEM); by default those that this "
            "machine trusts.",
        ),
        "ssl_cert": _text("Client certificate", "The tap's own certificate: a path, or itself (PEM)."),
        "ssl_key": _text("Client key", "Its key: a path, or itself (PEM).", secret=True),
        "check_hostname": _switch("Check host name", "Whether the certificate has to name the host.", default=True),
        "ssl_verify_cert": _switch(
            "Verify the certificate", "Whether the server has to prove who it is, with ssl.", default=True
        ),
        "filter_dbs": {
            "type": ["array", "string"],
            "items": {"type": "string"},
            "title": "Databases",
            "description": "The databases to look at: a list, or names with commas between them.",
        },
        "filter_schemas": {
            "type": "array",
            "items": {"type": "string"},
            "title": "Schemas",
            "description": "Another name for filter_dbs.",
        },
        "session_sqls": {
            "type": "array",
            "items": {"type": "string"},
            "title": "Session SQL",
            "description": "Statements to run on the connection before the first read.",
        },
        "default_replication_method": _text(
            "Default replication method",
            "The method of streams for which the catalog has none.",
            enum=list(METHODS),
            default="FULL_TABLE",
        ),
        "server_id": {
            "type": "integer",
            "minimum": 1,
            "maximum": 4294967295,
            "title": "Server id",
            "description": (
                "The number by which the server knows the tap while it reads the log: one that no replica has. By "
                "default a random one for each run."
            ),
        },
        "dates_as_string": _switch(
            "Dates as strings",
            "Whether date, datetime and timestamp are sent as text, as the server writes them: for dates with a month "
            "or day of zero, which are null otherwise.",
        ),
        "tinyint1_as_boolean": _switch(
            "tinyint(1) as boolean",
            "Whether tinyint(1), which BOOL is another name of, is sent as true and false; other values than 0 and 1 "
            "are an error then.",
        ),
        "max_record_count": {
            "type": "integer",
            "minimum": 1,
            "title": "Record limit",
            "description": "The most rows to read of each stream, for trying out.",
        },
        "max_rows_per_batch": {
            "type": "integer",
            "minimum": 1,
            "title": "Rows at once",
            "description": "The most rows that are worked on at once; by default two megabytes of them.",
        },
        "resume_full_table": _switch(
            "Resume full tables",
            "Whether FULL_TABLE streams with a primary key are read in its order, with a STATE as it goes, so that a "
            "run that was cut short goes on within the table. For targets that append or upsert.",
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


def connection_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the driver needs to connect.

    Raises:
        ConfigError: the URL is none of MySQL's, or a certificate is missing or no use.
    """
    given = {**config, **_from_url(config)}
    arguments: dict[str, Any] = {
        "host": given.get("host") or "localhost",
        "port": given.get("port") or 3306,
        "charset": "utf8mb4",
        "autocommit": True,
        "connect_timeout": CONNECT_SECONDS,
        "program_name": OWNER,
    }
    for ours in ("user", "database", "unix_socket"):
        if given.get(ours):
            arguments[ours] = given[ours]
    if given.get("password"):
        # As text the driver takes it for latin1.
        arguments["password"] = str(given["password"]).encode()
    tls = given.get("ssl", True if {"ssl_ca", "ssl_cert"} & {name for name in given if given[name]} else None)
    if tls is True:
        arguments["ssl"] = _context(given)
    elif tls is False:
        arguments["ssl_disabled"] = True
    return arguments


def wanted_schemas(config: Mapping[str, Any]) -> list[str]:
    """The databases to look at; none for all."""
    names = config.get("filter_dbs") or config.get("filter_schemas") or []
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",") if name.strip()]
    database = chosen_database(config)
    return list(names) or ([database] if database else [])


def chosen_database(config: Mapping[str, Any]) -> str | None:
    """The one database that the configuration names, if it does."""
    found: str | None = _from_url(config).get("database") or config.get("database")
    return found


def _from_url(config: Mapping[str, Any]) -> dict[str, Any]:
    url = config.get("sqlalchemy_url")
    if not url:
        return {}
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("sqlalchemy_url", "is no URL", "It begins with mysql://") from None
    if parts.scheme.partition("+")[0] not in _SCHEMES:
        raise ConfigError("sqlalchemy_url", "is no URL of MySQL or MariaDB", "It begins with mysql:// or mariadb://")
    options = dict(parse_qsl(parts.query))
    for name in options.keys() - _IN_URL - {"charset"}:
        valid = ", ".join(sorted(_IN_URL))
        raise ConfigError("sqlalchemy_url", f'has a parameter "{name}", which is not known', f"Valid ones: {valid}")
    options.pop("charset", None)  # rows are always read as utf8mb4
    return {
        "host": parts.hostname,
        "port": port,
        "user": unquote(parts.username or "") or None,
        "password": unquote(parts.password or "") or None,
        "database": unquote(parts.path.lstrip("/")) or None,
        **options,
    }


def _context(given: Mapping[str, Any]) -> ssl.SSLContext:
    authority = pem_file("ssl_ca", given["ssl_ca"], OWNER) if given.get("ssl_ca") else None
    try:
        context = ssl.create_default_context(cafile=authority)
    except (ssl.SSLError, OSError):
        raise ConfigError("ssl_ca", "is no certificate", "Set a path, or the PEM text itself") from None
    # Servers make themselves certificates that are not by the letter of RFC 5280.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    verified = given.get("ssl_verify_cert", True)
    context.check_hostname = bool(verified and given.get("check_hostname", True))
    context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_NONE
    if given.get("ssl_cert"):
        certificate = pem_file("ssl_cert", given["ssl_cert"], OWNER)
        key = pem_file("ssl_key", given["ssl_key"], OWNER) if given.get("ssl_key") else None
        try:
            context.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError):
            rule = "certificate and key do not go together, or are none"
            raise ConfigError("ssl_cert, ssl_key", rule, "Set paths, or the PEM texts themselves") from None
    return context
