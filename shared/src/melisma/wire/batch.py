"""BATCH messages: which files hold a stream's next records, and how they are written.

A BATCH message stands for the RECORD messages of the rows in its files, in order. It is singer-sdk's message; melisma
adds `time_extracted` and `version`, which RECORD messages have, beside singer-sdk's keys, where other targets do not
look.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from melisma.errors import BadMessage
from melisma.wire.messages import Message, message_dict

__all__ = ["COMPRESSIONS", "FORMATS", "Batch", "batch_line", "read_batch"]

FORMATS = ("jsonl", "parquet", "arrow")
COMPRESSIONS = ("gzip", "zstd", "none")

_MOST_FILES = 10_000
_FIX = "Mend the tap"


@dataclass(frozen=True, slots=True)
class Batch:
    """A BATCH message.

    Attributes:
        stream: the stream's name.
        format: one of `FORMATS`.
        compression: one of `COMPRESSIONS`; that of Parquet and Arrow files stands in the files themselves.
        manifest: where the files are: URLs or paths, as the tap wrote them.
        line: the message's line in the input.
        time_extracted: of all its records, as text; None where the tap does not say.
        version: of all its records.
    """

    stream: str
    format: str
    compression: str
    manifest: tuple[str, ...]
    line: int
    time_extracted: str | None = None
    version: int | None = None


def read_batch(message: Message) -> Batch:
    """Read a BATCH message.

    Raises:
        BadMessage: it is not whole, or says what no BATCH message says.
    """
    found = message_dict(message, "stream", "encoding", "manifest")
    stream, encoding, manifest = found["stream"], found["encoding"], found["manifest"]
    if not isinstance(stream, str):
        raise _bad('whose "stream" is not a name', message)
    if not isinstance(encoding, dict):
        raise _bad('whose "encoding" is not an object', message)
    kind, compression = encoding.get("format"), encoding.get("compression")
    if kind not in FORMATS:
        raise _bad(f"whose format is not known (known are {', '.join(FORMATS)})", message)
    if compression is None:
        compression = "none"
    if compression not in COMPRESSIONS:
        raise _bad(f"whose compression is not known (known are {', '.join(COMPRESSIONS)})", message)
    if not isinstance(manifest, list) or not all(isinstance(each, str) and each for each in manifest):
        raise _bad('whose "manifest" is not a list of file names', message)
    if len(manifest) > _MOST_FILES:
        raise _bad(f"whose manifest names more than {_MOST_FILES} files", message)
    version, extracted = found.get("version"), found.get("time_extracted")
    return Batch(
        stream,
        kind,
        compression,
        tuple(manifest),
        message.line,
        extracted if isinstance(extracted, str) else None,
        version if isinstance(version, int) and not isinstance(version, bool) and abs(version) < 2**63 else None,
    )


def batch_line(
    stream: str,
    kind: str,
    compression: str | None,
    manifest: Sequence[str],
    *,
    time_extracted: dt.datetime | None = None,
    version: int | None = None,
) -> bytes:
    """A BATCH message as a line.

    Args:
        stream: the stream's name.
        kind: one of `FORMATS`.
        compression: one of `COMPRESSIONS`, or None to leave it out.
        manifest: URLs of its files.
        time_extracted: an aware time.
        version: of the records.
    """
    encoding = {"format": kind} if compression is None else {"format": kind, "compression": compression}
    message: dict[str, Any] = {"type": "BATCH", "stream": stream, "encoding": encoding, "manifest": list(manifest)}
    if version is not None:
        message["version"] = version
    if time_extracted is not None:
        message["time_extracted"] = time_extracted.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps(message).encode() + b"\n"


def _bad(rule: str, message: Message) -> BadMessage:
    return BadMessage(f"a BATCH message {rule}", line=message.line, fix=_FIX)
