"""What there is to read: tables, partitioned and foreign ones, views and materialised views, with keys and comments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melisma.errors import ConfigError
from melisma.sql.dialect import POSTGRES
from melisma.sql.relation import Relation
from melisma_tap_postgres.server import Server
from melisma_tap_postgres.typemap import Column, PgType, map_column

__all__ = ["find_relations", "is_valid_utf8"]

_COLUMNS = """
SELECT n.nspname::text AS schema, c.relname::text AS name, a.attname::text AS "column", a.atttypid::bigint AS type,
       a.atttypmod AS modifier, format_type(a.atttypid, a.atttypmod) AS sql, a.attnum AS number,
       col_description(c.oid, a.attnum) AS comment, obj_description(c.oid, 'pg_class') AS table_comment,
       array_position(i.indkey::int2[], a.attnum) AS place
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND has_schema_privilege(n.oid, 'USAGE') AND (has_table_privilege(c.oid, 'SELECT')
  OR has_any_column_privilege(c.oid, 'SELECT'))
  AND (a.attnum IS NULL OR has_column_privilege(c.oid, a.attnum, 'SELECT'))
ORDER BY n.nspname, c.relname, a.attnum
"""
_TYPES = """
SELECT t.oid::bigint AS oid, n.nspname::text AS schema, t.typname::text AS name, t.typtype::text AS kind,
       format_type(t.oid, NULL) AS sql,
       CASE WHEN t.typcategory = 'A' AND t.typlen = -1 THEN t.typelem::bigint ELSE 0 END AS item,
       t.typbasetype::bigint AS base, t.typtypmod AS modifier, format_type(t.typbasetype, t.typtypmod) AS base_sql
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
"""


def find_relations(server: Server, config: Mapping[str, Any]) -> list[Relation[Column]]:
    """All that the user may read, in the schemas that are asked for.

    Raises:
        ConfigError: one of those schemas is not there.
    """
    wanted = config.get("filter_schemas") or []
    _check_schemas(server, wanted)
    types = {row["oid"]: row for row in server.rows(_TYPES)}
    found: dict[tuple[str, str], Relation[Column]] = {}
    places: dict[tuple[str, str], dict[str, int]] = {}
    for row in server.rows(_COLUMNS):
        where = (row["schema"], row["name"])
        if wanted and row["schema"] not in wanted:
            continue
        relation = found.setdefault(where, Relation(POSTGRES, *where, row["table_comment"]))
        if row["column"] is None:
            continue
        kind = _type(types, row["type"], row["sql"], row["modifier"])
        quoted = POSTGRES.quote(row["column"])
        relation.columns[row["column"]] = map_column(quoted, kind, dates_as_string=bool(config.get("dates_as_string")))
        if row["comment"]:
            relation.comments[row["column"]] = row["comment"]
        if row["place"] is not None:
            places.setdefault(where, {})[row["column"]] = row["place"]
    for where, columns in places.items():
        found[where].keys = tuple(sorted(columns, key=columns.__getitem__))
    return list(found.values())


def is_valid_utf8(server: Server) -> bool:
    """Whether the server vouches for its texts; a database in SQL_ASCII hands on whatever it was given."""
    [row] = server.rows("SELECT current_setting('server_encoding') AS encoding")
    return bool(row["encoding"] != "SQL_ASCII")


def _check_schemas(server: Server, wanted: list[str]) -> None:
    there = [row["name"] for row in server.rows("SELECT nspname::text AS name FROM pg_namespace ORDER BY 1")]
    for name in wanted:
        if name not in there:
            listed = ", ".join(each for each in there if not each.startswith("pg_") and each != "information_schema")
            raise ConfigError("filter_schemas", f'names "{name}", which is no schema', f"The schemas are: {listed}")


def _type(types: Mapping[int, Mapping[str, Any]], oid: int, sql: str, modifier: int) -> PgType:
    row = types[oid]
    item = _type(types, row["item"], types[row["item"]]["sql"], modifier) if row["item"] else None
    base = _type(types, row["base"], row["base_sql"], row["modifier"]) if row["base"] else None
    return PgType(row["schema"], row["name"], row["kind"], sql, modifier, item, base)
