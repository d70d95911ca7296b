"""What the tests of the workspace share: where things are, and environments of their own."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "services"))  # for `places`, what `make services` started
from places import NotRunningError, Place, endpoint  # noqa: E402
from spark import MissingError, Spark  # noqa: E402

import postgres  # noqa: E402

hypothesis.settings.register_profile("melisma", deadline=None)  # nothing is timed: the machine may be busy
hypothesis.settings.load_profile("melisma")

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def pytest_runtest_teardown() -> None:
    """Leave DuckDB's shared connection free: after `fetchone` it keeps a result, and `duckdb.sql` refuses to work."""
    if "duckdb" in sys.modules:
        sys.modules["duckdb"].execute("SELECT 1").fetchall()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Every file of the project: tracked, or new and not ignored."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def find_python() -> Callable[[str], str]:
    """Gives a working interpreter of a version (`3.12`); without one, skips the test, or fails it in CI."""
    return _find_python


def _find_python(version: str) -> str:
    name = f"python{version}"
    candidates = [found for found in [sys.executable, shutil.which(name)] if found]
    pyenv = shutil.which("pyenv")
    if pyenv:  # its shims refuse to start a version that is installed but not activated
        home = subprocess.run([pyenv, "root"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        candidates += map(str, sorted(Path(home).glob(f"versions/{version}*/bin/{name}"), reverse=True))
    for candidate in candidates:
        code = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
        result = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout.strip() == version:
            return candidate
    message = f"Python {version} is not installed"
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


class Environment:
    """A virtual environment without pip: packages come in from outside, so that nothing else is in it."""

    def __init__(self, python: str, folder: Path) -> None:
        subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.bin = folder / "bin"
        self.python = str(self.bin / "python")

    def install(self, *arguments: str, cwd: Path | None = None) -> None:
        """`pip install` with this project's pip."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", *arguments]
        result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr

    def packages(self) -> dict[str, str]:
        """What is installed: name, normalised, to version."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "list", "--format=freeze"]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        pairs = (line.partition("==") for line in lines if "==" in line)
        return {name.lower().replace("_", "-").replace(".", "-"): version for name, _, version in pairs}

    def run(self, *command: str, data: bytes = b"", cwd: Path | None = None) -> bytes:
        """Run an executable of this environment; gives its stdout. Nothing of the caller's Python leaks in."""
        outside = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        result = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            input=data,
            cwd=cwd,
            env=outside,
            capture_output=True,
            check=False,
        )
        assert result.returncode == 0, (
            f"{command} exits with {result.returncode}: {result.stderr.decode()}{result.stdout.decode()}"
        )
        return result.stdout


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Makes an empty environment with an interpreter."""
    return lambda python: Environment(python, tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(scope="session")
def checkout_copy(
    project_files: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[str]], Path]:
    """Copies the project's files below some of its folders, as a fresh clone would have them, to a new place."""

    def copy(folders: Sequence[str]) -> Path:
        target = tmp_path_factory.mktemp("checkout")
        for file in project_files:
            relative = file.relative_to(ROOT)
            if any(relative.is_relative_to(folder) for folder in folders):
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / relative)
        return target

    return copy


@dataclass
class S3Server:
    """A moto server: S3 as far as moto goes (docs/storage.md says how far)."""

    endpoint: str
    credentials: dict[str, str] = field(
        default_factory=lambda: {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-testing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
    )

    def client(self) -> Any:
        """A boto3 client of it."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.credentials["AWS_SECRET_ACCESS_KEY"],
        )

    def new_bucket(self) -> str:
        """The name of a bucket that is empty."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name


@contextlib.contextmanager
def _s3_server(**environment: str) -> Iterator[S3Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, **environment}, **quiet)  # type: ignore[call-overload]
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "the moto server ended"
            time.sleep(0.1)
        yield S3Server(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server that takes any credentials."""
    with _s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def strict_s3_server() -> Iterator[S3Server]:
    """An S3 server that takes no credentials."""
    with _s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as server:
        yield server


class FaultyProxy:
    """Stands before a server, passes everything on, and spoils what it is told to.

    Attributes:
        lose: requests, as "METHOD path", that match this are passed on and their answers dropped.
        answer: those that match are not passed on; the status and body that they are answered with. With `lose`,
            only after an answer was lost.
        times: how often it does either.
        spoiled: the requests that it spoiled.
        seen: every request, with its headers (names in lower case).
    """

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        self.lose: str = ""
        self.answer: tuple[str, int, bytes] | None = None
        self.times = 1
        self.spoiled: list[str] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        place = urlsplit(target).netloc
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = f"{self.command} {self.path}"
                proxy.seen.append((request, {name.lower(): value for name, value in self.headers.items()}))
                hit = len(proxy.spoiled) < proxy.times
                answers = proxy.answer is not None and (proxy.spoiled or not proxy.lose)
                if hit and answers and proxy.answer and re.search(proxy.answer[0], request):
                    proxy.spoiled.append(request)
                    return self.reply(proxy.answer[1], [("x-amz-bucket-region", "eu-west-1")], proxy.answer[2])
                connection = http.client.HTTPConnection(place, timeout=60)
                path = re.sub(r"^http://[^/]*", "", self.path)  # a proxy of the client's is asked with whole addresses
                connection.request(self.command, path, body, dict(self.headers.items()))
                response = connection.getresponse()
                data = response.read()
                connection.close()
                if hit and proxy.lose and re.search(proxy.lose, request):
                    proxy.spoiled.append(request)
                    self.close_connection = True
                    return self.connection.close()
                return self.reply(response.status, response.getheaders(), data)

            def reply(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                        self.send_header(name, value)
                length = {name.lower(): value for name, value in headers}.get("content-length")
                self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that went away is no error here."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def new_proxy() -> Iterator[Callable[..., FaultyProxy]]:
    """Makes a proxy before any server, with TLS if it is given."""
    with contextlib.ExitStack() as stack:

        def make(target: str, tls: ssl.SSLContext | None = None) -> FaultyProxy:
            proxy = FaultyProxy(target, tls)
            stack.callback(proxy.close)
            return proxy

        yield make


@pytest.fixture(scope="session")
def service() -> Callable[[str], str]:
    """Gives the address of a server of `make services`; without it, skips the test, or fails it in CI."""

    def find(name: str) -> str:
        try:
            return endpoint(name)
        except NotRunningError as error:
            if IN_CI:
                pytest.fail(str(error))
            pytest.skip(str(error))

    return find


@pytest.fixture(scope="session")
def postgres_address() -> dict[str, str]:
    """Where PostgreSQL listens: host, port, user, password; without it, skips the test, or fails it in CI."""
    try:
        return postgres.start()
    except postgres.MissingError as error:
        if IN_CI:
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def postgres_database(postgres_address: dict[str, str]) -> Iterator[dict[str, str]]:
    """An empty database of its own, as psycopg and libpq name its address."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(**postgres_address, dbname="postgres", autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute(f"CREATE DATABASE {name}")
        yield {**postgres_address, "dbname": name}
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def spark() -> Iterator[Spark]:
    """Runs programs in Spark; without Java, skips the test, or fails it in CI."""
    try:
        process = Spark()
    except MissingError as error:
        if IN_CI:
            pytest.fail(str(error))
        pytest.skip(str(error))
    try:
        yield process
    finally:
        process.close()


@pytest.fixture(scope="session")
def new_place(service: Callable[[str], str]) -> Callable[[str], Place]:
    """Makes an empty bucket or container on the server of a scheme."""

    def make(scheme: str) -> Place:
        place = Place(scheme, service(scheme))
        place.create()
        return place

    return make


@pytest.fixture
def faulty_proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    """A proxy before the S3 server."""
    proxy = FaultyProxy(s3_server.endpoint)
    try:
        yield proxy
    finally:
        proxy.close()
