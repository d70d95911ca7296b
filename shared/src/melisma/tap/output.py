"""How a tap's messages reach the protocol output, between the blocks of records that go there directly."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from singer_sdk.helpers._state import StateWriter
from singer_sdk.io_base import SingerWriter
from singer_sdk.singerlib import Message, SchemaMessage, StateMessage

from melisma.wire.output import protocol_output

if TYPE_CHECKING:
    from singer_sdk.helpers.types import TapState
    from singer_sdk.singerlib.encoding.base import GenericSingerWriter

__all__ = ["ANNOUNCEMENT", "AnnouncedSchema", "MessageWriter", "RepeatableStateWriter"]

ANNOUNCEMENT: dict[str, Any] = {"announces_state": True}
"""Stands in every SCHEMA message under `melisma`.

It promises: this tap prints its starting STATE before its first SCHEMA, so none there means that it started from
nothing; and it ends with a STATE, so rows after the last one mean that it did not come to its end.
"""


class MessageWriter(SingerWriter):
    """Writes single messages to the protocol output, and at once: a STATE is no use in a buffer."""

    def write_message(self, message: Message) -> None:
        """Write one message as a line."""
        output = protocol_output()
        output.write(f"{self.format_message(message)}\n".encode())
        output.flush()


class AnnouncedSchema(SchemaMessage):
    """A SCHEMA message with `ANNOUNCEMENT`. A target that does not know the key does not look at it."""

    @classmethod
    def of(cls, message: SchemaMessage) -> AnnouncedSchema:
        """The same message with the announcement."""
        return cls(message.stream, message.schema, message.key_properties, message.bookmark_properties)

    def to_dict(self) -> dict[str, Any]:
        """The message as it is written."""
        return {**SchemaMessage.to_dict(self), "melisma": ANNOUNCEMENT}


class RepeatableStateWriter(StateWriter):
    """Leaves out a STATE that says nothing new, as singer-sdk does, but can be told to say it again.

    Attributes:
        last_size: length of the last STATE line, in characters.
    """

    def __init__(self, message_writer: GenericSingerWriter[Any, Any]) -> None:
        super().__init__(message_writer)
        self._writer = message_writer
        self.last_size = 0

    def write_state(self, state: TapState) -> None:
        """Write the state if it is not the one that was written last."""
        if state != self._last_emitted_state:
            self.repeat_state(state)

    def repeat_state(self, state: TapState) -> None:
        """Write the state, new or not."""
        message = StateMessage(value=state)
        self.last_size = len(self._writer.format_message(message))
        self._writer.write_message(message)
        self._last_emitted_state = copy.deepcopy(state)
