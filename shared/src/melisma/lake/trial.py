"""Trying out a place before anything runs: what a lake will need of it is done once, and undone."""

from __future__ import annotations

import contextlib
import uuid

from melisma.errors import StorageError
from melisma.lake.objects import NoReply, objects_of, prove_put_if_absent
from melisma.storage.store import Store

__all__ = ["try_place"]

_CONTENT = b"melisma: written by --test, and removed by it\n"


def try_place(store: Store, pipeline: str) -> None:
    """Create an object twice, stage and publish a file, list, read and remove both.

    All of it lies below `_melisma/<pipeline>`, under a name of its own; a run that is under way is not disturbed.

    Raises:
        StorageError: the place cannot be written, read or listed, or does not hold to create-if-absent.
    """
    folder = f"_melisma/{pipeline}/trial-{uuid.uuid4().hex}"
    final = f"{folder}/file"
    try:
        prove_put_if_absent(objects_of(store), f"{folder}/entry.json")
        staged = store.stage(f"{folder}/staged", final)
        try:
            staged.write(_CONTENT)
            staged.close()
            store.publish(staged)
            store.sync_published()
        except BaseException:
            store.discard(staged)
            raise
        if store.read_bytes(final) != _CONTENT or [info.path for info in store.glob(f"{folder}/**")] != [final]:
            raise StorageError("test", store.display(), "what was written there is not what is found")
        next(store.unfinished(), None)
    except NoReply:
        rule = "the store did not answer"
        raise StorageError("test", store.display(), rule, "Check the endpoint and the network") from None
    finally:
        with contextlib.suppress(StorageError):
            store.delete_tree(folder)
