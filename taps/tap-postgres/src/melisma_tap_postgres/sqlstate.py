"""PostgreSQL's errors by SQLSTATE: which are worth another try, which are the configuration's fault.

The codes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html; the longest prefix counts.
"""

from __future__ import annotations

import re

from melisma.errors import BadRecord, ConfigError, DatabaseError, MelismaError
from melisma.sql.remedy import ConnectionLost, Remedy

__all__ = ["ConnectionLost", "Remedy", "SnapshotLost", "remedy", "translated"]


class SnapshotLost(ConnectionLost):
    """The connection that held the run's snapshot is gone, so no other one can see the same rows."""

    def __init__(self) -> None:
        rule = "the connection that held the run's snapshot dropped"
        super().__init__("PostgreSQL", rule, fix="Run it again")


_TABLE: dict[str, tuple[Remedy, str, str]] = {
    "08": (Remedy.RETRY, "the connection failed", "Check that the server can be reached"),
    "22": (Remedy.FAIL, "a value cannot be converted", "Set TAP_POSTGRES_LOGLEVEL=DEBUG to see which"),
    "25P03": (Remedy.RETRY, "the server ended the connection: it was idle in a transaction for too long", ""),
    "28": (Remedy.CONFIGURE, "the server refuses the user or password", "Check user and password"),
    "3D000": (Remedy.CONFIGURE, "there is no such database", "Check database"),
    "40": (Remedy.RETRY, "the server ended the transaction in favour of another", ""),
    "42501": (Remedy.CONFIGURE, "the user may not read it", "Grant SELECT, or deselect the stream"),
    "42": (Remedy.FAIL, "the server does not take the query", "Discover again: the table may have changed"),
    "53300": (Remedy.RETRY, "the server has too many connections", ""),
    "53": (Remedy.RETRY, "the server is short of memory, disk or connections", ""),
    "54": (Remedy.FAIL, "the query is too large for the server", "Deselect columns"),
    "55": (Remedy.RETRY, "the table is locked", ""),
    "55006": (Remedy.RETRY, "the replication slot is in use", "Is another run of this pipeline alive?"),
    "57014": (Remedy.FAIL, "the server cancelled the query, perhaps by its statement_timeout", "Raise that timeout"),
    "57": (Remedy.RETRY, "the server is shutting down, starting, or ended the connection", ""),
    "58": (Remedy.FAIL, "the server has a fault in its files", "See the server's log"),
    "72": (Remedy.FAIL, "the snapshot is too old", "Raise the server's old_snapshot_threshold"),
    "XX": (Remedy.FAIL, "the server has an internal fault, perhaps damaged data", "See the server's log"),
}
_WITHOUT_STATE: tuple[tuple[str, Remedy, str, str], ...] = (
    ("password authentication failed", *_TABLE["28"]),
    ("no password supplied", *_TABLE["28"]),
    ("no pg_hba.conf entry", *_TABLE["28"]),
    ('role "', *_TABLE["28"]),
    ('database "', *_TABLE["3D000"]),
    ("definition of service", Remedy.CONFIGURE, "there is no such service", "Check the service file"),
    ("invalid connection option", Remedy.CONFIGURE, "an option is not libpq's", "Check sqlalchemy_url"),
    (
        "certificate",
        Remedy.CONFIGURE,
        "the server's or the tap's certificate is not accepted",
        "Check the ssl_ settings",
    ),
    ("does not support SSL", Remedy.CONFIGURE, "the server has no SSL", "Set ssl_enable to false, or ask for it there"),
    ("could not translate host name", Remedy.RETRY, "the host's name cannot be resolved", "Check host"),
    ("too many clients", *_TABLE["53300"]),
    ("starting up", *_TABLE["57"]),
    ("shutting down", *_TABLE["57"]),
    ("server closed the connection", Remedy.RETRY, "the server closed the connection", ""),
    ("terminating connection", *_TABLE["57"]),
    ("Failed to connect", Remedy.RETRY, "the server cannot be reached", "Check host and port"),
    ("no connection to the server", Remedy.RETRY, "the server closed the connection", ""),
    ("could not receive data", Remedy.RETRY, "the connection dropped", ""),
    ("Connection reset", Remedy.RETRY, "the connection dropped", ""),
    ("SSL", Remedy.RETRY, "the encrypted connection failed", ""),
)


def remedy(sqlstate: str | None, text: str) -> tuple[Remedy, str, str]:
    """What to do about an error, the rule in plain words, and what the user can do. libpq's own have no SQLSTATE."""
    if sqlstate:
        for length in (5, 2):
            if sqlstate[:length] in _TABLE:
                return _TABLE[sqlstate[:length]]
    for words, *found in _WITHOUT_STATE:
        if words in text:
            kind, rule, fix = found
            return kind, rule, fix  # type: ignore[return-value]
    return Remedy.FAIL, "the query failed", "Set TAP_POSTGRES_LOGLEVEL=DEBUG to see why"


def translated(error: Exception, stream: str | None = None) -> MelismaError:
    """A driver's error as ours: one line, and never a value of a row."""
    text = str(error)
    found = re.search(r"SQLSTATE: (\w{5})", text)
    state = getattr(error, "sqlstate", None) or (found[1] if found else None)
    kind, rule, fix = remedy(state, text)
    if state:
        rule = f"{rule} (SQLSTATE {state})"
    if kind is Remedy.RETRY:
        return ConnectionLost("PostgreSQL", rule, stream=stream, fix=fix or "Run it again")
    if kind is Remedy.CONFIGURE and stream is None:
        return ConfigError("host, user, password, database", rule, fix)
    if state and state.startswith("22"):
        return BadRecord(rule, stream=stream, fix=fix)
    return DatabaseError("PostgreSQL", rule, stream=stream, fix=fix)
