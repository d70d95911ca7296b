"""An S3 server and bad weather before it: `python storm.py SEED` prints two endpoints, and serves until its input ends.

Behind the second one some requests are answered with 500 or 503 without being passed on, some are passed on and their
answers dropped, some connections are cut before or within an answer, and some are slow.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import urlsplit

WEATHER = {"500": 2, "503": 3, "lost answer": 4, "cut before": 2, "cut within": 2, "slow": 2}
"""Of a hundred requests, how many fare how."""
BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
BROKEN = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>We are sorry.</Message></Error>"


class Handler(BaseHTTPRequestHandler):
    """Passes requests on, or not."""

    protocol_version = "HTTP/1.1"
    behind = ""
    chance = random.Random(0)
    lock = Lock()

    def handle_any(self) -> None:
        """Any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.lock:
            kinds, weights = zip(*WEATHER.items(), strict=True)
            [fate] = self.chance.choices([*kinds, "calm"], [*weights, 100 - sum(weights)])
        if fate == "cut before":
            return self.cut()
        if fate in {"500", "503"}:
            return self.reply(int(fate), [], BUSY if fate == "503" else BROKEN)
        if fate == "slow":
            time.sleep(0.3)
        connection = http.client.HTTPConnection(self.behind, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        response = connection.getresponse()
        data = response.read()
        connection.close()
        if fate == "lost answer":
            return self.cut()
        return self.reply(response.status, response.getheaders(), data, whole=fate != "cut within")

    def reply(self, status: int, headers: list[tuple[str, str]], data: bytes, *, whole: bool = True) -> None:
        """Answer."""
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if whole else data[: len(data) // 2])
        if not whole:
            self.cut()

    def cut(self) -> None:
        """Hang up."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """Quiet about clients that are killed."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """They are killed on purpose."""


def main(seed: str) -> None:
    """Serve."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    moto = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        calm = f"http://127.0.0.1:{port}"
        Handler.behind, Handler.chance = urlsplit(calm).netloc, random.Random(seed)
        server = Server(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write(f"{calm} http://127.0.0.1:{server.server_address[1]}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        os.kill(moto.pid, signal.SIGTERM)
        moto.wait()


if __name__ == "__main__":
    main(sys.argv[1])
