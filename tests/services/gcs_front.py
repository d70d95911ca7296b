"""Google's XML API for uploads, before a server that knows only the JSON API. `gcs_front.py PORT STORE-URL`.

obstore speaks the XML API. fake-gcs-server answers its reads, lists and deletes, but takes no uploads by it; these are
put into the JSON API's words here. Every decision stays with fake-gcs-server, the conditional create
(`ifGenerationMatch=0`) first of all, with two exceptions that it does not make: a copy with a condition is done as a
read and a conditional create (it ignores the condition of a copy), and `If-Match` of reads is compared here.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit


class Answer(NamedTuple):
    """What the store said."""

    status: int
    headers: dict[str, str]
    body: bytes


class Front(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    store = ""
    uploads: dict[str, dict[int, bytes]] = {}  # noqa: RUF012 - of the one server in this process
    lock = Lock()

    def handle_any(self) -> None:
        """Answer it."""
        place = urlsplit(self.path)
        bucket, _, key = unquote(place.path).lstrip("/").partition("/")
        query = parse_qs(place.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upload = query.get("uploadId", [""])[0]
        if bucket in {"storage", "upload"} or self.command in {"GET", "HEAD"}:
            answer = self.read(bucket, body)
        elif self.command == "POST" and "uploads" in query:
            upload = uuid.uuid4().hex
            with self.lock:
                self.uploads[upload] = {}
            xml = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            answer = Answer(200, {}, xml.encode())
        elif upload:
            answer = self.of_upload(upload, bucket, key, query, body)
        elif self.command == "PUT":
            source = self.headers.get("x-goog-copy-source")
            answer = self.copy(unquote(source).lstrip("/"), bucket, key) if source else self.create(bucket, key, body)
        else:
            answer = self.read(bucket, body)
        self.reply(answer)

    def read(self, bucket: str, body: bytes) -> Answer:
        """Pass it on; a bucket that is not there is said as the XML API says it, an ETag compared."""
        answer = self.ask(self.command, self.path, body)
        wanted, etag = self.headers.get("If-Match"), answer.headers.get("Etag")
        if wanted and etag and wanted != etag:
            return error(412, "PreconditionFailed")
        if answer.status >= 400 and bucket not in {"storage", "upload"}:
            if self.ask("GET", f"/storage/v1/b/{quote(bucket)}").status == 404:
                return error(404, "NoSuchBucket")
            if answer.status == 404:
                return error(404, "NoSuchKey")
        return answer

    def of_upload(self, upload: str, bucket: str, key: str, query: dict[str, list[str]], body: bytes) -> Answer:
        """A part, the end, or the end without a file, of a multipart upload."""
        with self.lock:
            parts = self.uploads.get(upload)
            if parts is None:
                return error(404, "NoSuchUpload")
            if self.command == "PUT":
                parts[int(query["partNumber"][0])] = body
                return Answer(200, {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'}, b"")
            del self.uploads[upload]
        if self.command == "DELETE":
            return Answer(204, {}, b"")
        made = self.create(bucket, key, b"".join(parts[number] for number in sorted(parts)))
        if made.status != 200:
            return made
        xml = f"<CompleteMultipartUploadResult><ETag>{made.headers['ETag']}</ETag></CompleteMultipartUploadResult>"
        return Answer(200, made.headers, xml.encode())

    def copy(self, source: str, bucket: str, key: str) -> Answer:
        """Read the source and create its copy."""
        found = self.ask("GET", f"/{quote(source)}")
        return self.create(bucket, key, found.body) if found.status == 200 else error(404, "NoSuchKey")

    def create(self, bucket: str, key: str, data: bytes) -> Answer:
        """Create or replace an object, under the request's condition."""
        path = f"/upload/storage/v1/b/{quote(bucket)}/o?uploadType=media&name={quote(key, safe='')}"
        condition = self.headers.get("x-goog-if-generation-match")
        made = self.ask("POST", f"{path}&ifGenerationMatch={condition}" if condition else path, data)
        if made.status == 412:
            return error(412, "PreconditionFailed")
        if made.status == 404:
            return error(404, "NoSuchBucket")
        if made.status != 200:
            return made
        found = json.loads(made.body)
        return Answer(200, {"ETag": f'"{found["md5Hash"]}"', "x-goog-generation": str(found["generation"])}, b"")

    def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Ask the store."""
        connection = http.client.HTTPConnection(urlsplit(self.store).netloc, timeout=60)
        sent = {name: value for name in ("Range", "Content-Type") if (value := self.headers.get(name))}
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return answer

    def reply(self, answer: Answer) -> None:
        """Send it."""
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                self.send_header(name, value)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Quiet."""


def error(status: int, code: str) -> Answer:
    """An error as the XML API words it."""
    return Answer(status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode())


if __name__ == "__main__":
    Front.store = sys.argv[2]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Front).serve_forever()
