"""Where the memory of Arrow's buffers comes from."""

from __future__ import annotations

import os

__all__ = ["use_system_pool"]


def use_system_pool() -> None:
    """Let Arrow take its memory from the C library, where that is glibc. Before pyarrow is imported.

    Arrow's own allocator keeps room for each thread by itself: with threads that encode that is up to a fifth of the
    peak (docs/performance.md), for no time saved. Others' `malloc` may be slow, so it stays there.
    `ARROW_DEFAULT_MEMORY_POOL` in the environment goes before.
    """
    try:
        glibc = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):  # another system, or another C library
        return
    if glibc:
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
