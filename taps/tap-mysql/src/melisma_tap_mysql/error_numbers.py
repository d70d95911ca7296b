"""The servers' errors by number: which are worth another try, which are the configuration's fault.

The numbers are those of https://mariadb.com/kb/en/mariadb-error-code-reference/ and
https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html; from 2000 to 2999 the driver's own.
"""

from __future__ import annotations

import ssl
from typing import Any

from melisma.errors import BadRecord, ConfigError, DatabaseError, MelismaError
from melisma.sql.remedy import ConnectionLost, Remedy

__all__ = ["remedy", "translated"]

_LOGIN = (Remedy.CONFIGURE, "the server refuses the user or password", "Check user and password")
_GRANT = (Remedy.CONFIGURE, "the user may not read it", "Grant SELECT, or deselect the stream")
_PRIVILEGE = (
    Remedy.CONFIGURE,
    "the user lacks a privilege",
    "Log-based replication needs REPLICATION SLAVE, and REPLICATION CLIENT or BINLOG MONITOR",
)
_BUSY = (Remedy.RETRY, "the server has too many connections", "")
_ENDED = (Remedy.RETRY, "the server ended the connection", "")
_DROPPED = (Remedy.RETRY, "the connection dropped", "")
_CHANGED = (Remedy.FAIL, "the server does not take the query", "Discover again: the table may have changed")
_SLOW = (Remedy.FAIL, "the server cancelled the query, perhaps by a limit of time", "Raise that limit")
_VALUE = (Remedy.FAIL, "a value cannot be converted", "Set TAP_MYSQL_LOGLEVEL=DEBUG to see which")
_DAMAGED = (Remedy.FAIL, "the table is damaged", "Repair it; see the server's log")
_PLUGIN = (Remedy.CONFIGURE, "the server wants a way to log in that the driver has not", "Use TLS, or another user")
_MEMORY = (Remedy.RETRY, "the server is short of memory", "")

_TABLE: dict[int, tuple[Remedy, str, str]] = {
    0: _DROPPED,
    1021: (Remedy.FAIL, "the server's disk is full", "See the server's log"),
    1037: _MEMORY,
    1038: _MEMORY,
    1041: _MEMORY,
    1040: _BUSY,
    1044: (Remedy.CONFIGURE, "the user may not use the database", "Check user and database, or grant access"),
    1045: _LOGIN,
    1049: (Remedy.CONFIGURE, "there is no such database", "Check database"),
    1053: _ENDED,
    1054: _CHANGED,
    1064: _CHANGED,
    1129: (Remedy.CONFIGURE, "the server blocks this host after many failures", "Run FLUSH HOSTS on the server"),
    1130: (Remedy.CONFIGURE, "the server does not let this host in", "Check user and host in the server's grants"),
    1142: _GRANT,
    1143: _GRANT,
    1146: _CHANGED,
    1152: _ENDED,
    1153: (Remedy.FAIL, "a row is larger than the server's max_allowed_packet", "Raise it"),
    1158: _DROPPED,
    1159: _DROPPED,
    1160: _DROPPED,
    1161: _DROPPED,
    1184: _ENDED,
    1194: _DAMAGED,
    1195: _DAMAGED,
    1203: _BUSY,
    1205: (Remedy.RETRY, "the table is locked", ""),
    1213: (Remedy.RETRY, "the server ended the transaction in favour of another", ""),
    1226: (Remedy.RETRY, "the user is at one of the server's limits", ""),
    1227: (
        Remedy.CONFIGURE,
        "the user lacks a privilege",
        "Log-based replication needs REPLICATION SLAVE, and REPLICATION CLIENT or BINLOG MONITOR",
    ),
    1251: _PLUGIN,
    1292: _VALUE,
    1317: _SLOW,
    1356: (Remedy.FAIL, "the view names what is not there, or may not be read", "Mend it, or deselect the stream"),
    1366: _VALUE,
    1370: _GRANT,
    1412: (Remedy.RETRY, "the table was changed by others while the run went on", ""),
    1524: _PLUGIN,
    1690: _VALUE,
    1698: _LOGIN,
    1820: (Remedy.CONFIGURE, "the user must change the password first", "Change it"),
    1862: (Remedy.CONFIGURE, "the user's password has expired", "Change it"),
    1927: _ENDED,
    1969: _SLOW,
    2002: (Remedy.RETRY, "the server cannot be reached", "Check unix_socket"),
    2003: (Remedy.RETRY, "the server cannot be reached", "Check host and port"),
    2006: _DROPPED,
    2013: _DROPPED,
    2026: (Remedy.CONFIGURE, "the server has no TLS", "Set ssl to false, or ask for it there"),
    2055: _DROPPED,
    2059: _PLUGIN,
    3024: _SLOW,
    3118: (Remedy.CONFIGURE, "the user's account is locked", "Unlock it"),
    4031: _ENDED,
    4151: (Remedy.CONFIGURE, "the user's account is locked", "Unlock it"),
}
_CERTIFICATE = (
    Remedy.CONFIGURE,
    "the server's certificate is not accepted",
    "Check ssl_ca; check_hostname and ssl_verify_cert say how much it has to prove",
)
_VALUES = {1292, 1366, 1690}


def remedy(number: int | None) -> tuple[Remedy, str, str]:
    """What to do about an error, the rule in plain words, and what the user can do."""
    if number in _TABLE:
        return _TABLE[number]
    return Remedy.FAIL, "the query failed", "Set TAP_MYSQL_LOGLEVEL=DEBUG to see why"


def translated(error: Exception, stream: str | None = None) -> MelismaError:
    """A driver's error as ours: one line, and never a value of a row."""
    number = _number(error)
    kind, rule, fix = remedy(number)
    if isinstance(getattr(error, "original_exception", None), ssl.SSLCertVerificationError):
        kind, rule, fix = _CERTIFICATE
    if number:
        rule = f"{rule} (error {number})"
    if kind is Remedy.RETRY:
        return ConnectionLost("MySQL", rule, stream=stream, fix=fix or "Run it again")
    if kind is Remedy.CONFIGURE and stream is None:
        return ConfigError("host, user, password, database", rule, fix)
    if number in _VALUES:
        return BadRecord(rule, stream=stream, fix=fix)
    return DatabaseError("MySQL", rule, stream=stream, fix=fix)


def _number(error: Exception) -> int | None:
    first: Any = error.args[0] if error.args else None
    return first if isinstance(first, int) else None
