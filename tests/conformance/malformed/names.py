"""Names of streams and columns that a file system, a reader or a log may trip over."""

from __future__ import annotations

from malformed import AFTER, ALL, Case, accepted, record, refused, schema, state


def stream(id_: str, shows: str, name: str, directory: str, says: str = "") -> Case:
    """A stream of that name."""
    data = (
        schema(stream=name)
        + record(1, name)
        + record(2, name)
        + state(2)
        + record(3, name)
        + record(4, name)
        + state(9)
    )
    return accepted(id_, shows, data, says, directory=directory)


def column(id_: str, shows: str, name: str) -> Case:
    """A column of that name."""
    data = (
        schema({name: {"type": "string"}})
        + record(1)
        + record(2)
        + state(2)
        + record(3)
        + record(4, **{name: "x"})
        + state(9)
    )
    return accepted(id_, shows, data)


_BROKEN = "a\nERROR | forged"

CASES = [
    stream("stream-traversal", "`../../etc/passwd`", "../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
    stream("stream-dots", "`..`", "..", "%2E."),
    stream("stream-dot", "`.`", ".", "%2E"),
    stream("stream-slash", "`/`", "/", "%2F"),
    stream("stream-absolute", "`/etc/passwd`", "/etc/passwd", "%2Fetc%2Fpasswd"),
    stream("stream-backslash", r"`..\..\x`", "..\\..\\x", "%2E.%5C..%5Cx"),
    stream("stream-nul", "a NUL in a stream's name", "a\0b", "a%00b"),
    stream("stream-newline", "a newline in a stream's name", "a\nb", "a%0Ab"),
    stream(
        "stream-5000",
        "a stream's name of 5,000 characters",
        "x" * 5000,
        "x" * 167 + "~c59d3c0480cc2d71d8f646e735e92da6",
    ),
    stream("stream-emoji", "an emoji for a stream's name", "😀", "%F0%9F%98%80"),
    stream("stream-windows", "`CON`, a device of Windows", "CON", "CON"),
    stream("stream-drive", "`C:`", "C:", "C%3A"),
    stream("stream-leading-dot", "`.hidden`", ".hidden", "%2Ehidden"),
    stream("stream-leading-underscore", "`_melisma`, the name of our own folder", "_melisma", "%5Fmelisma"),
    stream("stream-glob", "`*?[a]`", "*?[a]", "%2A%3F%5Ba%5D"),
    stream("stream-space", "a space", " ", "%20"),
    stream("stream-percent", "`%2F`, encoded already", "%2F", "%252F"),
    stream("stream-equals", "`a=1`, like a partition", "a=1", "a%3D1"),
    stream("stream-quote", "`a'b\"c`", "a'b\"c", "a%27b%22c"),
    refused("stream-surrogate", "half a surrogate pair in a stream's name", schema(stream="a\ud800"), "surrogate pair"),
    stream("stream-trailing-dot", "`a.`, which Windows cuts", "a.", "a."),
    refused("stream-empty", "an empty stream's name", schema(stream=""), '"stream"'),
    accepted(
        "stream-case",
        "two streams that differ in case only",
        schema(stream="A")
        + schema(stream="a")
        + record(1, "A")
        + record(2, "a")
        + state(2)
        + record(3, "A")
        + record(4, "a")
        + state(9),
        directory="A a",
    ),
    column("column-traversal", "`../x` for a column", "../x"),
    column("column-nul", "a NUL in a column's name", "a\0b"),
    column("column-newline", "a newline in a column's name", "a\nb"),
    column("column-quote", "quotes in a column's name", "a\"b'c`d"),
    column("column-dots", "dots in a column's name", "a.b..c"),
    column("column-emoji", "an emoji for a column's name", "😀"),
    column("column-5000", "a column's name of 5,000 characters", "x" * 5000),
    column("column-empty", "an empty column's name", ""),
    column("column-space", "a space for a column's name", " "),
    column("column-sdc", "`_sdc_extracted_at`, sent by the tap", "_sdc_extracted_at"),
    column("column-brackets", "`[]` and `.*` in a column's name", "a[].*"),
    refused(
        "column-case",
        "two columns that differ in case only",
        schema({"A": {"type": "string"}, "a": {"type": "string"}}, stream="t"),
        "letter case",
        as_executable=True,
    ),
    refused(
        "column-case-key",
        "a column that differs from the key in case only",
        schema({"ID": {"type": "string"}}, stream="t"),
        "letter case",
    ),
    refused(
        "column-surrogate",
        "half a surrogate pair in a column's name",
        schema({"a\ud800": {"type": "string"}}, stream="t"),
        "surrogate pair",
    ),
    Case(
        "column-newline-fault",
        "a bad value in a column whose name holds a newline and a forged log line",
        schema({_BROKEN: {"type": "integer"}})
        + record(1)
        + record(2)
        + state(2)
        + record(3)
        + record(9, **{_BROKEN: "x"})
        + AFTER,
        says="not an integer",
        skip=ALL,
    ),
]
