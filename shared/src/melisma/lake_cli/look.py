"""Commands that only look: log, show, files, state, schema."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from melisma.cli import MelismaCommand
from melisma.errors import UsageError, printable
from melisma.lake.records import Commit, Compact, FileEntry, Record, Rollback
from melisma.lake_cli.columns import changes, column_types
from melisma.lake_cli.main import LOG
from melisma.lake_cli.output import Column, json_option, show_json, show_lines, show_table, size, when
from melisma.lake_cli.place import Place, in_order, no_stream, partition_of, place_options

__all__ = ["files_command", "log_command", "schema_command", "show_command", "state_command"]

_SHORT = 60  # characters of a STATE in a table


@click.command("log", cls=MelismaCommand, logger=LOG)
@place_options
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many commits.")
@json_option
def log_command(place: Place, limit: int, *, as_json: bool) -> None:
    """What was committed, newest first: when, by which run, how much, at which STATE."""
    rows = []
    for record in place.entries(place.journal(), newest_first=True):
        if isinstance(record, Commit | Compact | Rollback):
            rows.append(_log_row(record))
            if len(rows) == limit:
                break
    if as_json:
        show_json(rows)
        return
    columns = [
        Column("seq", right=True),
        Column("when (UTC)", when),
        Column("kind"),
        Column("run"),
        Column("streams"),
        Column("rows", right=True),
        Column("files", right=True),
        Column("bytes", size, right=True),
        Column("state"),
    ]
    show_table(
        columns,
        [
            [
                row["seq"],
                row["at"],
                row["kind"],
                row["run"],
                " ".join(row["streams"]),
                row["rows"],
                f"{row['files']}" + (f" (-{row['removed_files']})" if row["removed_files"] else ""),
                row["bytes"],
                _short_state(row["state"]),
            ]
            for row in rows
        ],
    )


@click.command("show", cls=MelismaCommand, logger=LOG)
@click.argument("seq", type=click.IntRange(min=1))
@place_options
@json_option
def show_command(place: Place, seq: int, *, as_json: bool) -> None:
    """One entry of the journal, whole."""
    record = place.entry(place.journal(), seq)
    if record is None:
        raise UsageError(f"entry {seq} is not in the journal, or it is pruned. See melisma lake log")
    value = msgspec.to_builtins(record, enc_hook=str)
    if not as_json:
        show_lines(_fields(value))
        return
    if value.get("state") is not None:
        value["state"] = msgspec.Raw(value["state"].encode())  # as the tap wrote it: numbers are not rounded
    show_json(value)


@click.command("files", cls=MelismaCommand, logger=LOG)
@place_options
@click.option("--stream", metavar="NAME", help="Of this stream only.")
@click.option("--paths", is_flag=True, help="Print paths only, for readers that take a list of files.")
@click.option("--dead-letters", is_flag=True, help="The files of records that were refused, in place of the data.")
@json_option
def files_command(place: Place, stream: str | None, *, paths: bool, dead_letters: bool, as_json: bool) -> None:
    """The files that make up the lake as of the newest commit, in the order of their rows."""
    journal = place.journal()
    if stream is not None and stream not in journal.history.streams:
        raise no_stream(stream, journal.history.streams)
    kind = "dead_letter" if dead_letters else "data"
    files = in_order(file for file in journal.live_files(stream) if file.kind == kind)
    if paths:
        full = [os.fspath(str(place.store.root.join(file.path))) for file in files]
        show_json(full) if as_json else show_lines(full)
    elif as_json:
        show_json([_file_row(file) for file in files])
    else:
        columns = [
            Column("stream"),
            Column("partition"),
            Column("rows", right=True),
            Column("bytes", size, right=True),
            Column("commit", right=True),
            Column("path"),
        ]
        show_table(columns, [[f.stream, partition_of(f), f.rows, f.bytes, _commits(f), f.path] for f in files])


@click.command("state", cls=MelismaCommand, logger=LOG)
@place_options
@click.option("--json", "as_json", is_flag=True, hidden=True)  # it is JSON in any case
def state_command(place: Place, *, as_json: bool) -> None:  # noqa: ARG001
    """The STATE of the newest commit, byte for byte: what a tap may start from."""
    click.echo(place.journal().history.state or "{}")


@click.command("schema", cls=MelismaCommand, logger=LOG)
@place_options
@click.option("--stream", metavar="NAME", help="Of this stream only.")
@json_option
def schema_command(place: Place, stream: str | None, *, as_json: bool) -> None:
    """Each stream's columns as last committed, and at which commit they changed."""
    journal = place.journal()
    schemas = {name: known.schema for name, known in sorted(journal.history.streams.items())}
    if stream is not None:
        if stream not in schemas:
            raise no_stream(stream, schemas)
        schemas = {stream: schemas[stream]}
    history = _schema_history(place.entries(journal), set(schemas))
    if as_json:
        show_json({name: {"schema": schema, "history": history.get(name, [])} for name, schema in schemas.items()})
        return
    rows = [
        [name, column, kind, "key" if column in _keys(schema) else ""]
        for name, schema in schemas.items()
        for column, kind in column_types(schema).items()
    ]
    show_table([Column("stream"), Column("column"), Column("type"), Column("")], rows)
    steps = [[name, each["seq"], each["at"], each["change"]] for name in schemas for each in history.get(name, [])]
    if steps:
        click.echo()
        columns = [Column("stream"), Column("commit", right=True), Column("when (UTC)", when), Column("change")]
        show_table(columns, steps)


def _log_row(record: Commit | Compact | Rollback) -> dict[str, Any]:
    adds: list[FileEntry] = getattr(record, "adds", [])
    counts = getattr(record, "counts", {})
    streams = {file.stream for file in [*adds, *record.removes]} | set(counts)
    kind = type(record).__name__.lower()
    if isinstance(record, Rollback):
        kind = f"rollback to {record.to}"
    elif isinstance(record, Compact) and counts:
        kind = "redelivery"  # dead letters were fed back
    return {
        "seq": record.seq,
        "at": record.at,
        "kind": kind,
        "run": record.run,
        "streams": sorted(streams),
        "rows": sum(file.rows for file in adds if file.kind == "data"),
        "files": len(adds),
        "bytes": sum(file.bytes for file in adds),
        "dead_letters": sum(file.rows for file in adds if file.kind == "dead_letter"),
        "removed_rows": sum(file.rows for file in record.removes),
        "removed_files": len(record.removes),
        "state": getattr(record, "state", None),
    }


def _short_state(text: str | None) -> str:
    """The bookmarks' values where the STATE has the usual shape, else its beginning."""
    if text is None:
        return ""
    value = json.loads(text)
    marks = value.get("bookmarks") if isinstance(value, dict) else None
    if isinstance(marks, dict):
        parts = [f"{name}={_short_bookmark(mark)}" for name, mark in marks.items()]
        text = " ".join(parts)
    return printable(text, _SHORT)


def _short_bookmark(mark: Any) -> str:
    if isinstance(mark, dict) and "replication_key_value" in mark:
        mark = mark["replication_key_value"]
    return mark if isinstance(mark, str) else json.dumps(mark, separators=(",", ":"))


def _file_row(file: FileEntry) -> dict[str, Any]:
    return {
        "stream": file.stream,
        "partition": partition_of(file),
        "rows": file.rows,
        "bytes": file.bytes,
        "commit": file.seq,
        "first_commit": file.first or file.seq,
        "path": file.path,
    }


def _commits(file: FileEntry) -> str:
    return str(file.seq) if file.first in {0, file.seq} else f"{file.first}-{file.seq}"


def _fields(entry: dict[str, Any]) -> list[str]:
    """An entry as indented lines, small values on one line each."""
    lines = []
    for name, value in entry.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{name}:", *(f"  - {_compact(item)}" for item in value)]
        elif isinstance(value, dict) and value and name not in {"process", "state"}:
            lines += [f"{name}:", *(f"  {key}: {_compact(item)}" for key, item in value.items())]
        else:
            lines.append(f"{name}: {_compact(value)}")
    return lines


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _keys(schema: Any) -> list[str]:
    return list((schema or {}).get("key_properties", []))


def _schema_history(entries: Iterator[Record], wanted: set[str]) -> dict[str, list[dict[str, Any]]]:
    """The changes by stream, oldest first; entries that are pruned are not told of."""
    before: dict[str, Any] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    for record in entries:
        for name, schema in getattr(record, "schemas", {}).items():
            if name not in wanted:
                continue
            change = changes(before.get(name), schema)
            if isinstance(record, Rollback):
                change = f"as of commit {record.to}" if before.get(name) != schema else ""
            if change:
                step = {"seq": record.seq, "at": record.at, "change": change, "schema": schema}
                found.setdefault(name, []).append(step)
            before[name] = schema
    return found
