"""CSV files: any cut into blocks gives the same table, both paths give the same, errors say where."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melisma.arrow.column_types import named_type
from melisma.arrow.types import Field
from melisma.errors import BadFile
from melisma.formats import csv_rows
from melisma.formats.blocks import Place
from melisma.formats.csv import CsvDialect, CsvReader
from melisma.formats.csv_rows import RowPattern, RowReader
from melisma.formats.inference import TextColumn

PLAIN = CsvDialect()


def reader(text: str | bytes, dialect: CsvDialect = PLAIN) -> CsvReader:
    """A reader of a file in memory."""
    data = text if isinstance(text, bytes) else text.encode()
    return CsvReader(io.BytesIO(data), dialect, where="f.csv", stream="s")


def fields(**types: str) -> list[Field]:
    """Columns by their names in `column_types`."""
    return [Field(name, named_type("x", kind)) for name, kind in types.items()]


def table(
    source: CsvReader, columns: list[Field], zone: ZoneInfo | None = None, block_bytes: int = 1 << 20
) -> pa.Table:
    """Everything in a file."""
    batches = [batch for batch, _ in source.read(columns, zone, source.start, block_bytes)]
    schema = pa.schema([(field.name, field.type.arrow) for field in columns])
    return pa.Table.from_batches(batches, schema=schema)


cells = st.text(alphabet='ab ,"\n\r\\;é', max_size=6)
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=12)
)


@given(
    rows=tables,
    block_bytes=st.integers(1, 40),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    packed=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_block_size_gives_what_was_written(
    rows: list[list[str]], block_bytes: int, end: str, quoting: Any, packed: bool
) -> None:
    """Quotes, delimiters and line ends within values: what Python's csv module wrote is read, however it is cut."""
    if quoting == csv.QUOTE_MINIMAL:  # Python's csv module leaves a lone carriage return without quotes
        rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([[f"c{i}" for i in range(len(rows[0]))], *rows])
    data = text.getvalue().encode()
    file: Any = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data))) if packed else io.BytesIO(data)
    source = CsvReader(file, PLAIN, where="f", stream="s")
    found = table(source, fields(**dict.fromkeys(source.names, "string")), block_bytes=block_bytes)
    wanted = [[None if cell == "" and quoting == csv.QUOTE_MINIMAL else cell for cell in row] for row in rows]
    if len(rows[0]) == 1:  # a lone empty field is written as ""
        wanted = [[cell or ""] for (cell,) in rows]
    assert [list(row.values()) for row in found.to_pylist()] == wanted


@given(text=st.text(alphabet='a,"\n\r', max_size=30), block_bytes=st.integers(1, 30))
@settings(max_examples=500, deadline=None)
@example(text='a"b,c\n"d"e"f,g\n', block_bytes=3)
@example(text='a,b\r"c\nd",e', block_bytes=1)
def test_cutting_agrees_with_arrow_on_any_text(text: str, block_bytes: int) -> None:
    """Stray quotes and lone carriage returns too: cut anywhere, rows are those of the text in one piece."""
    data = f"x,y\n{text}"

    def outcome(size: int) -> Any:
        try:
            return table(reader(data), fields(x="string", y="string"), block_bytes=size).to_pylist()
        except BadFile:
            return "bad"

    assert outcome(block_bytes) == outcome(1 << 20)


VALUES = {
    "integer": ["1", "-5", "0", "9223372036854775807", " 7 ", "007", "0x1F", "+5", "1.0", "-0", "-007", "00", "x", ""],
    "number": ["1.5", "1", "nan", "inf", "1e400", ".5", "5.", "007.5", "1e3", "+1", "x", "", " 2.5\t", "-00.1", "+01"],
    "boolean": ["true", "False", "TRUE", "1", "t", "", " true"],
    "date": ["2020-01-31", "2020-02-30", "2020-1-1", "20200101", "", "1970-01-01"],
    "timestamp": [
        "2020-01-01T10:00:00Z",
        "2020-01-01T10:00:00",
        "2020-01-01 10:00:00.123456+02:00",
        "2020-01-01",
        "2020-01-01T10:00:00.1234567Z",
        "2020-01-01T24:00:00Z",
        "2020-01-01T10:00",
        "",
        "soon",
    ],
    "time": ["10:00", "10:00:00.5", "24:00:00", "", " 10:00:00"],
    "decimal(10,2)": [
        "1.10",
        "1.123",
        "1e2",
        "-0.5",
        "12345678.90",
        "123456789.0",
        "007.1",
        "",
        "x",
        "+5",
        "+01.5",
        "1.230",
    ],
    "string": ["", "007", "nan", " x ", 'say ""hi""'],
}


@given(data=st.data(), zone=st.sampled_from([None, ZoneInfo("America/New_York")]))
@settings(max_examples=400, deadline=None)
def test_the_block_path_gives_what_the_row_path_gives(data: st.DataObject, zone: ZoneInfo | None) -> None:
    """For values that fit, nearly fit and do not fit each type, quoted or not: same batch, or an error from both."""
    kinds = data.draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3))
    columns = fields(**{f"c{i}": kind for i, kind in enumerate(kinds)})
    rows = data.draw(
        st.lists(
            st.tuples(*[st.sampled_from([v for x in VALUES[k] for v in (x, f'"{x}"')]) for k in kinds]),
            min_size=1,
            max_size=5,
        )
    )
    body = "".join(",".join(row) + "\n" for row in rows)
    head = ",".join(field.name for field in columns) + "\n"

    def by_rows() -> list[dict[str, Any]]:
        names = [field.name for field in columns]
        return RowReader(PLAIN, names, columns, zone, where="f", stream="s").read(body, 1).to_pylist()

    try:
        wanted: Any = by_rows()
    except BadFile as error:
        with pytest.raises(BadFile) as caught:
            table(reader(head + body), columns, zone)
        assert str(caught.value).replace("f.csv", "f") == str(error)
        return
    assert str(table(reader(head + body), columns, zone).to_pylist()) == str(wanted)


def test_typed_values_are_read_exactly() -> None:
    """One row of each type, with nulls."""
    text = "i,n,b,d,t,x,s\n1,0.5,true,2024-02-29,2024-01-01T00:00:00+01:00,1.10,007\n,,,,,,\n"
    found = table(
        reader(text),
        fields(i="integer", n="number", b="boolean", d="date", t="timestamp", x="decimal(9,2)", s="string"),
    )
    assert found.to_pylist() == [
        {
            "i": 1,
            "n": 0.5,
            "b": True,
            "d": dt.date(2024, 2, 29),
            "t": dt.datetime(2023, 12, 31, 23, tzinfo=dt.UTC),
            "x": Decimal("1.10"),
            "s": "007",
        },
        dict.fromkeys("inbdtxs"),
    ]


def test_naive_times_are_taken_for_local_ones() -> None:
    """In a zone with summer time: before and after the change, and the hour that comes twice (the earlier)."""
    text = "t\n2024-01-01 12:00:00\n2024-07-01 12:00:00\n2024-10-27 02:30:00\n"
    found = table(reader(text), fields(t="timestamp"), ZoneInfo("Europe/Vienna"))
    hours = [(value.day, value.hour, value.minute) for value in found.column("t").to_pylist()]
    assert hours == [(1, 11, 0), (1, 10, 0), (27, 0, 30)]


def test_a_quoted_empty_field_is_text_in_a_text_column_and_null_elsewhere() -> None:
    """As files with every field quoted need it."""
    found = table(reader('i,s\n"",""\n"5","a"\n,\n'), fields(i="integer", s="string"))
    assert found.to_pylist() == [{"i": None, "s": ""}, {"i": 5, "s": "a"}, {"i": None, "s": None}]


@pytest.mark.parametrize(
    ("data", "dialect", "wanted"),
    [
        ("\ufeffa,b\n1,é\n".encode(), PLAIN, ("1", "é")),
        ("a,b\r\n1,é\r\n".encode(), PLAIN, ("1", "é")),
        ("a,b\r1,é\r".encode(), PLAIN, ("1", "é")),
        ("a;b\n1;é\n".encode("latin-1"), CsvDialect(delimiter=";", encoding="latin-1"), ("1", "é")),
        ("a,b\n1,ф\n".encode("utf-16"), CsvDialect(encoding="utf-16"), ("1", "ф")),
        ("a,b\n1,表\n".encode("shift_jis"), CsvDialect(encoding="shift_jis"), ("1", "表")),
        (b"junk\nmore\na\tb\n1\tx\n", CsvDialect(delimiter="\t", skip_rows=2), ("1", "x")),
        (b"1,x\n", CsvDialect(header=("a", "b")), ("1", "x")),
        (b"a,b\n1,'x'\n", CsvDialect(quote="'"), ("1", "x")),
        (b"a,b\n1,x\\,y\n", CsvDialect(escape="\\"), ("1", "x,y")),
        (b'a,b\n1,"x\n', CsvDialect(quote=""), ("1", '"x')),
        (b"\n\na,b\n\n1,x", PLAIN, ("1", "x")),
    ],
)
def test_dialects_and_encodings(data: bytes, dialect: CsvDialect, wanted: tuple[str, str]) -> None:
    """Byte order marks, line ends, delimiters, quotes, escapes, encodings, headers and skipped rows."""
    source = reader(data, dialect)
    assert source.names == ["a", "b"]
    for size in (1, 7, 1 << 20):
        assert table(reader(data, dialect), fields(a="string", b="string"), block_bytes=size).to_pylist() == [
            {"a": wanted[0], "b": wanted[1]}
        ]


def test_without_a_header_columns_have_numbers() -> None:
    """The first record is data."""
    source = reader("1,2\n", CsvDialect(header=False))
    assert source.names == ["column_1", "column_2"]
    assert table(source, fields(column_2="integer")).to_pylist() == [{"column_2": 2}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'i,s\n1,"a\nb"\n\nsecret,x\n',
            'stream "s", file "f.csv", column "i", line 5: the value is not an integer (a number with leading zeros '
            "is text), and does not fit type integer. ",
        ),
        ("i,s\n1,a\n007,b\n", 'column "i", line 3: the value is not an integer'),
        ("i,s\n1,a\n2\n", "line 3: the row has 1 fields where the header has 2"),
        ("i,s\n1,a,secret\n", "line 2: the row has 3 fields where the header has 2"),
        ('i,s\n1,a\n2,"secret\n3,c\n', "line 3: a quote is opened and never closed"),
        ("i,i\n1,2\n", 'column "i", line 1: the header names this column twice'),
        ("", "it is empty: it has no header"),
        (b"i,s\n1,a\n2,secret\xff\n", "line 3: the bytes are not text in the encoding utf-8"),
    ],
)
def test_what_does_not_fit_is_named_by_line_and_column(text: str | bytes, message: str) -> None:
    """Our own sentence with file, line, column and what to do; never the value."""
    with pytest.raises(BadFile) as caught:
        table(reader(text), fields(i="integer", s="string"))
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_block_end_is_a_place_to_go_on_from() -> None:
    """Read from each place, plain or compressed, the rest is the rest; lines count on."""
    text = "i,s\n" + "".join(f'{i},"a\n{i}"\n' for i in range(30))
    columns = fields(i="integer", s="string")
    whole = table(reader(text), columns).to_pylist()
    source = reader(text)
    read = 0
    for batch, block in source.read(columns, None, source.start, 20):
        read += batch.num_rows
        for again in (reader(text), CsvReader(_unseekable(text), PLAIN, where="f", stream="s")):
            rest = [row for b, _ in again.read(columns, None, block.end, 33) for row in b.to_pylist()]
            assert rest == whole[read:]
        assert block.end == Place(len(text.encode()[: block.end.offset]), 1 + 2 * read)
    assert read == 30


def test_rows_know_their_lines() -> None:
    """Blank lines and line ends within quotes are counted."""
    source = reader('a\n1\n\n"2\n2"\n3\n')
    found = [
        source.row_lines(block, batch.num_rows).to_pylist()
        for batch, block in source.read(fields(a="string"), None, source.start)
    ]
    assert found == [[2, 4, 6]]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["1", "2", ""], pa.int64()),
        (["01234", "99999"], pa.string()),
        (["0", "-0"], pa.int64()),
        (["1", "2.5"], pa.float64()),
        (["1", "9223372036854775808"], pa.decimal128(38, 0)),
        (["1" * 39], pa.string()),
        (["0.1", "123456789012345678.12"], pa.decimal128(38, 2)),
        (["0.10000000000000001"], pa.float64()),
        (["true", "False"], pa.bool_()),
        (["true", "1"], pa.string()),
        (["2024-01-31", ""], pa.date32()),
        (["2024-01-32"], pa.string()),
        (["2024-01-31", "2024-01-31 10:00"], pa.timestamp("us", "UTC")),
        (["2024-01-31T10:00:00.123456Z"], pa.timestamp("us", "UTC")),
        (["2024-01-31T10:00:00.1234567Z"], pa.string()),
        (["2024-01-31T25:00:00Z"], pa.string()),
        (["10:30"], pa.string()),
        (["NA", "1"], pa.string()),
        (["nan", "1.5"], pa.string()),
        (["1e3", "2"], pa.float64()),
        (["", ""], pa.string()),
        (["1", "x"], pa.string()),
    ],
)
def test_inference_takes_the_narrowest_type_that_loses_nothing(values: list[str], wanted: pa.DataType) -> None:
    """The table of what discovery finds; the order of the values does not matter."""
    for order in (values, values[::-1]):
        column = TextColumn(("",))
        for value in order:
            column.add(pa.array([value]))
        assert column.type() == wanted


def _unseekable(text: str) -> Any:
    return gzip.GzipFile(fileobj=_Pipe(gzip.compress(text.encode())))


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


@given(st.text('",;\\\r\na é', max_size=40), st.sampled_from([None, "\\"]))
@settings(max_examples=500, deadline=None)
def test_records_are_the_same_on_early_versions_of_python_3_11(text: str, escape: str | None) -> None:
    """Whose possessive quantifiers are not right: the expressions that stand in for them find the same records."""
    dialect, data = CsvDialect(escape=escape), text.encode()
    found = []
    for possessive in (csv_rows._POSSESSIVE, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_rows, "_POSSESSIVE", possessive)
            pattern = RowPattern(dialect)
        record, records = pattern.record.match(data), pattern.records.match(data)
        found.append((record and record.end(), records and records.end(), rows_of(pattern, text)))
    assert found[0] == found[1]


def rows_of(pattern: RowPattern, text: str) -> Any:
    """The rows that a pattern takes a text apart into, up to a quote that nothing closes."""
    rows = []
    try:
        rows.extend(pattern.rows(text, 0))
    except csv_rows.UnclosedQuote as error:
        rows.append(error.line)
    return rows
