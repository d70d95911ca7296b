"""The private folder between a tap and a target: found by both, held while in use, removed by whoever is last."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from melisma.errors import ConfigError, MelismaError, StorageError
from melisma.wire import exchange
from melisma.wire.exchange import Exchange, JoinedExchanges, remove_abandoned, run_folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both sides find their folder in the test's own directory."""
    monkeypatch.setattr(exchange, "_SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr(exchange.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"melisma-{os.getuid()}"


def put(made: Exchange, name: str, size: int = 10) -> Path:
    """A file as a tap puts it there."""
    path = made.folder / name
    path.write_bytes(b"x" * size)
    made.added(path, size)
    return path


def test_the_folder_is_this_users_alone(place: Path) -> None:
    """Both directories have mode 0700, and a file in the run's folder is known to lie there."""
    with Exchange(100, None) as made:
        for folder in (place, made.folder):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        path = put(made, "1")
        assert run_folder(str(path)) == made.folder
        path.unlink()


def test_nothing_is_left_when_both_have_let_go(place: Path) -> None:
    """Whoever lets go last removes the run's folder, and the user's folder with it."""
    joined = JoinedExchanges()
    with Exchange(100, None) as made:
        path = put(made, "1")
        joined.join(made.folder)
        path.unlink()
    assert made.folder.exists()
    joined.leave()
    assert not place.exists()


def test_a_failed_tap_leaves_the_folder_to_its_target(place: Path) -> None:
    """What a tap wrote before it failed can still be read by a target that has joined."""
    joined = JoinedExchanges()
    with pytest.raises(ZeroDivisionError), Exchange(100, None) as made:
        path = put(made, "1")
        joined.join(made.folder)
        raise ZeroDivisionError
    assert path.exists()
    joined.leave()
    assert not place.exists()


def test_a_full_folder_makes_the_tap_wait(place: Path) -> None:
    """No more than the limit lies unread; a file beyond it is written as soon as the target has taken others."""
    joined = JoinedExchanges()
    with Exchange(25, None) as made:
        first, second = put(made, "1"), put(made, "2")
        joined.join(made.folder)
        went_on = threading.Event()
        tap = threading.Thread(target=lambda: (made.wait_for_room(10), went_on.set()))
        tap.start()
        assert not went_on.wait(0.2)
        assert made.unread == 20
        first.unlink()
        assert went_on.wait(30)
        tap.join()
        second.unlink()
    joined.leave()


def test_a_file_larger_than_the_limit_goes_alone(place: Path) -> None:
    """The limit bounds what lies there, and never stops the run."""
    with Exchange(5, None) as made:
        made.wait_for_room(1_000)


def test_a_tap_whose_reader_has_gone_stops_waiting(place: Path) -> None:
    """A target that died takes no files: the tap ends as with any broken pipe, and leaves nothing behind."""
    reader, writer = os.pipe()
    with pytest.raises(BrokenPipeError), Exchange(5, writer) as made:
        put(made, "1")
        os.close(reader)
        made.wait_for_room(10)
    os.close(writer)
    assert not place.exists()


def test_a_target_that_never_comes_is_not_waited_for_forever(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target of someone else does not take the files; the error says what to set."""
    monkeypatch.setattr(exchange, "_JOIN_SECONDS", 0.0)
    with pytest.raises(MelismaError, match=r"batch_config\.storage\.root"), Exchange(100, None) as made:
        put(made, "1")
    assert not place.exists()


@pytest.mark.parametrize("where", ["file", "null"])
def test_an_output_that_nobody_reads_is_refused(where: str, tmp_path: Path) -> None:
    """Files in a private folder need a reader at the other end of a pipe."""
    path = tmp_path / "out" if where == "file" else Path(os.devnull)
    with path.open("wb") as output, pytest.raises(ConfigError, match=r"batch_config\.storage\.root"):
        Exchange(100, output.fileno())


def test_a_killed_runs_folder_is_removed_by_the_next_run_and_a_live_ones_is_not(tmp_path: Path, place: Path) -> None:
    """Kill -9 leaves a folder that nobody holds; one whose target still reads stays."""
    code = (
        "import os, pathlib, signal, tempfile\n"
        "from melisma.wire import exchange\n"
        f"exchange._SHARED_MEMORY = pathlib.Path({str(tmp_path / 'shm')!r})\n"
        f"tempfile.gettempdir = lambda: {str(tmp_path)!r}\n"
        "made = exchange.Exchange(100, None)\n"
        "(made.folder / '1').write_bytes(b'x')\n"
        "print(made.folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    abandoned, read = (
        Path(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip())
        for _ in range(2)
    )
    assert not abandoned.exists()  # the second run removed it
    joined = JoinedExchanges()
    joined.join(read)
    remove_abandoned()
    assert read.exists()
    joined.leave()
    assert not place.exists()


def test_a_folder_that_is_not_this_users_alone_is_not_used(place: Path) -> None:
    """A directory that others can write to, or a symbolic link in its place, is never trusted."""
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    with pytest.raises(StorageError, match="0700"):
        Exchange(100, None)
    (place / "run-1").mkdir(mode=0o700)
    (place / "run-1" / "1").touch()
    assert run_folder(str(place / "run-1" / "1")) is None
    elsewhere = place.rename(place.with_name("elsewhere"))
    elsewhere.chmod(0o700)
    place.symlink_to(elsewhere)
    assert run_folder(str(elsewhere / "run-1" / "1")) is None
    with pytest.raises(StorageError, match="0700"):
        Exchange(100, None)
