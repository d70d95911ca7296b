"""Arrow IPC files (Feather) and streams."""

from __future__ import annotations

from melisma.formats.arrow_ipc import ArrowIpcReader
from melisma_tap_files.formats.typed import Typed

__all__ = ["FORMAT"]

FORMAT = Typed(lambda file, where, settings: ArrowIpcReader(file, where=where, stream=settings.name))
