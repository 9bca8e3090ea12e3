"""Claims are shrunk after the retry window: what both doors make of them, and of those that the version before wrote."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from fraud_contracts import metrics
from fraud_serving import claims
from fraud_serving.claims import RETRY_WINDOW_SECONDS, ClaimAttempt
from fraud_serving.decision.errors import IdReusedError, NotRecalledError
from fraud_serving.decision.service import DecisionService
from fraud_serving.worker.processor import BatchProcessor
from fraud_serving.worker.published_ids import DecisionStamp, Publication
from fraud_testing import batches, inline_door
from fraud_testing.batches import CONFIG, OF, DictLedger, publish
from fraud_testing.feature_stream import Stream
from fraud_testing.inline_door import Log, payment
from fraud_testing.kafka import wait_for

pytestmark = pytest.mark.integration
KEY, DUE = OF.redis_claim("pay"), OF.redis_due
TOPIC_ID = "b7Fm3XkFQkGvYlQ1r2s3tA"


@pytest.fixture
def stream() -> Stream:
    return Stream(SimpleNamespace(config=CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # no servers


async def published(service: DecisionService, log: Log, one: BatchProcessor, record: dict[str, Any]) -> None:
    """The stream brings what was appended to a worker, who publishes it."""
    await inline_door.marked(service)
    decision = log.appended[-1]["decision"]
    publish(one, {**record, "event": decision["event"], "hash": decision["hash"], "decision": decision})
    one.idle()


def shrunk(store: Any, event_id: str) -> bool:
    return batches.claim(store, event_id).decision is None


def lookups(service: DecisionService, result: str) -> float:
    labels = {"detector": str(OF), "door": "inline", "result": result}
    return service.instruments.registry.get_sample_value(metrics.LEDGER_LOOKUPS.name, labels) or 0.0


def test_within_the_window_a_retry_is_answered_from_redis(
    with_service: Any, worker: Any, store: Any, ledger: DictLedger, stream: Stream
) -> None:
    """A worker looks a moment before it is over: the ledger is asked for nothing."""

    async def steps(service: DecisionService, log: Log) -> None:
        body, one = payment("pay"), worker()
        answer = await service.decide(body)
        await published(service, log, one, stream.record("any"))
        batches.pass_time(store, RETRY_WINDOW_SECONDS - 30)
        worker().idle()
        assert not shrunk(store, "pay")
        assert await service.decide(body) == answer
        assert await service.find("pay") == answer
        assert (ledger.asked, len(log.appended)) == (0, 1)

    with_service(steps)


def test_after_the_window_a_retry_is_answered_from_the_ledger(
    with_service: Any, worker: Any, store: Any, ledger: DictLedger, stream: Stream
) -> None:
    """The same bytes, by one look-up each; nothing is decided or appended. Any worker has shrunk the claim."""

    async def steps(service: DecisionService, log: Log) -> None:
        body, one = payment("pay"), worker()
        answer = await service.decide(body)
        await published(service, log, one, stream.record("any"))
        ledger.take(log.appended[-1]["decision"])
        batches.pass_time(store, RETRY_WINDOW_SECONDS)
        worker().idle()
        assert shrunk(store, "pay")
        assert await service.decide(body) == answer
        assert await service.find("pay") == answer
        assert (ledger.asked, len(log.appended), lookups(service, "found")) == (2, 1, 2)
        assert shrunk(store, "pay")

    with_service(steps)


def test_what_was_never_published_stays_whole(with_service: Any, worker: Any, store: Any) -> None:
    """Appended or not: a retry appends it again, for as long as its claim lives."""

    async def steps(service: DecisionService, log: Log) -> None:
        body = payment("pay")
        answer = await service.decide(body)
        await inline_door.marked(service)
        batches.pass_time(store, 2 * RETRY_WINDOW_SECONDS)
        worker().idle()
        assert await service.decide(body) == answer
        assert not shrunk(store, "pay")

    with_service(steps)


def shrink_one(store: Any, decision: dict[str, Any]) -> None:
    """As a worker leaves the claim of a decision that was published some time ago."""
    store.set(KEY, claims.pack(decision, appended=True, published=True)[: claims.HEAD], ex=500)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["away", "behind", "unreadable"])
def test_without_the_ledgers_answer_there_is_none(
    state: str, with_service: Any, store: Any, ledger: DictLedger
) -> None:
    """503 with Retry-After, and no second decision, by POST or GET; once it has it, the answer."""

    async def steps(service: DecisionService, log: Log) -> None:
        body = payment("pay")
        answer = await service.decide(body)
        decision = log.appended[-1]["decision"]
        shrink_one(store, decision)
        before = store.get(KEY)
        ledger.away = state == "away"
        if state == "unreadable":
            ledger.decisions["pay"] = b"{"
        for ask in (service.decide(body), service.find("pay"), service.decide(body)):
            with pytest.raises(NotRecalledError) as refused:
                await ask
            assert (refused.value.status, refused.value.code) == (503, "ledger_unavailable")
            assert refused.value.retry_after == 1
        assert (len(log.appended), store.get(KEY)) == (1, before)
        ledger.away = False
        ledger.take(decision)
        service._past._past._cool_down.answered("ledger")
        assert await service.decide(body) == answer

    with_service(steps)


def test_another_body_of_a_shrunk_id_is_refused_by_its_hash(
    with_service: Any, store: Any, ledger: DictLedger
) -> None:
    """409 at once; the ledger isn't asked."""

    async def steps(service: DecisionService, log: Log) -> None:
        await service.decide(payment("pay"))
        shrink_one(store, log.appended[-1]["decision"])
        with pytest.raises(IdReusedError):
            await service.decide(payment("pay", amount=99.0))
        assert (ledger.asked, len(log.appended)) == (0, 1)

    with_service(steps)


def test_where_the_ledger_keeps_another_body_that_one_stands(
    with_service: Any, store: Any, ledger: DictLedger
) -> None:
    """Two bodies were published in spite of all: the ledger's is the first, so this one is refused."""

    async def steps(service: DecisionService, log: Log) -> None:
        body = payment("pay")
        await service.decide(body)
        decision = log.appended[-1]["decision"]
        shrink_one(store, decision)
        ledger.take({**decision, "hash": "0" * 32})
        with pytest.raises(IdReusedError):
            await service.decide(body)
        assert len(log.appended) == 1

    with_service(steps)


def test_a_claim_put_back_from_the_ledger_is_shrunk_in_its_turn(
    with_service: Any, worker: Any, store: Any, ledger: DictLedger
) -> None:
    """After a loss the next retries are answered from Redis, for a window again."""

    async def steps(service: DecisionService, log: Log) -> None:
        body = payment("pay")
        answer = await service.decide(body)
        ledger.take(log.appended[-1]["decision"])
        store.flushall()
        assert await service.decide(body) == answer
        await service.redis.call("PING", seconds=1.0)
        assert not shrunk(store, "pay")
        assert store.zrange(DUE, 0, -1) == [KEY.encode()]
        batches.pass_time(store, RETRY_WINDOW_SECONDS)
        worker().idle()
        assert shrunk(store, "pay")

    with_service(steps)


# Claims of the version before.


@pytest.mark.parametrize("state", [b"0", b"1", b"1\n"])
def test_claims_of_the_version_before_answer_retries(state: bytes, with_service: Any, store: Any) -> None:
    """The same bytes; appended again where they don't say that they are, and then they say so."""

    async def steps(service: DecisionService, log: Log) -> None:
        body = payment("pay")
        answer = await service.decide(body)
        await inline_door.marked(service)
        decision = log.appended[-1]["decision"]
        store.set(KEY, state[:1] + orjson.dumps(decision) + state[1:], ex=500)
        assert await service.decide(body) == answer
        assert len(log.appended) == (2 if state == b"0" else 1)
        await inline_door.marked(service)
        assert batches.claim(store, "pay").appended
        with pytest.raises(IdReusedError):
            await service.decide(payment("pay", amount=99.0))

    with_service(steps)


@pytest.mark.parametrize("state", [b"0", b"1"])
def test_claims_of_the_version_before_are_marked_as_published(
    state: bytes, worker: Any, store: Any, stream: Stream
) -> None:
    """In their own form, which both versions read; the id is published once, and the claim stays whole."""
    one = worker()
    record = stream.inline(stream.record("pay"))
    store.set(KEY, state + orjson.dumps(record["decision"]), ex=500)
    assert len(batches.decided(publish(one, record))) == 1
    publish(one, stream.record("newer"), stream.record("newest"))
    one.idle()
    assert store.get(KEY) == b"1" + orjson.dumps(record["decision"]) + b"\n"
    assert publish(one, record).repeats == ["inline"]
    assert store.ttl(KEY) > 500


def test_a_claim_of_the_version_before_takes_what_its_caller_heard(with_service: Any, store: Any) -> None:
    """Answered without Kafka: the retry gets the same marks."""

    async def steps(service: DecisionService, log: Log) -> None:
        body = payment("pay")
        await service.decide(body)
        await inline_door.marked(service)
        store.set(KEY, b"0" + orjson.dumps(log.appended[-1]["decision"]), ex=500)
        log.during = inline_door.away
        answer = await service.decide(body)
        assert "kafka_unavailable" in orjson.loads(answer)["degraded"]
        log.during = lambda: None
        assert 0 < store.ttl(KEY) <= 500
        assert await service.decide(body) == answer
        await service.drain(0.1)

    with_service(steps, on_kafka_loss="Answer")


# The stream door.


@pytest.mark.parametrize("door", ["stream", "inline"])
def test_a_record_of_a_shrunk_id_is_a_repeat(
    door: str, worker: Any, store: Any, ledger: DictLedger, stream: Stream
) -> None:
    """It was published once: nothing more is, whether or not this worker was there, and the ledger isn't asked."""
    record = stream.record("pay")
    if door == "inline":
        record = stream.inline(record)
        store.set(KEY, claims.pack(record["decision"], appended=False))
    one = worker()
    publish(one, record)
    one.idle()
    batches.pass_time(store, RETRY_WINDOW_SECONDS)
    worker().idle()
    assert shrunk(store, "pay")
    publish(one, stream.record("newer"), stream.record("newest"))
    for again in (publish(one, record), publish(worker(), record)):
        assert (again.outgoing, again.repeats, again.superseded) == ([], [door], 0)
    assert ledger.asked == 0


@pytest.mark.parametrize("door", ["stream", "inline"])
def test_another_body_of_a_shrunk_id_is_a_dead_letter(
    door: str, worker: Any, store: Any, stream: Stream
) -> None:
    """The head's hash tells it."""
    record, other = stream.record("pay"), stream.record("pay", amount=7)
    shrink_one(store, stream.inline(record)["decision"])
    result = publish(worker(), stream.inline(other) if door == "inline" else other)
    assert [out.noun for out in result.outgoing] == ["dead-letters"]
    assert result.conflicts == 1


def test_another_answer_of_a_shrunk_id_is_superseded(worker: Any, store: Any, stream: Stream) -> None:
    """It was answered without a claim, as it says, so it is another one than the published one."""
    record = stream.record("pay")
    shrink_one(store, stream.inline(record)["decision"])
    result = publish(worker(), stream.inline(record, decided=5, degraded=["idempotency"]))
    assert (result.outgoing, result.repeats, result.superseded) == ([], ["inline"], 1)


def test_what_was_claimed_and_shrunk_meanwhile_is_a_repeat(
    worker: Any, store: Any, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a batch's look and its claim, by another worker."""
    one, record = worker(), stream.record("pay")
    score = one._scorer.score

    def meanwhile(*arguments: Any) -> Any:
        shrink_one(store, stream.inline(record)["decision"])
        return score(*arguments)

    monkeypatch.setattr(one._scorer, "score", meanwhile)
    result = publish(one, record)
    assert (result.outgoing, result.repeats) == ([], ["stream"])


def test_a_worker_keeps_up_with_what_it_publishes(worker: Any, store: Any, stream: Stream) -> None:
    """More claims are due than one question shrinks: the next batches take the rest, and an idle worker all of it."""
    one, keys = worker(), [OF.redis_claim(f"e{number}") for number in range(500)]
    value = claims.pack(stream.inline(stream.record("any"))["decision"], appended=True, published=True)
    store.execute_command(*claims.take([ClaimAttempt(key, value) for key in keys], DUE, 1))
    publish(one, stream.record("a"))
    publish(one, stream.record("b"))
    assert store.zcard(DUE) == 500 - 2 * 128
    wait_for(lambda: one.idle() or all(len(one) == claims.HEAD for one in store.mget(keys)), 10, "the rest")


def test_a_successor_says_where_the_tails_decisions_lie(worker: Any, store: Any, stream: Stream) -> None:
    """A worker died between the commit and its mark; the head has action and place of the record that its successor reads."""
    decision = stream.inline(stream.record("pay"), action="decline")["decision"]
    store.set(KEY, claims.pack(decision, appended=True))
    one = worker()
    one.publishes_to(TOPIC_ID)
    stamp = DecisionStamp(decision["hash"], decision["decided"])
    one.remember(3, [Publication("pay", stamp, "decline", 77)])
    one.idle()
    assert store.get(KEY)[:1] == b"D"
    assert batches.claim(store, "pay").place == claims.Place(TOPIC_ID[:5], 3, 77)


def test_claims_that_redis_missed_are_shrunk_in_their_turn(worker: Any, store: Any, stream: Stream) -> None:
    """Made up for after an absence of Redis: whole at first, and in the set."""
    one = worker()
    one._claims.unclaimed(stream.inline(stream.record("pay"))["decision"])
    one.idle()
    assert not shrunk(store, "pay")
    score = store.zscore(DUE, KEY)
    assert abs(score - time.time() * 1000) < 60_000
