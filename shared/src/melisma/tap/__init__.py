"""What a tap author writes against: record batches in, Singer messages out."""

from melisma.tap.stream import ArrowStream, Progress
from melisma.tap.tap import ArrowTap

__all__ = ["ArrowStream", "ArrowTap", "Progress"]
