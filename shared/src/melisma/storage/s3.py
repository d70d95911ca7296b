"""S3 and what speaks its protocol: obstore reads and creates, boto3 holds unfinished uploads.

A file being written is an unfinished multipart upload: nobody sees it, it is published by one request that
fails if the name is taken, and whoever knows its id can revoke it. obstore does not show that id. Both libraries
get their credentials, region and endpoint from one boto3 session.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    PartialCredentialsError,
    ProfileNotFound,
)
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from melisma.errors import ConfigError, StorageError
from melisma.storage.answers import code_of, refusal
from melisma.storage.object_store import CONNECTION, ObjectStore, client_options
from melisma.storage.room import Room
from melisma.storage.store import StagedObject
from melisma.storage.url import StoreUrl

__all__ = ["PART_BYTES", "open_s3"]

PART_BYTES = 8 << 20
"""Bytes of one part of an upload; the protocol wants at least 5 MiB of all but the last, and at most 10,000 parts."""

_PARTS = 10_000
_UNDER_WAY = 4 * PART_BYTES  # of all files of a store together
_HANDLE = "s3-mpu"
_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")


def open_s3(root: StoreUrl, options: Mapping[str, Any]) -> ObjectStore:
    """Open a bucket.

    Args:
        root: its scheme is `s3`.
        options: `storage_options`, checked.

    Raises:
        ConfigError: an option cannot work, or there are no credentials.
    """
    for talkative in ("botocore.credentials", "botocore.tokens"):  # where credentials were found, each time
        logging.getLogger(talkative).setLevel(logging.WARNING)
    session = _session(options)
    anonymous = bool(options.get("anonymous"))
    region = options.get("region") or session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
    own_endpoint = options.get("endpoint_url")
    settings: dict[str, Any] = {
        "retries": {"mode": "standard", "max_attempts": 6},
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 2 * ObjectStore.at_once + 2,
        # Each part carries its MD5, which every server of this protocol checks; few know the newer checksums.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    if anonymous:
        settings["signature_version"] = UNSIGNED
    if "proxy_url" in options:
        settings["proxies"] = dict.fromkeys(("http", "https"), options["proxy_url"])
    verify = options.get("ca_file")  # None: AWS_CA_BUNDLE, or the certificates that botocore brings
    made = {"region_name": region, "verify": verify}
    try:
        client = session.client("s3", endpoint_url=own_endpoint, config=Config(**settings), **made)
        endpoint = str(client.meta.endpoint_url)  # also from AWS_ENDPOINT_URL or a profile
        # Few servers but AWS know buckets in the host's name.
        virtual = bool(options.get("virtual_hosted", _is_amazon(endpoint)))
        if virtual != _is_amazon(endpoint) or not virtual:
            settings["s3"] = {"addressing_style": "virtual" if virtual else "path"}
            client = session.client("s3", endpoint_url=own_endpoint, config=Config(**settings), **made)
    except (BotoCoreError, ValueError):
        fix = "Write the endpoint as https://host:port, and the region as your store names it"
        raise ConfigError("storage_options", "the endpoint or region is not valid", fix) from None
    bundle = os.environ.get("AWS_CA_BUNDLE")
    http = client_options({"ca_file": bundle, **options} if bundle else options)
    http["allow_http"] = endpoint.startswith("http://")
    arguments: dict[str, Any] = {"region": region, "client_options": http, "virtual_hosted_style_request": virtual}
    if not _is_amazon(endpoint):
        scheme, _, host = endpoint.partition("://")
        arguments["endpoint"] = f"{scheme}://{root.bucket}.{host}" if virtual else endpoint
    if options.get("requester_pays"):
        arguments["request_payer"] = True
    encryption = _encryption(options)
    arguments |= encryption
    own_key = _customer_key(options)
    if own_key:
        arguments |= {"server_side_encryption": "sse-c", "sse_customer_key_base64": options["customer_key"]}
    if anonymous:
        arguments["skip_signature"] = True
    else:
        arguments["credential_provider"] = _provider(session, str(root))
    store = S3Store(root.bucket, retry_config=CONNECTION["retry_config"], **arguments)
    names = {"server_side_encryption": "ServerSideEncryption", "sse_kms_key_id": "SSEKMSKeyId"}
    return _Bucket(
        root,
        store,
        client,
        payer={"RequestPayer": "requester"} if options.get("requester_pays") else {},
        encryption={names[key]: value for key, value in encryption.items()},
        own_key={"SSECustomerAlgorithm": "AES256", "SSECustomerKey": own_key} if own_key else {},
    )


def _encryption(options: Mapping[str, Any]) -> dict[str, str]:
    """What obstore is told of server-side encryption."""
    kind, key = options.get("server_side_encryption"), options.get("kms_key_id")
    if kind not in {None, *_ENCRYPTIONS}:
        setting = "storage_options.server_side_encryption"
        raise ConfigError(setting, "is not known", f"Valid values: {', '.join(_ENCRYPTIONS)}")
    if key and (kind is None or kind == "AES256"):
        fix = 'Set "server_side_encryption" to aws:kms, or leave the key out'
        raise ConfigError("storage_options.kms_key_id", "is set without encryption by KMS", fix)
    found = {"server_side_encryption": kind, "sse_kms_key_id": key}
    return {name: value for name, value in found.items() if value}


def _customer_key(options: Mapping[str, Any]) -> bytes | None:
    """The key that goes with each request for a file's content; the store keeps none of it."""
    text = options.get("customer_key")
    if text is None:
        return None
    setting = "storage_options.customer_key"
    if options.get("server_side_encryption"):
        raise ConfigError(setting, "is set beside server_side_encryption", "Set one of the two")
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError(setting, "is not a key", "Write its 32 bytes in base64 (openssl rand -base64 32)")
    return key


def _session(options: Mapping[str, Any]) -> Any:
    if bool(options.get("access_key_id")) != bool(options.get("secret_access_key")):
        fix = "Set access_key_id and secret_access_key, or neither"
        raise ConfigError("storage_options", "one half of the credentials is missing", fix)
    try:
        return boto3.Session(
            aws_access_key_id=options.get("access_key_id"),
            aws_secret_access_key=options.get("secret_access_key"),
            aws_session_token=options.get("session_token"),
            profile_name=options.get("profile"),
            region_name=options.get("region"),
        )
    except ProfileNotFound:
        fix = "Check it, and AWS_PROFILE, against the AWS configuration files"
        raise ConfigError("storage_options.profile", "there is no such profile", fix) from None


def _provider(session: Any, where: str) -> Any:
    try:
        credentials = session.get_credentials()
        if credentials is not None:
            credentials.get_frozen_credentials()
            return Boto3CredentialProvider(session)
    except (PartialCredentialsError, ConfigNotFound):
        fix = "Set both the key and its secret, in the environment or the profile"
        raise ConfigError("storage_options", "one half of the credentials is missing", fix) from None
    except (BotoCoreError, ClientError):
        raise StorageError(
            "open", where, "its credentials cannot be renewed", "Sign in again, or check the role"
        ) from None
    fix = 'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a "profile", or "anonymous": true for a public bucket'
    raise ConfigError("storage_options", "no credentials are found for s3://", fix)


def _is_amazon(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


class _Bucket(ObjectStore):
    """A bucket.

    `payer` goes with each of the client's requests, `encryption` with those that begin a file, and `own_key` with
    those and with each part.
    """

    def __init__(
        self,
        root: StoreUrl,
        objects: Any,
        client: Any,
        *,
        payer: Mapping[str, str],
        encryption: Mapping[str, str],
        own_key: Mapping[str, Any],
    ) -> None:
        super().__init__(root, objects)
        self.client, self.bucket = client, root.bucket
        self.payer, self.encryption, self.own_key = payer, {**encryption, **own_key}, own_key
        self.room = Room(_UNDER_WAY)

    def stage(self, temporary_path: str, final_path: str) -> StagedObject:  # noqa: ARG002 - needs no name
        return _Upload(self, final_path)

    def publish(self, staged: StagedObject) -> None:
        assert isinstance(staged, _Upload)  # noqa: S101 - only our own `stage` makes them
        path = staged.final_path
        try:
            answer = self.client.complete_multipart_upload(
                **staged.address, MultipartUpload={"Parts": staged.parts}, IfNoneMatch="*", **self.payer
            )
            self._etags[path] = str(answer["ETag"]).strip('"')
        except (BotoCoreError, ClientError) as error:
            # The answer to a first try may have been lost, and this be the answer to the second.
            info = self._head(path)
            if info is None or info.etag != staged.etag or info.size != staged.bytes_written:
                raise refusal("write", self.display(path), error) from None
            self._etags[path] = staged.etag

    def discard(self, staged: StagedObject) -> None:
        assert isinstance(staged, _Upload)  # noqa: S101 - only our own `stage` makes them
        staged.drop()

    def revoke(self, handle: str) -> None:
        kind, _, rest = handle.partition(":")
        path, _, upload = rest.rpartition(":")
        if kind != _HANDLE or not path or not upload:
            raise StorageError("revoke", self.display(), "the handle of an upload is not one of this kind of store")
        self.abort(path, upload)

    def unfinished(self) -> Iterator[tuple[str, str]]:
        prefix = f"{self.prefix}/" if self.prefix else ""
        with self.failing("list uploads in"):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=prefix, **self.payer
            )
            found = [(str(each["Key"]), str(each["UploadId"])) for page in pages for each in page.get("Uploads", [])]
        for key, upload in found:
            path = key[len(prefix) :]
            yield path, f"{_HANDLE}:{path}:{upload}"

    def abort(self, path: str, upload: str) -> None:
        """Revoke an upload. None is there any more: fine."""
        with self.failing("revoke", path):
            try:
                self.client.abort_multipart_upload(
                    Bucket=self.bucket, Key=self.key(path), UploadId=upload, **self.payer
                )
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise


class _Upload(StagedObject):
    """An unfinished multipart upload. All of it happens in the background; to publish it is to wait for it."""

    def __init__(self, store: _Bucket, final_path: str) -> None:
        self.final_path, self.bytes_written = final_path, 0
        self._begun: Future[str] | None = None
        self._store, self._key = store, store.key(final_path)
        self._buffer = bytearray()
        self._sums: list[bytes] = []
        self._tags: list[str] = []
        self._under_way: deque[Future[str]] = deque()

    @property
    def handle(self) -> str:  # type: ignore[override]
        """What another run needs to revoke it; known once it is closed."""
        return f"{_HANDLE}:{self.final_path}:{self.upload}"

    @property
    def upload(self) -> str:
        """What the store calls it; empty before the first part.

        Raises:
            StorageError: the store did not begin it.
        """
        if self._begun is None:
            return ""
        with self._store.failing("write", self.final_path):
            return self._begun.result()

    @property
    def address(self) -> dict[str, str]:
        """The upload, as requests name it."""
        return {"Bucket": self._store.bucket, "Key": self._key, "UploadId": self.upload}

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts, as the last request lists them, once all are there.

        Raises:
            StorageError: the store did not take one.
        """
        while self._under_way:
            self._take_answer()
        return [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(self._tags, 1)]

    @property
    def etag(self) -> str:
        """What the ETag will be, where the store makes it as S3 does."""
        return f"{hashlib.md5(b''.join(self._sums), usedforsecurity=False).hexdigest()}-{len(self._sums)}"

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._buffer += view
        while len(self._buffer) >= PART_BYTES:
            with memoryview(self._buffer) as whole:
                part = bytes(whole[:PART_BYTES])
            del self._buffer[:PART_BYTES]
            self._send(part)
        self.bytes_written += len(view)
        return len(view)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self._buffer or not self._sums:
            self._send(bytes(self._buffer))
            self._buffer.clear()

    def drop(self) -> None:
        """Revoke the upload, once nothing of it is under way any more."""
        super().close()
        self._buffer = bytearray()
        for future in self._under_way:
            if not future.cancel():
                future.exception()
        self._under_way.clear()
        with contextlib.suppress(StorageError):  # the next run revokes it then
            if self.upload:
                self._store.abort(self.final_path, self.upload)

    def _send(self, data: bytes) -> None:
        if self._begun is None:
            self._begun = self._store.pool.submit(self._begin)
        if len(self._sums) == _PARTS:
            where = self._store.display(self.final_path)
            raise StorageError("write", where, "the file is too big for the store", 'Lower "max_file_size_mb"')
        while self._under_way and self._under_way[0].done():
            self._take_answer()
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        self._sums.append(digest)
        taken = self._store.room.take(len(data))
        future = self._store.pool.submit(self._upload_part, len(self._sums), data, digest)
        future.add_done_callback(lambda _: self._store.room.give_back(taken))
        self._under_way.append(future)

    def _take_answer(self) -> None:
        with self._store.failing("write", self.final_path):
            self._tags.append(self._under_way.popleft().result())

    def _begin(self) -> str:
        answer = self._store.client.create_multipart_upload(
            Bucket=self._store.bucket, Key=self._key, **self._store.encryption, **self._store.payer
        )
        return str(answer["UploadId"])

    def _upload_part(self, number: int, data: bytes, digest: bytes) -> str:
        answer = self._store.client.upload_part(
            **self.address,
            PartNumber=number,
            Body=data,
            ContentMD5=base64.b64encode(digest).decode(),
            **self._store.own_key,
            **self._store.payer,
        )
        return str(answer["ETag"])
