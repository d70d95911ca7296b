"""New places on the servers that `make services` started, and what another library than ours sees in them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import socket
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from servers import AZURE_ACCOUNT, AZURE_KEY, CACHE, GCS_KEY, S3_ACCESS_KEY, S3_SECRET_KEY

SERVICES = ("s3", "az", "gs")
"""The stores that can hold a lake."""


class NotRunningError(Exception):
    """A server that a test needs is not there."""


def endpoint(name: str) -> str:
    """Where a server listens.

    Raises:
        NotRunningError: it does not; says why, and what to do.
    """
    try:
        found = json.loads((CACHE / "state.json").read_text(encoding="utf-8")).get(name, {})
    except (OSError, ValueError):
        found = {}
    address = found.get("endpoint", "")
    with contextlib.suppress(OSError, ValueError):
        port = urllib.parse.urlsplit(address).port
        if port is not None:
            with socket.create_connection(("127.0.0.1", port), 5):
                return str(address)
    reason = found.get("missing", "it is not started: make services")
    raise NotRunningError(f"the server for {name}:// is not there: {reason}")


@dataclass
class Place:
    """A bucket or container of its own, and how to reach it.

    Attributes:
        scheme: of SERVICES.
        endpoint: the server, or a proxy before it.
        bucket: its name; it is made at once.
    """

    scheme: str
    endpoint: str
    bucket: str = field(default_factory=lambda: f"place-{uuid.uuid4().hex[:12]}")

    @property
    def url(self) -> str:
        """A folder in it."""
        return f"{self.scheme}://{self.bucket}/some/lake"

    @property
    def credentials(self) -> dict[str, str]:
        """The environment that a process needs; nothing of it is in `options`. Google's stands in a file."""
        if self.scheme == "s3":
            return {
                "AWS_ACCESS_KEY_ID": S3_ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": S3_SECRET_KEY,
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            }
        if self.scheme == "az":
            return {"AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}
        return {}

    @property
    def options(self) -> dict[str, Any]:
        """`storage_options`."""
        address = f"{self.endpoint}/{AZURE_ACCOUNT}" if self.scheme == "az" else self.endpoint
        return {"endpoint_url": address} | ({"token_file": str(GCS_KEY)} if self.scheme == "gs" else {})

    def create(self) -> None:
        """Make the bucket or container."""
        match self.scheme:
            case "s3":
                self.boto3().create_bucket(Bucket=self.bucket)
            case "az":
                self._azure("PUT", {"restype": "container"})
            case _:
                body = json.dumps({"name": self.bucket}).encode()
                request = urllib.request.Request(  # noqa: S310
                    f"{self.endpoint}/storage/v1/b?project=tests", body, {"Content-Type": "application/json"}
                )
                urllib.request.urlopen(request).close()  # noqa: S310

    def boto3(self) -> Any:
        """A client of the S3 server."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=S3_ACCESS_KEY,
            aws_secret_access_key=S3_SECRET_KEY,
        )

    def objects(self) -> dict[str, bytes]:
        """All that is in it, read by boto3 or by plain requests."""
        if self.scheme == "s3":
            client = self.boto3()
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
            return {key: client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}
        if self.scheme == "gs":
            base = f"{self.endpoint}/storage/v1/b/{self.bucket}/o"
            with urllib.request.urlopen(base) as answer:  # noqa: S310
                keys = [item["name"] for item in json.load(answer).get("items", [])]
            found = {}
            for key in keys:
                address = f"{base}/{urllib.parse.quote(key, safe='')}?alt=media"
                with urllib.request.urlopen(address) as answer:  # noqa: S310
                    found[key] = answer.read()
            return found
        import xml.etree.ElementTree as ET

        listing = self._azure("GET", {"comp": "list", "restype": "container"})
        keys = [str(node.text) for node in ET.fromstring(listing).iter("Name")]  # noqa: S314 - of our own server
        return {key: self._azure("GET", {}, key) for key in keys}

    def uploads(self) -> list[Any]:
        """Unfinished uploads, where they can be listed."""
        if self.scheme != "s3":
            return []
        found: list[Any] = self.boto3().list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return found

    def _azure(self, method: str, query: Mapping[str, str], key: str = "") -> bytes:
        """A request signed with the account's key, as the service's documentation says."""
        headers = {"x-ms-date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"), "x-ms-version": "2021-08-06"}
        path = urllib.parse.quote(f"/{AZURE_ACCOUNT}/{self.bucket}" + (f"/{key}" if key else ""))
        signed = [method, *[""] * 11, *(f"{name}:{headers[name]}" for name in sorted(headers))]
        signed += [f"/{AZURE_ACCOUNT}{path}", *(f"{name}:{query[name]}" for name in sorted(query))]
        digest = hmac.new(base64.b64decode(AZURE_KEY), "\n".join(signed).encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"
        address = f"{self.endpoint}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(address, method=method, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return bytes(answer.read())
