"""What to do about a database server's errors."""

from __future__ import annotations

from enum import Enum

from melisma.errors import DatabaseError

__all__ = ["ConnectionLost", "Remedy"]


class Remedy(Enum):
    """What to do about an error."""

    RETRY = "retry"
    CONFIGURE = "configure"
    FAIL = "fail"


class ConnectionLost(DatabaseError):
    """The connection failed or dropped; another one may work."""
