"""The events in a PostgreSQL server, and the programs that read them there.

`python -m benchmarks.postgres TASK ...`, a process per run, with heavy imports where they are used. The server is that
of the tests (`tests/services/postgres.py`). Tables are made once and kept in a database of their own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.data import SHAPES, singer_file

__all__ = ["SERVICE", "Table", "table_file"]

ROOT = Path(__file__).resolve().parent.parent
SERVICE = ROOT / "tests" / "services" / "postgres.py"
DATABASE = "benchmarks"
COLUMNS = (
    "id bigint PRIMARY KEY, event_id uuid NOT NULL, event text, user_id bigint, session text, occurred_at timestamptz, "
    "url text, referrer text, country text, amount numeric(12,2), quantity integer, is_member boolean, "
    "score double precision, device jsonb, tags text[]"
)
"""Of the events, as one would keep them."""


class Table:
    """One table, as the note in a file says that `load` wrote; the contestants' only source.

    Attributes:
        address: host, port, user and password.
        schema: in which it is alone, named `events`.
        bytes: of its rows on the server's disk.
    """

    def __init__(self, note: Path) -> None:
        found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        self.address: dict[str, str] = found["address"]
        self.schema: str = found["schema"]
        self.bytes: int = found["bytes"]

    @property
    def url(self) -> str:
        """For libpq, SQLAlchemy and the others that take one."""
        return _url(self.address)

    @property
    def settings(self) -> dict[str, Any]:
        """As the settings of taps name them."""
        return {**self.address, "port": int(self.address["port"])}


def table_file(folder: Path, rows: int, copies: int = 1) -> Path:
    """The note of a table with the events, so many times over; made if it is not there.

    In another process: the measuring one must stay small.
    """
    singer_file(folder, SHAPES["events"], rows)
    note = folder / f"postgres-{rows}-{copies}.json"
    command = [sys.executable, "-m", "benchmarks.postgres", "load", str(folder), str(rows), str(copies), str(note)]
    subprocess.run(command, check=True, cwd=ROOT)
    return note


def load(folder: str, rows: str, copies: str, note: str) -> None:
    """Start the server, fill the table if it is not there, and write its note."""
    import psycopg
    from psycopg import sql

    subprocess.run([sys.executable, str(SERVICE), "start"], check=True, stdout=sys.stderr)
    address = json.loads((ROOT / ".cache/services/postgres.json").read_text(encoding="utf-8"))
    address = {name: address[name] for name in ("host", "port", "user", "password")}
    source = singer_file(Path(folder), SHAPES["events"], int(rows))
    with psycopg.connect(**address, dbname="postgres", autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchall():
            connection.execute(f"CREATE DATABASE {DATABASE}")
    schema = f"events_{source.name.partition('-')[0]}_{rows}_{copies}"  # with the data's version
    with psycopg.connect(**address, dbname=DATABASE) as connection:
        table = sql.Identifier(schema, "events")
        if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchall():
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            connection.execute(sql.SQL("CREATE TABLE {} (" + COLUMNS + ")").format(table))
            connection.execute("CREATE TEMPORARY TABLE lines (place bigserial, message json)")
            unquoted = r"COPY lines (message) FROM STDIN (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')"
            with connection.cursor() as cursor, cursor.copy(unquoted) as copy, source.open("rb") as file:
                for line in file:
                    if line.startswith(b'{"type":"RECORD"'):
                        copy.write(line)
            others = sql.SQL(", ").join(sql.Identifier(each.split()[0]) for each in COLUMNS.split(", ")[1:])
            connection.execute(
                sql.SQL(
                    "INSERT INTO {table} SELECT id + copy * %s, {others} FROM generate_series(0, %s) AS copy, "
                    "(SELECT r.* FROM lines, json_populate_record(NULL::{table}, message -> 'record') AS r "
                    "ORDER BY place) AS rows"
                ).format(table=table, others=others),
                [int(rows), int(copies) - 1],
            )
            connection.commit()
            connection.autocommit = True
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(table))
        [[size]] = connection.execute("SELECT pg_table_size(%s)", [table.as_string(connection)]).fetchall()
    found = {"address": address | {"database": DATABASE}, "schema": schema, "bytes": size}
    Path(note).write_text(json.dumps(found), encoding="utf-8")


def selected_catalog(executable: str, config: str, catalog: str) -> None:
    """What a tap discovers, with its stream selected for FULL_TABLE, for taps that read nothing without a catalog."""
    command = [executable, "--config", config, "--discover"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for stream in found["streams"]:
        for entry in stream["metadata"]:
            if not entry["breadcrumb"]:
                entry["metadata"] |= {"selected": True, "replication-method": "FULL_TABLE"}
    Path(catalog).write_text(json.dumps(found), encoding="utf-8")


def adbc_arrow(note: str, output: str) -> None:
    """Read the table with ADBC, write what it gives as an Arrow file."""
    import pyarrow.ipc

    with _adbc(note) as reader, pyarrow.ipc.new_file(f"{output}/out.arrow", reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def adbc_parquet(note: str, output: str) -> None:
    """Read the table with ADBC, write what it gives as Parquet."""
    import pyarrow.parquet as pq

    path = f"{output}/out.parquet"
    with _adbc(note) as reader, pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


@contextlib.contextmanager
def _adbc(note: str) -> Iterator[Any]:
    from adbc_driver_postgresql import dbapi

    table = Table(Path(note))
    with dbapi.connect(table.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table.schema}.events")  # noqa: S608 - our own
        yield cursor.fetch_record_batch()


def _url(address: dict[str, str]) -> str:
    who = f"{quote(address['user'])}:{quote(address['password'])}"
    return f"postgresql://{who}@{address['host']}:{address['port']}/{address['database']}"


TASKS: dict[str, Callable[..., None]] = {
    "load": load,
    "selected-catalog": selected_catalog,
    "adbc-arrow": adbc_arrow,
    "adbc-parquet": adbc_parquet,
}

if __name__ == "__main__":
    _, task, *arguments = sys.argv
    TASKS[task](*arguments)
