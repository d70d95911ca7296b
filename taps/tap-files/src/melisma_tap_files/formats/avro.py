"""Avro files."""

from __future__ import annotations

from melisma.formats.avro import AvroReader
from melisma_tap_files.formats.typed import Typed

__all__ = ["FORMAT"]

FORMAT = Typed(lambda file, where, settings: AvroReader(file, where=where, stream=settings.name))
