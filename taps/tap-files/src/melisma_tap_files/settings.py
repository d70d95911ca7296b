"""The settings, their JSON Schema and what one stream's settings mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from melisma.errors import ConfigError
from melisma.storage.codecs import COMPRESSIONS, MAX_EXPANSION, without_ending

if TYPE_CHECKING:
    from melisma.formats.csv import CsvDialect

__all__ = ["CONFIG", "StreamSettings", "max_expansion", "read_streams", "zone_of"]

FORMATS = ("csv", "jsonl", "json", "parquet", "arrow", "avro", "msgpack", "protobuf", "excel")
ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".tab": "csv",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
    ".avro": "avro",
    ".msgpack": "msgpack",
    ".mpk": "msgpack",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".xlsb": "excel",
    ".xls": "excel",
    ".ods": "excel",
}


def _text(title: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "title": title, "description": description, **more}


_CSV = {
    "type": "object",
    "title": "CSV options",
    "description": "How the stream's CSV files are written.",
    "additionalProperties": False,
    "properties": {
        "delimiter": _text(
            "Delimiter",
            "One character between fields. By default a comma, and a tab for names ending in .tsv.",
            pattern="^[^\\r\\n]$",
        ),
        "quote": _text(
            "Quote", "The character around quoted fields; empty for none.", default='"', pattern="^[^\\r\\n]?$"
        ),
        "escape": _text(
            "Escape",
            "A character that takes its meaning from the next one; by default there is none.",
            pattern="^[^\\r\\n]?$",
        ),
        "encoding": _text("Encoding", "The files' encoding: utf-8, latin-1, cp1252, utf-16, ...", default="utf-8"),
        "header": {
            "title": "Header",
            "description": "Whether the first record holds the columns' names; or a list of names, for files without.",
            "anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
            "default": True,
        },
        "skip_rows": {
            "type": "integer",
            "title": "Skip rows",
            "description": "Lines before the header, or before the first record, that are not read.",
            "minimum": 0,
            "default": 0,
        },
        "null_values": {
            "type": "array",
            "items": {"type": "string"},
            "title": "Null values",
            "description": "Texts that mean null. In text columns they do not when quoted.",
            "default": [""],
        },
    },
}

_JSON = {
    "type": "object",
    "title": "JSON options",
    "description": "Where the stream's JSON documents (format json) hold their records.",
    "additionalProperties": False,
    "properties": {
        "records_path": _text(
            "Records path",
            "The names, with dots between them, that lead to the array of records; by default the document is it.",
        ),
    },
}

_EXCEL = {
    "type": "object",
    "title": "Excel options",
    "description": "Which part of the stream's workbooks is read.",
    "additionalProperties": False,
    "properties": {
        "sheet": {
            "title": "Sheet",
            "description": "The sheet's name, or its number, counted from 1.",
            "type": ["string", "integer"],
            "default": 1,
        },
        "header": {
            "type": "boolean",
            "title": "Header",
            "description": "Whether the first row holds the columns' names.",
            "default": True,
        },
        "skip_rows": {
            "type": "integer",
            "title": "Skip rows",
            "description": "Rows before the header, or before the first record, that are not read.",
            "minimum": 0,
            "default": 0,
        },
    },
}

_PROTOBUF = {
    "type": "object",
    "title": "Protobuf options",
    "description": "What the messages of the stream's files are.",
    "additionalProperties": False,
    "required": ["descriptor_set", "message"],
    "properties": {
        "descriptor_set": _text(
            "Descriptor set", "A local file that protoc --include_imports --descriptor_set_out has written."
        ),
        "message": _text("Message", "The message type's full name, for example shop.v1.Order."),
    },
}

_STREAM = {
    "type": "object",
    "required": ["name", "path"],
    "additionalProperties": False,
    "properties": {
        "name": _text("Name", "The stream's name.", minLength=1),
        "path": _text("Path", "A path or URL of files, with *, ?, [...] and ** as wildcards.", minLength=1),
        "format": _text(
            "Format", "The files' format; by default by the names' ending, compression aside.", enum=list(FORMATS)
        ),
        "compression": _text(
            "Compression",
            "The files' compression; by default by the names' ending (.gz, .zst, .lz4, .br, .sz, .bz2, .xz, .zip).",
            enum=list(COMPRESSIONS),
            default="infer",
        ),
        "key_properties": {
            "type": "array",
            "items": {"type": "string"},
            "title": "Key properties",
            "description": "The columns that make up the primary key.",
            "default": [],
        },
        "csv": _CSV,
        "json": _JSON,
        "excel": _EXCEL,
        "protobuf": _PROTOBUF,
        "hive_partitions": {
            "type": "boolean",
            "title": "Hive partitions",
            "description": "Whether folders named column=value in the files' paths are columns.",
            "default": False,
        },
        "column_types": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "title": "Column types",
            "description": (
                "Types that discovery is not to infer, by column: string, integer, uint64, number, boolean, timestamp, "
                "date, time, binary, json, decimal(p,s). Members of objects by a path (address.zip). "
                "Not for formats whose files say their types."
            ),
        },
    },
}

CONFIG: dict[str, Any] = {
    "type": "object",
    "required": ["streams"],
    "properties": {
        "streams": {
            "type": "array",
            "items": _STREAM,
            "minItems": 1,
            "title": "Streams",
            "description": (
                "The streams to read, each from one set of files: name, path, format, compression, key_properties, "
                "column_types, hive_partitions, and the format's own options."
            ),
        },
        "storage_options": {
            "type": "object",
            "title": "Storage options",
            "description": "What the store of a remote path needs, in melisma's own keys (region, endpoint_url, ...).",
            "secret": True,
        },
        "infer_rows": {
            "type": "integer",
            "minimum": 0,
            "default": 5000,
            "title": "Rows to infer from",
            "description": (
                "How many rows discovery looks at, in the first file by name and in the newest; 0 for all rows of "
                "all files."
            ),
        },
        "max_expansion": {
            "type": "integer",
            "minimum": 0,
            "default": MAX_EXPANSION,
            "title": "Max expansion",
            "description": (
                "How many times its stored size a compressed file may grow to, once it is over 1 GiB: a file made to "
                "fill disks is refused. 0 for no limit."
            ),
        },
        "timezone": _text(
            "Time zone", "Where times without an offset were meant; they are sent in UTC.", default="UTC", minLength=1
        ),
        "add_file_metadata": {
            "type": "boolean",
            "default": False,
            "title": "Add file metadata",
            "description": "Whether each record says its file, line and the file's time of change (_sdc_source_*).",
        },
    },
}


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """One entry of `streams`.

    Attributes:
        setting: where it stands, for messages (`streams[0]`).
        options: those of the stream's format, other than CSV.
    """

    setting: str
    name: str
    path: str
    format: str
    compression: str = "infer"
    key_properties: tuple[str, ...] = ()
    csv: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    hive_partitions: bool = False
    column_types: Mapping[str, str] = field(default_factory=dict)

    def cut_as_stored(self) -> bool:
        """Whether places in the stream's text files are offsets in the bytes as stored."""
        return self.format != "csv" or self.dialect().block_encoding is not None

    def dialect(self) -> CsvDialect:
        """How the stream's CSV files are written.

        Raises:
            ConfigError: an option cannot work.
        """
        from melisma.formats.csv import CsvDialect, check_encoding

        options = self.csv
        header = options.get("header", True)
        delimiter = options.get("delimiter") or ("\t" if _bare_name(self.path).endswith((".tsv", ".tab")) else ",")
        quote, escape = options.get("quote", '"'), options.get("escape") or None
        encoding = options.get("encoding", "utf-8")
        check_encoding(f"{self.setting}.csv.encoding", encoding)
        for name, mark in (("delimiter", delimiter), ("quote", quote), ("escape", escape)):
            if mark and not mark.isascii():
                raise ConfigError(f"{self.setting}.csv.{name}", "is not an ASCII character", "Use one of those")
        marks = [mark for mark in (delimiter, quote, escape) if mark]
        if len(set(marks)) < len(marks):
            rule = "uses one character for two of delimiter, quote and escape"
            raise ConfigError(f"{self.setting}.csv", rule, "A doubled quote within quotes needs no escape")
        return CsvDialect(
            delimiter=delimiter,
            quote=quote,
            escape=escape,
            encoding=encoding,
            header=tuple(header) if isinstance(header, list) else header,
            skip_rows=options.get("skip_rows", 0),
            null_values=tuple(options.get("null_values", [""])),
        )


def read_streams(config: Mapping[str, Any]) -> list[StreamSettings]:
    """The streams of a configuration.

    Raises:
        ConfigError: two have one name, or a format cannot be told.
    """
    found: list[StreamSettings] = []
    for index, entry in enumerate(config.get("streams", [])):
        setting = f"streams[{index}]"
        if any(each.name == entry["name"] for each in found):
            raise ConfigError(f"{setting}.name", "is the name of another stream too", "Give each stream its own name")
        found_format = entry.get("format") or _guess(setting, entry["path"])
        found.append(
            StreamSettings(
                setting,
                entry["name"],
                entry["path"],
                found_format,
                entry.get("compression", "infer"),
                tuple(entry.get("key_properties", ())),
                entry.get("csv", {}),
                _own_options(setting, entry, found_format),
                entry.get("hive_partitions", False),
                entry.get("column_types", {}),
            )
        )
    return found


def max_expansion(config: Mapping[str, Any]) -> int:
    """The setting of that name."""
    return int(config.get("max_expansion", MAX_EXPANSION))


def _own_options(setting: str, entry: Mapping[str, Any], format_name: str) -> Mapping[str, Any]:
    for other in ("csv", "json", "excel", "protobuf"):
        if entry.get(other) and other != format_name:
            rule = f"is for files of that format, and the stream's are {format_name}"
            raise ConfigError(f"{setting}.{other}", rule, f"Remove it, or set {setting}.format")
    found: Mapping[str, Any] = entry.get(format_name, {}) if format_name != "csv" else {}
    return found


def zone_of(config: Mapping[str, Any]) -> ZoneInfo | None:
    """The setting `timezone`; None for UTC.

    Raises:
        ConfigError: there is no such zone.
    """
    name = config.get("timezone") or "UTC"
    if name.upper() in {"UTC", "ETC/UTC", "Z"}:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError("timezone", "is not a known time zone", "Use a name such as Europe/Vienna") from None


def _bare_name(path: str) -> str:
    return without_ending(path.lower().rstrip("*"))


def _guess(setting: str, path: str) -> str:
    name = _bare_name(path)
    for ending, found in ENDINGS.items():
        if name.endswith(ending):
            return found
    raise ConfigError(
        f"{setting}.format",
        "is not set, and the path's ending does not tell it",
        f"Valid values: {', '.join(FORMATS)}",
    )
