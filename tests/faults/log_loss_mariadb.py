"""The loss test of `log_loss.py` for tap-mysql on MariaDB.

`python tests/faults/log_loss_mariadb.py` is the full run, with two load methods: sixty seconds of changes in each of
ten rounds. Exits with 1 if a row was lost or doubled.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
from log_loss import BIN, ROOT, Contestant, Result, Row, Source, one_round, table_of


@contextmanager
def mariadb(address: dict[str, str]) -> Iterator[tuple[Source, str]]:
    """A database of its own on a MariaDB server, and its name."""
    name = f"loss_{uuid.uuid4().hex[:12]}"
    login = {"host": address["host"], "user": address["user"], "password": address["password"]}
    with pymysql.connect(**login, port=int(address["port"])) as connection:

        def execute(statements: list[str]) -> None:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
            connection.commit()

        def rows() -> list[Row]:
            with connection.cursor() as cursor:
                cursor.execute("SELECT id, v, text FROM t")
                found = list(cursor.fetchall())
            connection.commit()
            return found

        create = "CREATE TABLE t (id bigint PRIMARY KEY, v integer, text text)"
        execute([f"CREATE DATABASE {name}", f"USE {name}", create])
        try:
            yield Source(execute, rows), name
        finally:
            execute([f"DROP DATABASE {name}"])


def ours(address: dict[str, str], name: str, method: str) -> Contestant:
    """tap-mysql."""
    return Contestant(
        f"tap-mysql, {method}",
        [str(BIN / "tap-mysql")],
        {**address, "port": int(address["port"]), "database": name, "default_replication_method": "LOG_BASED"},
        f"{name}-t",
        method,
        changes=method == "upsert",
    )


def server_address() -> dict[str, str]:
    """Of the tests' MariaDB server, which is started if it does not run."""
    sys.path.append(str(ROOT / "tests" / "services"))
    found: dict[str, str] = importlib.import_module("mariadb").start()
    return found


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="tests/faults/log_loss_mariadb.py")
    parser.add_argument("--seconds", type=float, default=60, help="of writing in each round")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default="", help="append-only or upsert")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="log-loss-"))
    address, results = server_address(), dict[str, list[Result]]()
    for method in ("append-only", "upsert"):
        if options.only not in {"", method}:
            continue
        for number in range(options.rounds):
            with mariadb(address) as (source, name):
                contestant = ours(address, name, method)
                result = one_round(source, contestant, folder / method, number, options.seconds)
            results.setdefault(contestant.name, []).append(result)
            sys.stdout.write(f"{contestant.name} {number + 1}: {result}\n")
            sys.stdout.flush()
    shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(f"{table_of(results)}\n")
    return int(any(r.lost or r.doubled or r.failed for rounds in results.values() for r in rounds))


if __name__ == "__main__":
    sys.exit(main())
