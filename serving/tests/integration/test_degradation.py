"""Stores that stall, break or are slow before the real service and worker: a bounded answer as the policy declares, each
time stated and counted, and everything as before once the fault is gone."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson
import pytest

from fraud_contracts.records import body_hash
from fraud_contracts.release import BUCKETS
from fraud_pipelines.features import compile_detector
from fraud_testing import kafka, redis, serving
from fraud_testing import stand as stands
from fraud_testing.kafka import wait_for
from fraud_testing.proxy import Fault
from fraud_testing.required import require
from fraud_testing.stand import DEADLINE, DELIVERY, Stand

pytestmark = pytest.mark.integration
# Of a machine that does other things too. What must not happen is an answer that waits for the fault's end.
MARGIN = 1.5


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    require(kafka.missing() or redis.missing())
    with stands.stand(tmp_path_factory.mktemp("stand")) as whole:
        yield whole


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize(
    ("store", "marks"),
    [("redis", {"idempotency", "profiles_unavailable"}), ("predictor", {"model_unavailable"})],
)
def test_a_failing_store_costs_the_deadline_and_is_stated(
    stand: Stand, store: str, marks: set[str], fault: Fault
) -> None:
    """Ten at once, all answered within the deadline and a margin, all saying what they did without; then all is whole again."""
    stand.heal()
    before = {mark: stand.metric(stand.service, "fraud_decisions_degraded_total", mark) for mark in marks}
    stand.proxies[store].set(fault, delay=2.0)
    for status, answer, seconds, _ in [answer for _ in range(2) for answer in stand.ask(5)]:
        assert status == 200
        assert marks <= set(answer["degraded"])
        assert seconds < 2 * DEADLINE + MARGIN
    for mark in marks:
        count = stand.metric(stand.service, "fraud_decisions_degraded_total", f'degraded="{mark}"')
        assert count == before[mark] + 10
    stand.heal()


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.CUT])
def test_without_kafka_the_policy_says_whether_there_is_an_answer(stand: Stand, fault: Fault) -> None:
    """Refuse: 503 in time, and a repeat completes it. Answer: 200 that says so, and the record comes when Kafka does."""
    stand.heal()
    topic = stand.config.identity.topic("accepted")
    for rule in ("Refuse", "Answer"):
        stand.release(f"{rule}-{fault}", onKafkaLoss=rule)
        stand.proxies["kafka"].set(fault)
        refused = stand.metric(stand.service, "fraud_requests_refused_total", "kafka_unavailable")
        degraded = stand.metric(stand.service, "fraud_decisions_degraded_total", "kafka_unavailable")
        answers = stand.ask(5)
        for status, answer, seconds, _ in answers:
            assert seconds < 2 * DEADLINE + DELIVERY + 1.0 + MARGIN
            if rule == "Refuse":
                assert (status, answer["error"]["code"]) == (503, "kafka_unavailable")
            else:
                assert status == 200
                assert "kafka_unavailable" in answer["degraded"]
        name, was = (
            ("fraud_requests_refused_total", refused)
            if rule == "Refuse"
            else ("fraud_decisions_degraded_total", degraded)
        )
        assert stand.metric(stand.service, name, "kafka_unavailable") == was + 5
        stand.heal()
        wanted = {body["id"] for _, _, _, body in answers}
        if rule == "Answer":

            def recorded(wanted: set[str] = wanted) -> bool:
                return wanted <= {orjson.loads(m.value())["event"]["id"] for m in stand.broker.read(topic)}

            wait_for(recorded, 30, "the records of what was answered")
            # The id has one answer, and it goes on to say that nobody had recorded it.
            again = stand.send([body for _, _, _, body in answers])
            assert [answer for _, answer, _, _ in again] == [answer for _, answer, _, _ in answers]
    stand.release("after")


def features(stand: Stand, count: int, category: str | None = "travel") -> list[str]:
    """Records for the worker, as the stream makes them; -> their ids."""
    engine = compile_detector(stand.config.spec)
    records = []
    for _ in range(count):
        stand.number += 1
        event: Any = {
            "id": f"stream-{stand.number}",
            "time": int(time.time() * 1000),
            "amount": 1000,
            "currency": "EUR",
            "entities": {"customer": f"t_{stand.number}", "counterparty": "m1"},
            "fields": {"category": category},
        }
        vector, _, saw = engine.observe(dict.fromkeys(event["entities"]), event, 1)
        record = {
            "event": event,
            "hash": body_hash(event),
            "set": engine.hash,
            "vector": vector,
            "reason": None,
            "saw": {e: (epoch, seq, f"{digest:016x}") for e, (epoch, seq, digest) in saw.items()},
            "run": "test",
            "repeat": False,
            "source": {
                "topic": stand.config.identity.topic("transactions"),
                "partition": 0,
                "offset": stand.number,
            },
            "appended": int(time.time() * 1000),
            "decision": None,
        }
        records.append((event["entities"]["customer"], orjson.dumps(record)))
    stand.broker.produce(stand.config.identity.topic("features"), records)
    return [orjson.loads(value)["event"]["id"] for _, value in records]


@pytest.mark.parametrize(
    ("store", "mark", "fault"),
    [
        ("redis", "idempotency", Fault.STALL),
        ("redis", "idempotency", Fault.CUT),
        ("predictor", "model_unavailable", Fault.SLOW),
        ("kafka", None, Fault.STALL),
        ("kafka", None, Fault.CUT),
    ],
)
def test_the_worker_goes_on_and_loses_nothing(
    stand: Stand, store: str, mark: str | None, fault: Fault
) -> None:
    """Without Redis or predictor every record is decided, stated as degraded; without Kafka it waits. All once.

    Where a call of the Kafka client stands still beyond its own limit the process ends itself, and its successor goes on.
    """
    stand.heal()
    process = stand.worker.process
    stand.proxies[store].set(fault, delay=0.5 if store == "kafka" else 3.0)
    ids = set(features(stand, 30))
    if mark is not None:
        wait_for(lambda: ids <= {d["id"] for d in stand.committed()}, 40, "decisions during the fault")
        mine = [d for d in stand.committed() if d["id"] in ids]
        assert any(mark in d["degraded"] for d in mine)
        assert stand.metric(stand.worker, "fraud_decisions_degraded_total", mark, 'door="stream"') > 0
    stand.heal()
    more = set(features(stand, 20))

    def all_decided() -> bool:
        if store == "kafka" and stand.worker.process is not None and stand.worker.process.poll() is not None:
            stand.worker.start(wait=False)  # as Kubernetes does
        return ids | more <= {d["id"] for d in stand.committed()}

    wait_for(all_decided, 90, "all decisions")
    decided = [d["id"] for d in stand.committed()]
    assert len(decided) == len(set(decided))
    if store != "kafka":
        assert stand.worker.process is process
        assert process is not None
        assert process.poll() is None


def by_candidate(stand: Stand) -> bool:
    status, answer, _, _ = stand.ask()[0]
    return (status, answer["arm"], answer["degraded"]) == (200, "candidate", [])


@pytest.mark.parametrize("fault", [None, *Fault])
def test_a_dead_candidate_is_replaced_by_the_stable_model(stand: Stand, fault: Fault | None) -> None:
    """Killed, silent, cut or slow: the same request gets the stable model's score in the deadline, at both doors, and says so.

    After a few failures most requests don't wait for it, and it answers again as soon as it can.
    """
    stand.heal()
    stand.release(f"candidate-{fault}", candidate=True)
    wait_for(lambda: by_candidate(stand), 10, "the candidate's answers")
    release = f'release="candidate-{fault}"'
    wait_for(
        lambda: stand.metric(stand.worker, "fraud_release_info", release) == 1, 10, "the worker's release"
    )
    digest, mark = stand.package.digest, "candidate_unavailable"
    labels = ("fraud_decisions_degraded_total", f'degraded="{mark}"')
    before = stand.metric(stand.service, *labels)
    try:
        if fault is None:
            stand.candidates.stop(signal.SIGKILL)
        stand.proxies["candidate"].set(fault, delay=2.0)
        answers = [stand.ask()[0] for _ in range(11)]
        for status, answer, seconds, _ in answers:
            assert (status, answer["arm"], mark in answer["degraded"]) == (200, "stable", True)
            assert (answer["model_digest"], answer["score"] is None) == (digest, False)
            assert seconds < DEADLINE + MARGIN
        assert sorted(seconds for _, _, seconds, _ in answers)[5] < DEADLINE * 0.4
        assert stand.metric(stand.service, *labels) == before + 11
        ids = set(features(stand, 20))
        wait_for(lambda: ids <= {d["id"] for d in stand.committed()}, 40, "the worker's decisions")
        for decision in (d for d in stand.committed() if d["id"] in ids):
            assert (decision["arm"], decision["degraded"]) == ("stable", [mark])
            assert (decision["model_digest"], decision["score"] is None) == (digest, False)
            assert 0 <= decision["bucket"] < BUCKETS
            assert decision["shadow"] is None
        assert stand.metric(stand.worker, *labels, 'door="stream"') >= 20
    finally:
        stand.proxies["candidate"].set(None)
        if stand.candidates.process is None:
            stand.candidates.start()
    wait_for(lambda: by_candidate(stand), 10, "the candidate's answers again")
    stand.release(f"alone-{fault}")


def test_without_candidate_and_stable_model_the_policy_answers(stand: Stand) -> None:
    """Both arms dead: the fallback answers in the deadline, and both losses are stated."""
    stand.heal()
    stand.release("both", candidate=True)
    stand.proxies["candidate"].set(Fault.STALL)
    stand.proxies["predictor"].set(Fault.STALL)
    for status, answer, seconds, _ in stand.ask(5):
        assert (status, answer["score"]) == (200, None)
        assert answer["degraded"] == ["candidate_unavailable", "model_unavailable"]
        assert seconds < 2 * DEADLINE + MARGIN
    stand.release("alone")
    stand.heal()


def test_rules_read_nulls_alike_at_both_doors(stand: Stand) -> None:
    """A new card's null feature and a missing field make comparisons false and fail no rule; a rule that fails is counted."""
    stand.heal()
    new_card = "!(features.customer_seconds_since_last < 86400.0) && event.fields.category != 'travel'"
    rules = [
        {"name": "new-card", "when": new_card, "action": "Decline"},
        {
            "name": "word",
            "when": "event.fields.category < 'm' || event.fields.category >= 'm'",
            "action": "Review",
        },
        {"name": "code", "when": "int(event.fields.category) == 1", "action": "Review"},
    ]
    stand.release("nulls", rules=rules)
    wait_for(
        lambda: stand.metric(stand.worker, "fraud_release_info", 'release="nulls"') == 1, 10, "the release"
    )
    for category, codes, failures in (
        (None, ["rule:new-card"], 0),
        ("food", ["rule:new-card", "rule:word"], 1),
    ):
        doors = {"inline": stand.service, "stream": stand.worker}
        before = {
            door: stand.metric(process, "fraud_rules_failed_total", f'door="{door}"', 'rule="code"')
            for door, process in doors.items()
        }
        [(status, answer, _, _)] = stand.send([{**stand.transaction(), "category": category}])
        assert (status, answer["action"]) == (200, "decline")
        [event_id] = features(stand, 1, category)
        wait_for(
            lambda event_id=event_id: event_id in {d["id"] for d in stand.committed()}, 30, "the decision"
        )
        [streamed] = [d for d in stand.committed() if d["id"] == event_id]
        for decision in (answer, streamed):
            assert [r["code"] for r in decision["reasons"] if r["code"].startswith("rule:")] == codes
        for door, process in doors.items():
            count = stand.metric(process, "fraud_rules_failed_total", f'door="{door}"', 'rule="code"')
            assert count - before[door] == failures, door
    stand.release("no-rules")


def test_sigterm_answers_what_is_under_way(stand: Stand) -> None:
    """Unready first, while it still answers; a request that waits for a slow predictor gets its answer; both processes exit with 0."""
    stand.heal()
    stand.release(
        "patient", deadline="10s"
    )  # nobody is to be refused for a machine that does other things, too
    service, worker = stand.service, stand.worker
    assert service.process is not None
    assert worker.process is not None
    ids = set(features(stand, 50))
    stand.proxies["predictor"].set(Fault.SLOW, delay=0.1)

    async def run() -> list[int]:
        statuses: list[int] = []
        url, key = service.url + "/v1/decisions", {"X-API-Key": serving.API_KEY}
        async with aiohttp.ClientSession() as session:

            async def one() -> None:
                async with session.post(url, data=json.dumps(stand.transaction()), headers=key) as answer:
                    statuses.append(answer.status)

            first = [asyncio.create_task(one()) for _ in range(20)]
            assert service.process is not None
            service.process.send_signal(signal.SIGTERM)
            while True:  # unready comes before deaf: a refused connection here fails the test
                async with session.get(service.url + "/readyz") as answer:
                    if answer.status == 503:
                        break
            await asyncio.gather(*first, one())
        return statuses

    assert asyncio.run(run()) == [200] * 21
    worker.process.send_signal(signal.SIGTERM)
    assert service.process.wait(25) == 0
    assert worker.process.wait(25) == 0
    stand.proxies["predictor"].set(None)
    worker.start()
    wait_for(lambda: ids <= {d["id"] for d in stand.committed()}, 60, "what the worker had not done")
    decided = [d["id"] for d in stand.committed()]
    assert len(decided) == len(set(decided))
    service.start()
    stand.proxies["kafka"].set(Fault.CUT)
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    service.process.send_signal(signal.SIGTERM)
    worker.process.wait(25)
    assert service.process.wait(25) == 0
    assert time.monotonic() - began < 25
