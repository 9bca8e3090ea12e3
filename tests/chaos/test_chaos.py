"""`make demo CHAOS=1`: every process of the platform is killed in turn under traffic, and nothing is lost or doubled."""

from __future__ import annotations

import pytest

from fraud_testing.demo import run

FAULTS = {
    "taskmanager", "jobmanager", "broker", "redis", "postgresql", "predictor", "decision service", "worker",
    "profile sink", "ledger sink", "lake sink", "operator", "object store", "FLUSHALL", "streaming job deleted", "API server",
}  # fmt: skip


@pytest.fixture(scope="module")
def demo() -> dict:
    return run("--chaos", seconds=3600)


def test_every_check_holds_though_every_process_was_killed(demo: dict) -> None:
    """Nothing lost, nothing doubled, vectors equal, answers as the ledger has them."""
    assert {check: held for check, held in demo["checks"].items() if not held} == {}
    assert demo["exit"] == 0


def test_each_fault_came_and_its_outage_is_reported(demo: dict) -> None:
    """The summary holds a row for every victim, with the time it was away."""
    assert {outage["fault"] for outage in demo["outages"]} == FAULTS
    assert all(outage["away_s"] >= 0 and sum(outage["decided"].values()) for outage in demo["outages"])


def test_decisions_without_the_claims_say_so(demo: dict) -> None:
    """While Redis was away, decisions were marked as unguarded."""
    redis = next(outage for outage in demo["outages"] if outage["fault"] == "redis")
    assert redis["degraded"].get("idempotency", 0) > 0
