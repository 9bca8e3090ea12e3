"""What an id, a time and an integer may be, wherever a record from outside names one."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

from fraud_contracts.errors import EventError, Reason

MAX_TEXT: Final = 200
MAX_INTEGER: Final = 2**53 - 1
MIN_TIME: Final = 946_684_800_000  # 2000-01-01: seconds sent as milliseconds end up before it
MAX_TIME: Final = 253_402_300_799_000  # the year 9999 ends: no later time can be shown


def identifier(
    value: Any,
    field: str,
    reason: Reason = Reason.INVALID_ID,
    missing: Reason = Reason.MISSING_FIELD,
    event_id: str | None = None,
) -> str:
    """The text of an id: a string or an integer, 1 to 200 printable characters in normal form C, no space at the ends.

    EventError names ``field`` and what is wrong with it: ``missing`` where it isn't there, ``reason`` for its characters.
    """

    def refused(why: Reason, problem: str) -> EventError:
        return EventError(why, f"{field} {problem}", field, event_id)

    kind = value.__class__
    if kind is int and -(2**63) <= value < 2**64:  # what every reader of JSON takes for an integer
        return str(value)
    if kind is not str:
        if value is None:
            raise refused(missing, "is missing")
        raise refused(Reason.WRONG_TYPE, "must be a string or an integer")
    if not value:
        raise refused(reason, "is empty")
    if len(value) > MAX_TEXT:
        raise refused(reason, f"is longer than {MAX_TEXT} characters")
    if not value.isprintable():
        raise refused(reason, "holds control or invisible characters")
    if value[0] == " " or value[-1] == " ":
        raise refused(reason, "starts or ends with a space")
    if not value.isascii() and not unicodedata.is_normalized("NFC", value):
        raise refused(reason, "is not in Unicode normal form C")
    return str(value)
