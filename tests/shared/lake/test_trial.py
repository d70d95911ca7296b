"""Trying out a place: nothing is left behind, and what a lake could not live with is found."""

from __future__ import annotations

import uuid
from pathlib import Path

import obstore
import pytest

from melisma.errors import StorageError
from melisma.lake.objects import ObjectsInStore
from melisma.lake.trial import try_place
from melisma.storage.filesystem import open_store


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """On a disk, where the folder is made, and in an object store."""
    for url in (str(tmp_path / "lake"), f"memory://{uuid.uuid4().hex}/lake"):
        store = open_store(url, None, distribution="melisma-test")
        try_place(store, "default")
        assert store.glob("**") == []
        assert store.glob("_melisma/**") == []


def test_a_place_that_overwrites_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes a second create for an overwrite cannot keep two runs apart."""

    def overwrite(self: ObjectsInStore, key: str, data: bytes) -> None:
        obstore.put(store.objects, store.key(key), data)  # type: ignore[attr-defined]

    store = open_store(f"memory://{uuid.uuid4().hex}/lake", None, distribution="melisma-test")
    monkeypatch.setattr(ObjectsInStore, "put_if_absent", overwrite)
    with pytest.raises(StorageError, match="does not hold to create-if-absent"):
        try_place(store, "default")
    assert store.glob("**") == []


def test_a_place_that_can_only_be_read_is_refused() -> None:
    """Before a row is read."""
    store = open_store("http://127.0.0.1:1/x", None, distribution="melisma-test")
    with pytest.raises(StorageError):
        try_place(store, "default")


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "no")

    store = open_store(str(tmp_path / "lake"), None, distribution="melisma-test")
    monkeypatch.setattr("melisma.lake.objects.os.link", refuse)
    with pytest.raises(StorageError, match="permission is denied"):
        try_place(store, "default")
