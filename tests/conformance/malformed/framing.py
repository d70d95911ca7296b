"""How bytes become lines, and lines JSON."""

from __future__ import annotations

from malformed import AFTER, ALL, BEFORE, LAST, PRIVATE, Case, accepted, record, refused, schema, state

BOM = b"\xef\xbb\xbf"
NOT_JSON = "is not JSON"
NINE = record(9)[:-1]
"""A good RECORD line without its newline, to be spoilt."""

CASES = [
    accepted("empty-input", "nothing at all", b"", landed=(), stdout=b"", directory=None),
    accepted("blank-lines-only", "nothing but blank lines", b"\n\r\n   \n\t\n", landed=(), stdout=b"", directory=None),
    accepted("bom-at-start", "a byte order mark before the first line", BOM + BEFORE + AFTER),
    accepted("crlf", "lines that end in CR LF", (BEFORE + AFTER).replace(b"\n", b"\r\n")),
    accepted(
        "blank-lines-between",
        "blank lines and spaces between the messages",
        (BEFORE + AFTER).replace(b"\n", b"\n  \n\n"),
    ),
    accepted("no-last-newline", "no newline after the last message, a STATE", (BEFORE + AFTER)[:-1]),
    accepted(
        "no-last-newline-record",
        "no newline after the last message, a RECORD",
        BEFORE + record(4) + state(9) + NINE,
        landed=(*ALL, 9),
    ),
    accepted(
        "spaces-around",
        "spaces around every message and inside it",
        BEFORE + b"  \t" + NINE.replace(b":", b" : ") + b"  \n" + AFTER,
        landed=(*ALL, 9),
    ),
    accepted(
        "escaped-letters",
        r"keys and names written with `\u` escapes",
        BEFORE + NINE.replace(b'"type"', rb'"\u0074ype"').replace(b'"id"', rb'"\u0069d"') + b"\n" + AFTER,
        landed=(*ALL, 9),
    ),
    accepted(
        "keys-in-another-order",
        '`"record"` first, `"type"` last',
        BEFORE + b'{"record": {"note": "%s", "id": 9}, "stream": "s", "type": "RECORD"}\n' % PRIVATE.encode() + AFTER,
        landed=(*ALL, 9),
    ),
    accepted(
        "long-line", "a line of 10 MB", BEFORE + record(9, note=PRIVATE + "x" * 10_000_000) + AFTER, landed=(*ALL, 9)
    ),
    Case(
        "cut-last-line",
        "the last line, a RECORD, breaks off",
        BEFORE + NINE[:-9],
        says="breaks off",
        as_executable=True,
    ),
    Case("cut-last-state", "the last line, a STATE, breaks off", BEFORE + state(9)[:-3], says="breaks off"),
    Case(
        "cut-in-a-string",
        "the last line breaks off inside a text",
        BEFORE + NINE[: NINE.index(b"VALUE")],
        says="breaks off",
    ),
    Case(
        "cut-in-a-character",
        "the last line breaks off inside a UTF-8 character",
        BEFORE + NINE[:-3] + b"\xf0\x9f\x98",
        says="breaks off",
    ),
    Case(
        "cut-after-bad-line",
        "a bad line, and a last line that breaks off",
        BEFORE + b"nonsense\n" + NINE[:-9],
        says=NOT_JSON,
    ),
    refused("bom-in-the-middle", "a byte order mark in the middle of the input", BOM + NINE + b"\n", NOT_JSON),
    refused("nul-line", "a line of NUL bytes", b"\0\0\0\0\n", NOT_JSON),
    refused("nul-before-message", "a NUL byte before a message", b"\0" + NINE + b"\n", NOT_JSON),
    refused("nul-in-a-string", "a NUL byte, not escaped, in a text", NINE.replace(b"VALUE", b"\0") + b"\n", NOT_JSON),
    refused(
        "newline-in-a-string",
        "a newline, not escaped, in a text",
        NINE.replace(b"-VALUE", b"-VALUE\n") + b"\n",
        NOT_JSON,
    ),
    refused("tab-in-a-string", "a tab, not escaped, in a text", NINE.replace(b"VALUE", b"\t") + b"\n", NOT_JSON),
    refused(
        "invalid-utf8", "bytes that are not UTF-8 in a text", NINE.replace(b"VALUE", b"\xff\xfe") + b"\n", "not UTF-8"
    ),
    refused("latin1", "text in Latin-1", NINE.replace(b"VALUE", "é".encode("latin-1")) + b"\n", "not UTF-8"),
    refused("overlong-utf8", "an overlong UTF-8 form", NINE.replace(b"VALUE", b"\xc0\xaf") + b"\n", "not UTF-8"),
    refused(
        "utf8-surrogate", "half a surrogate pair in UTF-8", NINE.replace(b"VALUE", b"\xed\xa0\x80") + b"\n", "not UTF-8"
    ),
    refused(
        "invalid-utf8-state",
        "bytes that are not UTF-8 in a STATE",
        b'{"type": "STATE", "value": {"at": "%s\xff"}}\n' % PRIVATE.encode(),
        "not UTF-8",
    ),
    refused(
        "invalid-utf8-schema",
        "bytes that are not UTF-8 in a SCHEMA",
        schema(stream="t").replace(b"note", b"n\xff"),
        "not UTF-8",
    ),
    refused("utf16", "a line in UTF-16", NINE.decode().encode("utf-16-le") + b"\n", "is not"),
    refused("two-on-one-line", "two messages on one line", NINE + NINE + b"\n", NOT_JSON, as_executable=True),
    refused("two-with-a-comma", "two messages on one line, with a comma", NINE + b"," + NINE + b"\n", NOT_JSON),
    refused("split-over-lines", "a message over several lines", NINE.replace(b", ", b",\n") + b"\n", NOT_JSON),
    refused("wrapped-in-array", "messages in a JSON array", b"[" + NINE + b"]\n", "is not a JSON object"),
    refused(
        "nonsense",
        "a line of text (a tap's log line on stdout)",
        b"INFO reading %s\n" % PRIVATE.encode(),
        NOT_JSON,
        as_executable=True,
    ),
    refused("csv", "a line of CSV", b"9,%s,1.5\n" % PRIVATE.encode(), NOT_JSON),
    refused("number", "a line that is a number", b"1234567890123\n", "is not a JSON object", hidden=("1234567890123",)),
    refused("string", "a line that is a JSON string", b'"%s"\n' % PRIVATE.encode(), "is not a JSON object"),
    refused("null", "a line that is `null`", b"null\n", "is not a JSON object"),
    refused("single-quotes", "single quotes (Python's repr)", NINE.replace(b'"', b"'") + b"\n", NOT_JSON),
    refused("python-none", "`None` for null", NINE.replace(b'"SECRET-VALUE-123"', b"None") + b"\n", NOT_JSON),
    refused("trailing-comma", "a trailing comma", NINE[:-2] + b",}}\n", NOT_JSON),
    refused("comment", "a comment after the message", NINE + b" // " + PRIVATE.encode() + b"\n", NOT_JSON),
    refused(
        "comment-inside",
        "a comment inside the message",
        NINE.replace(b'{"id"', b'{/* %s */"id"' % PRIVATE.encode()) + b"\n",
        NOT_JSON,
    ),
    refused("unquoted-key", "keys without quotes", NINE.replace(b'"id"', b"id") + b"\n", NOT_JSON),
    refused(
        "bad-escape", r"an escape that JSON does not have (`\x41`)", NINE.replace(b"VALUE", rb"\x41") + b"\n", NOT_JSON
    ),
    refused("missing-brace", "a closing brace too few", NINE[:-1] + b"\n", NOT_JSON),
    refused("extra-brace", "a closing brace too many", NINE + b"}\n", NOT_JSON),
    refused("nan", "`NaN` for a number", NINE[:-2] + b', "x": NaN}}\n', NOT_JSON),
    refused("infinity", "`-Infinity` for a number", NINE[:-2] + b', "x": -Infinity}}\n', NOT_JSON),
    refused(
        "leading-zero",
        "a number with a leading zero",
        NINE.replace(b": 9", b": 0123456789") + b"\n",
        NOT_JSON,
        hidden=("123456789",),
    ),
    refused(
        "plus-sign",
        "a number with a plus sign",
        NINE.replace(b": 9", b": +123456789") + b"\n",
        NOT_JSON,
        hidden=("123456789",),
    ),
    refused(
        "hexadecimal",
        "a hexadecimal number",
        NINE.replace(b": 9", b": 0x123456789") + b"\n",
        NOT_JSON,
        hidden=("123456789",),
    ),
    refused(
        "bare-point",
        "a number that ends in its point",
        NINE.replace(b": 9", b": 123456789.") + b"\n",
        NOT_JSON,
        hidden=("123456789",),
    ),
    refused(
        "deep-nesting",
        "arrays nested 10,000 deep in a field without a name in the schema",
        NINE[:-2] + b', "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}\n",
        "nested",
    ),
    refused("deep-nesting-line", "a line of 10,000 objects that are not closed", b'{"a":' * 10_000 + b"\n", "nested"),
    refused(
        "deep-nesting-state",
        "a STATE nested 10,000 deep",
        b'{"type": "STATE", "value": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001 + b"\n",
        "nested",
    ),
    refused(
        "deep-nesting-schema",
        "a SCHEMA nested 10,000 deep",
        b'{"type": "SCHEMA", "stream": "t", "key_properties": [], "schema": {"properties": {"a": '
        + b'{"items":' * 10_000
        + b"{}"
        + b"}" * 10_003
        + b"\n",
        "nested",
    ),
    Case(
        "late-fault",
        "a bad line after 20,000 good ones",
        schema() + b"".join(map(record, range(1, 20_001))) + state(20_000) + record(20_001) + b"{\n" + AFTER,
        says=NOT_JSON,
        landed=tuple(range(1, 20_001)),
        stdout=b'{"at": 20000}\n',
        names_line=False,
    ),
    accepted(
        "nan-elsewhere",
        "the words `NaN` and `Infinity` in a text",
        BEFORE + record(9, note="NaN -Infinity") + AFTER,
        landed=(*ALL, 9),
    ),
    accepted(
        "dying-after-state",
        "a last line that breaks off after the last STATE, of which nothing is lost",
        BEFORE + AFTER + b'{"type": "REC',
        says="breaks off",
        exit_code=3,
        stdout=LAST,
        names_line=False,
    ),
]
