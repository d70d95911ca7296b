"""What there is to read: tables and views, with keys and comments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from melisma.errors import ConfigError
from melisma.sql.dialect import MYSQL
from melisma.sql.relation import Relation
from melisma_tap_mysql.server import Server
from melisma_tap_mysql.settings import wanted_schemas
from melisma_tap_mysql.typemap import Column, MyType, map_column

__all__ = ["find_relations"]

_SYSTEM = ("information_schema", "mysql", "performance_schema", "sys")
_LISTED = ", ".join(f"'{name}'" for name in _SYSTEM)
_COLUMNS = f"""
SELECT t.table_schema AS `schema`, t.table_name AS `name`, t.table_comment AS table_comment, t.table_type AS kind,
       c.column_name AS `column`, c.data_type AS type_name, c.column_type AS type_sql,
       c.numeric_precision AS digits, c.numeric_scale AS scale, c.column_comment AS comment,
       c.character_set_name AS charset
FROM information_schema.tables t
JOIN information_schema.columns c ON c.table_schema = t.table_schema AND c.table_name = t.table_name
WHERE t.table_type IN ('BASE TABLE', 'VIEW', 'SYSTEM VERSIONED') AND t.table_schema NOT IN ({_LISTED})
  AND FIND_IN_SET('select', c.privileges) {{chosen}}
ORDER BY t.table_schema, t.table_name, c.ordinal_position
"""  # noqa: S608  names of its own
_KEYS = f"""
SELECT t.table_schema AS `schema`, t.table_name AS `name`, t.column_name AS `column`
FROM information_schema.statistics t
WHERE t.index_name = 'PRIMARY' AND t.table_schema NOT IN ({_LISTED}) {{chosen}}
ORDER BY t.table_schema, t.table_name, t.seq_in_index
"""  # noqa: S608  names of its own
_CHECKS = """
SELECT t.constraint_schema AS `schema`, t.table_name AS `name`, t.check_clause AS rule
FROM information_schema.check_constraints t
WHERE t.check_clause LIKE 'json_valid(%' {chosen}
"""
_DATABASES = "SELECT schema_name AS `name` FROM information_schema.schemata ORDER BY 1"


def find_relations(server: Server, config: Mapping[str, Any]) -> list[Relation[Column]]:
    """All that the user may read, in the databases that are asked for.

    Raises:
        ConfigError: one of those databases is not there.
    """
    wanted = wanted_schemas(config)
    _check_databases(server, wanted)
    listed = ", ".join(_quoted(name) for name in wanted)
    chosen = f"AND t.table_schema IN ({listed})" if wanted else ""
    options = {name: bool(config.get(name)) for name in ("dates_as_string", "tinyint1_as_boolean")}
    json_columns = _json_columns(server)
    found: dict[tuple[str, str], Relation[Column]] = {}
    for row in server.rows(_COLUMNS.format(chosen=chosen)):
        where = (row["schema"], row["name"])
        comment = row["table_comment"] if row["kind"] != "VIEW" else None  # a view's is the word VIEW
        relation = found.setdefault(where, Relation(MYSQL, *where, comment or None, is_view=row["kind"] == "VIEW"))
        name = row["column"]
        kind = MyType(
            row["type_name"].lower(),
            row["type_sql"].lower() if not _has_labels(row["type_name"]) else row["type_sql"],
            row["digits"] or 0,
            row["scale"] or 0,
            row["charset"],
            is_json=(*where, name) in json_columns,
        )
        relation.columns[name] = map_column(MYSQL.quote(name), kind, **options)
        if row["comment"]:
            relation.comments[name] = row["comment"]
    for row in server.rows(_KEYS.format(chosen=chosen)):
        keyed = found.get((row["schema"], row["name"]))
        if keyed is not None:
            keyed.keys = (*keyed.keys, row["column"])
    for relation in found.values():
        if not set(relation.keys) <= relation.columns.keys():
            relation.keys = ()  # part of the key may not be read
    return list(found.values())


def _json_columns(server: Server) -> set[tuple[str, str, str]]:
    """MariaDB's JSON is a text that a constraint holds to JSON."""
    if not server.is_mariadb:
        return set()
    found = set()
    for row in server.rows(_CHECKS.format(chosen="")):
        column = re.fullmatch(r"json_valid\(`((?:[^`]|``)+)`\)", row["rule"])
        if column is not None:
            found.add((row["schema"], row["name"], column[1].replace("``", "`")))
    return found


def _check_databases(server: Server, wanted: list[str]) -> None:
    there = [row["name"] for row in server.rows(_DATABASES)]
    for name in wanted:
        if name not in there:
            listed = ", ".join(each for each in there if each not in _SYSTEM)
            raise ConfigError("filter_dbs", f'names "{name}", which is no database', f"The databases are: {listed}")


def _has_labels(name: str) -> bool:
    return name.lower() in {"enum", "set"}


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"
