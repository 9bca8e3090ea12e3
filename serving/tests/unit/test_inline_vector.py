"""Features at the inline door, from whatever bytes the store has for a profile."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from fraud_contracts.errors import Degraded
from fraud_pipelines.features import compile_detector
from fraud_serving.decision.inline_vector import compute_inline
from fraud_testing import detectors

NOW = 1_795_000_000_000
ENGINE = compile_detector(detectors.detector("unused:9092").spec)


def event(n: int) -> Any:
    return {
        "id": f"e{n}",
        "time": NOW + n,
        "amount": 100,
        "currency": "EUR",
        "entities": {"customer": "c", "counterparty": None},
        "fields": {"category": None},
    }


def later_version(profile: bytes) -> bytes:
    changed = bytearray(profile)
    struct.pack_into("<H", changed, 2, 99)
    return bytes(changed)


@pytest.mark.parametrize("spoil", [later_version, lambda profile: profile[:-1], lambda profile: b"rubbish"])
def test_a_profile_that_cannot_be_read_is_missing(spoil: Any) -> None:
    """One of a later version (an update goes on), a cut one and rubbish are as good as lost: the vector is a new key's, and the
    answer says so. What the stream had seen has another digest, so the audit calls it stale."""
    stage = ENGINE.stage("customer")
    _, profile, _ = stage.observe(None, event(1))
    computed = compute_inline(ENGINE, event(2), {"customer": spoil(profile)}, {}, True, 1)
    fresh = compute_inline(ENGINE, event(2), {"customer": None}, {}, True, 1)
    assert computed.degraded == [Degraded.PROFILES_INCOMPLETE]
    assert str(computed.vector) == str(fresh.vector)
    assert (
        computed.saw == fresh.saw != compute_inline(ENGINE, event(2), {"customer": profile}, {}, True, 1).saw
    )
