"""The small objects of a journal, in a store that can create one only if it is absent.

That one operation carries the whole protocol, so a store that cannot do it is refused, not imitated.
Keys are relative, `/`-separated, and sort as text.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from melisma.errors import MelismaError, StorageError
from melisma.lake import failpoints
from melisma.storage.local import LocalStore
from melisma.storage.store import Store, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Exists",
    "Lock",
    "NoReply",
    "Objects",
    "ObjectsInStore",
    "ObjectsOnDisk",
    "Refused",
    "objects_of",
    "prove_put_if_absent",
]


class Exists(Exception):
    """There is an object under this key already. It may be one's own, from a put whose reply was lost."""


class Refused(StorageError):
    """The store failed, and it is certain that nothing was created."""


class NoReply(Exception):
    """The store did not answer: the operation may or may not have happened."""


class Lock(Protocol):
    """A lock that the operating system gives back when its process dies."""

    def release(self) -> None:
        """Give the lock back."""


class Objects(Protocol):
    """What the journal needs of a store. Every method may raise StorageError (no) or NoReply (unknown)."""

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create the object, whole and durable, or raise Exists and change nothing."""

    def claim(self, key: str, data: bytes) -> bytes | None:
        """Create the object if it is absent, and give what is there then; durable with the next `put_if_absent`."""

    def put(self, key: str, data: bytes) -> None:
        """Create or replace the object. Only for what may be lost: a hint, a heartbeat."""

    def get(self, key: str) -> bytes | None:
        """The object's content, or None if there is none."""

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """The keys that begin with `prefix` and sort after `after`, in ascending order."""

    def delete(self, key: str) -> None:
        """Delete the object; no error if there is none."""

    def lock(self, key: str) -> Lock | None:
        """Take the lock `key`, or raise Exists if a living process holds it. None: this store has no locks."""


class ObjectsOnDisk:
    """Objects as files under a folder of a local disk.

    A new object is written to a temporary file beside its place, synced, and given its name with `link`, which
    fails if the name is taken; then the folder is synced, so that the name outlives a power cut as well.

    Args:
        root: the folder; it and its parents are created, durably, when the first object is.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._claims: dict[bytes, Path] = {}  # content -> an object with it, which is durable
        self._unsynced: set[Path] = set()  # folders with new names

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See Objects."""
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with self._refusals("write", path, Refused):
                for folder in list(self._unsynced):
                    _sync_folder(folder)
                    self._unsynced.remove(folder)
                _make_folder(path.parent)
                _write_synced(temporary, data)
            failpoints.reach("put:written")
            with self._refusals("write", path):
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    raise Exists(key) from None
                failpoints.reach("put:linked")
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        with self._refusals("write", path):
            _sync_folder(path.parent)

    def claim(self, key: str, data: bytes) -> bytes | None:
        """See Objects. Another name of an object with this content is whole from the first; it costs no `fsync`."""
        path = self._path(key)
        durable = self._claims.get(data)
        if durable is not None:
            with contextlib.suppress(OSError):  # such as too many names of one file
                os.link(durable, path)
                self._unsynced.add(path.parent)
                return data
        with contextlib.suppress(Exists):
            self.put_if_absent(key, data)
        found = self.get(key)
        if found == data:
            self._claims[data] = path
            self._unsynced.add(path.parent)  # a run that made it may have died before it was
        return found

    def put(self, key: str, data: bytes) -> None:
        """See Objects."""
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        with self._refusals("write", path):
            _make_folder(path.parent)
            try:
                _write_synced(temporary, data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def get(self, key: str) -> bytes | None:
        """See Objects."""
        path = self._path(key)
        with self._refusals("read", path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """See Objects; only within the one folder that `prefix` names."""
        folder = prefix.rpartition("/")[0]
        path = self._path(folder)
        with self._refusals("list", path):
            try:
                names = os.listdir(path)  # noqa: PTH208 - names are all we need, and there may be many
            except FileNotFoundError:
                return iter(())
        keys = (f"{folder}/{name}" if folder else name for name in names if not name.startswith("."))
        return iter(sorted(key for key in keys if key.startswith(prefix) and key > after))

    def delete(self, key: str) -> None:
        """See Objects."""
        path = self._path(key)
        with self._refusals("delete", path):
            path.unlink(missing_ok=True)

    def lock(self, key: str) -> Lock | None:
        """Take an advisory lock (`flock`) on a file; None where the system has none."""
        try:
            import fcntl
        except ImportError:
            return None
        path = self._path(key)
        with self._refusals("lock", path):
            _make_folder(path.parent)
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                raise Exists(key) from None
            except OSError as error:
                os.close(handle)
                if error.errno in {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}:
                    return None
                raise
        return _FileLock(handle)

    def _path(self, key: str) -> Path:
        return self.root / key

    @contextlib.contextmanager
    def _refusals(self, action: str, path: Path, kind: type[StorageError] = StorageError) -> Iterator[None]:
        """The operating system's refusals as StorageErrors."""
        try:
            yield
        except OSError as error:
            if error.errno in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK} and (
                error.filename2 is not None
            ):
                raise StorageError(
                    action,
                    str(path),
                    "this file system has no hard links, so two runs could not be kept apart",
                    "Put the lake on a file system that has them, or on an object store",
                ) from error
            raise refused(action, str(path), error, kind) from error


class ObjectsInStore:
    """Objects in an object store through obstore: S3 and what speaks its protocol, GCS, Azure, or memory.

    Args:
        store: an obstore store (`S3Store`, `GCSStore`, `AzureStore`, `MemoryStore`). Not a `LocalStore`, which
            does not sync what it creates.
        prefix: the key under which the lake lies, without a slash at its end.
        url: how the place is called in messages, without credentials.
    """

    def __init__(self, store: Any, prefix: str = "", url: str = "") -> None:
        self._store, self._prefix, self._url = store, f"{prefix}/" if prefix else "", url or prefix

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See Objects."""
        self._put(key, data, "create")

    def claim(self, key: str, data: bytes) -> bytes | None:
        """See Objects."""
        try:
            self._put(key, data, "create")
        except Exists:
            return self.get(key)
        return data

    def put(self, key: str, data: bytes) -> None:
        """See Objects."""
        self._put(key, data, "overwrite")

    def get(self, key: str) -> bytes | None:
        """See Objects."""
        import obstore

        with self._refusals("read", key):
            try:
                return bytes(obstore.get(self._store, self._prefix + key).bytes())
            except FileNotFoundError:
                return None

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """See Objects."""
        import obstore

        folder = prefix.rpartition("/")[0]
        offset = self._prefix + after if after else None
        with self._refusals("list", prefix):
            found = [
                item["path"].removeprefix(self._prefix)
                for chunk in obstore.list(self._store, self._prefix + folder, offset=offset)
                for item in chunk
            ]
        return iter(sorted(key for key in found if key.startswith(prefix) and key > after))

    def delete(self, key: str) -> None:
        """See Objects."""
        import obstore

        with self._refusals("delete", key), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, self._prefix + key)

    def lock(self, key: str) -> Lock | None:  # noqa: ARG002
        """Object stores have no locks; heartbeats stand in."""
        return None

    def _put(self, key: str, data: bytes, mode: Literal["create", "overwrite"]) -> None:
        import obstore

        with self._refusals("write", key):
            try:
                obstore.put(self._store, self._prefix + key, data, mode=mode, use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                raise Exists(key) from None

    @contextlib.contextmanager
    def _refusals(self, action: str, key: str) -> Iterator[None]:
        """The store's refusals as StorageErrors, anything less certain as NoReply."""
        from melisma.storage import answers

        url = f"{self._url}/{key}" if self._url else key
        try:
            yield
        except (Exists, MelismaError):
            raise
        except Exception as error:
            # A read that finds no way to the store has changed nothing; a write may have, before the way was lost.
            if answers.is_final(error) or (action in {"read", "list"} and answers.is_unreachable(error)):
                raise answers.refusal(action, url, error) from None
            if isinstance(error, FileNotFoundError):
                raise StorageError(action, url, "there is no such bucket or container") from None
            raise NoReply(f"cannot {action} {url}: no usable answer") from None


class _FileLock:
    def __init__(self, handle: int) -> None:
        self._handle = handle

    def release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)  # closing releases; the file stays, or two could hold two files of one name
            self._handle = -1


def objects_of(store: Store) -> Objects:
    """The objects of a lake's store.

    Raises:
        StorageError: the store has no way to create an object only if it is absent.
    """
    if isinstance(store, LocalStore):
        return ObjectsOnDisk(store.directory)
    if store.root.scheme in {"s3", "gs", "az", "memory"}:
        from melisma.storage.object_store import ObjectStore  # its libraries are there only if they were asked for

        if isinstance(store, ObjectStore):
            return ObjectsInStore(store.objects, store.prefix, store.display())
    raise StorageError(
        "keep a journal in",
        store.display(),
        "this kind of place cannot create a file only if it is absent, so two runs could not be kept apart",
        "Use a local path, s3://, gs:// or az://",
    )


def prove_put_if_absent(objects: Objects, key: str) -> None:
    """Refuse a store that takes a second create for an overwrite.

    Some S3-compatible servers ignore `If-None-Match` and answer 200. Called once, when a journal is begun.
    """
    for content in (b"first", b"second"):
        with contextlib.suppress(Exists):
            objects.put_if_absent(key, content)
    found = objects.get(key)
    objects.delete(key)
    if found != b"first":
        raise StorageError(
            "keep a journal in",
            key,
            "the store does not hold to create-if-absent (If-None-Match), so two runs could not be kept apart",
            "Use a store or a server version that does",
        )


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _make_folder(path: Path) -> None:
    """Create `path` and its parents, each entry synced into the folder that holds it."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
