"""The native extension `melisma-native`, where that distribution is installed.

It is optional: whatever it does, there is a way to do without it that gives the same result. `MELISMA_NATIVE=0` in
the environment leaves it unused.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

__all__ = ["native_extension"]

_INTERFACE = 3
"""The version of the extension's interface that melisma speaks."""

_logger = logging.getLogger(__name__)


def native_extension() -> Any | None:
    """The module `melisma_native`; None where it is not installed, of another version, or switched off."""
    if os.environ.get("MELISMA_NATIVE") == "0":
        return None
    try:
        found = importlib.import_module("melisma_native")
    except ImportError:
        return None
    if found.INTERFACE != _INTERFACE:
        _logger.warning("melisma-native %s is of another version than melisma: unused", found.__version__)
        return None
    return found
