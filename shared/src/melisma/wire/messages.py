"""Single Singer messages: which type a line is, and what a SCHEMA, STATE or ACTIVATE_VERSION says.

Only single lines are read here. RECORD lines go by the run, see `melisma.wire.framing` and `melisma.arrow.decode`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from melisma.errors import BadMessage

__all__ = ["Envelope", "Message", "announces_state", "envelope", "message_dict", "state_text"]


class Message(msgspec.Struct, frozen=True):
    """One line that is not a RECORD.

    Attributes:
        type: the message's type, as the line says it.
        data: the line, without its newline.
        line: its number, counted from 1.
    """

    type: str
    data: bytes
    line: int


class Envelope(msgspec.Struct, frozen=True):
    """What must be known of a line to route it."""

    type: str
    stream: str | None = None


class _State(msgspec.Struct):
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_envelopes = msgspec.json.Decoder(Envelope)
_states = msgspec.json.Decoder(_State)
_dicts = msgspec.json.Decoder(float_hook=Decimal)


def envelope(data: bytes, line: int) -> Envelope:
    """The type and stream of one line.

    Raises:
        BadMessage: the line is not JSON, not an object, or has no type.
    """
    try:
        found = _envelopes.decode(data)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise _not_a_message(data, line) from error
    except msgspec.DecodeError as error:
        raise BadMessage("is not JSON", line=line, fix="Every line must be one Singer message") from error
    if found.type == "RECORD" and found.stream is None:
        raise BadMessage('a RECORD message without "stream"', line=line, fix="Mend the tap")
    return found


def message_dict(message: Message, *required: str) -> dict[str, Any]:
    """The message as a dictionary; floats become `Decimal`, so that nothing is rounded.

    Raises:
        BadMessage: one of the `required` keys is missing.
    """
    try:
        found = _dicts.decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage("is not JSON", line=message.line, fix="Every line must be one Singer message") from error
    for key in required:
        if found.get(key) is None:
            raise BadMessage(f'a {message.type} message without "{key}"', line=message.line, fix="Mend the tap")
    return found  # type: ignore[no-any-return]


def state_text(message: Message) -> bytes:
    """The value of a STATE message as the tap wrote it, byte for byte.

    Raises:
        BadMessage: there is no value, or it is not an object.
    """
    try:
        value = _states.decode(message.data).value
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage("is not JSON", line=message.line, fix="Every line must be one Singer message") from error
    text = b"" if value is msgspec.UNSET else bytes(value).strip()
    if not text.startswith(b"{"):
        raise BadMessage('a STATE message whose "value" is not an object', line=message.line, fix="Mend the tap")
    return text


def announces_state(message: Message) -> bool:
    """Whether a SCHEMA message says that its tap always announces its starting STATE and repeats its final one."""
    mark = _dicts.decode(message.data).get("melisma")
    return isinstance(mark, dict) and mark.get("announces_state") is True


def _not_a_message(data: bytes, line: int) -> BadMessage:
    try:
        value = _dicts.decode(data)
    except UnicodeDecodeError:
        return BadMessage("is not UTF-8", line=line, fix="Singer messages are UTF-8; mend the tap")
    except msgspec.DecodeError:
        return BadMessage("is not JSON", line=line, fix="Every line must be one Singer message")
    if not isinstance(value, dict):
        return BadMessage("is not a JSON object", line=line, fix="Every line must be one Singer message")
    if "type" not in value:
        return BadMessage('has no "type"', line=line, fix="Every line must be one Singer message")
    if not isinstance(value["type"], str):
        return BadMessage('has a "type" that is not text', line=line, fix="Mend the tap")
    return BadMessage('has a "stream" that is not text', line=line, fix="Mend the tap")
