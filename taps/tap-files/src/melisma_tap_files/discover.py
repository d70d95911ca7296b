"""What a stream's columns are: from a sample of its files, with the overrides of the settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from melisma.arrow.column_types import named_type
from melisma.arrow.json_schema import json_schema
from melisma.arrow.schema import stream_schema
from melisma.arrow.types import ColumnType, Kind, StreamSchema
from melisma.errors import BadSchema, ConfigError
from melisma.storage.filesystem import FileInfo, Store, open_store
from melisma.storage.url import split_glob
from melisma_tap_files.formats import file_format
from melisma_tap_files.hive import partition_fields
from melisma_tap_files.settings import StreamSettings, max_expansion, zone_of

__all__ = ["FILE_COLUMNS", "columns_of", "file_schema", "find_files"]

FILE_COLUMNS: dict[str, dict[str, Any]] = {
    "_sdc_source_file": {"type": ["string", "null"]},
    "_sdc_source_lineno": {"type": ["integer", "null"]},
    "_sdc_source_mtime": {"type": ["string", "null"], "format": "date-time"},
}
"""What `add_file_metadata` adds: path or URL, line (row in a Parquet file), and time of change."""

_JSON = "application/json"


def find_files(settings: StreamSettings, config: Mapping[str, Any]) -> tuple[Store, list[FileInfo]]:
    """The stream's files, sorted by path, and the store that they are in."""
    directory, pattern = split_glob(settings.path)
    store = open_store(
        directory,
        config.get("storage_options"),
        distribution="melisma-tap-files",
        setting=f"{settings.setting}.path",
    )
    return store, store.glob(pattern)


def file_schema(settings: StreamSettings, config: Mapping[str, Any], logger: logging.Logger) -> dict[str, Any]:
    """Look at the stream's files: the first by name and the newest, or with `infer_rows` 0 at all of them.

    Raises:
        ConfigError: no file matches, or an override does not fit.
        BadFile: a file cannot be read as what it is said to be.
    """
    store, files = find_files(settings, config)
    if not files:
        rule = f'no file matches "{store.display(split_glob(settings.path)[1])}"'
        raise ConfigError(f"{settings.setting}.path", rule, "Check the path, and that its store can be reached")
    rows = config.get("infer_rows", 5000)
    sample = files if not rows else list(dict.fromkeys([files[0], max(files, key=lambda f: (f.mtime_ns, f.path))]))
    sampler = file_format(settings.format).sampler(settings, zone_of(config))
    for info in sample:
        with store.open_input(info.path, settings.compression, max_expansion=max_expansion(config)) as file:
            sampler.add(file, store.display(info.path), rows)
    logger.info('stream "%s": %d files, columns inferred from %d of them', settings.name, len(files), len(sample))
    partitions = partition_fields(store.display(each.path) for each in files) if settings.hive_partitions else []
    schema = _overridden(settings, _with_partitions(sampler.schema(), partitions), {each.name for each in partitions})
    for key in settings.key_properties:
        if key not in schema["properties"]:
            fix = f"The columns are: {', '.join(schema['properties'])}"
            raise ConfigError(f"{settings.setting}.key_properties", f'names "{key}", which is no column', fix)
        schema["properties"][key]["type"] = [t for t in schema["properties"][key]["type"] if t != "null"]
    if config.get("add_file_metadata"):
        for name, node in FILE_COLUMNS.items():
            if name in schema["properties"]:
                rule = f'adds the column "{name}", which the files have already'
                raise ConfigError("add_file_metadata", rule, "Set it to false")
            schema["properties"][name] = dict(node)
    return schema


def columns_of(name: str, schema: dict[str, Any]) -> StreamSchema:
    """The columns that a catalog's schema stands for, without those of `add_file_metadata`."""
    properties = {key: node for key, node in schema.get("properties", {}).items() if key not in FILE_COLUMNS}
    if not properties:
        rule = "the catalog has no columns for it"
        raise BadSchema(rule, stream=name, fix="Discover again")
    own = {**schema, "properties": properties}
    return stream_schema(name, own, (), dict.fromkeys(_json_paths(own, ""), "json"))


def _with_partitions(found: pa.Schema, partitions: list[pa.Field]) -> pa.Schema:
    """The columns of files and folders; a folder's takes the place of a file's of the same name, as it does in Hive."""
    names = {each.name for each in partitions}
    return pa.schema([*(each for each in found if each.name not in names), *partitions])


def _overridden(settings: StreamSettings, found: pa.Schema, partitions: set[str]) -> dict[str, Any]:
    """The JSON Schema of what was found, with `column_types` in place of it."""
    overrides = settings.column_types
    setting = f"{settings.setting}.column_types"
    if file_format(settings.format).has_types and overrides.keys() - partitions:
        raise ConfigError(setting, f"is not for {settings.format}, whose files say their types", "Remove it")
    fields = []
    for field in found:
        if field.name in overrides:
            kind = named_type(f"{setting}.{field.name}", overrides[field.name])
            fields.append(pa.field(field.name, pa.json_() if kind.kind is Kind.JSON else kind.arrow))
        else:
            fields.append(field)
    schema = _described(settings.name, pa.schema(fields))
    names = set(found.names)
    nested = {path: kind for path, kind in overrides.items() if path not in names}
    if nested:
        # By way of the type tree, which knows paths; it refuses one that leads nowhere.
        tree = stream_schema(settings.name, schema, (), {**dict.fromkeys(_json_paths(schema, ""), "json"), **nested})
        schema = _described(settings.name, pa.schema([(f.name, _marked(f.type)) for f in tree.fields]))
    return schema


def _described(stream: str, found: pa.Schema) -> dict[str, Any]:
    try:
        schema = json_schema(found)
    except BadSchema as error:
        raise BadSchema(error.rule, stream=stream, column=error.column, fix=error.fix) from None
    for field in found:
        _mark(schema["properties"][field.name], field.type)
    return schema


def _mark(node: dict[str, Any], kind: pa.DataType) -> None:
    """Say in the schema which texts are JSON."""
    if isinstance(kind, pa.JsonType):
        node["contentMediaType"] = _JSON
    elif pa.types.is_struct(kind):
        for field in kind:
            _mark(node["properties"][field.name], field.type)
    elif pa.types.is_list(kind):
        _mark(node["items"], kind.value_type)


def _marked(column: ColumnType) -> pa.DataType:
    """The column's Arrow type with JSON text as Arrow's JSON type."""
    if column.kind is Kind.JSON:
        return pa.json_()
    if column.kind is Kind.STRUCT:
        return pa.struct([(each.name, _marked(each.type)) for each in column.fields])
    if column.kind is Kind.LIST and column.item is not None:
        return pa.list_(_marked(column.item))
    return column.arrow


def _json_paths(node: dict[str, Any], path: str) -> Iterator[str]:
    """Where the schema says that a text is JSON, as `column_types` names places."""
    if node.get("contentMediaType") == _JSON:
        yield path
        return
    for name, member in (node.get("properties") or {}).items():
        if isinstance(member, dict):
            yield from _json_paths(member, f"{path}.{name}" if path else name)
    if isinstance(node.get("items"), dict):
        yield from _json_paths(node["items"], f"{path}[]")
