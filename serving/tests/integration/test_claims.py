"""Claims in a real Redis, told by both doors' own code in this process: what a loss, a race or a stranger leaves in them."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from fraud_contracts.errors import StoreError
from fraud_serving import claims
from fraud_serving.decision.profile_reader import entity_keys
from fraud_serving.decision.service import DecisionService
from fraud_testing import batches, inline_door, redis
from fraud_testing.batches import CONFIG, OF
from fraud_testing.feature_stream import Stream
from fraud_testing.inline_door import Log, payment
from fraud_testing.kafka import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def with_service(server: redis.Server, store: Any) -> Any:
    """Runs a test's steps with a DecisionService, by rules alone."""
    return partial(inline_door.with_service, server.login(OF))


def metric(registry: CollectorRegistry, what: str) -> float:
    labels = {"detector": str(OF), "what": what}
    return registry.get_sample_value("fraud_unreadable_total", labels) or 0.0


def test_a_mark_of_a_lost_claim_leaves_the_id_free(with_service: Any, store: Any) -> None:
    """Redis loses a claim between the append and its mark: no key is made, a retry claims the id, the next gets its bytes."""

    async def steps(service: DecisionService, log: Log) -> None:
        body = payment("lost")
        log.during = store.flushall
        await service.decide(body)
        await inline_door.marked(service)
        log.during = lambda: None
        assert store.get(OF.redis_claim("lost")) is None
        second = await service.decide(body)
        assert await service.decide(body) == second

    with_service(steps)


def test_what_an_older_mark_left_is_no_claim(with_service: Any, store: Any) -> None:
    """A lone ``1``, as older versions left after a loss of Redis: the id is decided, claimed, and answered alike again."""

    async def steps(service: DecisionService, log: Log) -> None:
        store.set(OF.redis_claim("stray"), b"1")
        body = payment("stray")
        first = await service.decide(body)
        assert orjson.loads(first)["degraded"] == ["no_model", "profiles_incomplete"]
        assert await service.decide(body) == first

    with_service(steps)


def test_an_answer_without_kafka_leaves_another_claim_alone(with_service: Any, store: Any) -> None:
    """Another replica's claim, made after this one's was lost, isn't overwritten; this answer says that it stands alone."""

    async def steps(service: DecisionService, log: Log) -> None:
        body, key = payment("other"), OF.redis_claim("other")
        await service.decide(body)
        other = claims.pack({**log.appended[0]["decision"], "decided": 1}, appended=False)
        store.flushall()

        def lose() -> None:
            store.set(key, other, ex=500)
            raise StoreError("kafka", "away")

        log.during = lose
        answer = orjson.loads(await service.decide(body))
        assert store.get(key) == other
        assert 0 < store.ttl(key) <= 500
        assert answer["degraded"] == [
            "idempotency",
            "kafka_unavailable",
            "no_model",
            "profiles_incomplete",
            "profiles_stale",
        ]

    with_service(steps, on_kafka_loss="Answer")


def test_an_answer_without_kafka_is_marked_in_its_own_claim(with_service: Any, store: Any) -> None:
    """A retry hears what the first caller heard; the claim keeps its time to live."""

    async def steps(service: DecisionService, log: Log) -> None:
        body, key = payment("own"), OF.redis_claim("own")

        def lose() -> None:
            store.expire(key, 500)
            raise StoreError("kafka", "away")

        log.during = lose
        answer = await service.decide(body)
        assert "kafka_unavailable" in orjson.loads(answer)["degraded"]
        log.during = lambda: None
        assert 0 < store.ttl(key) <= 500
        assert await service.decide(body) == answer
        await service.drain(0.1)

    with_service(steps, on_kafka_loss="Answer")


def test_a_mark_says_that_the_record_is_in_the_log(with_service: Any, store: Any) -> None:
    """Appended once: a retry gets the answer without another append, and the claim lives a day from the append."""

    async def steps(service: DecisionService, log: Log) -> None:
        body, key = payment("marked"), OF.redis_claim("marked")
        log.during = lambda: store.expire(key, 500)
        answer = await service.decide(body)
        await inline_door.marked(service)
        assert await service.decide(body) == answer
        assert len(log.appended) == 1
        assert store.ttl(key) > 500

    with_service(steps)


def _with(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda decision: b"1" + orjson.dumps({**decision, **changes})


def _packed(decision: dict[str, Any], **changes: Any) -> bytes:
    return claims.pack({**decision, **changes}, appended=True)  # type: ignore[typeddict-item]  # spoilt


# Where the decision begins in a whole claim.
BODY = claims.HEAD + 6
SPOILT: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda _: b"",
    "of another program": lambda _: b"hello",
    "of a later version": lambda decision: b"7" + orjson.dumps(decision),
    "no JSON": lambda _: b"1{",
    "no object": lambda _: b"1[]",
    "null": lambda _: b"0null",
    "without its parts": lambda _: b'1{"hash":"h"}',
    "cut": lambda decision: (b"1" + orjson.dumps(decision))[:-40],
    "of another id": _with(id="other"),
    "a hash of another type": _with(hash=5),
    "a mark of another type": _with(degraded=["a", 1]),
    "no event": _with(event=None),
    "a vector of texts": _with(vector=["1"]),
    "deep": lambda _: b"1" + b"[" * 100_000,
    "huge": _with(shadow={"x": "y" * 3_000_000}),
    "less than a head": lambda decision: _packed(decision)[: claims.HEAD - 1],
    "shrunk, though not published": lambda decision: _packed(decision)[: claims.HEAD],
    "not packed": lambda decision: _packed(decision)[:BODY] + b"hello",
    "packed and cut": lambda decision: _packed(decision)[:-4],
    "packed and more": lambda decision: _packed(decision) + b"x",
    "packed, no JSON": lambda decision: _packed(decision)[:BODY] + zlib.compress(b"{"),
    "packed, of another id": lambda decision: _packed(decision, id="other"),
    "packed, with another decision's head": lambda decision: (
        _packed(decision, decided=1)[:BODY] + _packed(decision)[BODY:]
    ),
    "packed and huge": lambda decision: _packed(decision, shadow={"x": "y" * 30_000_000}),
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
def test_an_unreadable_claim_is_lost_and_replaced_inline(spoilt: Any, with_service: Any, store: Any) -> None:
    """The id is decided, marked and counted; the decision takes the place of those bytes, so that a retry gets it again."""

    async def steps(service: DecisionService, log: Log) -> None:
        key, first = OF.redis_claim("pay"), payment("first")
        await service.decide(first)
        decision = log.appended[0]["decision"]
        event = {**decision["event"], "id": "pay"}
        store.set(key, spoilt({**decision, "id": "pay", "event": event}))
        assert await service.find("pay") is None
        body = payment("pay")
        answer = await service.decide(body)
        assert await service.decide(body) == answer
        assert "idempotency" in orjson.loads(answer)["degraded"]
        assert metric(service.instruments.registry, "claim") == 2
        assert await service.find("pay") == answer
        assert store.ttl(key) > 0

    with_service(steps)


def test_a_key_of_another_type_is_no_claim(with_service: Any, store: Any) -> None:
    """A list under the id, as only another program leaves, is replaced."""

    async def steps(service: DecisionService, log: Log) -> None:
        store.rpush(OF.redis_claim("list"), "x")
        body = payment("list")
        answer = await service.decide(body)
        assert await service.decide(body) == answer

    with_service(steps)


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
def test_an_unreadable_claim_is_lost_and_replaced_by_the_stream(
    spoilt: Any, server: redis.Server, store: Any
) -> None:
    """The worker decides the id, marks and counts it; decided again after an abort it is the same decision."""
    stream = Stream(SimpleNamespace(config=CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # no servers
    key = OF.redis_claim("pay")
    record = stream.record("pay")
    store.set(key, spoilt(stream.inline(record)["decision"]))
    one = batches.processor(server)
    [decision] = batches.decided(one.process(batches.read(record, stream.record("beside"))))[:1]
    assert (decision["id"], decision["door"], "idempotency" in decision["degraded"]) == (
        "pay",
        "stream",
        True,
    )
    assert metric(one.instruments.registry, "claim") == 1
    # A decision made now would say another millisecond.
    wait_for(lambda: time.time_ns() // 1_000_000 > decision["decided"], 5, "the next millisecond")
    again = batches.processor(server).process(batches.read(record))
    assert [one["decided"] for one in batches.decided(again)] == [decision["decided"]]
    assert store.ttl(key) > 0


@pytest.mark.parametrize("door", ["stream", "inline"])
@pytest.mark.parametrize("parity", ["stale", "mismatch"])
def test_a_claims_own_audit_is_none(door: str, parity: str, server: redis.Server, store: Any) -> None:
    """What compares a decision with the stream is made when it is published; a claim's, whatever it holds, ends no worker."""
    stream = Stream(SimpleNamespace(config=CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # no servers
    record = stream.record("pay")
    odd = stream.inline(record, door=door, parity=parity, streamed={"a": 1}, shadow={"a": 1})["decision"]
    store.set(OF.redis_claim("pay"), claims.pack(odd, appended=True))
    one = batches.processor(server)
    result = one.process(batches.read(record))
    one.committed(result)
    [decision] = batches.decided(result)
    assert decision["decided"] == odd["decided"]
    assert (decision.get("streamed"), decision.get("parity")) == (None, {"inline": "equal"}.get(door))


def test_unreadable_profiles_and_pending_events_are_lost(with_service: Any, store: Any) -> None:
    """The decision does without them and says so; the entries are taken out, and the event itself is left for the next."""

    async def steps(service: DecisionService, log: Log) -> None:
        keys = entity_keys(
            service.features,
            service.schema.parse(payment("a"), service.tokeniser, int(time.time() * 1000))[0],
        )
        store.set(OF.redis_complete(CONFIG.hash6), CONFIG.epoch)
        spoilt = [b"", b"{", b"[]", b'{"id":"x"}', orjson.dumps({**orjson.loads(payment("y")), "time": "x"})]
        for _, key in keys:
            store.set(OF.redis_profile(key), b"FP no profile")
            store.zadd(OF.redis_pending(key), dict.fromkeys(spoilt, 1))
        answer = orjson.loads(await service.decide(payment("b")))
        assert answer["degraded"] == ["no_model", "profiles_incomplete"]
        assert log.appended[0]["decision"]["vector"] is not None
        assert metric(service.instruments.registry, "profile") == len(keys)
        assert metric(service.instruments.registry, "pending") == len(keys) * len(spoilt)
        await inline_door.marked(service)
        for _, key in keys:
            left = [orjson.loads(entry)["id"] for entry in store.zrange(OF.redis_pending(key), 0, -1)]
            assert left == ["b"]

    with_service(steps)


@pytest.mark.parametrize("mark", [b"x", b"-1", b"9" * 5000], ids=["text", "negative", "huge"])
def test_an_unreadable_mark_of_completeness_is_none(mark: bytes, with_service: Any, store: Any) -> None:
    """A missing profile then may be a lost one, and the decision says so."""

    async def steps(service: DecisionService, log: Log) -> None:
        store.set(OF.redis_complete(CONFIG.hash6), mark)
        assert "profiles_incomplete" in orjson.loads(await service.decide(payment("m")))["degraded"]

    with_service(steps)


def test_a_published_claim_answers_retries_as_before(
    with_service: Any, store: Any, server: redis.Server
) -> None:
    """The same bytes, without another append; an answer without Kafka that comes late leaves the claim published."""

    async def steps(service: DecisionService, log: Log) -> None:
        body = payment("pay")
        answer = await service.decide(body)
        decision = log.appended[0]["decision"]
        own = claims.ClaimRef(OF.redis_claim("pay"), decision["hash"], decision["decided"])
        await service.redis.call(*claims.mark_published([own], OF.redis_due, 0), seconds=1.0)
        await inline_door.marked(service)
        assert batches.claim(store, "pay").published
        assert await service.decide(body) == answer
        assert await service.find("pay") == answer
        assert len(log.appended) == 1
        assert (
            await service.redis.call(*claims.rewrite(own.key, {**decision, "degraded": ["x"]}), seconds=1.0)
            == 1
        )
        assert batches.claim(store, "pay").published
        assert batches.claim(store, "pay").decision["degraded"] == ["x"]

    with_service(steps)


@pytest.mark.parametrize("what", ["pending", "profile", "mark", "claim"])
def test_a_key_of_another_type_is_lost_and_takes_nothing_else_along(
    what: str, with_service: Any, store: Any
) -> None:
    """It is counted; the id is claimed, answered alike again, and from the next payment on all is as it should be."""

    async def steps(service: DecisionService, log: Log) -> None:
        event = service.schema.parse(payment("a"), service.tokeniser, int(time.time() * 1000))[0]
        key = entity_keys(service.features, event)[0][1]
        store.set(OF.redis_complete(CONFIG.hash6), CONFIG.epoch)
        name = {
            "pending": OF.redis_pending(key),
            "profile": OF.redis_profile(key),
            "mark": OF.redis_complete(CONFIG.hash6),
            "claim": OF.redis_claim("a"),
        }[what]
        store.delete(name)
        if what == "pending":
            store.set(name, "x")
        else:
            store.rpush(name, "x")
        assert what != "claim" or await service.find("a") is None
        body = payment("a")
        answer = await service.decide(body)
        assert await service.decide(body) == answer
        expected = {
            "pending": ["no_model", "profiles_incomplete"],
            "profile": ["no_model", "profiles_incomplete"],
            "mark": ["no_model", "profiles_incomplete"],
            "claim": ["idempotency", "no_model"],
        }
        assert orjson.loads(answer)["degraded"] == expected[what]
        assert log.appended[0]["decision"]["vector"] is not None
        await inline_door.marked(service)
        counted = {"pending": 1, "profile": 1, "mark": 0, "claim": 2}
        assert metric(service.instruments.registry, what) == counted[what]
        if what == "pending":
            await service.decide(payment("b"))
            left = [orjson.loads(entry)["id"] for entry in store.zrange(name, 0, -1)]
            assert left == ["a", "b"]
            assert log.appended[-1]["decision"]["degraded"] == ["no_model"]

    with_service(steps)
