"""Settings, discovery, selection and errors, as a user meets them."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import mariadb
import pytest

from melisma.errors import BadRecord, CatalogError, ConfigError
from melisma.sql.remedy import ConnectionLost, Remedy
from melisma_tap_mysql.error_numbers import remedy
from melisma_tap_mysql.settings import connection_arguments, wanted_schemas

from .conftest import execute

SHOP = (
    "CREATE TABLE orders (id integer, line integer, total decimal(9,2) NOT NULL COMMENT 'in euros', "
    "PRIMARY KEY (line, id)) COMMENT 'what was sold'",
    "INSERT INTO orders VALUES (1, 1, 1.50), (1, 2, 2.25)",
    "CREATE VIEW totals AS SELECT id, sum(total) AS total FROM orders GROUP BY id",
    "CREATE TABLE events (at date, n integer) PARTITION BY RANGE (year(at)) (PARTITION p VALUES LESS THAN (2025))",
    "INSERT INTO events VALUES ('2024-02-29', 7)",
    "CREATE TABLE kept (n integer) WITH SYSTEM VERSIONING",
    "CREATE SEQUENCE numbers",
    'CREATE TABLE `odd "na``me.x` (a integer, `b.c ``d%` text)',
    "INSERT INTO `odd \"na``me.x` VALUES (1, 'x')",
)
ALL = {"orders", "totals", "events", "kept", 'odd "na`me.x'}


def _chosen(catalog: dict[str, Any], stream: str) -> dict[str, Any]:
    """The catalog with one stream only."""
    return {"streams": [entry for entry in catalog["streams"] if entry["stream"] == stream]}


def test_tables_views_partitions_keys_and_comments(database: Any) -> None:
    """A partitioned table is one stream; sequences are none; names may hold anything."""
    database.run(*SHOP)
    catalog = {stream["stream"]: stream for stream in database.catalog()["streams"]}
    assert set(catalog) == {database.stream(name) for name in ALL}
    orders = catalog[database.stream("orders")]
    assert orders["key_properties"] == ["line", "id"]
    assert orders["replication_method"] == "FULL_TABLE"
    assert orders["schema"] == {
        "type": "object",
        "description": "what was sold",
        "properties": {
            "id": {"type": ["integer"]},
            "line": {"type": ["integer"]},
            "total": {"type": ["number", "null"], "precision": 9, "scale": 2, "description": "in euros"},
        },
    }
    output = database.sync()
    assert output.records(database.stream("events")) == [{"at": "2024-02-29", "n": 7}]
    assert [str(r["total"]) for r in output.records(database.stream("totals"))] == ["3.75"]
    assert output.records(database.stream('odd "na`me.x')) == [{"a": 1, "b.c `d%": "x"}]


@pytest.mark.parametrize("setting", ["filter_dbs", "filter_schemas", "as text"])
def test_databases_can_be_chosen(database: Any, setting: str) -> None:
    """By either name, or as text with commas; without any, all that the user may read; a misspelt one is an error."""
    other = f"{database.name}_more"
    execute(database.address, f"CREATE DATABASE {other}")
    try:
        execute(
            database.address, f"CREATE TABLE {other}.t (id integer)", f"CREATE TABLE {database.name}.t (id integer)"
        )
        name, value = (setting, [other]) if setting != "as text" else ("filter_dbs", f" {other} ,")
        found = database.catalog(**{name: value})["streams"]
        assert [s["stream"] for s in found] == [f"{other}-t"]
        every = {s["stream"] for s in database.catalog(database=None)["streams"]} if setting == "as text" else set()
        assert setting != "as text" or {f"{other}-t", database.stream("t")} <= every
        with pytest.raises(ConfigError, match=r'filter_dbs": names "nowhere", which is no database. The databases are'):
            database.catalog(filter_dbs=["nowhere"])
    finally:
        execute(database.address, f"DROP DATABASE {other}")


def test_what_the_user_may_not_read_is_not_there(database: Any) -> None:
    """Tables, and columns of tables; a key of which a part is hidden is none."""
    user = f"reader_{database.name}"[:60]
    database.run(
        *SHOP,
        f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'it''s \\\\ sécret €'",
        f"GRANT SELECT (id, total) ON orders TO {user}@'127.0.0.1'",
    )
    try:
        login = {"user": user, "password": "it's \\ sécret €"}
        [stream] = database.catalog(**login)["streams"]
        assert list(stream["schema"]["properties"]) == ["id", "total"]
        assert stream["key_properties"] == []
        assert [r["id"] for r in database.sync(**login).records()] == [1, 1]
    finally:
        database.run(f"DROP USER {user}@'127.0.0.1'")


def test_only_selected_columns_are_read(database: Any) -> None:
    """A column that would fail is not looked at when it is deselected."""
    database.run(
        "CREATE TABLE t (id integer)",
        "INSERT INTO t VALUES (1)",
        "CREATE VIEW v AS SELECT id, exp(id * 1000) AS bad FROM t",
    )
    with pytest.raises(BadRecord, match=r"a value cannot be converted \(error 1690\)"):
        database.sync(catalog=_chosen(database.catalog(), database.stream("v")))
    catalog = _chosen(database.catalog(), database.stream("v"))
    for entry in catalog["streams"][0]["metadata"]:
        entry["metadata"]["selected"] = entry["breadcrumb"] != ["properties", "bad"]
    assert database.sync(catalog=catalog).records() == [{"id": 1}]


def test_a_table_without_rows(database: Any) -> None:
    """A run over it ends well."""
    database.run("CREATE TABLE empty (id integer)")
    assert database.sync().records() == []


def test_the_default_method_is_a_setting(database: Any) -> None:
    """What the catalog says goes before it."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY, at timestamp)")
    assert database.catalog()["streams"][0]["replication_method"] == "FULL_TABLE"
    found = database.catalog(default_replication_method="INCREMENTAL")["streams"][0]
    assert found["replication_method"] == "INCREMENTAL"


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "mariadb"])
def test_a_url_says_everything(database: Any, scheme: str) -> None:
    """As SQLAlchemy writes it, with a driver's name or without."""
    database.run("CREATE TABLE t (id integer)")
    at = database.address
    url = f"{scheme}://{at['user']}:{at['password']}@{at['host']}:{at['port']}/{database.name}?charset=utf8mb4"
    done = database.execute({"sqlalchemy_url": url})
    assert done.returncode == 0, done.stderr
    assert f'"{database.stream("t")}"' in done.stdout


def test_statements_of_the_session_are_run(database: Any) -> None:
    """Before the first read; one that fails names itself, and not its text."""
    database.run(
        "CREATE VIEW v AS SELECT variable_value AS n FROM information_schema.session_variables "
        "WHERE variable_name = 'sort_buffer_size'"
    )
    assert database.sync(session_sqls=["SET SESSION sort_buffer_size = 131072"]).records() == [{"n": "131072"}]
    with pytest.raises(ConfigError, match=r'"session_sqls\[1\]": the server does not take the statement') as raised:
        database.catalog(session_sqls=["SET @a = 1", "SET s3cret"])
    assert "s3cret" not in str(raised.value)


def test_tls_proves_who_the_server_is(database: Any) -> None:
    """With `ssl`, by a path or the certificate itself; without it, encrypted if the server can."""
    database.run(
        "CREATE VIEW v AS SELECT variable_value AS cipher FROM information_schema.session_status "
        "WHERE variable_name = 'Ssl_cipher'"
    )
    path = mariadb.SERVER.authority()
    for settings in ({"ssl_ca": str(path)}, {"ssl": True, "ssl_ca": path.read_text(encoding="utf-8")}, {}):
        assert database.sync(**settings).records()[0]["cipher"] != ""
    assert database.sync(ssl=True, ssl_verify_cert=False).records()[0]["cipher"] != ""
    assert database.sync(ssl=False).records()[0]["cipher"] == ""
    with pytest.raises(ConfigError, match="the server's certificate is not accepted"):
        database.catalog(ssl=True)
    with pytest.raises(ConfigError, match="the server's certificate is not accepted"):
        database.catalog(ssl=True, ssl_ca=str(path), host="localhost")
    assert database.catalog(ssl=True, ssl_ca=str(path), host="localhost", check_hostname=False)["streams"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"password": "s3cret"}, "the server refuses the user or password"),
        ({"user": "nobody", "password": "s3cret"}, "the server refuses the user or password"),
        ({"database": "nowhere"}, "there is no such database"),
        ({"sqlalchemy_url": "postgresql://u:s3cret@h/d"}, 'setting "sqlalchemy_url": is no URL of MySQL or MariaDB'),
        ({"sqlalchemy_url": "mysql://u:s3cret@h:x/d"}, 'setting "sqlalchemy_url": is no URL'),
        ({"sqlalchemy_url": "mysql://u:s3cret@h/d?tls=1"}, 'has a parameter "tls", which is not known'),
        ({"ssl": True, "ssl_ca": "/no"}, '"ssl_ca": there is no such file'),
        ({"ssl": True, "ssl_ca": __file__}, '"ssl_ca": is no certificate'),
    ],
)
def test_a_wrong_setting_is_one_line(database: Any, settings: Any, message: str) -> None:
    """Exit code 2, and no secret."""
    with pytest.raises(ConfigError, match=message) as raised:
        database.catalog(**settings)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_a_server_that_is_not_there_is_tried_again(database: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As often as `connect_retries` says; then exit code 1."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionLost, match=r"the server cannot be reached \(error 2003\)\. Check host and port"):
        database.catalog(port=port, connect_retries=2)
    assert caplog.text.count("trying again") == 2
    done = database.execute(database.config(port=port, connect_retries=0), "--discover")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_fault_of_a_row_names_the_stream_and_no_value(database: Any) -> None:
    """A view that runs into its limits between two rows. The server's text may hold values: it is for the debug log."""
    database.run(
        "CREATE TABLE t (x bigint)",
        "INSERT INTO t SELECT seq FROM seq_1_to_50000",
        "INSERT INTO t VALUES (9223372036854775807)",
        "CREATE VIEW v AS SELECT x + 77123 AS n FROM t",
    )
    done = database.execute(database.config())
    assert done.returncode == 3
    assert f'stream "{database.stream("v")}": a value cannot be converted (error 1690)' in done.stderr
    assert "77123" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_that_is_gone_is_an_error(database: Any) -> None:
    """Between discovery and the read."""
    database.run("CREATE TABLE a AS SELECT 1 AS n", "CREATE TABLE b AS SELECT 1 AS n")
    catalog = database.catalog()
    for entry in catalog["streams"]:
        for node in entry["metadata"]:
            node["metadata"]["selected"] = True
    database.run("DROP TABLE b")
    with pytest.raises(CatalogError, match=r'-b": is selected, but it is not there, or may not be read'):
        database.sync(catalog=catalog)
    for node in catalog["streams"][1]["metadata"]:
        node["metadata"]["selected"] = False
    assert database.sync(catalog=catalog).records() == [{"n": 1}]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1040, Remedy.RETRY),
        (1045, Remedy.CONFIGURE),
        (1142, Remedy.CONFIGURE),
        (1146, Remedy.FAIL),
        (1213, Remedy.RETRY),
        (1317, Remedy.FAIL),
        (1412, Remedy.RETRY),
        (2013, Remedy.RETRY),
        (9999, Remedy.FAIL),
        (None, Remedy.FAIL),
    ],
)
def test_errors_have_a_remedy(number: int | None, kind: Remedy) -> None:
    """By their number."""
    assert remedy(number)[0] is kind


def test_a_url_goes_before_the_other_settings() -> None:
    """Its parts are unquoted; what it leaves open is as without it."""
    config = {"sqlalchemy_url": "mysql://a%40b:p%2Fw@h/shop?unix_socket=/run/s", "user": "other", "port": 1}
    arguments = connection_arguments(config)
    assert (arguments["user"], arguments["password"], arguments["host"]) == ("a@b", b"p/w", "h")
    assert (arguments["port"], arguments["unix_socket"]) == (3306, "/run/s")
    assert wanted_schemas(config) == ["shop"]
