"""`melisma lake replay-dead-letters`: records that were kept aside go through their target again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import click

from melisma.cli import MelismaCommand
from melisma.errors import UsageError
from melisma.lake_cli.main import LOG
from melisma.lake_cli.output import Column, json_option, show_json, show_lines, show_table
from melisma.lake_cli.place import Place, place_options

__all__ = ["replay_dead_letters_command"]


@click.command("replay-dead-letters", cls=MelismaCommand, logger=LOG)
@place_options
@click.option("--target", metavar="NAME", help="The executable that loads this lake; its settings are in --config.")
@click.option("--dry-run", is_flag=True, help="Show how many there are, and change nothing.")
@json_option
def replay_dead_letters_command(place: Place, target: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Feed dead letters back through the target, after a fix. No run may be under way."""
    waiting: dict[str, int] = defaultdict(int)
    for file in place.journal().live_files():
        if file.kind == "dead_letter":
            waiting[file.stream] += file.rows
    if not dry_run:
        _replay(target, place.pipeline)
    if as_json:
        show_json({"dry_run": dry_run, "waiting" if dry_run else "replayed": dict(sorted(waiting.items()))})
    elif waiting:
        name = "waiting" if dry_run else "fed back"
        show_table([Column("stream"), Column(name, right=True)], sorted(waiting.items()))
    else:
        show_lines(["no dead letters"])


def _replay(target: str | None, pipeline: str) -> None:
    """Let the target do it: only it knows its settings, its format and its stream maps.

    Its log goes to stderr; its exit code is ours where it fails.
    """
    given = click.get_current_context().params
    if target is None or given.get("config") is None or given.get("path"):
        raise UsageError("a replay needs --target and --config, which says where the lake is")
    beside = Path(sys.executable).with_name(target)
    executable = str(beside) if beside.exists() else shutil.which(target)
    if executable is None:
        raise UsageError(f"there is no executable {target}. Install the target, or give its name as --target")
    with tempfile.TemporaryDirectory(prefix="melisma-") as folder:
        # The configuration may leave the pipeline to what runs the target (Meltano).
        also = Path(folder) / "pipeline.json"
        also.write_text(json.dumps({"pipeline": pipeline}), encoding="utf-8")
        command = [executable, "--config", str(given["config"]), "--config", str(also), "--replay-dead-letters"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(done.returncode)
