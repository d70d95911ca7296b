"""Commands that change a lake: compact, vacuum, rollback. Each shows with --dry-run what it would do."""

from __future__ import annotations

import re
import sys
from contextlib import closing

import click

from melisma.cli import MelismaCommand
from melisma.errors import UsageError
from melisma.lake.maintenance import plan_rollback
from melisma.lake.records import Commit, Rollback
from melisma.lake_cli.compaction import make_plan, merge
from melisma.lake_cli.main import LOG
from melisma.lake_cli.output import Column, json_option, show_json, show_lines, show_table, size
from melisma.lake_cli.place import Place, no_stream, place_options
from melisma.lake_cli.vacuum import find_garbage, remove_garbage

__all__ = ["compact_command", "rollback_command", "vacuum_command"]

_MEGABYTE = 1 << 20
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """An age as it is written: `90s`, `15m`, `1h`, `7d`."""
    match = re.fullmatch(r"(\d+)([smhd])", value)
    if match is None:
        raise click.BadParameter("write a number and s, m, h or d, such as 1h", ctx, param)
    return float(int(match[1]) * _UNITS[match[2]])


@click.command("compact", cls=MelismaCommand, logger=LOG)
@place_options
@click.option("--stream", metavar="NAME", help="Of this stream only.")
@click.option(
    "--max-file-size-mb",
    type=click.FloatRange(min=0, min_open=True),
    help="Merge into files of about this size; the target's setting, or 256, by default.",
)
@_dry_run_option
@json_option
def compact_command(
    place: Place, stream: str | None, max_file_size_mb: float | None, *, dry_run: bool, as_json: bool
) -> None:
    """Merge small files of a partition, in the order of their rows. A run may be under way."""
    journal = place.journal()
    if stream is not None and stream not in journal.history.streams:
        raise no_stream(stream, journal.history.streams)
    limit = int((max_file_size_mb or float(place.config.get("max_file_size_mb", 256))) * _MEGABYTE)
    plan = make_plan(place, journal, limit, stream)
    with closing(place.lake()) as lake:
        done = [
            {
                "stream": group.stream,
                "partition": group.partition,
                "files": len(group.inputs),
                "into": group.outputs,
                "rows": group.rows,
                "bytes": group.bytes,
                "entry": None if dry_run else merge(place, lake, group, limit),
            }
            for group in plan.groups
        ]
    if as_json:
        show_json({"dry_run": dry_run, "compacted": done, "waiting_files": plan.waiting, "other_files": plan.other})
        return
    columns = [
        Column("stream"),
        Column("partition"),
        Column("files", right=True),
        Column("into about", right=True),
        Column("rows", right=True),
        Column("bytes", size, right=True),
        Column("entry", lambda entry: "(dry run)" if entry is None else str(entry), right=True),
    ]
    if done:
        show_table(columns, [list(row.values()) for row in done])
    else:
        show_lines(["nothing to compact"])
    if plan.other:
        show_lines([f"{plan.other} files are not Parquet and stay as they are"])
    if plan.waiting:
        show_lines(
            [f"{plan.waiting} small files wait for the next run: until a tap goes on after them they may be replaced"]
        )


@click.command("vacuum", cls=MelismaCommand, logger=LOG)
@place_options
@click.option(
    "--older-than",
    metavar="AGE",
    callback=_seconds,
    default="1h",
    show_default=True,
    help="Leave what has changed since: 90s, 15m, 7d.",
)
@_dry_run_option
@json_option
def vacuum_command(place: Place, older_than: float, *, dry_run: bool, as_json: bool) -> None:
    """Remove this pipeline's files that nothing refers to, and what dead runs have staged."""
    garbage = find_garbage(place, older_than) if dry_run else remove_garbage(place, older_than)
    found = [("unnamed", info.path, info.size) for info in garbage.files]
    found += [("staging", info.path, info.size) for info in garbage.staging]
    found += [("upload", path, 0) for path, _ in garbage.uploads]
    if as_json:
        files = [{"kind": kind, "path": path, "bytes": count} for kind, path, count in found]
        show_json({"dry_run": dry_run, "removed": files, "young_files": garbage.young, "busy": garbage.busy})
        return
    verb = "would remove" if dry_run else "removed"
    show_lines([f"{verb} {path} ({kind}, {size(count)})" for kind, path, count in found])
    show_lines([f"{verb} {len(found)} files, {size(sum(count for _, _, count in found))}"])
    if garbage.young:
        show_lines([f"{garbage.young} younger files stay. Lower --older-than if no reader can be using them"])
    if garbage.busy:
        show_lines(["a run is or may be under way, so staging was left alone"])


@click.command("rollback", cls=MelismaCommand, logger=LOG)
@click.argument("seq", type=click.IntRange(min=1))
@place_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@_dry_run_option
@json_option
def rollback_command(place: Place, seq: int, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Bring the lake, its STATE and its schemas back to what they were after commit SEQ. Later rows are deleted."""
    plan = _plan(place, seq)
    rows, files = sum(file.rows for file in plan.removes), len(plan.removes)
    entry: int | None = None
    if not dry_run:
        if not yes:
            _confirm(f"Delete {files} files with {rows} rows that came after entry {seq}?")
        with closing(place.lake()) as lake:
            lake.recover()
            entry = lake.rollback(seq)
    if as_json:
        removed = [{"stream": file.stream, "path": file.path, "rows": file.rows} for file in plan.removes]
        show_json({"dry_run": dry_run, "to": seq, "entry": entry, "removed": removed, "state": plan.state})
        return
    columns = [Column("stream"), Column("commit", right=True), Column("rows", right=True), Column("path")]
    if plan.removes:
        ordered = sorted(plan.removes, key=lambda file: (file.stream, file.seq, file.path))
        show_table(columns, [[file.stream, file.seq, file.rows, file.path] for file in ordered])
    verb = "would delete" if dry_run else "deleted"
    show_lines(
        [
            f"{verb} {files} files with {rows} rows"
            + ("" if entry is None else f"; entry {entry} says that the lake is as it was after {seq}"),
            f"STATE is that of entry {seq}: {plan.state}",
            "A tap that starts from a later STATE is refused: give it the one that melisma lake state prints",
        ]
    )


def _plan(place: Place, seq: int) -> Rollback:
    journal = place.journal()
    record = place.entry(journal, seq)
    if record is None:
        raise UsageError(f"entry {seq} is not in the journal, or it is pruned. See melisma lake log")
    if not isinstance(record, Commit | Rollback):
        kind = type(record).__name__.lower()
        raise UsageError(f"entry {seq} is of kind {kind}, not a commit. Choose one from: melisma lake log")
    return plan_rollback(journal, seq)


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError("a rollback deletes rows: give --yes, or look first with --dry-run")
    if not click.confirm(question, err=True):
        raise UsageError("nothing was changed")
