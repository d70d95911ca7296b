"""What stands in a journal: one JSON object per entry, its kind under `record`.

Times (`at`) are for people; nothing is ordered or decided by a clock.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from melisma.errors import StorageError

__all__ = [
    "FORMAT",
    "Boundary",
    "Commit",
    "Compact",
    "Cut",
    "Damaged",
    "End",
    "FileEntry",
    "Intent",
    "Open",
    "Process",
    "Record",
    "Release",
    "Rollback",
    "RowCounts",
    "StagedFile",
    "decode",
    "encode",
]

FORMAT = 1
"""Raised when an older melisma could no longer read what is written without a mistake."""

_S = TypeVar("_S", bound=Struct)


class FileEntry(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A data or dead-letter file of the lake.

    Attributes:
        path: relative to the lake's root.
        bytes: its size, which publishing verifies.
        seq: the last entry whose rows it holds; filled in when entries are read.
        first: the first such entry, where compaction made the two differ.
        run: the run that wrote it; filled in when entries are read.
        version: the version of the table that its rows belong to (ACTIVATE_VERSION), if the tap names one.
        replaces: rows of other files were removed for these. A replay must not remove it: those would be lost.
    """

    path: str
    stream: str
    rows: int
    bytes: int
    kind: Literal["data", "dead_letter"] = "data"
    seq: int = 0
    first: int = 0
    run: str = ""
    version: int | None = None
    replaces: bool = False


class StagedFile(Struct, frozen=True, kw_only=True):
    """A file on its way: where it will be, and the handle with which anyone can revoke it before that."""

    path: str
    handle: str


class Boundary(Struct, frozen=True, kw_only=True):
    """The rows at a stream's highest replication key: what an inclusive tap sends again.

    Attributes:
        column: the replication key's column.
        value: the highest key as text.
        rows: hash of a row -> how many such rows there are. Empty if there were too many to keep.
    """

    column: str
    value: str
    rows: dict[str, int]


class RowCounts(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The rows of one stream in one commit, by what became of them."""

    read: int
    written: int = 0
    dead: int = 0
    repeated: int = 0
    skipped: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every row read is accounted for."""
        return self.read == self.written + self.dead + self.repeated + self.skipped


class Cut(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the replay decision for a stream was, as far as later runs need it.

    Attributes:
        case: the row of the table in docs/delivery.md.
        seq: files of the stream from later entries of earlier runs are not acknowledged.
        position: set where the tap starts at a place that the journal did not know until now.
        restored: acknowledged files that a deliberate rewind makes unacknowledged again.
    """

    case: str
    seq: int
    position: str = ""
    restored: list[FileEntry] = []


class Process(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A process, told from any other one. Empty fields: this system does not say."""

    host: str = ""
    boot: str = ""
    pid_namespace: str = ""
    pid: int = 0
    started: str = ""


class _Entry(Struct, omit_defaults=True, kw_only=True, tag_field="record"):
    """What every entry has. All but `run` is filled in when it is put."""

    format: int = 0
    seq: int = 0
    run: str
    attempt: str = ""
    at: str = ""


class Open(_Entry, tag="open", kw_only=True):
    """A run begins. Every earlier actor is fenced from here on."""

    process: Process = Process()
    melisma: str = ""


class Intent(_Entry, tag="intent", kw_only=True):
    """These paths are about to become visible; without a later entry that names them they are to be removed."""

    staged: list[StagedFile] = []
    compact: bool = False


class Commit(_Entry, tag="commit", kw_only=True):
    """Rows and STATE, durable together.

    Attributes:
        state: the STATE's JSON text as it came.
        positions: position of each stream that the STATE names.
        whole: position of every other stream.
        replaced: streams whose unacknowledged files of earlier runs are among `removes`.
        cuts: replay decisions that this commit is the first to rest on.
        refused: streams, not in this run, which would be refused: the positions of this run say nothing of them.
        behind: those of them whose rows would come twice, while none is missing.
        schemas: JSON Schema messages of streams where they are new or changed.
        full_table: streams with rows here that the STATE names with an empty bookmark.
        announced: whether the run's tap announced its starting STATE; in a run's first commit.
        announces: the tap is known to announce, so its silence has a meaning.
    """

    adds: list[FileEntry] = []
    removes: list[FileEntry] = []
    state: str | None = None
    positions: dict[str, str] = {}
    whole: str = ""
    replaced: list[str] = []
    cuts: dict[str, Cut] = {}
    refused: list[str] = []
    behind: list[str] = []
    schemas: dict[str, Any] = {}
    boundaries: dict[str, Boundary] = {}
    versions: dict[str, int] = {}
    full_table: list[str] = []
    counts: dict[str, RowCounts] = {}
    announced: bool | None = None
    announces: bool = False


class Release(_Entry, tag="release", kw_only=True):
    """From here on the runner may have seen a STATE of this run."""


class Compact(_Entry, tag="compact", kw_only=True):
    """Acknowledged files were written anew, the rows are the same; or dead letters were fed back.

    Attributes:
        schemas: of streams whose table has changed as letters were fed back.
        counts: what became of the letters, per stream; empty for a compaction.
    """

    adds: list[FileEntry] = []
    removes: list[FileEntry] = []
    schemas: dict[str, Any] = {}
    counts: dict[str, RowCounts] = {}


class Rollback(_Entry, tag="rollback", kw_only=True):
    """The lake is as it was after entry `to`; what came later is void.

    Attributes:
        voided: the positions by stream, and under "" of the whole STATE, that no longer have their rows.
    """

    to: int
    removes: list[FileEntry] = []
    state: str | None = None
    positions: dict[str, str] = {}
    whole: str = ""
    schemas: dict[str, Any] = {}
    boundaries: dict[str, Boundary] = {}
    voided: dict[str, list[str]] = {}


class End(_Entry, tag="end", kw_only=True):
    """A run came to its end with everything settled."""


Record: TypeAlias = Open | Intent | Commit | Release | Compact | Rollback | End


class Damaged(StorageError):
    """An entry that cannot be read."""


class _Head(Struct):
    format: int


# Made here and not at the first use: msgspec looks a type up then, and threads that do so at once crash in it.
_HEADS, _RECORDS = msgspec.json.Decoder(_Head), msgspec.json.Decoder(Record)


def encode(record: Struct) -> bytes:
    """A record as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def decode(data: bytes, kind: type[_S] | Any, key: str) -> Any:
    """A record, or another journal object, from its JSON.

    Raises:
        Damaged: it is not whole.
        StorageError: it was written by a newer melisma.
    """
    try:
        if _HEADS.decode(data).format > FORMAT:
            raise StorageError("read", key, "it was written by a newer melisma", "Upgrade melisma")
        return _RECORDS.decode(data) if kind is Record else msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise Damaged(
            "read",
            key,
            "the entry is damaged, and without it the lake's state is not known",
            "Restore this file from a backup, or the folder _melisma as a whole",
        ) from error
