"""Commands that look for faults: verify, duplicates. Both end with 1 if they find some."""

from __future__ import annotations

import json

import click

from melisma.cli import MelismaCommand
from melisma.errors import UsageError, printable
from melisma.lake_cli.duplicate_keys import find_duplicates
from melisma.lake_cli.main import LOG
from melisma.lake_cli.output import Column, json_option, show_json, show_lines, show_table, size
from melisma.lake_cli.parquet_files import is_parquet
from melisma.lake_cli.place import Place, in_order, no_stream, place_options
from melisma.lake_cli.verification import verify

__all__ = ["duplicates_command", "verify_command"]


@click.command("verify", cls=MelismaCommand, logger=LOG)
@place_options
@click.option("--deep", is_flag=True, help="Read every page of every file, not only the footers.")
@json_option
@click.pass_context
def verify_command(ctx: click.Context, place: Place, *, deep: bool, as_json: bool) -> None:
    """Hold the files against the journal: there, whole, with the rows it says, and no others. Changes nothing."""
    report = verify(place, deep=deep)
    if as_json:
        show_json(report)
    elif report.findings:
        show_lines([f"{each.kind}: {each.path}: {each.text}" for each in report.findings])
    else:
        show_lines([f"sound: {report.files} files, {report.rows} rows, {size(report.bytes)}, as of entry {report.seq}"])
    if report.unread and not as_json:
        show_lines([f"{report.unread} files are not Parquet: their presence and size were checked, not their rows"])
    ctx.exit(1 if report.findings else 0)


@click.command("duplicates", cls=MelismaCommand, logger=LOG)
@place_options
@click.option("--stream", metavar="NAME", help="In this stream only.")
@click.option("--key", metavar="A,B", help="The key's columns; else those that the tap named (key_properties).")
@click.option("--examples", type=click.IntRange(min=0), default=5, show_default=True, help="Keys to show per stream.")
@json_option
@click.pass_context
def duplicates_command(
    ctx: click.Context, place: Place, stream: str | None, key: str | None, examples: int, *, as_json: bool
) -> None:
    """Keys that more than one row of a stream has. Shows values of the data."""
    journal = place.journal()
    streams = journal.history.streams
    if stream is not None and stream not in streams:
        raise no_stream(stream, streams)
    found = []
    for name in [stream] if stream is not None else sorted(streams):
        columns = key.split(",") if key else list((streams[name].schema or {}).get("key_properties", []))
        files = in_order(file for file in journal.live_files(name) if file.kind == "data")
        if not columns:
            if stream is not None:
                raise UsageError(f'the tap names no key for the stream "{printable(name)}". Give --key')
            LOG.warning('the tap names no key for the stream "%s": it is left out', printable(name))
            continue
        if not all(map(is_parquet, files)):
            LOG.warning('the stream "%s" has files that are not Parquet: it is left out', printable(name))
            continue
        found.append(find_duplicates(place, name, files, columns, examples=examples))
    if as_json:
        show_json(
            [
                {
                    "stream": each.stream,
                    "key": each.key,
                    "rows": each.rows,
                    "null_rows": each.null_rows,
                    "duplicate_keys": each.keys,
                    "extra_rows": each.extra_rows,
                    "examples": [{"key": values, "rows": count} for values, count in each.examples],
                }
                for each in found
            ]
        )
    else:
        columns_shown = [
            Column("stream"),
            Column("key"),
            Column("rows", right=True),
            Column("null keys", right=True),
            Column("duplicate keys", right=True),
            Column("extra rows", right=True),
        ]
        rows = [[e.stream, ", ".join(e.key), e.rows, e.null_rows, e.keys, e.extra_rows] for e in found]
        show_table(columns_shown, rows)
        examples_found = [[e.stream, _values(values), count] for e in found for values, count in e.examples]
        if examples_found:
            click.echo()
            show_table([Column("stream"), Column("example"), Column("rows", right=True)], examples_found)
    ctx.exit(1 if any(each.keys for each in found) else 0)


def _values(values: list[object]) -> str:
    return json.dumps(values if len(values) > 1 else values[0], ensure_ascii=False, default=str)
