"""The private folder through which a tap and a target on one machine exchange files.

`<place>/melisma-<user id>/<run>/`, each directory with mode 0700: the place is shared memory where there is some, and
the temporary directory elsewhere, so that both sides find it without being told. The tap makes a run's folder and
puts files there; the target removes each once its rows are taken, which also tells the tap how much lies unread.

Both hold a shared lock (flock) on the run's folder while they live. Whoever leaves last removes it; a folder that
nobody holds was left by a run that was killed, and the next run of either side removes it. The lock on the folder
above keeps making, joining and removing apart.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from melisma.errors import ConfigError, MelismaError, StorageError

try:
    import fcntl
except ImportError:  # Windows: no lock tells whether a folder is in use
    fcntl = None  # type: ignore[assignment]

__all__ = ["Exchange", "JoinedExchanges", "run_folder"]

_JOINED = ".joined"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - within it, a folder of this user alone
_JOIN_SECONDS = 600.0
_POLL_SECONDS = 0.002
_MOST_POLL_SECONDS = 0.05


class Exchange:
    """The tap's side: a run's folder, and what lies unread in it.

    Args:
        most_unread: bytes; with more than that in the folder, `wait_for_room` waits.
        output: the descriptor that BATCH messages go to: when its reader has gone, nobody takes the files.

    Raises:
        ConfigError: this system, or this output, has no use for it.
        StorageError: the folder cannot be made.
    """

    def __init__(self, most_unread: int, output: int | None) -> None:
        if fcntl is None:
            raise ConfigError("batch_config.storage.root", "must be set on this system", "Name a folder for the files")
        if output is not None and not _is_pipe(output):
            raise ConfigError(
                "batch_config.storage.root",
                "must be set where the output is not a pipe: without it, files wait for the target that takes them",
                "Name a folder for the files, or write to a target",
            )
        self._most_unread, self._output = most_unread, output
        self._files: dict[Path, int] = {}
        self._joined = False
        place = _roomy_place(2 * most_unread)
        try:
            remove_abandoned()
            with _locked(_user_folder(place), make=True) as parent:
                self.folder = parent / f"run-{os.getpid()}-{secrets.token_hex(6)}"
                self.folder.mkdir(mode=0o700)
                self._lock = _hold(self.folder)
        except OSError as error:
            raise _failed(error) from error

    def wait_for_room(self, size: int) -> None:
        """Wait until a file of `size` bytes may be put beside what lies unread.

        Raises:
            BrokenPipeError: nobody reads the output any more.
            MelismaError: no target takes the files.
        """
        self._wait(lambda: not self.unread or self.unread + size <= self._most_unread)

    @property
    def unread(self) -> int:
        """Bytes of the files that the target has not removed yet."""
        for path in list(self._files):
            if path.exists():
                break  # a target takes them in order
            del self._files[path]
        return sum(self._files.values())

    def added(self, path: Path, size: int) -> None:
        """A file was put into the folder."""
        self._files[path] = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *rest: object) -> None:
        """Wait until all files are taken, unless the tap has failed; then let go of the folder.

        Whoever lets go last removes it.
        """
        try:
            if failed is None:
                self._wait(lambda: not self.unread)
        finally:
            _leave(self.folder, self._lock)

    def _has_joined(self) -> bool:
        self._joined = self._joined or not self.unread or (self.folder / _JOINED).exists()
        return self._joined

    def _wait(self, done: Callable[[], bool]) -> None:
        pause, since = _POLL_SECONDS, time.monotonic()
        while not done():
            if self._output is not None and _reader_gone(self._output):
                raise BrokenPipeError
            if not self._has_joined() and time.monotonic() - since > _JOIN_SECONDS:
                raise MelismaError(
                    f"no target has taken the BATCH files within {_JOIN_SECONDS:.0f} seconds. Use a target of melisma "
                    "on this machine, or set batch_config.storage.root"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _MOST_POLL_SECONDS)


class JoinedExchanges:
    """The target's side: the folders that its input's files came from."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}

    def join(self, folder: Path) -> None:
        """Hold a run's folder, so that it is not taken for abandoned.

        Raises:
            FileNotFoundError: it is gone.
        """
        if folder in self._held:
            return
        with _locked(folder.parent, make=False):
            lock = _hold(folder)
            (folder / _JOINED).touch(mode=0o600)
        self._held[folder] = lock

    def leave(self) -> None:
        """Let go of all of them."""
        while self._held:
            _leave(*self._held.popitem())


def run_folder(path: str) -> Path | None:
    """The run's folder that a file lies in, if it is one of this user's private ones and in order.

    Args:
        path: absolute, with symbolic links resolved.
    """
    for place in _places():
        parent = _user_folder(Path(os.path.realpath(place)))
        try:
            parts = Path(path).relative_to(parent).parts
        except ValueError:
            continue
        folder = parent / parts[0] if len(parts) == 2 else None
        if folder is not None and _is_private(parent) and _is_private(folder):
            return folder
    return None


def remove_abandoned() -> None:
    """Remove the folders of this user's runs that were killed."""
    if fcntl is None:
        return
    for place in _places():
        parent = _user_folder(place)
        with contextlib.suppress(OSError), _locked(parent, make=False):
            for folder in parent.iterdir():
                _remove_unheld(folder)


def _places() -> list[Path]:
    return list(dict.fromkeys([_SHARED_MEMORY, Path(tempfile.gettempdir())]))


def _roomy_place(size: int) -> Path:
    shared, temporary = _SHARED_MEMORY, Path(tempfile.gettempdir())
    try:
        found = os.statvfs(shared)
    except OSError:
        return temporary
    return shared if found.f_bavail * found.f_frsize >= size and os.access(shared, os.W_OK) else temporary


def _user_folder(place: Path) -> Path:
    return place / f"melisma-{os.getuid()}"


def _is_private(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077


@contextlib.contextmanager
def _locked(parent: Path, *, make: bool) -> Iterator[Path]:
    """Hold the lock of a user's folder; `make` it if it is not there."""
    while True:
        if make:
            with contextlib.suppress(FileExistsError):
                parent.mkdir(mode=0o700)
        if not _is_private(parent) and parent.exists():
            raise StorageError(
                "use", str(parent), "it is not a directory of this user alone", "Remove it, or set its mode to 0700"
            )
        lock = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _still_is(parent, lock):
                continue  # it was removed meanwhile, and perhaps made anew
            yield parent
            with contextlib.suppress(OSError):
                parent.rmdir()  # only if nothing is in it
            return
        finally:
            os.close(lock)


def _hold(folder: Path) -> int:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def _leave(folder: Path, lock: int) -> None:
    os.close(lock)
    with contextlib.suppress(OSError), _locked(folder.parent, make=False):
        _remove_unheld(folder)


def _remove_unheld(folder: Path) -> None:
    """Remove a folder that nobody holds; the caller has the lock of the one above."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def _still_is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_pipe(output: int) -> bool:
    mode = os.fstat(output).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _reader_gone(output: int) -> bool:
    """Whether the other end of a pipe is closed; for other outputs nobody can tell."""
    poll = select.poll()
    poll.register(output, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _failed(error: OSError) -> StorageError:
    where = str(error.filename or "the private folder")
    return StorageError("use", where, error.strerror or type(error).__name__, "Set batch_config.storage.root")
