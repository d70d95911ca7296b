"""Lines that are JSON and yet not the Singer protocol."""

from __future__ import annotations

from malformed import AFTER, ALL, BEFORE, PRIVATE, STREAM, Case, accepted, line, record, refused, schema, state

GOOD = {"id": 9, "note": PRIVATE}
NUMBERS = '{"a": 1.10, "b": 1e3, "c": 1234567890123456789012345678901234567890, "😀": 0.1000000000000000055}'.encode()
PROPERTIES = {"id": {"type": "integer"}}

CASES = [
    Case(
        "record-before-schema",
        "a RECORD of a stream that has no SCHEMA yet, first of all",
        record(1) + schema() + AFTER,
        says="before the SCHEMA",
        landed=(),
        stdout=b"",
        names_line=False,
        directory=None,
        as_executable=True,
    ),
    refused(
        "record-of-unknown-stream",
        "a RECORD of another stream that has no SCHEMA",
        record(9, stream="t"),
        "before the SCHEMA",
    ),
    refused(
        "record-of-other-case",
        "a RECORD whose stream differs from the SCHEMA's in case",
        record(9, stream="S"),
        "before the SCHEMA",
    ),
    refused("empty-object", "`{}`", b"{}\n", 'has no "type"'),
    refused("no-type", "a message without `type`", line({"stream": STREAM, "record": GOOD}), 'has no "type"'),
    refused("type-null", "`type` is null", line({"type": None, "stream": STREAM, "record": GOOD}), '"type"'),
    refused(
        "type-number",
        "`type` is a number",
        line({"type": 1234567, "stream": STREAM, "record": GOOD}),
        '"type"',
        hidden=("1234567",),
    ),
    refused("type-object", "`type` is an object", line({"type": GOOD, "stream": STREAM, "record": GOOD}), '"type"'),
    accepted(
        "type-lower-case",
        "`record` in small letters, a type that is not known",
        BEFORE + line({"type": "record", "stream": STREAM, "record": GOOD}) + AFTER,
        "not known",
    ),
    accepted(
        "type-unknown",
        "a message type that is not known, twice",
        BEFORE + 2 * line({"type": "HEARTBEAT", "value": PRIVATE}) + AFTER,
        "not known",
        as_executable=True,
    ),
    accepted("type-empty", "`type` is empty", BEFORE + line({"type": "", "value": PRIVATE}) + AFTER, "not known"),
    accepted(
        "type-newline",
        "a `type` with a newline and a forged log line in it",
        BEFORE + line({"type": "A\nERROR | forged", "value": PRIVATE}) + AFTER,
        "not known",
    ),
    refused("record-no-stream", "a RECORD without `stream`", line({"type": "RECORD", "record": GOOD}), '"stream"'),
    refused(
        "record-stream-null",
        "a RECORD whose `stream` is null",
        line({"type": "RECORD", "stream": None, "record": GOOD}),
        '"stream"',
    ),
    refused(
        "record-stream-number",
        "a RECORD whose `stream` is a number",
        line({"type": "RECORD", "stream": 1234567, "record": GOOD}),
        '"stream"',
        hidden=("1234567",),
    ),
    refused(
        "record-stream-list",
        "a RECORD whose `stream` is a list",
        line({"type": "RECORD", "stream": [PRIVATE], "record": GOOD}),
        '"stream"',
    ),
    refused("record-no-record", "a RECORD without `record`", line({"type": "RECORD", "stream": STREAM}), '"record"'),
    refused(
        "record-null",
        "a RECORD whose `record` is null",
        line({"type": "RECORD", "stream": STREAM, "record": None}),
        '"record"',
    ),
    refused(
        "record-list",
        "a RECORD whose `record` is a list",
        line({"type": "RECORD", "stream": STREAM, "record": [GOOD]}),
        '"record"',
    ),
    refused(
        "record-string",
        "a RECORD whose `record` is a text",
        line({"type": "RECORD", "stream": STREAM, "record": PRIVATE}),
        '"record"',
    ),
    refused(
        "record-number",
        "a RECORD whose `record` is a number",
        line({"type": "RECORD", "stream": STREAM, "record": 1234567}),
        '"record"',
        hidden=("1234567",),
    ),
    refused(
        "record-true",
        "a RECORD whose `record` is true",
        line({"type": "RECORD", "stream": STREAM, "record": True}),
        '"record"',
    ),
    refused(
        "record-json-text",
        "a RECORD whose `record` is an object, written as a text",
        line({"type": "RECORD", "stream": STREAM, "record": '{"id": 9}'}),
        '"record"',
    ),
    refused(
        "record-empty",
        "a RECORD whose `record` is `{}`",
        line({"type": "RECORD", "stream": STREAM, "record": {}}),
        "part of the key",
        skip=ALL,
    ),
    accepted(
        "record-key-twice",
        "a RECORD that names a column twice: the last counts, as for other readers of JSON",
        BEFORE + record(9).replace(b'{"id"', b'{"id": 8, "id"') + AFTER,
        landed=(*ALL, 9),
    ),
    refused(
        "type-twice",
        "a RECORD that names `type` twice",
        record(9).replace(b'"stream"', b'"type": "STATE", "stream"'),
        "is not an object",
    ),
    refused(
        "stream-twice",
        "a RECORD that names `stream` twice",
        record(9).replace(b'"record"', b'"stream": "t", "record"'),
        "before the SCHEMA",
    ),
    refused(
        "type-twice-later",
        "a RECORD that names `type` a second time after `record`",
        record(9)[:-2] + b', "type": "STATE"}\n',
        "twice",
    ),
    accepted(
        "record-twice",
        "a RECORD that names `record` twice: the last counts",
        BEFORE + record(9).replace(b'"record"', b'"record": {"id": 8}, "record"') + AFTER,
        landed=(*ALL, 9),
    ),
    accepted(
        "record-extra-members",
        "a RECORD with members that the protocol does not have",
        BEFORE + line({"type": "RECORD", "stream": STREAM, "lsn": 1, "record": GOOD, "source": {"a": PRIVATE}}) + AFTER,
        landed=(*ALL, 9),
    ),
    accepted(
        "time-extracted-bad",
        "a `time_extracted` that is no time, with `add_record_metadata`",
        BEFORE
        + line({"type": "RECORD", "stream": STREAM, "record": GOOD, "time_extracted": PRIVATE, "version": PRIVATE})
        + AFTER,
        landed=(*ALL, 9),
        config={"add_record_metadata": True},
    ),
    refused("state-no-value", "a STATE without `value`", line({"type": "STATE"}), '"value"'),
    refused("state-null", "a STATE whose `value` is null", line({"type": "STATE", "value": None}), '"value"'),
    refused("state-list", "a STATE whose `value` is a list", line({"type": "STATE", "value": [PRIVATE]}), '"value"'),
    refused("state-string", "a STATE whose `value` is a text", line({"type": "STATE", "value": PRIVATE}), '"value"'),
    refused(
        "state-number",
        "a STATE whose `value` is a number",
        line({"type": "STATE", "value": 1234567}),
        '"value"',
        hidden=("1234567",),
    ),
    accepted(
        "state-value-twice",
        "a STATE that names `value` twice: the last counts",
        BEFORE + AFTER.replace(b'"value"', b'"value": {"at": 8}, "value"'),
    ),
    accepted(
        "state-empty",
        "a STATE whose `value` is `{}`",
        BEFORE + AFTER + line({"type": "STATE", "value": {}}),
        stdout=b"{}\n",
    ),
    accepted(
        "state-floats",
        "a STATE of floats, a 40-digit number and an emoji, printed as it came",
        BEFORE + AFTER + b'{"type": "STATE", "value": ' + NUMBERS + b"}\n",
        stdout=NUMBERS + b"\n",
    ),
    accepted("state-only", "a STATE and nothing else", state(9), landed=(), directory=None),
    accepted(
        "state-first",
        "a STATE before everything, which this lake has not seen",
        state(1) + BEFORE + AFTER,
        "has not seen",
    ),
    refused(
        "batch",
        "a BATCH message that names a file outside the folders that may be read",
        line(
            {
                "type": "BATCH",
                "stream": STREAM,
                "encoding": {"format": "jsonl", "compression": "gzip"},
                "manifest": [f"file:///{PRIVATE}"],
            }
        ),
        "batch_roots",
        as_executable=True,
    ),
    refused(
        "batch-unknown-stream",
        "a BATCH message of a stream without a SCHEMA",
        line(
            {
                "type": "BATCH",
                "stream": "t",
                "encoding": {"format": "jsonl"},
                "manifest": [f"https://example.com/{PRIVATE}"],
            }
        ),
        "before the SCHEMA",
    ),
    refused(
        "batch-url",
        "a BATCH message that names a URL",
        line(
            {
                "type": "BATCH",
                "stream": STREAM,
                "encoding": {"format": "parquet"},
                "manifest": [f"https://example.com/{PRIVATE}"],
            }
        ),
        "batch_roots",
    ),
    refused(
        "batch-encoding",
        "a BATCH message whose encoding is not known",
        line({"type": "BATCH", "stream": STREAM, "encoding": {"format": "avro"}, "manifest": []}),
        "jsonl, parquet, arrow",
    ),
    refused(
        "batch-manifest",
        "a BATCH message without a manifest",
        line({"type": "BATCH", "stream": STREAM, "encoding": {"format": "jsonl"}}),
        "manifest",
    ),
    accepted(
        "activate-version",
        "an ACTIVATE_VERSION message",
        BEFORE + line({"type": "ACTIVATE_VERSION", "stream": STREAM, "version": 1}) + AFTER,
    ),
    refused(
        "activate-version-unknown-stream",
        "an ACTIVATE_VERSION of a stream without a SCHEMA",
        line({"type": "ACTIVATE_VERSION", "stream": PRIVATE, "version": 1}),
        "before the SCHEMA",
    ),
    refused(
        "activate-version-bad",
        "an ACTIVATE_VERSION without a stream, whose version is a text",
        line({"type": "ACTIVATE_VERSION", "version": PRIVATE}),
        '"stream"',
    ),
    refused(
        "schema-no-stream",
        "a SCHEMA without `stream`",
        line({"type": "SCHEMA", "schema": {"properties": PROPERTIES}, "key_properties": []}),
        '"stream"',
    ),
    refused(
        "schema-stream-number",
        "a SCHEMA whose `stream` is a number",
        line({"type": "SCHEMA", "stream": 5, "schema": {"properties": PROPERTIES}, "key_properties": []}),
        '"stream"',
    ),
    refused(
        "schema-no-schema",
        "a SCHEMA without `schema`",
        line({"type": "SCHEMA", "stream": "t", "key_properties": []}),
        '"schema"',
    ),
    refused(
        "schema-null",
        "a SCHEMA whose `schema` is null",
        line({"type": "SCHEMA", "stream": "t", "schema": None, "key_properties": []}),
        '"schema"',
    ),
    refused(
        "schema-list",
        "a SCHEMA whose `schema` is a list",
        line({"type": "SCHEMA", "stream": "t", "schema": [PROPERTIES], "key_properties": []}),
        "object",
    ),
    refused(
        "schema-string",
        "a SCHEMA whose `schema` is a text",
        line({"type": "SCHEMA", "stream": "t", "schema": PRIVATE, "key_properties": []}),
        "object",
    ),
    accepted(
        "schema-no-keys",
        "a SCHEMA without `key_properties`",
        BEFORE.replace(b', "key_properties": ["id"]', b"") + AFTER,
    ),
    accepted("schema-keys-null", "a SCHEMA whose `key_properties` is null", BEFORE.replace(b'["id"]', b"null") + AFTER),
    refused(
        "schema-keys-string",
        "a SCHEMA whose `key_properties` is a text",
        schema(stream="t", key_properties="id"),
        "key_properties",
    ),
    refused(
        "schema-keys-numbers",
        "a SCHEMA whose `key_properties` are numbers",
        schema(stream="t", key_properties=[1]),
        "key_properties",
    ),
    refused(
        "schema-keys-object",
        "a SCHEMA whose `key_properties` is an object",
        schema(stream="t", key_properties={"id": 1}),
        "key_properties",
    ),
    refused(
        "schema-keys-unknown", "a SCHEMA whose key is no column", schema(stream="t", key_properties=["uid"]), "uid"
    ),
    refused(
        "schema-keys-other-case",
        "a SCHEMA whose key differs from its column in case",
        schema(stream="t", key_properties=["ID"]),
        "ID",
    ),
    refused(
        "schema-keys-twice",
        "a SCHEMA that names a key column twice",
        schema(stream="t", key_properties=["id", "id"]),
        "twice",
    ),
    accepted(
        "schema-keys-nested",
        "a SCHEMA whose key is an object",
        BEFORE
        + schema({"o": {"type": "object", "properties": {"a": {"type": "string"}}}}, stream="t", key_properties=["o"])
        + AFTER,
    ),
    accepted(
        "schema-change-new-column",
        "a second SCHEMA with a new column",
        BEFORE + schema({"more": {"type": ["null", "string"]}}) + record(9, more=PRIVATE) + AFTER,
        landed=(*ALL, 9),
    ),
    accepted(
        "schema-change-fewer-columns",
        "a second SCHEMA without a column",
        BEFORE
        + line({"type": "SCHEMA", "stream": STREAM, "schema": {"properties": PROPERTIES}, "key_properties": ["id"]})
        + line({"type": "RECORD", "stream": STREAM, "record": {"id": 9}})
        + AFTER,
        says="note",
        landed=(*ALL, 9),
    ),
    accepted(
        "schema-repeated",
        "the same SCHEMA before every record",
        schema() + record(1) + schema() + record(2) + schema() + state(2) + record(3) + AFTER,
    ),
    accepted("schema-without-records", "a SCHEMA without records", BEFORE + schema(stream="t") + AFTER),
    Case(
        "everything-wrong",
        "a RECORD, a STATE and a SCHEMA that are all wrong: the first is named",
        BEFORE + record(9, stream="t") + line({"type": "STATE", "value": 1}) + line({"type": "SCHEMA"}),
        says="before the SCHEMA",
    ),
    accepted(
        "state-after-fault-is-not-printed",
        "a bad record among 5 STATEs: the newest one before it counts",
        schema()
        + record(1)
        + state(1)
        + record(2)
        + state(2)
        + line({"type": "RECORD", "stream": STREAM, "record": {"id": PRIVATE}})
        + state(3)
        + record(4)
        + state(9),
        says="is text, not an integer",
        exit_code=3,
        landed=(1, 2),
        stdout=b'{"at": 2}\n',
        names_line=True,
        skip=(1, 2, 4),
    ),
]
