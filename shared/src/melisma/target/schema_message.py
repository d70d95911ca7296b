"""What a SCHEMA message asks for: stream maps, and a sink for each stream that comes out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melisma.errors import BadMessage, BadSchema, ConfigError, MelismaError
from melisma.target.route import Route, is_removed
from melisma.wire.messages import Message, message_dict

if TYPE_CHECKING:
    from melisma.target.sink import ArrowSink
    from melisma.target.target import ArrowTarget

__all__ = ["route"]


def route(target: ArrowTarget, message: Message) -> Route:
    """Register a SCHEMA message with the mapper and get the sinks it needs.

    Raises:
        BadMessage: the message is not whole.
        BadSchema: the schema cannot be mapped to columns.
        ConfigError: a stream map does not fit the schema.
    """
    found = message_dict(message, "stream", "schema")
    stream, schema, keys = _checked(found, message.line)
    schema = _Schema(schema)
    maps = _maps(target, stream, schema, keys)
    bookmark = found.get("bookmark_properties")
    for each in maps:
        if isinstance(bookmark, list) and bookmark and isinstance(bookmark[0], str):
            target.replication_keys[each.stream_alias] = bookmark[0]
    try:
        sinks = [(each, None if is_removed(each) else _sink(target, each)) for each in maps]
    except BadSchema as error:
        if error.line is None:
            raise BadSchema(
                error.rule, stream=error.stream or stream, column=error.column, line=message.line, fix=error.fix
            ) from error
        raise
    found_route = Route(stream, sinks, message.data)
    if not found_route.straight:
        for sink in found_route.sinks:
            sink.source = {"stream": stream, "schema": schema, "key_properties": keys}
    return found_route


class _Schema(dict[str, Any]):
    """A JSON Schema as it was read, which is copied often: `deepcopy` looks for shared parts, and JSON has none."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Schema:
        return _Schema({name: _copied(value) for name, value in self.items()})


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _sink(target: ArrowTarget, stream_map: Any) -> ArrowSink:
    return target.add_or_replace_sink(  # a sink makes a copy of the schema for itself
        stream_map.stream_alias,
        stream_map.transformed_schema,
        list(stream_map.transformed_key_properties or []),
    )


def _checked(found: dict[str, Any], line: int) -> tuple[str, dict[str, Any], list[str]]:
    stream, schema, keys = found["stream"], found["schema"], found.get("key_properties")
    if not isinstance(stream, str) or not stream:
        raise BadMessage('a SCHEMA message whose "stream" is not a name', line=line, fix="Mend the tap")
    if not isinstance(schema, dict):
        raise BadSchema("is not a JSON object", stream=stream, line=line, fix="Mend the tap")
    if keys is not None and not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise BadMessage(
            'a SCHEMA message whose "key_properties" is not a list of names',
            stream=stream,
            line=line,
            fix="Mend the tap",
        )
    if not isinstance(schema.get("properties"), dict):
        raise BadSchema('has no "properties"', stream=stream, line=line, fix="Mend the tap")
    return stream, schema, keys or []


def _maps(target: ArrowTarget, stream: str, schema: dict[str, Any], keys: list[str]) -> list[Any]:
    try:
        target.mapper.register_raw_stream_schema(stream, schema, keys)
        return list(target.mapper.stream_maps[stream])
    except MelismaError:
        raise
    except Exception as error:
        if target.config.get("stream_maps") or target.config.get("flattening_enabled"):
            rule = f'cannot be applied to stream "{stream}" ({type(error).__name__})'
            fix = "Mend it; at log level DEBUG the traceback says where"  # its text quotes the setting
            raise ConfigError("stream_maps", rule, fix) from error
        raise BadSchema("cannot be read", stream=stream, fix="Mend the tap's schema") from error
