"""Settings, discovery, selection and errors, as a user meets them."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from melisma.errors import CatalogError, ConfigError
from melisma_tap_postgres.settings import connection_string
from melisma_tap_postgres.sqlstate import ConnectionLost, Remedy, remedy

SHOP = (
    "CREATE TABLE orders (id integer, line integer, total numeric(9,2) NOT NULL, PRIMARY KEY (line, id))",
    "COMMENT ON TABLE orders IS 'what was sold'",
    "COMMENT ON COLUMN orders.total IS 'in euros'",
    "INSERT INTO orders VALUES (1, 1, 1.50), (1, 2, 2.25)",
    "CREATE VIEW totals AS SELECT id, sum(total) AS total FROM orders GROUP BY id",
    "CREATE MATERIALIZED VIEW kept AS SELECT * FROM totals",
    "CREATE TABLE events (at date, n integer) PARTITION BY RANGE (at)",
    "CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    "INSERT INTO events VALUES ('2024-02-29', 7)",
    "CREATE SCHEMA staging",
    'CREATE TABLE staging."odd ""name.x" (a integer, "b.c ""d%" text, gone text)',
    'ALTER TABLE staging."odd ""name.x" DROP gone',
    'INSERT INTO staging."odd ""name.x" VALUES (1, \'x\')',
)
ALL = {"public-orders", "public-totals", "public-kept", "public-events", 'staging-odd "name.x'}


def test_tables_views_partitions_keys_and_comments(database: Any) -> None:
    """A partitioned table is one stream; dropped columns are gone; names may hold anything."""
    database.run(*SHOP)
    catalog = {stream["stream"]: stream for stream in database.catalog()["streams"]}
    assert set(catalog) == ALL
    orders = catalog["public-orders"]
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
    assert output.records("public-events") == [{"at": "2024-02-29", "n": 7}]
    assert output.records("public-kept") == [{"id": 1, "total": "3.75"}]
    assert output.records('staging-odd "name.x') == [{"a": 1, 'b.c "d%': "x"}]


def test_schemas_can_be_chosen(database: Any) -> None:
    """`filter_schemas`; a misspelt one is an error that lists those there are."""
    database.run(*SHOP)
    found = database.catalog(filter_schemas=["staging"])["streams"]
    assert [s["stream"] for s in found] == ['staging-odd "name.x']
    with pytest.raises(ConfigError, match=r'filter_schemas": names "stagin", .* The schemas are: public, staging'):
        database.catalog(filter_schemas=["stagin"])


def test_what_the_user_may_not_read_is_not_there(database: Any) -> None:
    """Tables, and columns of tables."""
    database.run(
        *SHOP,
        f"CREATE ROLE reader_{database.name} LOGIN PASSWORD 'it''s \\ secret'",
        f"GRANT SELECT (id, line) ON orders TO reader_{database.name}",
    )
    try:
        login = {"user": f"reader_{database.name}", "password": "it's \\ secret"}
        [stream] = database.catalog(**login)["streams"]
        assert list(stream["schema"]["properties"]) == ["id", "line"]
        assert database.sync(**login).records() == [{"id": 1, "line": 1}, {"id": 1, "line": 2}]
    finally:
        database.run("REVOKE ALL ON orders FROM PUBLIC", f"DROP OWNED BY reader_{database.name}")
        database.run(f"DROP ROLE reader_{database.name}")


def test_only_selected_columns_are_read(database: Any) -> None:
    """A column that would fail is not looked at when it is deselected."""
    database.run("CREATE VIEW v AS SELECT i AS id, 1 / (i - i) AS bad FROM generate_series(1, 2) i")
    catalog = database.catalog()
    for entry in catalog["streams"][0]["metadata"]:
        entry["metadata"]["selected"] = entry["breadcrumb"] != ["properties", "bad"]
    assert database.sync(catalog=catalog).records() == [{"id": 1}, {"id": 2}]


def test_a_table_without_columns_or_rows(database: Any) -> None:
    """PostgreSQL has such; a run over them ends well."""
    database.run("CREATE TABLE empty (id integer)", "CREATE TABLE bare ()")
    assert database.sync().records() == []


def test_the_default_method_is_a_setting(database: Any) -> None:
    """What the catalog says goes before it; a method that there is not is refused before anything starts."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY, at timestamptz)")
    assert database.catalog()["streams"][0]["replication_method"] == "FULL_TABLE"
    assert (
        database.catalog(default_replication_method="INCREMENTAL")["streams"][0]["replication_method"] == "INCREMENTAL"
    )
    done = database.execute(database.config(default_replication_method="BY_HAND"), "--discover")
    assert done.returncode == 2
    assert 'setting "default_replication_method": is not one of the values allowed' in done.stderr


def test_a_url_says_everything(database: Any) -> None:
    """As SQLAlchemy writes it, with a driver's name or without."""
    database.run(*SHOP)
    at = database.address
    for scheme in ("postgresql", "postgresql+psycopg2", "postgres"):
        url = f"{scheme}://{at['user']}:{at['password']}@{at['host']}:{at['port']}/{database.name}"
        tap = database.command({"sqlalchemy_url": url})
        assert tap
        done = database.execute({"sqlalchemy_url": url})
        assert done.returncode == 0, done.stderr
        assert '"public-orders"' in done.stdout


def test_libpqs_own_ways_work(database: Any, tmp_path: Path) -> None:
    """A service file and a password file; the environment's PGHOST and its like."""
    database.run("CREATE TABLE t AS SELECT 1 AS one")
    at = database.address
    service, secrets = tmp_path / "pg_service.conf", tmp_path / "pgpass"
    service.write_text(
        f"[shop]\nhost={at['host']}\nport={at['port']}\nuser={at['user']}\ndbname={database.name}\n", encoding="utf-8"
    )
    secrets.write_text(f"*:*:{database.name}:*:{at['password']}\n", encoding="utf-8")
    secrets.chmod(0o600)
    files = {"PGSERVICEFILE": str(service), "PGPASSFILE": str(secrets)}
    done = database.execute({}, PGSERVICE="shop", **files)
    assert '"record":{"one":1}' in done.stdout, done.stderr
    done = database.execute({"sqlalchemy_url": "postgresql://?service=shop"}, **files)
    assert '"record":{"one":1}' in done.stdout, done.stderr
    environment = {"PGHOST": at["host"], "PGPORT": at["port"], "PGUSER": at["user"], "PGPASSWORD": at["password"]}
    done = database.execute({}, PGDATABASE=database.name, **environment)
    assert '"record":{"one":1}' in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"password": "s3cret"}, "the server refuses the user or password"),
        ({"user": "nobody", "password": "s3cret"}, "the server refuses the user or password"),
        ({"database": "nowhere"}, "there is no such database"),
        ({"sqlalchemy_url": "mysql://u:s3cret@h/d"}, 'setting "sqlalchemy_url": is no PostgreSQL URL'),
        ({"ssl_enable": True, "ssl_mode": "require"}, "the server has no SSL"),
        (
            {"ssl_enable": True, "ssl_certificate_authority": "/no"},
            '"ssl_certificate_authority": there is no such file',
        ),
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
    with pytest.raises(ConnectionLost, match=r"the server cannot be reached\. Check host and port"):
        database.catalog(port=port, connect_retries=2)
    assert caplog.text.count("trying again") == 2
    done = database.execute(database.config(port=port, connect_retries=0), "--discover")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_fault_of_a_row_names_the_stream_and_no_value(database: Any) -> None:
    """A view that casts a text. The server says which in its own language; that is for the debug log."""
    database.run("CREATE VIEW v AS SELECT (x || 's3cret')::integer AS n FROM (VALUES ('1'), ('2')) r(x)")
    done = database.execute(database.config())
    assert done.returncode == 1
    assert 'stream "public-v", PostgreSQL: the server ended the query while its rows were read' in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_table_that_is_gone_is_an_error(database: Any) -> None:
    """Between discovery and the read."""
    database.run("CREATE TABLE a AS SELECT 1 AS n", "CREATE TABLE b AS SELECT 1 AS n")
    catalog = database.catalog()
    for entry in catalog["streams"]:
        for node in entry["metadata"]:
            node["metadata"]["selected"] = True
    database.run("DROP TABLE b")
    with pytest.raises(CatalogError, match=r'stream "public-b": is selected, but it is not there, or may not be read'):
        database.sync(catalog=catalog)
    for node in catalog["streams"][1]["metadata"]:
        node["metadata"]["selected"] = False
    assert database.sync(catalog=catalog).records() == [{"n": 1}]


@pytest.mark.parametrize(
    ("state", "text", "kind"),
    [
        ("40001", "", Remedy.RETRY),
        ("57P01", "", Remedy.RETRY),
        ("57014", "", Remedy.FAIL),
        ("53300", "", Remedy.RETRY),
        ("28P01", "", Remedy.CONFIGURE),
        ("42501", "", Remedy.CONFIGURE),
        ("42P01", "", Remedy.FAIL),
        (None, "server closed the connection unexpectedly", Remedy.RETRY),
        (None, "something else", Remedy.FAIL),
        ("ZZ999", "unknown", Remedy.FAIL),
    ],
)
def test_errors_have_a_remedy(state: str | None, text: str, kind: Remedy) -> None:
    """By SQLSTATE, by its class, or by libpq's words."""
    assert remedy(state, text)[0] is kind


def test_certificates_may_be_given_as_text(tmp_path: Path) -> None:
    """They are put into files for the user's eyes only."""
    pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"
    text = connection_string({"ssl_enable": True, "ssl_certificate_authority": pem, "host": "it's"})
    assert text.startswith("host='it\\'s' sslmode='verify-full' sslrootcert='")
    path = Path(text.split("sslrootcert='")[1].split("'")[0])
    assert path.read_text(encoding="utf-8") == pem + "\n"
    assert path.stat().st_mode & 0o077 == 0
