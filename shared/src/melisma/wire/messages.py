"""Single Singer messages: which type a line is, and what a SCHEMA, STATE or ACTIVATE_VERSION says.

Only single lines are read here. RECORD lines go by the run, see `melisma.wire.framing` and `melisma.arrow.decode`.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from melisma.errors import BadMessage

__all__ = [
    "UNREADABLE",
    "Envelope",
    "Message",
    "announces_state",
    "envelope",
    "message_dict",
    "state_text",
    "unreadable",
]


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


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidOperation)
"""What msgspec raises for a line that it cannot read; `unreadable` says it in our words."""

_EVERY_LINE = "Every line must be one Singer message"
_BYTE = re.compile(r"\(byte (\d+)\)")
_HALF_PAIR = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")

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
    except msgspec.ValidationError as error:
        raise _not_a_message(data, line) from error
    except UNREADABLE as error:
        raise unreadable(error, data, line) from error
    if found.type == "RECORD" and found.stream is None:
        raise BadMessage('a RECORD message without "stream"', line=line, fix="Mend the tap")
    return found


def message_dict(message: Message, *required: str) -> dict[str, Any]:
    """The message as a dictionary; floats become `Decimal`, so that nothing is rounded.

    Raises:
        BadMessage: the line is not JSON, or one of the `required` keys is missing.
    """
    try:
        found = _dicts.decode(message.data)
    except UNREADABLE as error:
        raise unreadable(error, message.data, message.line) from error
    for key in required:
        if found.get(key) is None:
            article = "an" if message.type[0] in "AEIOU" else "a"
            raise BadMessage(f'{article} {message.type} message without "{key}"', line=message.line, fix="Mend the tap")
    return found  # type: ignore[no-any-return]


def state_text(message: Message) -> bytes:
    """The value of a STATE message as the tap wrote it, byte for byte.

    Raises:
        BadMessage: there is no value, or it is not an object.
    """
    try:
        value = _states.decode(message.data).value
        text = b"" if value is msgspec.UNSET else bytes(value).strip()
        text.decode()  # msgspec passes over what a raw value holds
    except UNREADABLE as error:
        raise unreadable(error, message.data, message.line) from error
    if not text.startswith(b"{"):
        raise BadMessage('a STATE message whose "value" is not an object', line=message.line, fix="Mend the tap")
    return text


def unreadable(error: Exception, data: bytes, line: int) -> BadMessage:
    """The fault of a line that is not JSON.

    Args:
        error: what msgspec said, one of `UNREADABLE`.
        data: the line.
        line: its number.
    """
    if isinstance(error, RecursionError):
        return BadMessage("is nested too deeply to be read", line=line, fix="Mend the tap")
    if isinstance(error, InvalidOperation) or "out of range" in str(error):
        return BadMessage(
            "holds a number with more digits than can be read", line=line, fix="Mend the source or the tap"
        )
    try:
        data.decode()
    except UnicodeDecodeError:
        return BadMessage("is not UTF-8", line=line, fix="Singer messages are UTF-8; mend the tap")
    if _HALF_PAIR.search(data):
        rule = r"holds half of a surrogate pair (\ud800 to \udfff), which is not text"
        return BadMessage(rule, line=line, fix="Mend the tap")
    at = _BYTE.search(str(error))
    return BadMessage(f"is not JSON (at byte {at[1]})" if at else "is not JSON", line=line, fix=_EVERY_LINE)


def announces_state(message: Message) -> bool:
    """Whether a SCHEMA message says that its tap always announces its starting STATE and repeats its final one."""
    mark = message_dict(message).get("melisma")
    return isinstance(mark, dict) and mark.get("announces_state") is True


def _not_a_message(data: bytes, line: int) -> BadMessage:
    try:
        value = _dicts.decode(data)
    except UNREADABLE as error:
        return unreadable(error, data, line)
    if not isinstance(value, dict):
        return BadMessage("is not a JSON object", line=line, fix=_EVERY_LINE)
    if "type" not in value:
        return BadMessage('has no "type"', line=line, fix=_EVERY_LINE)
    if not isinstance(value["type"], str):
        return BadMessage('has a "type" that is not text', line=line, fix="Mend the tap")
    return BadMessage('has a "stream" that is not text', line=line, fix="Mend the tap")
