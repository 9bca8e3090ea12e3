"""Every row of docs/bad-input.md through the running platform, by both doors and the labels' endpoint."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from fraud_testing import traffic
from fraud_testing.bad_input import CASES, DECIDED, LABELS
from fraud_testing.platform import Platform

pytestmark = pytest.mark.integration


def test_over_http(platform: Platform) -> None:
    """Decided, or 400 (413) with the stated code and field; nothing is half done."""
    now = int(time.time() * 1000)
    bodies = [(case.name, case.body(f"bad-http-{i}", now)) for i, case in enumerate(CASES)]
    answers = asyncio.run(traffic.together(platform.service.url + "/v1/decisions", bodies))
    for case, answer in zip(CASES, answers, strict=True):
        if case.outcome == DECIDED:
            assert (answer.status, answer.document["action"] in ("approve", "review", "decline")) == (
                200,
                True,
            ), case
            continue
        error = answer.document["error"]
        assert answer.status == (413 if case.outcome == "too_large" else 400), case
        assert (error["code"], error["field"]) == (case.outcome, case.field), case


def test_through_the_topic(platform: Platform) -> None:
    """Decided, or one dead letter with the stated reason, origin and nothing of the value."""
    now = int(time.time() * 1000)
    topic = platform.topic("transactions")
    before = platform.broker.count(topic)
    bodies = {case.name: case.body(f"bad-topic-{i}", now) for i, case in enumerate(CASES)}
    # In one partition and one at a time, so that the offset tells the case.
    start = sum(1 for m in platform.broker.read(topic) if m.partition() == 0)
    platform.broker.produce(topic, [(None, raw) for raw in bodies.values()], partition=0)
    assert platform.broker.count(topic) == before + len(bodies)
    platform.settled()
    letters = {
        letter["source"]["offset"]: letter
        for letter in platform.read("dead-letters")
        if letter["source"]["topic"] == topic and letter["source"]["partition"] == 0
    }
    decided = {
        one["source"]["offset"]: one
        for one in platform.read("decisions")
        if one["source"]["topic"] == topic and one["source"]["partition"] == 0
    }
    for at, case in enumerate(CASES, start):
        if case.name == "id as an integer":
            continue  # its id was decided by the other door before: the claim's decision stands, or it is a conflict
        if case.outcome == DECIDED:
            assert at in decided, case
            assert at not in letters, case
        else:
            assert letters[at]["reason"] == case.outcome, case
            assert at not in decided, case


def test_labels(platform: Platform) -> None:
    """Taken with 202, or refused with the stated code and never a 5xx."""
    sound = {"id": "label-1", "label": "fraud", "source": "analyst"}
    bodies = [
        (name, changes if isinstance(changes, bytes) else orjson.dumps({**sound, **changes}))
        for name, changes, _ in LABELS
    ]
    answers = asyncio.run(traffic.together(platform.service.url + "/v1/labels", bodies))
    for (name, _, code), answer in zip(LABELS, answers, strict=True):
        if code is None:
            assert answer.status == 202, (name, answer.body)
        else:
            assert answer.document["error"]["code"] == code, (name, answer.body)
            assert answer.status in (400, 413, 422), name
