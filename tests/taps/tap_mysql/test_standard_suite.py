"""singer-sdk's own suite of tests for taps, on a table of many types and a view."""

from __future__ import annotations

import mariadb
from singer_sdk.testing import get_tap_test_class

from melisma_tap_mysql.tap import TapMySQL

from ..sql_database import started
from .conftest import execute

_ADDRESS = started(mariadb.start)

# Streams carry the database's name, and every worker has to collect the same tests. So it stays, whoever comes first.
execute(
    _ADDRESS,
    "SELECT get_lock('suite', 60)",
    "CREATE DATABASE IF NOT EXISTS suite",
    "USE suite",
    "CREATE TABLE IF NOT EXISTS orders (id integer PRIMARY KEY, total decimal(9,2), at timestamp NULL, j json, "
    "ok boolean, b blob)",
    "REPLACE INTO orders VALUES (1, 1.5, now(), '{}', true, 'x'), (2, NULL, NULL, NULL, NULL, NULL)",
    "CREATE OR REPLACE VIEW totals AS SELECT sum(total) AS total FROM orders",
)

CONFIG = {**_ADDRESS, "port": int(_ADDRESS["port"]), "database": "suite"}

TestTapMySQL = get_tap_test_class(tap_class=TapMySQL, config=CONFIG)
TestTapMySQLResumable = get_tap_test_class(tap_class=TapMySQL, config=CONFIG | {"resume_full_table": True})
TestTapMySQLByLog = get_tap_test_class(tap_class=TapMySQL, config=CONFIG | {"default_replication_method": "LOG_BASED"})
