"""singer-sdk's own suite of tests for taps, on a table of many types, a view and an empty table."""

from __future__ import annotations

import atexit
import os

import psycopg
from singer_sdk.testing import get_tap_test_class

import postgres
from melisma_tap_postgres.tap import TapPostgres

from ..sql_database import started
from .conftest import slots

_ADDRESS = started(postgres.start)
_NAME = f"suite_{os.getpid()}"  # every worker collects this module


def _run(database: str, *statements: str) -> None:
    with psycopg.connect(**_ADDRESS, dbname=database, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _remove() -> None:
    with psycopg.connect(**_ADDRESS, dbname="postgres", autocommit=True) as connection:
        for (slot,) in slots(connection, _NAME):
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        connection.execute(f"DROP DATABASE {_NAME} WITH (FORCE)")


_run("postgres", f"DROP DATABASE IF EXISTS {_NAME}", f"CREATE DATABASE {_NAME}")
atexit.register(_remove)
_run(
    _NAME,
    "CREATE TABLE orders (id integer PRIMARY KEY, total numeric(9,2), at timestamptz, tags text[], j json, ok boolean)",
    "INSERT INTO orders VALUES (1, 1.5, now(), '{a}', '{}', true), (2, NULL, NULL, NULL, NULL, NULL)",
    "CREATE VIEW totals AS SELECT sum(total) AS total FROM orders",
    "CREATE SCHEMA logged",
    "CREATE TABLE logged.orders (id integer PRIMARY KEY, total numeric(9,2), at timestamptz, tags text[], j json)",
    "INSERT INTO logged.orders SELECT id, total, at, tags, j FROM orders",
)

CONFIG = {**_ADDRESS, "port": int(_ADDRESS["port"]), "database": _NAME}

TestTapPostgres = get_tap_test_class(tap_class=TapPostgres, config=CONFIG)
TestTapPostgresResumable = get_tap_test_class(tap_class=TapPostgres, config=CONFIG | {"resume_full_table": True})
TestTapPostgresLogBased = get_tap_test_class(
    tap_class=TapPostgres,
    config=CONFIG
    | {"default_replication_method": "LOG_BASED", "filter_schemas": ["logged"], "replication_slot_name": _NAME},
)
