"""Encrypted connections to a server with certificates of its own, which also keeps a log that says nothing of rows."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from database_server import address_at, free_port

from melisma.errors import ConfigError, MelismaError
from postgres import SERVER

from ..sql_database import started
from .conftest import Database

pytestmark = pytest.mark.slow

RULES = """
hostssl certified all 127.0.0.1/32 cert
hostssl all all 127.0.0.1/32 scram-sha-256
"""


@dataclass
class Certificates:
    """Paths of PEM files; the server's is for `localhost`."""

    folder: Path

    def path(self, name: str) -> str:
        """Of a file."""
        return str(self.folder / name)

    def text(self, name: str) -> str:
        """What a file says."""
        return (self.folder / name).read_text(encoding="utf-8")


def openssl(folder: Path, *arguments: str) -> None:
    """Run it."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certify(folder: Path, name: str, subject: str) -> None:
    """A key, and a certificate for it from the folder's authority."""
    new = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr"]
    openssl(folder, *new, "-subj", f"/CN={subject}")
    sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"]
    openssl(folder, *sign, "-days", "2", "-out", f"{name}.crt")
    (folder / f"{name}.key").chmod(0o600)


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    """An authority, another one, a server's certificate and a client's."""
    with tempfile.TemporaryDirectory(prefix="certificates-") as name:
        folder = Path(name)
        for authority in ("ca", "other"):
            new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{authority}.key"]
            openssl(folder, *new, "-out", f"{authority}.crt", "-days", "2", "-subj", f"/CN={authority}")
        certify(folder, "server", "localhost")
        certify(folder, "client", "melisma")
        yield Certificates(folder)


@pytest.fixture(scope="module")
def secure(certificates: Certificates) -> Iterator[dict[str, str]]:
    """A server that talks over SSL only."""
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-ssl-")), free_port()
    for name in ("server.crt", "server.key", "ca.crt"):
        (folder / name).write_text(certificates.text(name), encoding="utf-8")
        (folder / name).chmod(0o600)
    files = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "ca.crt"}
    settings = {"ssl": "on", "wal_level": "replica", **{key: str(folder / name) for key, name in files.items()}}
    started(lambda: SERVER.start_cluster(folder, port, settings, RULES))
    address = address_at(port)
    with psycopg.connect(**address, dbname="postgres", autocommit=True) as connection:
        for name in ("certified", "plain"):
            connection.execute(f"CREATE DATABASE {name}")
    yield address
    SERVER.end(folder)
    shutil.rmtree(folder)


@pytest.fixture
def database(secure: dict[str, str], tmp_path: Path) -> Iterator[Database]:
    """A database on it with a table, seen by the name that the server's certificate has."""
    found = Database({**secure, "host": "localhost"}, "plain", tmp_path)
    found.run("CREATE TABLE t AS SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    yield found
    found.run("DROP TABLE t")


def trust(certificates: Certificates, mode: str, authority: str = "ca.crt") -> dict[str, Any]:
    """Settings for a mode."""
    return {"ssl_enable": True, "ssl_mode": mode, "ssl_certificate_authority": certificates.path(authority)}


@pytest.mark.parametrize("mode", ["allow", "prefer", "require", "verify-ca", "verify-full"])
def test_a_connection_is_encrypted(database: Database, certificates: Certificates, mode: str) -> None:
    """In every mode that the server's certificate is good enough for."""
    assert database.sync(**trust(certificates, mode)).records() == [{"ssl": True}]


def test_an_authority_may_be_given_as_text(database: Database, certificates: Certificates) -> None:
    """PEM, as it is put into an environment variable."""
    settings = trust(certificates, "verify-full") | {"ssl_certificate_authority": certificates.text("ca.crt")}
    assert database.sync(**settings).records() == [{"ssl": True}]


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_a_certificate_of_another_authority_is_refused(
    database: Database, certificates: Certificates, mode: str
) -> None:
    """With the settings' name in the message."""
    with pytest.raises(ConfigError, match=r"certificate is not accepted\. Check the ssl_ settings"):
        database.sync(**trust(certificates, mode, "other.crt"))


def test_a_certificate_for_another_name_is_refused(database: Database, certificates: Certificates) -> None:
    """By verify-full, and by no other mode."""
    by_number = {"host": "127.0.0.1", "port": int(database.address["port"])}
    with pytest.raises(ConfigError, match="certificate is not accepted"):
        database.sync(**trust(certificates, "verify-full") | by_number)
    assert database.sync(**trust(certificates, "verify-ca") | by_number).records() == [{"ssl": True}]


def test_without_encryption_the_server_refuses(database: Database) -> None:
    """It has no rule for such a connection."""
    with pytest.raises(MelismaError) as found:
        database.sync(ssl_enable=True, ssl_mode="disable")
    assert found.value.exit_code == 2


@pytest.mark.parametrize("as_text", [False, True])
def test_a_client_shows_its_certificate(database: Database, certificates: Certificates, as_text: bool) -> None:
    """In place of a password; path or text. Without it the server refuses."""
    give = certificates.text if as_text else certificates.path
    settings = trust(certificates, "verify-full") | {"database": "certified", "password": ""}
    shown = {
        "ssl_client_certificate_enable": True,
        "ssl_client_certificate": give("client.crt"),
        "ssl_client_private_key": give("client.key"),
    }
    assert database.sync(**settings, **shown).records() == []
    with pytest.raises(MelismaError) as found:
        database.sync(**settings)
    assert found.value.exit_code == 2


def test_a_log_that_says_nothing_of_rows_is_refused(database: Database, certificates: Certificates) -> None:
    """The message has the server's setting, and the value that it needs."""
    database.run("ALTER TABLE t REPLICA IDENTITY FULL")
    settings = trust(certificates, "verify-full") | {"default_replication_method": "LOG_BASED"}
    with pytest.raises(ConfigError, match=r"wal_level replica, .* Set its wal_level to logical"):
        database.sync(**settings)
