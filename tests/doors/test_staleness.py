"""How often a decision hasn't seen what the stream had, under the simulator's traffic with all parts at work."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fraud_pipelines.simulator import Population
from fraud_testing import traffic
from fraud_testing.platform import Platform

pytestmark = [pytest.mark.integration, pytest.mark.accept]
RATE, SECONDS = 500, 15
MOST = 0.005
LOST = ("profiles_unavailable", "profiles_incomplete")


def carried(answers: list[traffic.Answer]) -> float:
    """Share of the requests that the machine answered with all parts in time."""
    whole = [a for a in answers if a.status == 200 and not a.document["degraded"]]
    return len(whole) / len(answers)


def test_few_decisions_are_stale(platform: Platform) -> None:
    """At 500 a second, or what this machine carries, at most 0.5 % of the decisions saw another set than the stream; none differs otherwise."""
    people = Population.make(7, 20_000, 2_500)
    url = platform.service.url + "/v1/decisions"
    warm_up = traffic.transactions(people, RATE / 2, 4, run=1)
    asyncio.run(traffic.open_loop(url, warm_up, RATE / 2))
    rate = float(RATE)
    for run in (2, 3, 4):
        sent = traffic.transactions(people, rate, SECONDS, run)
        answers = asyncio.run(traffic.open_loop(url, sent, rate))
        platform.settled(180)
        if carried(answers) >= 0.99 or run == 4:
            break
        rate /= 2
    ids = {one["id"] for one in sent}
    decisions = [one for one in platform.read("decisions") if one["id"] in ids]
    compared = [one for one in decisions if not set(LOST) & set(one["degraded"])]
    parity = Counter(one["parity"] for one in compared)
    figures = {"rate": rate, "carried": round(carried(answers), 4), **parity}
    print(figures)  # pytest -rP shows it
    by_entity = Counter(
        entity
        for one in compared
        if one["parity"] == "stale"
        for entity, (_, _, digest) in one["saw"].items()
        if digest != one["streamed"]["saw"][entity][2]
    )
    assert parity["mismatch"] == 0, figures
    assert len(compared) >= 0.5 * len(sent), figures
    assert parity["stale"] <= MOST * len(compared), (figures, by_entity)
