"""Redis loses claims, and both doors ask the ledger: their own code over a real Redis, with a ledger that is a dict."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from fraud_process.instruments import Instruments
from fraud_serving import claims, wholeness
from fraud_serving.decision.errors import IdReusedError
from fraud_serving.decision.service import DecisionService
from fraud_serving.wholeness import DAY_MS, Mark, Reached, Wholeness
from fraud_serving.worker.published_ids import DecisionStamp, Publication
from fraud_testing import batches
from fraud_testing.batches import CONFIG, OF, DictLedger, publish
from fraud_testing.feature_stream import Stream
from fraud_testing.inline_door import Log, payment

pytestmark = pytest.mark.integration


@pytest.fixture
def stream() -> Stream:
    return Stream(SimpleNamespace(config=CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # no servers


def settle(store: Any) -> None:
    """What a worker says once the ledger holds all of before the loss."""
    mark = wholeness.read(store.get(OF.redis_whole))
    assert mark is not None
    store.set(OF.redis_whole, Mark(mark.since, (Reached(0, 0, 0),)).pack())


def lose(how: str, store: Any) -> Callable[[], None]:
    """Takes claims away later on; what an earlier state of Redis has is what it has now."""
    earlier = {key: store.dump(key) for key in store.scan_iter()}

    def go() -> None:
        store.flushall()
        if how == "put back":
            for key, value in earlier.items():
                store.restore(key, 0, value)

    return go


HOW = pytest.mark.parametrize("how", ["emptied", "put back"])


@HOW
def test_the_inline_door_answers_what_the_ledger_holds(
    how: str, with_service: Any, store: Any, ledger: DictLedger
) -> None:
    """A retry of hours ago gets its answer, is appended no second time, and the next one gets it from the claim."""

    async def steps(service: DecisionService, log: Log) -> None:
        body = payment("pay")
        await service.decide(payment("early"))
        lost = lose(how, store)
        answer = await service.decide(body)
        ledger.take(log.appended[-1]["decision"])
        lost()
        assert await service.decide(body) == answer
        assert await service.decide(body) == answer
        assert (ledger.asked, len(log.appended)) == (1, 2)
        assert batches.claim(store, "pay").published

    with_service(steps)


@HOW
def test_profiles_count_as_stale_from_the_very_read_that_tells_of_a_loss(
    how: str, with_service: Any, store: Any
) -> None:
    """What Redis has then is older than what was known of it, until the stream's progress says otherwise."""

    async def steps(service: DecisionService, log: Log) -> None:
        await service.decide(payment("early"))
        lost = lose(how, store)
        before = orjson.loads(await service.decide(payment("before")))
        lost()
        after = orjson.loads(await service.decide(payment("after")))
        assert "profiles_stale" not in before["degraded"]
        assert "profiles_stale" in after["degraded"]

    with_service(steps)


def test_a_loss_that_turns_out_to_be_none_leaves_profiles_as_they_are(with_service: Any, store: Any) -> None:
    """A new detector has no mark until its worker knows that there was nothing to lose."""

    async def steps(service: DecisionService, log: Log) -> None:
        await service.decide(payment("first"))
        store.set(OF.redis_whole, b"0")
        second = orjson.loads(await service.decide(payment("second")))
        assert "profiles_stale" not in second["degraded"]

    store.delete(OF.redis_whole)
    with_service(steps)


def test_another_body_of_what_the_ledger_holds_is_refused_inline(
    with_service: Any, store: Any, ledger: DictLedger
) -> None:
    """As if its claim were there, the next time by its claim."""

    async def steps(service: DecisionService, log: Log) -> None:
        await service.decide(payment("pay"))
        ledger.take(log.appended[-1]["decision"])
        store.flushall()
        for _ in range(2):
            with pytest.raises(IdReusedError):
                await service.decide(payment("pay", amount=99.0))
        assert ledger.asked == 1

    with_service(steps)


@pytest.mark.parametrize("state", ["behind", "away", "whole"])
def test_an_id_that_the_ledger_lacks_is_decided_inline(
    state: str, with_service: Any, store: Any, ledger: DictLedger
) -> None:
    """Without a mark only where the ledger holds all that was decided before; then retries get the claim's answer."""

    async def steps(service: DecisionService, log: Log) -> None:
        store.flushall()
        first = orjson.loads(await service.decide(payment("first")))
        assert "idempotency" in first["degraded"]
        ledger.away = state == "away"
        if state != "behind":
            settle(store)
        body = payment("pay")
        answer = await service.decide(body)
        assert ("idempotency" in orjson.loads(answer)["degraded"]) == (state != "whole")
        assert await service.decide(body) == answer

    with_service(steps)


def test_a_day_after_a_loss_nobody_is_asked(with_service: Any, store: Any, ledger: DictLedger) -> None:
    """Claims from before would be over by now."""
    store.set(OF.redis_whole, Mark(int(time.time() * 1000) - DAY_MS).pack())

    async def steps(service: DecisionService, log: Log) -> None:
        assert "idempotency" not in orjson.loads(await service.decide(payment("pay")))["degraded"]
        assert ledger.asked == 0

    with_service(steps)


def test_a_connection_to_an_earlier_state_of_redis_is_enough(with_service: Any, store: Any) -> None:
    """A replica that nobody asks tells all others of what it lost."""

    async def steps(service: DecisionService, log: Log) -> None:
        lost = lose("put back", store)
        await service.decide(payment("pay"))
        lost()
        assert service.redis.on_connection is not None
        await service.redis.on_connection()
        await service.redis.call("PING", seconds=1.0)
        mark = wholeness.read(store.get(OF.redis_whole))
        assert mark is not None and mark.since > 0

    with_service(steps)


@pytest.mark.parametrize("spoil", ["text", "list"])
def test_a_mark_that_is_none_is_a_loss(spoil: str, with_service: Any, store: Any, ledger: DictLedger) -> None:
    """Bytes of another program or a key of another type: it gives way to one that says so."""
    store.delete(OF.redis_whole)
    if spoil == "text":
        store.set(OF.redis_whole, "x")
    else:
        store.rpush(OF.redis_whole, "x")

    async def steps(service: DecisionService, log: Log) -> None:
        assert "idempotency" in orjson.loads(await service.decide(payment("pay")))["degraded"]
        mark = wholeness.read(store.get(OF.redis_whole))
        assert mark is not None and mark.since > 0

    with_service(steps)


@HOW
@pytest.mark.parametrize("door", ["stream", "inline"])
def test_the_stream_door_publishes_nothing_that_the_ledger_holds(
    door: str, how: str, worker: Any, store: Any, ledger: DictLedger, stream: Stream
) -> None:
    """Resent to a worker that has forgotten it: a repeat, and its claim is there again."""
    one, record = worker(), stream.record("pay")
    if door == "inline":
        record = stream.inline(record)
    publish(one, stream.record("early"))
    lost = lose(how, store)
    ledger.take(*batches.decided(publish(one, record)))
    publish(one, stream.record("newer"))
    lost()
    again = publish(one, record)
    assert (again.outgoing, again.repeats, ledger.asked) == ([], [door], 1)
    one.idle()
    assert batches.claim(store, "pay").published
    publish(one, stream.record("newest"))
    assert publish(one, record).repeats == [door]


def test_another_body_of_what_the_ledger_holds_is_a_dead_letter(
    worker: Any, store: Any, ledger: DictLedger, stream: Stream
) -> None:
    """As if its claim were there."""
    one = worker()
    ledger.take(*batches.decided(publish(one, stream.record("pay"))))
    publish(one, stream.record("newer"))
    store.flushall()
    result = publish(one, stream.record("pay", amount=7))
    assert [out.noun for out in result.outgoing] == ["dead-letters"]
    assert (result.conflicts, ledger.asked) == (1, 1)


@pytest.mark.parametrize("state", ["behind", "away", "whole"])
def test_an_id_that_the_ledger_lacks_is_decided_by_the_stream(
    state: str, worker: Any, store: Any, ledger: DictLedger, stream: Stream
) -> None:
    """Without a mark only where the ledger holds all that was decided before."""
    one = worker()
    store.flushall()
    one.idle()
    ledger.away = state == "away"
    if state == "whole":
        settle(store)
    [decision] = batches.decided(publish(one, stream.record("pay")))
    assert ("idempotency" in decision["degraded"]) == (state != "whole")
    assert ledger.asked == 1


def test_an_inline_decision_keeps_its_marks(
    worker: Any, store: Any, ledger: DictLedger, stream: Stream
) -> None:
    """It was answered as it is; what the ledger lacks of it is published."""
    one = worker()
    store.flushall()
    [decision] = batches.decided(publish(one, stream.inline(stream.record("pay"))))
    assert (decision["degraded"], ledger.asked) == ([], 1)


@pytest.mark.parametrize("missing", [True, False])
def test_a_worker_that_starts_finds_what_was_lost_while_none_ran(
    missing: bool, worker: Any, store: Any, ledger: DictLedger, stream: Stream
) -> None:
    """A published decision of the tail has no claim: Redis was put back. Its own witness is new, and knows of nothing."""
    lost = lose("put back", store)
    [decision] = batches.decided(publish(worker(), stream.record("pay")))
    if missing:
        lost()
    successor = worker()
    stamp = DecisionStamp(decision["hash"], decision["decided"])
    successor.remember(0, [Publication("pay", stamp)], claimed=True)
    successor.idle()
    mark = wholeness.read(store.get(OF.redis_whole))
    assert mark is not None
    assert (mark.since > decision["decided"]) == missing


def test_a_claim_that_lost_its_mark_of_publishing_is_a_repeat(
    worker: Any, store: Any, ledger: DictLedger, stream: Stream
) -> None:
    """Redis was put back to between the claim and the mark: the claim alone would have the decision published again."""
    one, record = worker(), stream.record("pay")
    ledger.take(*batches.decided(publish(one, record)))
    lost = lose("put back", store)
    publish(one, stream.record("newer"))
    publish(one, stream.record("newest"))
    assert batches.claim(store, "pay").published
    lost()
    assert not batches.claim(store, "pay").published
    again = publish(one, record)
    assert (again.outgoing, again.repeats) == ([], ["stream"])
    one.idle()
    assert claims.read(store.get(OF.redis_claim("pay")), "pay") == batches.claim(store, "pay")
    assert batches.claim(store, "pay").published


class Witnessed:
    """One process's claims, of which Redis has but the witness; a claim whose reply is lost was carried out all the same."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.whole = Wholeness(OF, Instruments(CollectorRegistry(), detector=str(OF)))

    def claim(self, replies: Sequence[bool]) -> None:
        for arrives in replies:
            witness = self.whole.bear_witness(1)
            reply = self.store.execute_command(*witness.command)
            if arrives:
                self.whole.confirmed(witness, reply, 1)

    def read(self, now: int) -> bool:
        """Whether a loss is told."""
        before = self.whole.confirmed_before(now)
        loss = self.whole.heard(self.store.mget(self.whole.keys), before, now)
        return loss is not None and bool(self.store.execute_command(*loss))


REPLIES = [replies for count in range(3) for replies in product([True, False], repeat=count)]


def test_no_lost_reply_hides_a_loss(store: Any) -> None:
    """Whichever replies of claims never came, before the loss and after it: a claim that Redis had confirmed is missed by the next
    look, once. Where its reply never came the decision says so itself."""
    for before, between, after in product(REPLIES, repeat=3):
        store.flushall()
        store.set(OF.redis_whole, "0")
        one = Witnessed(store)
        assert not one.read(2)
        one.claim(before)
        lost = lose("put back", store)
        one.claim(between)
        lost()
        one.claim(after)
        assert one.read(3) == any(between), (before, between, after)
        one.claim(after)
        assert not one.read(4), (before, between, after)


@pytest.mark.parametrize("value", ["x", "-3", "1.5", "9" * 400])
def test_a_witness_that_is_no_count_is_missed_once(store: Any, value: str) -> None:
    """The next claim puts a count in its place."""
    one = Witnessed(store)
    assert not one.read(2)
    one.claim([True, True])
    store.set(one.whole.witness_key, value)
    assert one.read(3)
    one.claim([True])
    assert not one.read(4)
