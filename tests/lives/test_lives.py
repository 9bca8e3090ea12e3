"""`make demo LIVES=1`: what years bring, under traffic: nothing is lost, published twice or answered otherwise without a mark."""

from __future__ import annotations

import pytest

from fraud_testing.demo import run

STEPS = [
    "feature set changed", "feature set taken back", "streaming job deleted", "put back to an earlier version", "upgraded",
    "detector deleted and made again", "transactions made anew", "Redis of an older file", "FLUSHALL",
]  # fmt: skip


@pytest.fixture(scope="module")
def demo() -> dict:
    return run("--lives", "--rate", "100", seconds=5400)


def test_every_check_holds_over_all_lives(demo: dict) -> None:
    """Payments of the beginning too, which are sent again at the end by both doors."""
    assert {check: held for check, held in demo["checks"].items() if not held} == {}
    assert demo["exit"] == 0 and demo["resent"] >= 5_000


def test_each_step_came_and_its_outage_is_reported(demo: dict) -> None:
    """The summary holds a row for each, with the time for which the detector wasn't Ready."""
    assert [outage["fault"] for outage in demo["outages"]] == STEPS
    assert all(outage["away_s"] >= 0 and sum(outage["decided"].values()) for outage in demo["outages"])
