"""Where a lake's files are. Fixed for ever: changing this loses every lake that exists.

::

    <root>/<stream>/<column>=<value>/.../<pipeline>-<run>-<n>.parquet     what readers read
    <root>/_melisma/<pipeline>/...                                        melisma's own; readers skip it

A stream's name becomes one directory name: what is not a letter or digit of ASCII, "_", "." or "-" is
percent-encoded as UTF-8, and so is a leading "_" or ".", since readers skip such directories. The encoding is
reversible; names over 200 bytes are cut and end in "~" and a hash of the whole. Two streams whose names differ
only in case have directories that differ only in case: on a file system that does not tell them apart they are
refused (see `FileLake`).

A partition's directory is Hive's: `column=value`, the value percent-encoded the same way, null as
`__HIVE_DEFAULT_PARTITION__`, the empty string as `column=`. DuckDB, Polars and pyarrow read all three back as
written; Spark and Hive read `column=` as null. Readers guess a type for the values: strings such as "007" are
numbers to Polars and pyarrow unless they are told the column's type.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

from melisma.errors import BadSchema, ConfigError

__all__ = [
    "DEFAULT_PIPELINE",
    "HIVE_NULL",
    "FileName",
    "check_pipeline",
    "default_pipeline",
    "meta_dir",
    "new_run_id",
    "parse_file_name",
    "partition_segment",
    "stream_name",
    "stream_segment",
]

DEFAULT_PIPELINE = "default"
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive, and all readers after it, take for a null partition value."""

META = "_melisma"
SEGMENT_BYTES = 255
"""The longest name that the usual file systems take."""

_STREAM_BYTES = 200
_PIPELINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_RUN = re.compile(r"[0-9]{8}T[0-9]{6}Z[0-9a-f]{8}")
_FILE = re.compile(rf"({_PIPELINE.pattern})-({_RUN.pattern})-([0-9]{{6,}})\.([a-z0-9.]+)")
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_SAFE_LOWER = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_.-")


@dataclass(frozen=True, slots=True)
class FileName:
    """A data file's name. Names of one pipeline sort by run, and within a run by number, in order of writing.

    Attributes:
        pipeline: whose data it is; may contain "-".
        run: see `new_run_id`; contains no "-", so that names parse back.
        number: counts the files of the run from 1.
        extension: without the dot.
    """

    pipeline: str
    run: str
    number: int
    extension: str

    def __str__(self) -> str:
        return f"{self.pipeline}-{self.run}-{self.number:06d}.{self.extension}"


def parse_file_name(name: str) -> FileName | None:
    """The parts of a data file's name, or None if melisma has not written it."""
    match = _FILE.fullmatch(name)
    return FileName(match[1], match[2], int(match[3]), match[4]) if match else None


def check_pipeline(name: str, *, setting: str = "pipeline") -> str:
    """The setting `pipeline`, if it can be part of file names.

    Raises:
        ConfigError: it cannot.
    """
    if name == "streams":
        raise ConfigError(setting, "is a name that the lake keeps for itself", "Choose another name")
    if not _PIPELINE.fullmatch(name):
        fix = "Use 1 to 64 letters, digits, '_', '.' and '-', the first a letter or digit"
        raise ConfigError(setting, "cannot be part of a file name", fix)
    return name


def default_pipeline(environment: Mapping[str, str]) -> str:
    """The pipeline of a target whose configuration names none.

    Under `meltano run` each extractor is one, in each Meltano environment: two taps in one pipeline would take their
    STATEs for each other's. Meltano tells a loader of its extractor in MELTANO_EXTRACTOR_NAME.

    Args:
        environment: the process's environment variables.
    """
    extractor = environment.get("MELTANO_EXTRACTOR_NAME")
    if not extractor:
        return DEFAULT_PIPELINE
    name = "-".join(part for part in (environment.get("MELTANO_ENVIRONMENT"), extractor) if part)
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    if _PIPELINE.fullmatch(safe) and safe == name and name != "streams":
        return name
    return f"meltano-{safe[:39]}-{hashlib.sha256(_utf8(name)).hexdigest()[:16]}"


def new_run_id(now: datetime | None = None) -> str:
    """A run's id: UTC time to the second, its fraction in 4 hexadecimal digits, 4 random digits. Sorts by time."""
    moment = now or datetime.now(UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}{moment.microsecond * 0x10000 // 1_000_000:04x}{secrets.token_hex(2)}"


def meta_dir(pipeline: str) -> str:
    """Where melisma keeps what a pipeline has committed, relative to the root."""
    return f"{META}/{pipeline}"


def stream_segment(stream: str) -> str:
    """The directory of a stream.

    Raises:
        BadSchema: the name is empty.
    """
    if not stream:
        raise BadSchema("the stream's name is empty", stream=stream, fix="Name the stream in the tap")
    encoded = _encoded(stream, _SAFE)
    if encoded[0] in "._":
        encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
    if len(encoded) <= _STREAM_BYTES:
        return encoded
    digest = hashlib.sha256(_utf8(stream)).hexdigest()[:32]
    return f"{encoded[: _STREAM_BYTES - 33]}~{digest}"


def stream_name(segment: str) -> str | None:
    """The stream whose directory this is; None for a name that was cut (its files' metadata have it)."""
    return None if "~" in segment else unquote(segment, errors="surrogatepass")


def partition_segment(column: str, value: str | None, *, fold: bool = False) -> str:
    """The directory of one partition value.

    Args:
        column: written as it is: readers do not decode it. `melisma.lake.partition` lets no other names in.
        value: as text.
        fold: the file system does not tell cases apart: capitals are percent-encoded too, which readers decode.
    """
    if value is None:
        return f"{column}={HIVE_NULL}"
    return f"{column}={_encoded(value, _SAFE_LOWER if fold else _SAFE)}"


def _encoded(text: str, safe: frozenset[int]) -> str:
    return "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in _utf8(text))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # JSON lets lone surrogates through
