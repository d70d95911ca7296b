"""Whether a lake is what its journal says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from melisma.errors import BadFile
from melisma.lake.records import FileEntry
from melisma.lake_cli.parquet_files import count_rows, footer, is_parquet
from melisma.lake_cli.place import Place, in_order

__all__ = ["Finding", "Report", "verify"]

Kind = Literal["missing", "size", "rows", "unreadable", "unnamed", "left over"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Kind
    path: str
    text: str


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found.

    Attributes:
        unread: files that are not Parquet, of which the rows were not looked at.
    """

    seq: int
    files: int = 0
    rows: int = 0
    bytes: int = 0
    unread: int = 0
    findings: list[Finding] = field(default_factory=list)


def verify(place: Place, *, deep: bool = False) -> Report:
    """Hold the lake against its journal. A writer may be at work meanwhile.

    Args:
        place: the lake.
        deep: read every page, not only footers.
    """
    journal, unnamed = place.unnamed()
    report = Report(journal.history.seq)
    for file in in_order(journal.live_files()):
        report.files += 1
        report.rows += file.rows if file.kind == "data" else 0
        report.bytes += file.bytes
        report.unread += file.kind == "data" and not is_parquet(file)
        report.findings += _check(place, file, deep=deep)
    if any(finding.kind == "missing" for finding in report.findings):
        # A commit or a compaction may have replaced them since the journal was read.
        live = {file.path for file in place.journal().live_files()}
        report.findings = [each for each in report.findings if each.kind != "missing" or each.path in live]
    removed = {path for paths in journal.history.undeleted.values() for path in paths}
    for info in unnamed:
        if info.path in removed:
            text = "an entry has removed it, and it is still there; the next run deletes it"
            report.findings.append(Finding("left over", info.path, text))
        else:
            text = f"no entry names it ({info.size} bytes); melisma lake vacuum removes it"
            report.findings.append(Finding("unnamed", info.path, text))
    return report


def _check(place: Place, file: FileEntry, *, deep: bool) -> Iterator[Finding]:
    size = place.store.size(file.path)
    if size is None:
        yield Finding("missing", file.path, f"entry {file.seq} names it, with {file.rows} rows, and it is gone")
        return
    if size != file.bytes:
        yield Finding("size", file.path, f"it has {size} bytes; entry {file.seq} says {file.bytes}")
    if not is_parquet(file):
        return
    try:
        with footer(place.store, file.path) as reader:
            rows = reader.metadata.num_rows
            if rows == file.rows and deep:
                rows = count_rows(reader, file.path)
    except BadFile as error:
        yield Finding("unreadable", file.path, error.rule)
    else:
        if rows != file.rows:
            yield Finding("rows", file.path, f"it has {rows} rows; entry {file.seq} says {file.rows}")
