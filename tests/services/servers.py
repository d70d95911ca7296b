"""The servers that the tests of storage run against: what each is, how it is installed and started.

Everything lies below `.cache/services`; ports are free ones, noted in its `state.json`. Versions are pinned here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "services"
HERE = Path(__file__).resolve().parent

S3_ACCESS_KEY, S3_SECRET_KEY = "melisma-tests", "melisma-tests-secret"
AZURE_ACCOUNT = "devstoreaccount1"
# Azurite's own well-known key, the same on every machine; it opens nothing else.
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SFTP_USER, SFTP_PASSWORD = "melisma", "melisma-tests-secret"

GO = {
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
    "fake-gcs-server": "github.com/fsouza/fake-gcs-server@v1.56.1",
}
NODE = {"azurite-blob": "azurite@3.37.0", "http-server": "http-server@14.1.1"}


class MissingError(Exception):
    """Why a server cannot be installed here."""


@dataclass(frozen=True)
class Server:
    """One server.

    Attributes:
        what: in words.
        needs: the programs to install (keys of GO and NODE).
        command: what starts it on a port, with the state of those before it.
        environment: what it gets besides this process's.
    """

    what: str
    needs: tuple[str, ...]
    command: Callable[[int, Mapping[str, str]], list[str]]
    environment: Mapping[str, str] | None = None


def program(name: str) -> Path:
    """Where an installed program is."""
    if name in GO:
        return CACHE / "go" / GO[name].rpartition("@")[2] / name
    return CACHE / "node" / NODE[name].replace("@", "-") / "node_modules" / ".bin" / name


def install(name: str) -> None:
    """Install a program, once.

    Raises:
        MissingError: its package client is not there, or fails.
    """
    path = program(name)
    if path.exists():
        return
    if name in GO:
        folder = path.parent
        command = ["go", "install", GO[name]]
        environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-buildvcs=false"}
    else:
        folder = path.parent.parent.parent
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--no-save", NODE[name]]
        environment = dict(os.environ)
    if shutil.which(command[0]) is None:
        raise MissingError(f"{command[0]} is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode or not path.exists():
        last = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingError(f"{' '.join(command[:2])} of {name} failed: {last}")


def _folder(name: str) -> Path:
    path = CACHE / "data" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _s3(port: int, _: Mapping[str, str]) -> list[str]:
    gateway = [str(program("versitygw")), "--port", f"127.0.0.1:{port}", "--quiet"]
    return [*gateway, "posix", "--sidecar", str(_folder("marks-of-s3")), str(_folder("s3"))]


def _azure(port: int, _: Mapping[str, str]) -> list[str]:
    place = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(_folder("azure"))]
    return [str(program("azurite-blob")), *place, "--silent", "--disableTelemetry", "--skipApiVersionCheck"]


def _gcs_store(port: int, _: Mapping[str, str]) -> list[str]:
    place = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
    return [str(program("fake-gcs-server")), "-backend", "memory", "-log-level", "error", *place]


def _gcs(port: int, state: Mapping[str, str]) -> list[str]:
    key = {"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": True}
    key["gcs_base_url"] = f"http://127.0.0.1:{port}"
    GCS_KEY.write_text(json.dumps(key), encoding="utf-8")
    return [sys.executable, str(HERE / "gcs_front.py"), str(port), state["gs-store"]]


def _sftp(port: int, _: Mapping[str, str]) -> list[str]:
    return [sys.executable, str(HERE / "sftp_server.py"), str(port), str(_folder("sftp"))]


def _http(port: int, _: Mapping[str, str]) -> list[str]:
    return [str(program("http-server")), str(_folder("http")), "-a", "127.0.0.1", "-p", str(port), "-s", "-c-1"]


GCS_KEY = CACHE / "gcs-key.json"
"""A service account's key file that says that the server wants no token."""

SFTP_KNOWN_HOSTS = CACHE / "sftp-known-hosts"
"""The key of the SFTP server, as OpenSSH notes the servers that it knows."""

SERVERS: Mapping[str, Server] = {
    "s3": Server(
        "versitygw, an S3 server on a folder",
        ("versitygw",),
        _s3,
        {"ROOT_ACCESS_KEY_ID": S3_ACCESS_KEY, "ROOT_SECRET_ACCESS_KEY": S3_SECRET_KEY},
    ),
    "az": Server("Azurite, Microsoft's emulator of Blob Storage", ("azurite-blob",), _azure),
    "gs-store": Server("fake-gcs-server, which knows Google's JSON API", ("fake-gcs-server",), _gcs_store),
    "gs": Server("our front of it, for uploads by the XML API", ("fake-gcs-server",), _gcs),
    "sftp": Server("asyncssh's SFTP server", (), _sftp),
    "http": Server("http-server, which knows ranges", ("http-server",), _http),
}
"""By the scheme of the URLs that they serve; a later one may use an earlier one."""
