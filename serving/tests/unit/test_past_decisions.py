"""What the ledger's answer says of an id, and that nobody waits longer for it than they would. A ledger that is a dict."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from fraud_contracts.errors import StoreError
from fraud_process.instruments import Instruments
from fraud_serving.claims import Claim
from fraud_serving.clients.ledger_link import Look
from fraud_serving.decision import past_requests
from fraud_serving.decision.past_requests import PastRequests
from fraud_serving.past_decisions import Past, PastDecisions
from fraud_serving.wholeness import Mark, Reached
from fraud_serving.worker.past_batches import PastBatches
from fraud_testing import batches
from fraud_testing.feature_stream import Stream
from fraud_testing.kafka import wait_for

STREAM = Stream(SimpleNamespace(config=batches.CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # no servers
RECORD = STREAM.record("pay")
DECISION = orjson.loads(orjson.dumps(STREAM.inline(RECORD)["decision"]))
LATER = DECISION["decided"] + 1
MARK = Mark(LATER, (Reached(0, 0, 10), Reached(0, 1, 0)))
UNSETTLED = Mark(LATER)
DETECTOR = "bank.cards"


class Ledger:
    """Answers with ``decisions``, once ``goes`` is set."""

    def __init__(self, *decisions: dict[str, Any], **reached: int) -> None:
        self.decisions = {one["id"]: orjson.dumps(one) for one in decisions}
        self.reached = {(0, 0): reached.get("first", 10), (0, 1): 3}
        self.asked: list[list[str]] = []
        self.goes = threading.Event()
        self.goes.set()
        self.error: StoreError | None = None

    def look(self, ids: Sequence[str]) -> Look:
        self.asked.append(list(ids))
        self.goes.wait(10)
        if self.error is not None:
            raise self.error
        return Look({one: self.decisions[one] for one in ids if one in self.decisions}, self.reached)


def past(ledger: Ledger) -> PastDecisions:
    return PastDecisions(ledger, Instruments(CollectorRegistry(), detector=DETECTOR), "inline")


def counts(one: PastDecisions) -> dict[str, float]:
    """By result."""
    return {
        sample.labels["result"]: sample.value
        for family in one._instruments.registry.collect()
        for sample in family.samples
        if sample.name == "fraud_ledger_lookups_total"
    }


def say(ledger: Ledger, mark: Mark, event_id: str = "pay") -> tuple[Past, dict[str, float]]:
    one = past(ledger)
    return one.read(event_id, one.wait([event_id], 5.0), mark), counts(one)


def test_what_the_ledger_holds_is_a_published_claim() -> None:
    """Whether or not the ledger holds all."""
    claim = Claim(DECISION["hash"], DECISION, appended=True, published=True)
    assert say(Ledger(DECISION), UNSETTLED) == (Past(claim, True), {"found": 1})


def test_what_a_whole_ledger_lacks_was_never_decided() -> None:
    """Before the mark: it is as far as it was when it held all of it."""
    assert say(Ledger(), MARK) == (Past(None, True), {"absent": 1})


def test_a_ledger_that_may_lack_some_is_not_certain() -> None:
    """Nobody has found yet that it holds all."""
    assert say(Ledger(), UNSETTLED) == (Past(None, False), {"behind": 1})


def test_a_ledger_that_was_put_back_is_not_certain() -> None:
    """It isn't as far as it was; then it reads what it lacks again."""
    assert say(Ledger(first=9), MARK) == (Past(None, False), {"behind": 1})


def test_a_ledger_that_fails_is_not_certain_and_rests() -> None:
    """The next question, at once after it, isn't sent."""
    ledger = Ledger(DECISION)
    ledger.error = StoreError("postgres", "away")
    one = past(ledger)
    assert one.wait(["pay"], 5.0) is None
    assert one.wait(["pay"], 5.0) is None
    assert len(ledger.asked) == 1
    assert one.read("pay", None, MARK) == Past(None, False)
    assert counts(one) == {"away": 1}


def test_a_ledger_that_is_late_is_waited_for_no_longer() -> None:
    """And asked nothing more before it has answered."""
    ledger = Ledger(DECISION)
    ledger.goes.clear()
    one = past(ledger)
    assert one.wait(["pay"], 0.01) is None
    one._cool_down.answered("ledger")
    assert one.wait(["pay"], 5.0) is None
    ledger.goes.set()
    assert len(ledger.asked) == 1


@pytest.mark.parametrize("value", [b"", b"{", b"[]", orjson.dumps({**DECISION, "id": "other"})])
def test_a_row_that_is_no_decision_says_nothing(value: bytes) -> None:
    """It is counted, and ends nothing."""
    ledger = Ledger(DECISION)
    ledger.decisions["pay"] = value
    assert say(ledger, MARK) == (Past(None, False), {"away": 1})


def test_requests_that_come_meanwhile_are_asked_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One question at a time; each request hears of its own id, two of one id of the same."""
    monkeypatch.setattr(past_requests, "_SECONDS", 10.0)
    ledger = Ledger(DECISION)
    requests = PastRequests(past(ledger))

    async def run() -> list[Past]:
        ids = ["first", "pay", "pay", "other"]
        ledger.goes.clear()
        finding = [asyncio.create_task(requests.find(one, MARK, 100.0)) for one in ids[:1]]
        await asyncio.to_thread(wait_for, lambda: ledger.asked, 10, "a question")
        finding += [asyncio.create_task(requests.find(one, MARK, 100.0)) for one in ids[1:]]
        await asyncio.sleep(0)
        ledger.goes.set()
        return list(await asyncio.gather(*finding))

    first, pay, same, other = asyncio.run(run())
    assert (pay.claim is not None, same, other, first) == (True, pay, Past(None, True), Past(None, True))
    assert ledger.asked == [["first"], ["pay", "other"]]


def test_a_request_waits_no_longer_than_its_part() -> None:
    """Then it goes on without; so do those that come while the ledger has not answered."""
    ledger = Ledger(DECISION)
    ledger.goes.clear()
    one = past(ledger)

    async def run() -> list[Past]:
        requests = PastRequests(one)
        answers = [await requests.find("pay", MARK, 0.01), await requests.find("other", MARK, 0.01)]
        ledger.goes.set()
        return answers

    assert asyncio.run(run()) == [Past(None, False)] * 2
    assert counts(one) == {"away": 2}


def test_while_the_ledger_is_late_others_do_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request has waited in vain: those after it go on at once, and aren't asked for later; once it answers, it is asked again."""
    ledger = Ledger(DECISION)
    ledger.goes.clear()
    one = past(ledger)

    async def run() -> Past:
        requests = PastRequests(one)
        assert await requests.find("first", MARK, 0.01) == Past(None, False)
        monkeypatch.setattr(past_requests, "_SECONDS", 10.0)
        assert await requests.find("second", MARK, 100.0) == Past(None, False)
        ledger.goes.set()
        assert requests._asking is not None
        await requests._asking
        one._cool_down.answered("ledger")
        return await requests.find("pay", MARK, 100.0)

    assert asyncio.run(run()).claim is not None
    assert ledger.asked == [["first"], ["pay"]]


def test_a_recall_waits_longer_than_a_decision_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be decided in its place: one who has waited in vain for the same question takes nothing from it."""
    monkeypatch.setattr(past_requests, "_RECALL_SECONDS", 10.0)
    ledger = Ledger(DECISION)
    ledger.goes.clear()

    async def run() -> Claim | None:
        requests = PastRequests(past(ledger))
        recalling = asyncio.create_task(requests.recall("pay"))
        await asyncio.to_thread(wait_for, lambda: ledger.asked, 10, "a question")
        assert await requests.find("other", MARK, 0.01) == Past(None, False)
        ledger.goes.set()
        return await recalling

    assert asyncio.run(run()) == Claim(DECISION["hash"], DECISION, appended=True, published=True)


def test_a_recall_ends_in_time_and_the_next_ones_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the ledger is silent a second is waited for once; when it answers, it is asked again."""
    monkeypatch.setattr(past_requests, "_RECALL_SECONDS", 0.01)
    ledger = Ledger(DECISION)
    ledger.goes.clear()
    one = past(ledger)

    async def run() -> Claim | None:
        requests = PastRequests(one)
        assert await requests.recall("pay") is None
        monkeypatch.setattr(past_requests, "_RECALL_SECONDS", 10.0)
        async with asyncio.timeout(5):
            assert await requests.recall("pay") is None
        ledger.goes.set()
        assert requests._asking is not None
        await requests._asking
        return await requests.recall("pay")

    assert asyncio.run(run()) is not None
    assert ledger.asked == [["pay"], ["pay"]]
    assert counts(one) == {"away": 2, "found": 1}


def test_a_ledger_that_lacks_a_published_decision_is_behind() -> None:
    """Even one that holds all of before a loss: its claim says that it was decided."""
    one = past(Ledger())
    assert asyncio.run(PastRequests(one).recall("pay")) is None
    assert counts(one) == {"behind": 1}


def test_a_batch_asks_once_and_only_for_what_may_be_lost() -> None:
    """Not for an id whose claim is there, nor for one whose claim couldn't be read: it is marked already."""
    ledger = Ledger(DECISION)
    found, absent, claimed, unknown = batches.read(*(STREAM.record(one) for one in ("pay", "a", "b", "c")))
    for one in (found, absent, claimed):
        one.instead_of = b""
    claimed.claim = Claim("h", {**DECISION, "decided": LATER}, appended=True, published=False)
    lookups = PastBatches(past(ledger))
    assert [one["id"] for one in lookups.find([found, absent, claimed, unknown], UNSETTLED)] == ["pay"]
    assert ledger.asked == [["pay", "a"]]
    assert found.claim is not None and found.claim.published
    assert [one.degraded for one in (found, absent, claimed, unknown)] == [[], ["idempotency"], [], []]
    assert lookups.find([claimed, unknown], UNSETTLED) == []
    assert len(ledger.asked) == 1


def test_a_claim_of_before_the_loss_may_have_been_published_since() -> None:
    """An earlier state of Redis has it as it was then."""
    [one] = batches.read(RECORD)
    one.instead_of = b"1{}"
    one.claim = Claim(DECISION["hash"], DECISION, appended=True, published=False)
    PastBatches(past(Ledger(DECISION))).find([one], UNSETTLED)
    assert one.claim.published


def test_a_shrunk_claim_is_asked_for_nowhere() -> None:
    """It says that it was published, whatever was lost since."""
    [one] = batches.read(RECORD)
    one.instead_of = b"head"
    one.claim = Claim(DECISION["hash"], None, appended=True, published=True)
    ledger = Ledger(DECISION)
    assert PastBatches(past(ledger)).find([one], UNSETTLED) == []
    assert ledger.asked == []
