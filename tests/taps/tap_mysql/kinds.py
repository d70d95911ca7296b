"""A table for each type of MariaDB, of one column, with a row for each value."""

from __future__ import annotations

from typing import Any

VALUES: dict[str, list[str]] = {
    "tinyint(1)": ["0", "1", "-128"],
    "tinyint": ["-128", "127"],
    "tinyint unsigned": ["255"],
    "smallint": ["-32768", "32767"],
    "smallint unsigned": ["65535"],
    "mediumint": ["-8388608", "8388607"],
    "mediumint unsigned": ["16777215"],
    "int": ["-2147483648", "2147483647"],
    "int unsigned": ["4294967295"],
    "int(8) unsigned zerofill": ["42"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "bigint unsigned": ["0", "18446744073709551615"],
    "decimal(5,2)": ["-999.99", "0.10"],
    "decimal(8,3) unsigned zerofill": ["1.5"],
    "decimal(38,10)": ["1234567890123456789012345678.0123456789"],
    "decimal(65,30)": ["-99999999999999999999999999999999999.000000000000000000000000000001"],
    "float": ["0.1", "3.4028235e38", "16777217", "-1.5e-30"],
    "float(7,2)": ["1.005"],
    "double": ["0.1", "1e-300", "1.7976931348623157e308", "123456789.12345678"],
    "double(12,3)": ["1.0005"],
    "bit(1)": ["b'0'", "b'1'"],
    "bit(12)": ["b'101010101010'"],
    "bit(64)": ["b'" + "1" * 64 + "'"],
    "date": ["'0001-01-01'", "'9999-12-31'", "'0000-00-00'", "'2024-00-00'"],
    "datetime": ["'2024-02-29 10:00:00'", "'0000-00-00 00:00:00'"],
    "datetime(3)": ["'2024-02-29 10:00:00.123'"],
    "datetime(6)": ["'2024-02-29 10:00:00.123456'", "'9999-12-31 23:59:59.999999'"],
    "timestamp null": ["'2024-02-29 10:00:00'", "'1970-01-01 02:00:01'", "'0000-00-00 00:00:00'"],
    "timestamp(6) null": ["'2024-02-29 10:00:00.000001'"],
    "time": ["'10:00:00'", "'-838:59:59'", "'838:59:59'", "'-00:00:01'"],
    "time(6)": ["'-25:00:00.000001'", "'00:00:00.5'"],
    "year": ["2024", "0"],
    "char(4)": ["'ab'", "''"],
    "varchar(50)": ["'Zoë \"x\" 😀'", "'a\\nb\\tc\\\\'", "'  '"],
    "varchar(50) character set latin1": ["'Zoë €'"],
    "varchar(50) character set utf16": ["'Zoë 😀'"],
    "varchar(50) character set sjis": ["'日本'"],
    "tinytext": ["'t'"],
    "text": ["repeat('ö', 300)"],
    "mediumtext": ["'m'"],
    "longtext": ["'l'"],
    "enum('small','it''s','größer')": ["'it''s'", "'größer'", "''"],
    "enum('a\\\\b','x,\"y')": ["'a\\\\b'", "'x,\"y'"],
    "enum('a','ü') character set latin1": ["'ü'"],
    "set('a','b','ö')": ["'a,ö'", "''"],
    "json": ['\'{"b": 1.50, "a" : [1e400, "ü"]}\'', "'null'"],
    "binary(4)": ["x'00ff'", "x'01020000'"],
    "varbinary(9)": ["x'00ff'", "''"],
    "tinyblob": ["x'ff'"],
    "blob": ["repeat(x'00', 300)"],
    "mediumblob": ["x'00'"],
    "longblob": ["x'00'"],
    "point": ["ST_GeomFromText('POINT(1 0.1)')", "ST_GeomFromText('POINT(-1e-20 123456.789)', 4326)"],
    "linestring": ["ST_GeomFromText('LINESTRING(0 0, 1 1.5)')"],
    "polygon": ["ST_GeomFromText('POLYGON((0 0, 4 0, 4 4, 0 0), (1 1, 2 1, 2 2, 1 1))')"],
    "multipoint": ["ST_GeomFromText('MULTIPOINT(1 1, 2 2)')"],
    "multilinestring": ["ST_GeomFromText('MULTILINESTRING((0 0, 1 1), (2 2, 3 3))')"],
    "multipolygon": ["ST_GeomFromText('MULTIPOLYGON(((0 0, 4 0, 4 4, 0 0)))')"],
    "geometrycollection": ["ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1), LINESTRING(0 0, 1 1))')"],
    "geometry": ["ST_GeomFromText('POINT(1 1)')"],
    "uuid": ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "'123e4567-e89b-12d3-a456-426655440000'"],
    "inet4": ["'192.168.0.1'"],
    "inet6": ["'2001:db8::ff00:42:8329'", "'::ffff:192.0.2.1'"],
}


def fill(database: Any, *, rows: bool = True) -> None:
    """Make the tables, and their rows; the last of each is null."""
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = '', time_zone = '+02:00'")
        for number, kind in enumerate(VALUES):
            cursor.execute(f"CREATE TABLE t{number:03} (place integer PRIMARY KEY, v {kind})")
        if rows:
            fill_rows(cursor)


def fill_rows(cursor: Any) -> None:
    """Insert all values."""
    cursor.execute("SET SESSION sql_mode = '', time_zone = '+02:00'")
    for number, values in enumerate(VALUES.values()):
        rows = ", ".join(f"({place}, {value})" for place, value in enumerate([*values, "NULL"]))
        cursor.execute(f"INSERT INTO t{number:03} VALUES {rows}")
