"""Same id, same answer: whichever door, however often, all at once, with Redis killed, with everything restarted."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import threading
import time
import urllib.request
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from fraud_serving import wholeness
from fraud_testing import traffic
from fraud_testing.kafka import wait_for
from fraud_testing.platform import Platform

pytestmark = [pytest.mark.integration, pytest.mark.slow]
MIXED = 10_000
# What an answer shows of its decision, as the API says it.
SHOWN = (
    "id", "action", "score", "probability", "reasons", "release", "model_version", "model_digest", "arm", "degraded",
    "decided", "latency_ms",
)  # fmt: skip
MARK = "idempotency"


def body(event_id: str, **changes: Any) -> bytes:
    whole = {
        "id": event_id,
        "time": int(time.time() * 1000),
        "amount": 10.0,
        "card": f"card-{event_id}",
        "merchant": f"shop-{zlib.crc32(event_id.encode()) % 500}",
        "category": "travel",
    }
    return orjson.dumps({**whole, **changes})


def ask(platform: Platform, bodies: Sequence[tuple[str, bytes]], at_once: int = 64) -> list[traffic.Answer]:
    return asyncio.run(traffic.together(platform.service.url + "/v1/decisions", bodies, at_once))


def find(platform: Platform, event_id: str) -> bytes:
    request = urllib.request.Request(f"{platform.service.url}/v1/decisions/{event_id}", headers=traffic.KEY)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


def ledger(platform: Platform, prefix: str) -> dict[str, dict[str, Any]]:
    rows = platform.rows(f"SELECT id, record FROM decisions WHERE id LIKE '{prefix}%'")
    return dict(rows)


def shown(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in SHOWN}


def decisions(platform: Platform, prefix: str) -> list[dict[str, Any]]:
    return [one for one in platform.read("decisions") if one["id"].startswith(prefix)]


def test_a_hundred_retries_at_once_are_one_decision(platform: Platform) -> None:
    """One decision, one ledger row, one answer: the hundred answers are the same bytes, latency and all."""
    one = body("race-1")
    answers = ask(platform, [("race-1", one)] * 100, at_once=100)
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    platform.settled()
    assert [decision["id"] for decision in decisions(platform, "race-")] == ["race-1"]
    rows = ledger(platform, "race-")
    assert list(rows) == ["race-1"]
    assert shown(rows["race-1"]) == answers[0].document
    assert find(platform, "race-1") == answers[0].body


def test_a_burst_on_one_card_is_counted_exactly(platform: Platform) -> None:
    """Ten in a row on a card at a shop, each after the last answer: both counts are exactly 1 to 10, with the stream at work."""
    start = time.monotonic()
    for i in range(10):
        answers = ask(platform, [(f"burst-{i}", body(f"burst-{i}", card="burst", merchant="burst-shop"))])
        assert answers[0].status == 200
    took = time.monotonic() - start
    platform.settled()
    places = [
        next(i for i, name in enumerate(platform.names) if entity in name and "count" in name)
        for entity in ("customer", "counterparty")
    ]
    by_id = {one["id"]: one for one in decisions(platform, "burst-")}
    for i in range(10):
        one = by_id[f"burst-{i}"]
        assert [one["vector"][place] for place in places] == [i + 1, i + 1], f"{i}, after {took:.1f} s"
        assert one["parity"] == "equal"


@dataclass
class Sent:
    """What one id was sent as: the body of each request with its answer, and the bodies on the topic."""

    asked: list[tuple[bytes, traffic.Answer]] = field(default_factory=list)
    produced: list[bytes] = field(default_factory=list)


def plan(rng: random.Random, count: int) -> list[tuple[str, str, bytes]]:
    """(door, id, body) in the order of sending: a third by each door, a third by both, repeats and other bodies among them."""
    sends: list[tuple[float, str, str, bytes]] = []
    for i in range(count):
        event_id = f"mix-{i}"
        sound, other = body(event_id), body(event_id, amount=99.0)
        doors = {0: ("http",), 1: ("topic",), 2: ("http", "topic")}[i % 3]
        for door in doors:
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                sends.append((i + rng.uniform(0, 400), door, event_id, sound))
        if i % 40 == 0:
            sends.append((i + rng.uniform(0, 400), rng.choice(doors), event_id, other))
    return [(door, event_id, raw) for _, door, event_id, raw in sorted(sends)]


async def drive(platform: Platform, sends: list[tuple[str, str, bytes]]) -> dict[str, Sent]:
    """Sends everything, 32 requests at a time; Redis is killed at a half and comes back as it was, once an answer has felt it."""
    sent: dict[str, Sent] = defaultdict(Sent)
    producer, topic = platform.broker.producer(), platform.topic("transactions")
    gate, felt = asyncio.Semaphore(32), threading.Event()
    url = platform.service.url + "/v1/decisions"
    async with traffic.session() as client:

        async def request(event_id: str, raw: bytes) -> None:
            try:
                answer = await traffic.post(client, url, event_id, raw)
                while answer.status in (0, 503):  # as a payment system would
                    await asyncio.sleep(0.1)
                    answer = await traffic.post(client, url, event_id, raw)
            finally:
                gate.release()
            sent[event_id].asked.append((raw, answer))
            if answer.status == 200 and MARK in answer.document["degraded"]:
                felt.set()

        def kill() -> None:
            platform.redis.stop(signal.SIGKILL)
            felt.wait(10)
            platform.redis.start()

        tasks: list[asyncio.Future[Any]] = []
        for n, (door, event_id, raw) in enumerate(sends):
            if n == len(sends) // 2:
                tasks.append(asyncio.ensure_future(asyncio.to_thread(kill)))
            if door == "topic":
                producer.produce(topic, raw, event_id)
                producer.poll(0)
                sent[event_id].produced.append(raw)
            else:
                await gate.acquire()
                tasks.append(asyncio.create_task(request(event_id, raw)))
        await asyncio.gather(*tasks)
    assert producer.flush(60) == 0
    return sent


def test_ten_thousand_ids_through_both_doors(platform: Platform) -> None:
    """Each id is decided once, and each answer is the ledger's row, but for those marked while Redis was away."""
    conflicts = platform.metric(platform.service, "fraud_id_conflicts_total")
    sent = asyncio.run(drive(platform, plan(random.Random(4), MIXED)))
    platform.settled(180)
    counted = Counter(decision["id"] for decision in decisions(platform, "mix-"))
    assert set(counted) == {f"mix-{i}" for i in range(MIXED)}
    assert max(counted.values()) == 1
    rows = ledger(platform, "mix-")
    assert len(rows) == MIXED
    assert platform.rows("SELECT count(*) FROM decision_conflicts WHERE id LIKE 'mix-%'") == [(0,)]
    letters = Counter(
        letter["id"] for letter in platform.read("dead-letters") if letter["reason"] == "id_reused"
    )

    marked, refused, superseded = 0, 0, 0
    for event_id, one in sent.items():
        row = rows[event_id]
        amount = row["event"]["amount"]
        row_marked = MARK in row["degraded"]
        for raw, answer in one.asked:
            same = orjson.loads(raw)["amount"] * 100 == amount
            if answer.status == 409:
                refused += 1
                assert not same or row_marked, event_id
            elif MARK in answer.document["degraded"]:
                marked += 1
            elif answer.document != shown(row):
                # Decided anew in the moment before the claim was made up for: the row itself carries the mark.
                assert row_marked, (event_id, answer.document, shown(row))
                superseded += 1
            else:
                assert same, event_id
        if any(orjson.loads(raw)["amount"] * 100 != amount for raw in one.produced):
            assert letters[event_id] >= 1, event_id
    assert platform.metric(platform.service, "fraud_id_conflicts_total") - conflicts == refused > 0
    assert platform.metric(platform.worker, "fraud_id_conflicts_total") == sum(letters.values())
    assert bool(superseded) <= bool(platform.metric(platform.worker, "fraud_answers_superseded_total"))
    assert marked > 0, "Redis was never away"
    assert marked < MIXED / 10

    def claims_restored() -> bool:
        """Also those decided without Redis can be asked for again, and get the row."""
        ids = [i for i, row in rows.items() if MARK in row["degraded"]][:50]
        return all(orjson.loads(find(platform, i))["id"] == i for i in ids)

    assert wait_for(claims_restored, 20, "the claims of what was decided without Redis")


def test_restarts_change_no_answer(platform: Platform) -> None:
    """Service and worker killed: the same answers from the claims, the ids known from the log, each still once."""
    bodies = [(f"again-{i}", body(f"again-{i}")) for i in range(50)]
    first = ask(platform, bodies)
    assert {answer.status for answer in first} == {200}
    platform.service.stop(signal.SIGKILL)
    platform.worker.stop(signal.SIGKILL)
    platform.service.start()
    platform.worker.start()
    assert [answer.body for answer in ask(platform, bodies)] == [answer.body for answer in first]
    platform.broker.produce(platform.topic("transactions"), [(i, raw) for i, raw in bodies])
    platform.settled()
    assert Counter(decision["id"] for decision in decisions(platform, "again-")) == Counter(
        dict.fromkeys(dict(bodies), 1)
    )


def test_without_any_claim_the_log_still_knows_the_ids(platform: Platform) -> None:
    """Redis emptied and the worker started anew: repeats over HTTP get the ledger's answer or are marked, and none of either door is published again."""
    bodies = [(f"lost-{i}", body(f"lost-{i}")) for i in range(50)]
    first = {answer.id: answer.document for answer in ask(platform, bodies)}
    platform.settled()
    platform.redis_client().flushall()
    platform.worker.stop(signal.SIGKILL)
    platform.worker.start()
    by_http, by_topic = bodies[:20], bodies[20:]
    other = [(i, body(i, amount=77.0, card=f"another-{i}")) for i, _ in by_topic[:5]]
    answers = ask(platform, by_http)
    assert {answer.status for answer in answers} == {200}
    marked = [answer.id for answer in answers if MARK in answer.document["degraded"]]
    assert all(answer.id in marked or answer.document == first[answer.id] for answer in answers)
    platform.broker.produce(platform.topic("transactions"), [(i, raw) for i, raw in by_topic + other])
    platform.settled()
    published = decisions(platform, "lost-")
    assert Counter(one["id"] for one in published) == Counter(dict.fromkeys(dict(bodies), 1))
    assert all(shown(one) == first[one["id"]] for one in published)
    assert all(shown(row) == first[i] for i, row in ledger(platform, "lost-").items())
    assert platform.metric(platform.worker, "fraud_answers_superseded_total") == len(marked)
    letters = {letter["id"] for letter in platform.read("dead-letters") if letter["reason"] == "id_reused"}
    assert {i for i, _ in other} <= letters
    store, key = platform.redis_client(), platform.config.identity.redis_whole

    more = itertools.count()

    def settled() -> bool:
        """Payments come, and checkpoints with them."""
        event_id = f"lost-more-{next(more)}"
        ask(platform, [(event_id, body(event_id))])
        mark = wholeness.read(store.get(key))
        return mark is not None and bool(mark.ledger)

    wait_for(settled, 120, "the ledger to hold what was decided before the loss", pause=1.0)
    [new] = ask(platform, [("lost-not", body("lost-not"))])
    assert MARK not in new.document["degraded"]
