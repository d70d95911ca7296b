"""`tap-files --test`: whether a place can be read is said before anything runs, in one line."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from places import SERVICES, Place
from servers import CACHE, SFTP_KNOWN_HOSTS, SFTP_PASSWORD, SFTP_USER

from melisma.storage.filesystem import open_store

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from forking import ForkedTarget

DENIED = ("^(GET|HEAD)", 403, b"<Error><Code>AccessDenied</Code></Error>")


@pytest.fixture(scope="module")
def tap() -> Iterator[ForkedTarget]:
    """A process from which the tap's runs are forked."""
    with ForkedTarget("melisma_tap_files.tap:TapFiles") as process:
        yield process


@pytest.fixture
def trial(tap: ForkedTarget, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Tries a path: exit code, and the error's line or, if there is none, the first record."""

    def run(path: str, options: dict[str, Any], environment: dict[str, str] | None = None) -> tuple[int, str]:
        config = {"streams": [{"name": "s", "path": path}], "storage_options": options}
        (tmp_path / "config.json").write_text(json.dumps(config))
        outcome = tap.run(tmp_path, "--config", "config.json", "--test", env=environment)
        assert "Traceback" not in outcome.stderr, outcome.stderr
        secrets = [SFTP_PASSWORD, *(value for name, value in (environment or {}).items() if "KEY" in name)]
        assert not any(secret in outcome.stderr for secret in secrets)
        errors = outcome.log("ERROR")
        records = [line.decode() for line in outcome.stdout.splitlines() if b'"RECORD"' in line]
        assert len(errors) + len(records) == 1, outcome
        return outcome.exit_code, (errors + records)[0]

    return run


@pytest.mark.parametrize("scheme", SERVICES)
def test_a_bucket(
    scheme: str,
    trial: Callable[..., tuple[int, str]],
    new_place: Callable[[str], Place],
    new_proxy: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That can be read, has no such file, is not there, or is closed."""
    place = new_place(scheme)
    for name, value in place.credentials.items():
        monkeypatch.setenv(name, value)
    store = open_store(place.url, place.options, distribution="melisma-test")
    staged = store.stage("_tmp/x", "a.csv")
    staged.write(b"n\n1\n")
    staged.close()
    store.publish(staged)
    code, line = trial(f"{place.url}/*.csv", place.options, place.credentials)
    assert (code, json.loads(line)["record"]) == (0, {"n": 1})
    code, line = trial(f"{place.url}/*.txt.csv", place.options, place.credentials)
    assert (code, "no file matches" in line) == (2, True)
    code, line = trial(f"{scheme}://no-such-bucket/x/*.csv", place.options, place.credentials)
    assert (code, "there is no such bucket or container" in line) == (1, True)
    assert f"{scheme}://no-such-bucket/x" in line
    proxy = new_proxy(place.endpoint)
    proxy.answer, proxy.times = DENIED, 100
    closed = Place(scheme, proxy.endpoint, place.bucket)
    code, line = trial(f"{place.url}/*.csv", closed.options, place.credentials)
    assert (code, "the store denies access" in line) == (1, True), line
    assert place.url in line


def test_a_server(trial: Callable[..., tuple[int, str]], service: Callable[[str], str]) -> None:
    """Of SFTP and of the web: a file that is there, one that is not, a user that is not let in."""
    name = f"{uuid.uuid4().hex}.csv"
    user = {"username": SFTP_USER, "known_hosts_file": str(SFTP_KNOWN_HOSTS)}
    for scheme, options in (("sftp", {**user, "password": SFTP_PASSWORD}), ("http", {})):
        address = service(scheme)
        (CACHE / "data" / scheme / name).write_bytes(b"n\n1\n")
        assert trial(f"{address}/{name}", options)[0] == 0
        code, line = trial(f"{address}/none-{name}", options)
        assert (code, "no file matches" in line) == (2, True)
    code, line = trial(f"{service('sftp')}/{name}", {**user, "password": "wrong"})
    assert (code, "does not accept these credentials" in line) == (1, True)
    code, line = trial(f"http://127.0.0.1:1/{name}", {})
    assert (code, "cannot be reached" in line) == (1, True)
