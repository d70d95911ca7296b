"""Configurations and calls that cannot work: exit code 2, and nothing is read."""

from __future__ import annotations

import json
from typing import Any

from malformed import AFTER, BEFORE, PRIVATE, Case, accepted

INPUT = BEFORE + AFTER


def bad(id_: str, shows: str, says: str, config: dict[str, Any], **more: Any) -> Case:
    """A setting that is refused at start."""
    return call(id_, shows, says, config=config, **more)


def call(id_: str, shows: str, says: str, *arguments: str, **more: Any) -> Case:
    """A call that is refused at start."""
    if arguments:
        more["arguments"] = arguments
    return Case(
        id_,
        shows,
        INPUT,
        **({"exit_code": 2, "says": says, "landed": (), "stdout": b"", "names_line": False, "directory": None} | more),
    )


def late(id_: str, shows: str, says: str, config: dict[str, Any], **more: Any) -> Case:
    """A setting that does not fit the stream, which is known with its SCHEMA."""
    return call(id_, shows, says, config=config, **more)


CASES = [
    bad(
        "destination-missing",
        "`destination_path` is not set",
        "destination_path",
        {"destination_path": ...},
        as_executable=True,
    ),
    bad("destination-null", "`destination_path` is null", "destination_path", {"destination_path": None}),
    bad(
        "destination-number",
        "`destination_path` is a number",
        "destination_path",
        {"destination_path": 987654321},
        hidden=("987654321",),
    ),
    bad("destination-list", "`destination_path` is a list", "destination_path", {"destination_path": [PRIVATE]}),
    bad("destination-empty", "`destination_path` is empty", "destination_path", {"destination_path": ""}),
    bad("destination-nul", "a NUL in `destination_path`", "destination_path", {"destination_path": f"a\0{PRIVATE}"}),
    bad(
        "destination-scheme",
        "a URL of a scheme that there is not",
        "destination_path",
        {"destination_path": f"gopher://user:{PRIVATE}@host/lake"},
    ),
    call("destination-is-a-file", "`destination_path` is a file", "lake", files={"lake": b"x"}, exit_code=1),
    call(
        "destination-under-a-file",
        "`destination_path` lies below a file",
        "lake",
        config={"destination_path": "config.json/lake"},
        exit_code=1,
    ),
    call(
        "destination-not-writable",
        "`destination_path` cannot be written",
        "/proc",
        config={"destination_path": "/proc/lake"},
        exit_code=1,
    ),
    bad("storage-options-text", "`storage_options` is a text", "storage_options", {"storage_options": PRIVATE}),
    bad(
        "storage-options-unknown",
        "an unknown key in `storage_options`",
        "storage_options",
        {"storage_options": {"colour": PRIVATE}},
    ),
    bad("pipeline-slash", "`pipeline` with a slash", "pipeline", {"pipeline": f"../{PRIVATE}"}),
    bad("pipeline-empty", "`pipeline` is empty", "pipeline", {"pipeline": ""}),
    bad("pipeline-number", "`pipeline` is a number", "pipeline", {"pipeline": 5}),
    bad("compression-unknown", "a codec that there is not", "compression", {"compression": "rar"}),
    bad("compression-level-text", "`compression_level` is a text", "compression_level", {"compression_level": PRIVATE}),
    bad("compression-level-high", "`compression_level` 23 of zstd", "compression_level", {"compression_level": 23}),
    bad(
        "compression-level-none",
        "`compression_level` of a codec that has none",
        "compression_level",
        {"compression": "snappy", "compression_level": 5},
    ),
    bad("row-group-zero", "`row_group_size_rows` is 0", "row_group_size_rows", {"row_group_size_rows": 0}),
    bad("row-group-negative", "`row_group_size_mb` is negative", "row_group_size_mb", {"row_group_size_mb": -1}),
    bad("max-file-size-zero", "`max_file_size_mb` is 0", "max_file_size_mb", {"max_file_size_mb": 0}),
    bad("max-open-files-zero", "`max_open_files` is 0", "max_open_files", {"max_open_files": 0}),
    bad(
        "commit-interval-negative",
        "`commit_interval_minutes` is negative",
        "commit_interval_minutes",
        {"commit_interval_minutes": -1},
    ),
    bad(
        "commit-interval-text",
        "`commit_interval_minutes` is a text",
        "commit_interval_minutes",
        {"commit_interval_minutes": PRIVATE},
    ),
    bad("validate-records-text", "`validate_records` is a text", "validate_records", {"validate_records": "yes"}),
    bad(
        "add-record-metadata-text",
        "`add_record_metadata` is a text",
        "add_record_metadata",
        {"add_record_metadata": "yes"},
    ),
    bad(
        "on-unknown-field-unknown",
        "a choice of `on_unknown_field` that there is not",
        "on_unknown_field",
        {"on_unknown_field": "ignore"},
    ),
    bad(
        "on-bad-record-unknown",
        "a choice of `on_bad_record` that there is not",
        "on_bad_record",
        {"on_bad_record": "ignore"},
    ),
    bad("load-method-unknown", "a `load_method` that there is not", "load_method", {"load_method": "merge"}),
    bad("partition-by-text", "`partition_by` is a text", "partition_by", {"partition_by": "note"}),
    bad("partition-by-number", "a number in `partition_by`", "partition_by", {"partition_by": [5]}),
    bad(
        "partition-by-transform",
        "a transform that there is not",
        "partition_by",
        {"partition_by": [{"column": "note", "transform": "week"}]},
    ),
    late(
        "partition-by-unknown-column",
        "`partition_by` names no column of the stream",
        "partition_by",
        {"partition_by": ["country"]},
    ),
    late(
        "partition-by-wrong-type",
        "`partition_by` the month of a text",
        "partition_by",
        {"partition_by": ["month(note)"]},
    ),
    late(
        "partition-by-twice", "`partition_by` names a column twice", "partition_by", {"partition_by": ["note", "note"]}
    ),
    late(
        "partition-by-everything", "`partition_by` leaves no column", "partition_by", {"partition_by": ["id", "note"]}
    ),
    bad("column-types-list", "`column_types` is a list", "column_types", {"column_types": ["a"]}),
    bad("column-types-flat", "`column_types` without streams", "column_types", {"column_types": {"note": "string"}}),
    bad("stream-maps-list", "`stream_maps` is a list", "stream_maps", {"stream_maps": [PRIVATE]}),
    late(
        "stream-maps-syntax",
        "an expression in `stream_maps` that is no expression",
        "stream_maps",
        {"stream_maps": {"s": {"x": f"'{PRIVATE}' +"}}},
    ),
    late(
        "stream-maps-unknown-name",
        "an expression that uses a name there is not",
        "stream_maps",
        {"stream_maps": {"s": {"x": f"nothing('{PRIVATE}')"}}},
    ),
    call(
        "stream-maps-fails",
        "an expression that fails on a record",
        "stream_maps",
        config={"stream_maps": {"s": {"x": "int(note)"}}},
        directory=None,
    ),
    bad("batch-size-text", "`batch_size_rows` is a text", "batch_size_rows", {"batch_size_rows": PRIVATE}),
    accepted(
        "unknown-setting",
        "a setting that there is not, near to one that there is",
        INPUT,
        '"partition_by"',
        config={"partion_by": [PRIVATE]},
    ),
    call(
        "two-settings-wrong",
        "two settings are wrong: a line for each",
        "must",
        config={"compression": "rar", "max_open_files": 0},
        lines=2,
    ),
    call("config-file-missing", "the configuration file is not there", "no.json", "--config", "no.json"),
    call("config-file-directory", "the configuration file is a directory", "cannot read", "--config", "."),
    call(
        "config-file-not-json",
        "the configuration file is not JSON",
        "not JSON",
        files={"config.json": b'{"password": "%s",}' % PRIVATE.encode()},
        as_executable=True,
    ),
    call("config-file-empty", "the configuration file is empty", "not JSON", files={"config.json": b""}),
    call(
        "config-file-list",
        "the configuration file holds a list",
        "object",
        files={"config.json": b'["%s"]' % PRIVATE.encode()},
    ),
    call(
        "config-file-text",
        "the configuration file holds a text",
        "object",
        files={"config.json": b'"%s"' % PRIVATE.encode()},
    ),
    call("config-file-null", "the configuration file holds null", "object", files={"config.json": b"null"}),
    call(
        "config-file-not-utf8",
        "the configuration file is not UTF-8",
        "UTF-8",
        files={"config.json": b'{"destination_path": "\xff"}'},
    ),
    accepted(
        "config-file-bom",
        "a byte order mark in the configuration file",
        INPUT,
        files={"config.json": b"\xef\xbb\xbf" + json.dumps({"destination_path": "lake"}).encode()},
    ),
    call(
        "environment-number",
        "a setting in the environment that is no number",
        "max_open_files",
        "--config",
        "ENV",
        env={"TARGET_PARQUET_DESTINATION_PATH": "lake", "TARGET_PARQUET_MAX_OPEN_FILES": PRIVATE},
    ),
    call(
        "environment-json",
        "a setting in the environment that is no JSON",
        "partition_by",
        "--config",
        "ENV",
        env={"TARGET_PARQUET_DESTINATION_PATH": "lake", "TARGET_PARQUET_PARTITION_BY": f"[{PRIVATE}"},
    ),
    accepted(
        "environment",
        "all settings in the environment, numbers and lists too",
        INPUT,
        arguments=("--config", "ENV"),
        env={
            "TARGET_PARQUET_DESTINATION_PATH": "lake",
            "TARGET_PARQUET_PARTITION_BY": "[]",
            "TARGET_PARQUET_MAX_FILE_SIZE_MB": "0.5",
            "TARGET_PARQUET_VALIDATE_RECORDS": "true",
        },
    ),
    call("option-unknown", "an option that there is not", "--confg", "--confg", "config.json", as_executable=True),
    call("argument-too-many", "an argument too many", "unexpected", "--config", "config.json", "more"),
    call(
        "input-file-missing",
        "`--input` of a file that is not there",
        "no.singer",
        "--config",
        "config.json",
        "--input",
        "no.singer",
    ),
]
