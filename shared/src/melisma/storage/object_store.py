"""Object stores through obstore: Google Cloud Storage, Azure, memory, and files on the web; `s3` builds on it.

A file being written is an object below the lake's `_melisma`, where readers do not look. Publishing it is a
copy on the server that fails if the name is taken, and needs the staged object: without that, a run that was
taken over can publish nothing any more.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, HTTPStore, MemoryStore

from melisma.errors import ConfigError, MelismaError, StorageError
from melisma.storage.answers import is_final, is_unreachable, refusal
from melisma.storage.ranges import READ_AHEAD, Ranges
from melisma.storage.store import FileInfo, StagedObject, Store
from melisma.storage.url import StoreUrl

__all__ = ["CONNECTION", "ObjectStore", "client_options", "open_object_store"]

CONNECTION: Mapping[str, Any] = {
    "client_options": {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(minutes=2)},
    "retry_config": {
        "max_retries": 5,
        "retry_timeout": timedelta(seconds=60),
        "backoff": {
            "init_backoff": timedelta(milliseconds=200),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    },
}
"""How long to wait and how often to try, for every store."""

_DELETE_WAITS = (0.2, 1.0, 3.0)  # seconds; obstore itself tries a POST only once, which S3's deletes are
_MAGIC = re.compile(r"[*?\[]")
_MEMORY: dict[str, MemoryStore] = {}


def open_object_store(root: StoreUrl, arguments: Mapping[str, Any]) -> ObjectStore:
    """Open a bucket, a container, a web server (for reading), or this process's memory.

    Args:
        root: its scheme is `gs`, `az`, `memory`, `http` or `https`.
        arguments: from `options.backend_arguments`.

    Raises:
        ConfigError: an option cannot work.
    """
    client: Any = client_options(arguments)
    arguments = {key: value for key, value in arguments.items() if key not in {"proxy_url", "ca_file"}}
    retry = CONNECTION["retry_config"]
    try:
        match root.scheme:
            case "memory":
                return ObjectStore(root, _MEMORY.setdefault(root.bucket, MemoryStore()))
            case "http" | "https":
                client["allow_http"] = root.scheme == "http"
                return _WebServer(
                    root, HTTPStore(f"{root.scheme}://{root.bucket}", client_options=client, retry_config=retry)
                )
            case "gs":
                client["allow_http"] = str(arguments.get("base_url", "")).startswith("http://")
                config = dict(arguments)
                project = config.pop("project", None)
                if project:
                    client["default_headers"] = {"x-goog-user-project": project}
                return ObjectStore(root, GCSStore(root.bucket, client_options=client, retry_config=retry, **config))
        container, at, host = root.bucket.partition("@")
        config = azure_config(arguments)
        if at:
            config.setdefault("account_name", host.partition(".")[0])
        client["allow_http"] = str(config.get("endpoint", "")).startswith("http://")
        store = AzureStore(container, client_options=client, retry_config=retry, **config)
        return ObjectStore(StoreUrl(root.scheme, container, root.path), store)
    except (exceptions.BaseError, ValueError):  # their text may hold a value
        raise ConfigError(
            "storage_options", f"cannot be used for {root.scheme}://", "Check the credentials, files and addresses"
        ) from None


def client_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of obstore's HTTP client, with the proxy and the certificates that `arguments` name.

    Raises:
        ConfigError: the file of certificates cannot be read.
    """
    client: dict[str, Any] = dict(CONNECTION["client_options"])
    if "proxy_url" in arguments:
        client["proxy_url"] = arguments["proxy_url"]
    if "ca_file" in arguments:
        try:
            client["root_certificate"] = Path(arguments["ca_file"]).read_bytes()
        except OSError:
            fix = "Name a file of certificates in PEM"
            raise ConfigError("storage_options.ca_file", "names a file that cannot be read", fix) from None
    return client


def azure_config(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of obstore for Azure; a connection string, which it does not know, is taken apart."""
    config = dict(arguments)
    text = config.pop("connection_string", None)
    if text is None:
        return config
    parts = dict(part.split("=", 1) for part in text.strip().split(";") if "=" in part)
    names = {
        "AccountName": "account_name",
        "AccountKey": "account_key",
        "SharedAccessSignature": "sas_key",
        "BlobEndpoint": "endpoint",
    }
    found = {names[key]: value for key, value in parts.items() if key in names}
    if not found:
        fix = "Copy it whole: AccountName=...;AccountKey=..."
        raise ConfigError("storage_options.connection_string", "is not a connection string", fix)
    return found | config


class ObjectStore(Store):
    """Objects below one prefix of an obstore store.

    Attributes:
        objects: the obstore store.
        prefix: the root's key, without a slash at its end; empty for the whole bucket.
        pool: the threads of requests that nobody waits for at once.
    """

    at_once = 8

    def __init__(self, root: StoreUrl, objects: Any) -> None:
        super().__init__(root)
        self.objects, self.prefix = objects, root.path.strip("/")
        self._etags: dict[str, str] = {}  # of what was published here
        self.pool = ThreadPoolExecutor(self.at_once, "melisma-requests")  # starts none before the first request

    def open_raw(self, path: str) -> BinaryIO:
        """See Store."""
        info = self._head(path)
        if info is None:
            raise refusal("read", self.display(path), FileNotFoundError())
        return io.BufferedReader(Ranges(self, path, info), READ_AHEAD[0])

    def glob(self, pattern: str) -> list[FileInfo]:
        """See Store. Without `**` only the directories that can match are listed."""
        segments = [segment for segment in pattern.split("/") if segment]
        if not segments:
            return []
        literal = self._head("/".join(segments))
        if literal is not None:
            return [literal]
        if segments[-1] == "**":
            segments.append("*")
        return sorted(set(self._match("", segments)))

    def exists(self, path: str) -> bool:
        """See Store."""
        return self._head(path) is not None or any(True for _ in self._below(path))

    def size(self, path: str) -> int | None:
        """See Store. Of a file that was published here, it also makes sure that it is still the same one."""
        info = self._head(path)
        if info is None:
            return None
        known = self._etags.get(path)
        if known and info.etag and known != info.etag:
            raise StorageError("publish", self.display(path), "another file is there, with another ETag")
        return info.size

    def stage(self, temporary_path: str, final_path: str) -> StagedObject:
        """See Store."""
        self.key(final_path)
        return _StagedCopy(self, temporary_path, final_path)

    def publish(self, staged: StagedObject) -> None:
        """See Store."""
        final = self.key(staged.final_path)
        with self.failing("write", staged.final_path):
            obstore.copy(self.objects, self.key(staged.handle), final, overwrite=False)
        with contextlib.suppress(StorageError):  # a second copy that nobody sees; the next run removes it
            self.delete(staged.handle)

    def sync_published(self) -> None:
        """See Store. An object store has answered only when it was durable."""

    def discard(self, staged: StagedObject) -> None:
        """See Store."""
        assert isinstance(staged, _StagedCopy)  # noqa: S101 - only our own `stage` makes them
        staged.drop()

    def revoke(self, handle: str) -> None:
        """See Store."""
        self.delete(handle)

    def delete(self, path: str) -> None:
        """See Store. What is deleted twice is gone as well, so a lost answer is asked for again."""
        key = self.key(path)
        for wait in (*_DELETE_WAITS, None):
            try:
                with contextlib.suppress(FileNotFoundError):
                    obstore.delete(self.objects, key)
            except Exception as error:
                if wait is None or is_final(error) or is_unreachable(error):
                    raise refusal("delete", self.display(path), error) from None
                time.sleep(wait)
            else:
                return

    def delete_tree(self, path: str) -> None:
        """See Store."""
        keys = [self.key(info.path) for info in self._below(path)]
        with self.failing("delete", path):
            for start in range(0, len(keys), 1000):
                obstore.delete(self.objects, keys[start : start + 1000])

    def list_dirs(self, path: str) -> list[str]:
        """See Store."""
        return sorted(self._level(path)[0])

    @contextlib.contextmanager
    def failing(self, action: str, path: str = "") -> Iterator[None]:
        """Turn what a library raises into a StorageError."""
        try:
            yield
        except MelismaError:
            raise
        except Exception as error:  # the library's own: its text may hold secrets
            raise refusal(action, self.display(path), error) from None

    def key(self, path: str) -> str:
        """The object's key; a path never leads out of the root."""
        segments = [segment for segment in path.split("/") if segment not in ("", ".")]
        if ".." in segments or "\x00" in path:
            raise StorageError("open", self.display(), "a path below it leads out of it", "Write the path without ..")
        return "/".join([self.prefix, *segments] if self.prefix else segments)

    def _head(self, path: str) -> FileInfo | None:
        key = self.key(path)
        if not key:
            return None
        with self.failing("read", path):
            try:
                return self._info(obstore.head(self.objects, key))
            except FileNotFoundError:
                return None
            except exceptions.BaseError:
                obstore.get(self.objects, key, options={"range": (0, 1)})  # a HEAD's answer cannot say why
                raise

    def _info(self, meta: Mapping[str, Any]) -> FileInfo:
        path = str(meta["path"])[len(self.prefix) :].lstrip("/") if self.prefix else str(meta["path"])
        changed = meta["last_modified"]
        etag = meta.get("e_tag")
        return FileInfo(
            path,
            int(meta["size"]),
            (int(changed.timestamp()) * 1_000_000 + changed.microsecond) * 1000,
            str(etag).strip('"') if etag else None,
        )

    def _below(self, path: str) -> Iterator[FileInfo]:
        with self.failing("list", path):
            for chunk in obstore.list(self.objects, self.key(path) or None):
                yield from map(self._info, chunk)

    def _level(self, path: str) -> tuple[list[str], list[FileInfo]]:
        """The names of the directories, and the files, directly below `path`."""
        with self.failing("list", path):
            found = obstore.list_with_delimiter(self.objects, self.key(path) or None)
            directories = [str(prefix).rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]]
            files = [self._info(meta) for meta in found["objects"]]
            return directories, [info for info in files if info.path != path]  # that is the directory's own marker

    def _match(self, directory: str, segments: Sequence[str]) -> Iterator[FileInfo]:
        segment, rest = segments[0], segments[1:]
        if segment == "**":
            found = list(self._below(directory))
            parents = {parent for info in found for parent in _parents(info.path)}
            for info in found:
                names = info.path[len(directory) :].strip("/").split("/")
                marker = info.size == 0 and info.path in parents  # what some tools leave for a directory
                if _fits(names, segments) and not marker:
                    yield info
        elif _MAGIC.search(segment):
            directories, files = self._level(directory)
            if rest:
                for name in directories:
                    if _fits([name], [segment]):
                        yield from self._match(_join(directory, name), rest)
            else:
                yield from (info for info in files if _fits([info.path.rpartition("/")[2]], [segment]))
        elif rest:
            yield from self._match(_join(directory, segment), rest)
        else:
            literal = self._head(_join(directory, segment))
            if literal is not None:
                yield literal


class _WebServer(ObjectStore):
    """Files of a web server: read by name, not listed."""

    def open_raw(self, path: str) -> BinaryIO:
        file = super().open_raw(path)
        try:
            file.read(1)
            file.seek(0)
        except StorageError:
            # The simpler ones know no ranges; then the whole of it is fetched first.
            whole = tempfile.SpooledTemporaryFile(8 << 20)  # noqa: SIM115 - the caller closes it
            with self.failing("read", path):
                for chunk in obstore.get(self.objects, self.key(path)):
                    whole.write(chunk)
            whole.seek(0)
            return cast("BinaryIO", whole)
        return file

    def glob(self, pattern: str) -> list[FileInfo]:
        found = None if _MAGIC.search(pattern) else self._head(pattern)
        if found is None and _MAGIC.search(pattern):
            rule = "a web server lists no files, so its address can hold no wildcards and no query"
            raise StorageError("list", self.display(pattern), rule, "Name each file in a stream of its own")
        return [found] if found else []

    def stage(self, temporary_path: str, final_path: str) -> StagedObject:
        return Store.stage(self, temporary_path, final_path)

    def delete(self, path: str) -> None:
        Store.delete(self, path)

    def delete_tree(self, path: str) -> None:
        Store.delete_tree(self, path)

    def _level(self, path: str) -> tuple[list[str], list[FileInfo]]:  # noqa: ARG002
        return [], []

    def _below(self, path: str) -> Iterator[FileInfo]:  # noqa: ARG002
        return iter(())


class _StagedCopy(StagedObject):
    """An object that waits below `_melisma` for its copy to its final name."""

    def __init__(self, store: ObjectStore, temporary_path: str, final_path: str) -> None:
        self.final_path, self.bytes_written = final_path, 0
        self._store, self._path = store, temporary_path
        self._closing: Future[None] | None = None
        with store.failing("write", temporary_path):
            self._writer = obstore.open_writer(store.objects, store.key(temporary_path))

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")  # obstore refuses buffers of signed bytes, which Arrow's are
        with self._store.failing("write", self._path):
            self._writer.write(view)
        self.bytes_written += len(view)
        return len(view)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._closing = self._store.pool.submit(self._writer.close)

    @property
    def handle(self) -> str:  # type: ignore[override]
        """Where it is. What is revoked is deleted, so it must be there before another run can know of it."""
        if self._closing is not None:
            with self._store.failing("write", self._path):
                self._closing.result()
        return self._path

    def drop(self) -> None:
        # An upload that is not closed comes to nothing when it is forgotten.
        with contextlib.suppress(StorageError):
            if self._closing is not None:
                self._closing.exception()
                self._store.delete(self._path)
            super().close()


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _fits(names: Sequence[str], segments: Sequence[str]) -> bool:
    """Whether a path matches a pattern; hidden names only where the pattern has their dot."""
    if not segments:
        return not names
    segment, rest = segments[0], segments[1:]
    if segment == "**":
        for index in range(len(names) + 1):
            if _fits(names[index:], rest):
                return True
            if index < len(names) and names[index].startswith("."):
                return False
        return False
    if not names or (names[0].startswith(".") and not segment.startswith(".")):
        return False
    return fnmatch.fnmatchcase(names[0], segment) and _fits(names[1:], rest)
