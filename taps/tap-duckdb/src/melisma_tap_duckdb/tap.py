"""The tap: which streams there are, and their columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk import Tap

from melisma.errors import ConfigError
from melisma.tap.tap import ArrowTap
from melisma_tap_duckdb.settings import CONFIG, QuerySettings, read_queries, table_patterns

if TYPE_CHECKING:
    from melisma_tap_duckdb.engine import Engine, Source
    from melisma_tap_duckdb.read import QueryStream

__all__ = ["TapDuckDB"]


class TapDuckDB(ArrowTap):
    """Singer tap for DuckDB and SQLite files, and for SQL over Parquet, CSV and JSON files."""

    name = "tap-duckdb"
    package_name = "melisma-tap-duckdb"
    config_jsonschema: ClassVar[dict[str, Any]] = CONFIG
    # A replication key says where to start; it need not be a date.
    capabilities: ClassVar = [each for each in Tap.capabilities if each.name != "START_DATE"]
    dynamic_catalog = True

    def discover_streams(self) -> Sequence[QueryStream]:
        """The configured tables and queries; those that a given catalog has are not looked at again."""
        from melisma.tap.sql import refuse_missing
        from melisma_tap_duckdb.read import QueryStream

        queries = read_queries(self.config)
        streams: dict[str, QueryStream] = {}
        catalog = self.input_catalog
        for source, keys, replication_key in self._sources(queries):
            if source.stream in streams:
                rule = f'the stream "{source.stream}" would be there twice'
                raise ConfigError(source.setting or "tables", rule, "Give the query another name")
            entry = catalog.get_stream(source.stream) if catalog is not None else None
            if catalog is None:
                schema = self._schema(source, keys, replication_key)
            else:
                schema = entry.schema.to_dict() if entry else {"type": "object", "properties": {}}
            stream = QueryStream(self, self._engine, source, schema)
            stream.primary_keys = keys
            stream.replication_key = replication_key
            streams[source.stream] = stream
        if catalog is not None:
            refuse_missing(catalog, streams)
        return list(streams.values())

    def close(self) -> None:
        """Let go of the file, if it was opened; who uses the tap in a process of its own need not."""
        if "_engine" in self.__dict__:
            self._engine.close()

    @cached_property
    def _engine(self) -> Engine:
        from melisma_tap_duckdb.engine import open_engine

        return open_engine(self.config)

    def _sources(self, queries: list[QuerySettings]) -> Iterator[tuple[Source, tuple[str, ...], str | None]]:
        from melisma_tap_duckdb.engine import Source

        patterns = table_patterns(self.config, queries)
        tables = self._engine.tables() if patterns else []
        for pattern in patterns:
            if not any(fnmatchcase(f"{each.schema}.{each.name}", pattern) for each in tables):
                self.logger.warning('setting "tables": no table or view matches "%s"', pattern)
        for table in tables:
            if any(fnmatchcase(f"{table.schema}.{table.name}", pattern) for pattern in patterns):
                name = self._engine.dialect.path([table.schema, table.name])
                yield Source(table.stream, name, table=table), table.keys, None
        for query in queries:
            sql = self._engine.query(query.sql, f"{query.setting}.sql")
            yield Source(query.name, sql, f"{query.setting}.sql"), query.key_properties, query.replication_key

    def _schema(self, source: Source, keys: tuple[str, ...], replication_key: str | None) -> dict[str, Any]:
        columns = self._engine.columns(source)
        setting = (source.setting or "tables").removesuffix(".sql")
        for what, names in (
            ("key_properties", keys),
            ("replication_key", (replication_key,) if replication_key else ()),
        ):
            for name in names:
                if name not in columns:
                    fix = f"The columns are: {', '.join(columns)}"
                    raise ConfigError(f"{setting}.{what}", f'names "{name}", which is no column', fix)
        for name in keys:
            columns[name]["type"] = [kind for kind in columns[name]["type"] if kind != "null"]
        schema: dict[str, Any] = {"type": "object", "properties": columns}
        if source.table is not None and source.table.comment:
            schema["description"] = source.table.comment
        return schema


if __name__ == "__main__":
    TapDuckDB.cli()
