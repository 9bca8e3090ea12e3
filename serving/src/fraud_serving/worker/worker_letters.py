"""Dead letters of the worker: what it refused, why, and the bytes, sealed under the detector's key."""

from __future__ import annotations

import orjson

from fraud_contracts.config import MAX_EVENT_BYTES
from fraud_contracts.errors import Reason
from fraud_contracts.records import DeadLetter, FeatureRecord, Source
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher


def conflict(cipher: DeadLetterCipher, record: FeatureRecord) -> bytes:
    """Of a record whose id was decided with another body."""
    letter: DeadLetter = {
        "id": record["event"]["id"],
        "reason": Reason.ID_REUSED,
        "message": "the id was used with another body before",
        "stage": "worker",
        "source": record["source"],
        "appended": record["appended"],
        "payload": cipher.encrypt(orjson.dumps(record["event"])),
    }
    return orjson.dumps(letter)


def unreadable(
    cipher: DeadLetterCipher,
    event_id: str | None,
    value: bytes,
    source: Source,
    appended: int,
    error: Exception,
) -> bytes:
    """Of bytes on the features topic that are no feature record."""
    letter: DeadLetter = {
        "id": event_id,
        "reason": Reason.INVALID_JSON,
        "message": f"no feature record: {error}",
        "stage": "worker",
        "source": source,
        "appended": appended,
        "payload": cipher.encrypt(
            value[:MAX_EVENT_BYTES]
        ),  # sealed, all of it might be too much for a record
    }
    return orjson.dumps(letter)
