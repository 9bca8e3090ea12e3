"""Profiles that version 1 of the form wrote are read, and go on as version 2."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from fraud_contracts import profile_header
from fraud_pipelines.features import read_header
from fraud_testing.profiles import HOUR, START, event, payments, summed


def stored() -> dict[str, dict[str, str]]:
    """Profiles that version 1 wrote, and the bits that it read off them; never to be made anew."""
    path = Path(__file__).parent / "data" / "profiles-v1.json"
    profiles: dict[str, dict[str, str]] = json.loads(path.read_text())
    return profiles


@pytest.mark.parametrize("entity", ["customer", "counterparty"])
def test_a_profile_that_version_1_wrote_is_read_and_goes_on_as_version_2(entity: str) -> None:
    """Bytes written when the form was new give the values that they gave then, with cells, single events and labels.
    What is written of them is version 2: its digest is theirs plus what was applied since, by whoever reads them."""
    features, of = payments(k=16), stored()[entity]
    profile = bytes.fromhex(of["profile"])
    header = profile_header.read(profile)
    assert header.version == 1
    stage, body = features.stage(entity), event(300, START + 301 * HOUR)
    vector = features.vector(body, {entity: stage.peek(profile, body)})
    assert (
        struct.pack(f"<{len(vector)}d", *(v if v == v else float("nan") for v in vector)).hex()
        == of["vector"]
    )
    values, after, saw = stage.observe(profile, body)
    assert values is not None
    assert saw == header[2:] == read_header(profile)[2:5]
    assert profile_header.read(after).version == 2
    assert read_header(after)[3:5] == (header.seq + 1, summed(body, start=header.digest))
    unchanged = stage.open(profile).dump()
    assert (read_header(unchanged).version, read_header(unchanged)[1:]) == (2, read_header(profile)[1:])
    assert unchanged[4:] == profile[4:]


def test_two_doors_that_go_on_from_a_version_1_profile_agree_where_their_sets_do() -> None:
    """The stream, whose state it is, and the inline door, which observes what is pending: one digest for one set of events
    taken since, whatever the order, and none for another set."""
    stage, profile = payments(k=16).stage("customer"), bytes.fromhex(stored()["customer"]["profile"])
    later = [event(300 + i, START + 301 * HOUR + i) for i in range(4)]

    def digest(bodies: list[dict[str, Any]]) -> int:
        live = stage.open(profile)
        for body in bodies:
            assert live.observe(body) is not None
        return live.saw[2]

    assert digest(later) == digest(later[::-1])
    assert len({digest(later[:n]) for n in range(5)} | {digest(later[1:])}) == 6
