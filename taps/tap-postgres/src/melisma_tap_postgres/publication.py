"""What has to be so on the server before its log can be read: its settings, the tables, and the publication."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from melisma.errors import CatalogError, ConfigError
from melisma_tap_postgres.slot import SlotConnection, literal, name

if TYPE_CHECKING:
    from melisma_tap_postgres.read import TableStream
    from melisma_tap_postgres.server import Server

__all__ = ["AGAIN", "Table", "check_server", "find_tables", "publish"]

AGAIN = "To read the table whole again, take its bookmark out of the state"
"""The way out where changes are lost."""

_OLDEST = 130_000
_log = logging.getLogger(__name__)

_TABLES = """
WITH wanted AS (
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE (n.nspname, c.relname) IN ({names})
), stored AS (
    SELECT w.oid AS root, coalesce(t.relid::oid, w.oid) AS oid
    FROM wanted w LEFT JOIN LATERAL pg_partition_tree(w.oid) t ON t.isleaf
)
SELECT w.oid::bigint AS oid, w.nspname::text AS schema, w.relname::text AS name, w.relkind::text AS kind,
       w.relpersistence::text AS persistence, c.relreplident::text AS identity,
       (SELECT array_agg(a.attname::text) FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])
        WHERE i.indrelid = s.oid AND ((c.relreplident = 'd' AND i.indisprimary)
                                      OR (c.relreplident = 'i' AND i.indisreplident))) AS columns,
       (SELECT array_agg(a.attname::text) FROM pg_attribute a
        WHERE a.attrelid = w.oid AND a.attgenerated <> '') AS generated,
       (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped) AS names,
       (SELECT array_agg(a.atttypid::bigint ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped) AS types,
       w.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = w.oid) AS inherited
FROM wanted w JOIN stored s ON s.root = w.oid JOIN pg_class c ON c.oid = s.oid
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A stream's table.

    Attributes:
        oid: what the log calls it; with partitions, that of the table above them.
        partitioned: whether it is one.
        types: the oids of its columns' types.
    """

    stream: TableStream
    oid: int
    partitioned: bool
    types: Mapping[str, int]


def check_server(server: Server) -> None:
    """Refuse a server whose log cannot be read.

    Raises:
        ConfigError: it cannot.
    """
    [facts] = server.rows(
        "SELECT current_setting('wal_level') AS level, pg_is_in_recovery() AS standby, "
        "current_setting('server_version_num')::integer AS version"
    )
    if facts["version"] < _OLDEST:
        raise ConfigError("host", "is a server older than PostgreSQL 13, whose log this tap does not read")
    if facts["standby"]:
        raise ConfigError("host", "is a standby", "LOG_BASED reads from the primary")
    if facts["level"] != "logical":
        rule = f"is a server with wal_level {facts['level']}, whose log says nothing of rows"
        fix = "Set its wal_level to logical and restart it, or replicate by another method than LOG_BASED"
        raise ConfigError("host", rule, fix)


def find_tables(server: Server, streams: Sequence[TableStream]) -> list[Table]:
    """The streams' tables, each known to log what the stream needs.

    Raises:
        CatalogError: one does not.
    """
    names = ", ".join(f"({literal(s.relation.schema)}, {literal(s.relation.name)})" for s in streams)
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in server.rows(_TABLES.format(names=names)):
        rows.setdefault((row["schema"], row["name"]), []).append(row)
    tables = []
    for stream in streams:
        stored = rows.get((stream.relation.schema, stream.relation.name))
        if not stored:
            raise CatalogError(stream.name, "its table is not there any more", "Discover again")
        for row in stored:
            _check_table(stream, row)
        table = stored[0]
        types = dict(zip(table["names"] or [], table["types"] or [], strict=True))
        tables.append(Table(stream, table["oid"], table["kind"] == "p", types))
    return tables


def _check_table(stream: TableStream, row: Mapping[str, Any]) -> None:
    fix = "Set its replication method to FULL_TABLE or INCREMENTAL"
    if row["kind"] not in {"r", "p"}:
        raise CatalogError(stream.name, "is no table, so the log has nothing of it", fix)
    if row["persistence"] != "p":
        raise CatalogError(stream.name, "is an unlogged table, so the log has nothing of it", fix)
    if row["inherited"]:
        rule = (
            "other tables inherit from its table, so it has their rows, but the log does not have their changes as its"
        )
        raise CatalogError(stream.name, rule, fix)
    generated = [column for column in stream.selected_columns if column in (row["generated"] or [])]
    if generated:
        rule = f'its column "{generated[0]}" is generated, and the log does not have it'
        raise CatalogError(stream.name, rule, "Deselect the column")
    if row["identity"] == "f":
        return
    have = set(row["columns"] or [])
    if not have or not set(stream.primary_keys) <= have or not stream.primary_keys:
        rule = "its table's replica identity does not have the stream's key, so no delete could be told"
        table = stream.relation.sql
        fix = f"Give the table a primary key, or run: ALTER TABLE {table} REPLICA IDENTITY FULL"
        raise CatalogError(stream.name, rule, fix)


class _Publication:
    def __init__(self, server: Server, title: str) -> None:
        found = server.rows(f"SELECT * FROM pg_publication WHERE pubname = {literal(title)}")  # noqa: S608
        self.facts = found[0] if found else None
        members = server.rows(
            f"SELECT to_jsonb(t)::text AS member FROM pg_publication_tables t WHERE pubname = {literal(title)}"  # noqa: S608
        )
        self.members = {}
        for row in members:
            member = json.loads(row["member"])
            self.members[member["schemaname"], member["tablename"]] = member


def publish(server: Server, slot: SlotConnection, title: str, tables: Sequence[Table]) -> None:
    """See that the publication has the tables: make it, or add to it, where that is needed.

    Raises:
        ConfigError: it does not publish all kinds of changes, or the user may neither make it nor add to it.
        CatalogError: a table was not in it while its stream was followed: changes would be lost.
    """
    publication = _Publication(server, title)
    missing = [t for t in tables if (t.stream.relation.schema, t.stream.relation.name) not in publication.members]
    for table in missing:
        if table.stream.log_position is not None:
            rule = (
                f'its table is not in the publication "{title}", so its changes since the last run are not in the log'
            )
            raise CatalogError(table.stream.name, rule, AGAIN)
    facts = publication.facts
    if facts is not None:
        silent = [what for what in ("insert", "update", "delete", "truncate") if not facts[f"pub{what}"]]
        if silent:
            fix = f"Run: ALTER PUBLICATION {name(title)} SET (publish = 'insert, update, delete, truncate')"
            raise ConfigError("replication_publication", f"does not publish every {silent[0]}", fix)
        split = [table for table in tables if table.partitioned]
        if split and not facts["pubviaroot"]:
            rule = f'the publication "{title}" has the changes of its partitions, and not as the table\'s'
            fix = f"Run: ALTER PUBLICATION {name(title)} SET (publish_via_partition_root = true)"
            raise CatalogError(split[0].stream.name, rule, fix)
    if missing:
        listed = ", ".join(table.stream.relation.sql for table in missing)
        sql = f"CREATE PUBLICATION {name(title)} FOR TABLE {listed} WITH (publish_via_partition_root = true)"
        if facts is not None:
            sql = f"ALTER PUBLICATION {name(title)} ADD TABLE {listed}"
        rule = "is not there" if facts is None else f"lacks {listed}"
        fix = f"The user may not change that. Have the tables' owner run: {sql}"
        slot.run(sql, ConfigError("replication_publication", rule, fix))
        _log.info("PostgreSQL: %s", sql)
        server.begin()  # to see it
        publication = _Publication(server, title)
    for table in tables:
        _check_member(table.stream, title, publication)


def _check_member(stream: TableStream, title: str, publication: _Publication) -> None:
    member = publication.members[stream.relation.schema, stream.relation.name]
    columns = member.get("attnames")
    if columns is not None:
        lacking = [column for column in stream.selected_columns if column not in columns]
        if lacking:
            rule = f'the publication "{title}" does not have its column "{lacking[0]}"'
            raise CatalogError(stream.name, rule, "Deselect the column, or add it to the publication")
    if member.get("rowfilter"):
        stream.logger.warning(
            'stream "%s": the publication "%s" has a row filter for it: the log has only changes that pass it, and '
            "the first read has all rows",
            stream.name,
            title,
        )
