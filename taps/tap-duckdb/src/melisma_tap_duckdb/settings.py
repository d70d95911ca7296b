"""The settings, their JSON Schema and what one query's settings mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melisma.errors import ConfigError

__all__ = ["CONFIG", "QuerySettings", "read_queries", "table_patterns"]


def _text(title: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "title": title, "description": description, **more}


_QUERY = {
    "type": "object",
    "required": ["name", "sql"],
    "additionalProperties": False,
    "properties": {
        "name": _text("Name", "The stream's name.", minLength=1),
        "sql": _text(
            "SQL",
            "One SELECT, in DuckDB's SQL (in SQLite's for a SQLite file); it may read files with read_parquet, "
            "read_csv and read_json.",
            minLength=1,
        ),
        "key_properties": {
            "type": "array",
            "items": {"type": "string"},
            "title": "Key properties",
            "description": "The columns that make up the primary key.",
            "default": [],
        },
        "replication_key": _text(
            "Replication key",
            "A column that grows with every change: each run reads from the highest value that the last run saw.",
            minLength=1,
        ),
    },
}

CONFIG: dict[str, Any] = {
    "type": "object",
    "properties": {
        "path": _text(
            "Path",
            "A DuckDB or SQLite file, opened for reading only. Without it, queries read files alone.",
            minLength=1,
        ),
        "queries": {
            "type": "array",
            "items": _QUERY,
            "title": "Queries",
            "description": "The queries to read, each as one stream: name, sql, key_properties, replication_key.",
            "default": [],
        },
        "tables": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "title": "Tables",
            "description": (
                "Which tables and views of the file are streams, as table or schema.table, with * and ? as wildcards. "
                "By default all where there are no queries, and none where there are."
            ),
        },
        "init_sql": {
            "type": "array",
            "items": {"type": "string"},
            "title": "Initial SQL",
            "description": (
                "Statements that DuckDB runs first: CREATE SECRET for remote files, ATTACH, LOAD, CREATE MACRO. Not "
                "for SQLite files."
            ),
            "default": [],
            "secret": True,
        },
        "duckdb_settings": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
            "title": "DuckDB settings",
            "description": "DuckDB's own settings, by name: memory_limit, threads, temp_directory, TimeZone, ...",
            "default": {},
        },
    },
}


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """One entry of `queries`.

    Attributes:
        setting: where it stands, for messages (`queries[0]`).
    """

    setting: str
    name: str
    sql: str
    key_properties: tuple[str, ...] = ()
    replication_key: str | None = None


def read_queries(config: Mapping[str, Any]) -> list[QuerySettings]:
    """The queries of a configuration.

    Raises:
        ConfigError: two have one name, or there is nothing to read at all.
    """
    found: list[QuerySettings] = []
    for index, entry in enumerate(config.get("queries") or []):
        setting = f"queries[{index}]"
        if any(each.name == entry["name"] for each in found):
            raise ConfigError(f"{setting}.name", "is the name of another query too", "Give each its own name")
        keys = tuple(entry.get("key_properties") or ())
        found.append(QuerySettings(setting, entry["name"], entry["sql"], keys, entry.get("replication_key")))
    if not found and not config.get("path"):
        raise ConfigError("queries", "is empty, and no path is set", "Set queries, or the path of a database file")
    return found


def table_patterns(config: Mapping[str, Any], queries: list[QuerySettings]) -> list[str]:
    """The patterns of the tables that are streams."""
    patterns = config.get("tables")
    if patterns is None:
        return [] if queries or not config.get("path") else ["*.*"]
    if patterns and not config.get("path"):
        raise ConfigError("tables", "needs a database file", "Set path")
    return [pattern if "." in pattern else f"main.{pattern}" for pattern in patterns]
