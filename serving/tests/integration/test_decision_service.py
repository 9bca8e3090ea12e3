"""The inline door as a process of its own, against real Kafka, Redis and predictor."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson
import pytest
import redis as redis_client

from fraud_contracts.names import profile_key
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors, serving
from fraud_testing.kafka import wait_for

pytestmark = pytest.mark.integration
KEY = {"X-API-Key": serving.API_KEY}


@pytest.fixture(scope="module")
def service(stack: Any) -> Iterator[serving.Process]:
    store = redis_client.Redis.from_url(stack.redis.url)
    store.set(stack.config.identity.redis_complete(stack.config.hash6), 1)
    with serving.decision_service(
        stack.config, stack.folder, stack.redis.login(stack.config.identity)
    ) as process:
        yield process


def call(
    url: str, body: Any = None, headers: dict[str, str] | None = None, times: int = 1
) -> list[tuple[int, Any]]:
    """(status, JSON) of the same request, sent ``times`` at once."""

    async def run() -> list[tuple[int, Any]]:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one() -> tuple[int, Any]:
                method = "GET" if body is None else "POST"
                async with session.request(
                    method, url, data=data, headers=KEY if headers is None else headers
                ) as answer:
                    return answer.status, orjson.loads(await answer.read())

            return await asyncio.gather(*(one() for _ in range(times)))

    return asyncio.run(run())


def unreadable(service: serving.Process, what: str) -> float:
    """How often stored bytes of this kind were taken for missing."""
    with urllib.request.urlopen(service.url + "/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    counters = [line for line in lines if line.startswith("fraud_unreadable_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counters if f'what="{what}"' in line)


def accepted(stack: Any) -> list[dict[str, Any]]:
    messages = stack.broker.read(stack.config.identity.topic("accepted"))
    return [orjson.loads(message.value()) for message in messages]


def test_a_decision_is_whole_and_in_the_log_before_the_answer(stack: Any, service: serving.Process) -> None:
    """The record of accepted holds the tokenised event, the vector and the answer; the card's number is nowhere."""
    status, answer = call(service.url + "/v1/decisions", stack.transaction("whole"))[0]
    assert status == 200, answer
    assert answer["degraded"] == []
    assert answer["model_digest"] == stack.digest
    [record] = [r for r in accepted(stack) if r["event"]["id"] == "whole"]
    decision = record["decision"]
    assert (decision["action"], decision["score"], decision["door"]) == (
        answer["action"],
        answer["score"],
        "inline",
    )
    assert len(decision["vector"]) == len(compile_detector(stack.config.spec).names)
    assert "card-number" not in json.dumps(record)


def test_a_retry_gets_the_same_answer_and_is_appended_once(stack: Any, service: serving.Process) -> None:
    """Same id and body: the stored answer, byte for byte; the acknowledged append isn't repeated."""
    body = stack.transaction("retry")
    first = call(service.url + "/v1/decisions", body)[0]
    # The claim learns of the acknowledgement a moment after the answer.
    store, claim = redis_client.Redis.from_url(stack.redis.url), stack.config.identity.redis_claim("retry")
    wait_for(lambda: (store.get(claim) or b"").startswith(b"L"), 10, "the claim of an appended decision")
    assert call(service.url + "/v1/decisions", body)[0] == first
    assert call(service.url + "/v1/decisions/retry")[0] == first
    assert sum(r["event"]["id"] == "retry" for r in accepted(stack)) == 1


def test_a_hundred_at_once_are_one_decision(stack: Any, service: serving.Process) -> None:
    """Racing retries of one id all get the winner's answer, and only it is in the log."""
    answers = call(service.url + "/v1/decisions", stack.transaction("race"), times=100)
    assert {status for status, _ in answers} == {200}
    assert len({orjson.dumps(answer) for _, answer in answers}) == 1
    decisions = [orjson.dumps(r["decision"]) for r in accepted(stack) if r["event"]["id"] == "race"]
    assert len(set(decisions)) == 1


def test_another_body_is_a_conflict(stack: Any, service: serving.Process) -> None:
    """The same id with another amount: 409 id_reused, nothing appended."""
    body = stack.transaction("reuse")
    assert call(service.url + "/v1/decisions", body)[0][0] == 200
    status, answer = call(service.url + "/v1/decisions", {**body, "amount": 99.0})[0]
    assert (status, answer["error"]["code"]) == (409, "id_reused")


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"amount": None}, 400, "missing_field", "amount"),
        ({"amount": "12"}, 400, "wrong_type", "amount"),
        ({"amount": 1.001}, 400, "invalid_amount", "amount"),
        ({"time": 5}, 400, "invalid_time", "time"),
        ({"card": ""}, 400, "invalid_entity", "card"),
        ({"decision": {}}, 400, "carries_decision", "decision"),
        ({"padding": "x" * 70_000}, 413, "too_large", None),
    ],
)
def test_a_malformed_transaction_is_refused_with_a_reason(
    stack: Any, service: serving.Process, changes: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    """4xx with a stable code and the field at fault."""
    got, answer = call(service.url + "/v1/decisions", stack.transaction("bad", **changes))[0]
    assert (got, answer["error"]["code"], answer["error"]["field"]) == (status, code, field)


def test_without_the_key_nobody_is_answered(stack: Any, service: serving.Process) -> None:
    """401 for every path of the API; probes need no key."""
    for headers in ({}, {"X-API-Key": "wrong"}):
        assert call(service.url + "/v1/decisions", stack.transaction("x"), headers)[0][0] == 401
        assert call(service.url + "/v1/release", None, headers)[0][0] == 401
    assert call(service.url + "/healthz", None, {})[0][0] == 200


def test_a_burst_on_one_card_counts_itself(stack: Any, service: serving.Process) -> None:
    """Ten in a row, each after the last answer: the customer's count of events is exactly 1 to 10, with no stream at all."""
    names = compile_detector(stack.config.spec).names
    place = next(i for i, name in enumerate(names) if "customer" in name and "count" in name)
    for i in range(10):
        call(service.url + "/v1/decisions", stack.transaction(f"burst-{i}", card="burst", merchant=f"b{i}"))
    counts = {r["event"]["id"]: r["decision"]["vector"][place] for r in accepted(stack)}
    assert [counts[f"burst-{i}"] for i in range(10)] == [float(i + 1) for i in range(10)]


def test_pending_events_leave_when_the_profile_has_them(stack: Any, service: serving.Process) -> None:
    """Once the stream's profile holds an event, its pending entry is taken out and isn't counted twice."""
    features, of = compile_detector(stack.config.spec), stack.config.identity
    place = next(i for i, name in enumerate(features.names) if "customer" in name and "count" in name)
    call(service.url + "/v1/decisions", stack.transaction("p1", card="pend"))
    [event] = [r["event"] for r in accepted(stack) if r["event"]["id"] == "p1"]
    key = profile_key(features.hash6, "customer", event["entities"]["customer"])
    store = redis_client.Redis.from_url(stack.redis.url)
    _, profile, _ = features.stage("customer").observe(None, event, 1)
    store.set(of.redis_profile(key), profile)
    call(service.url + "/v1/decisions", stack.transaction("p2", card="pend"))
    [decision] = [r["decision"] for r in accepted(stack) if r["event"]["id"] == "p2"]
    assert decision["vector"][place] == 2.0
    assert decision["saw"]["customer"][1] == 1
    ids = wait_for(
        lambda: [orjson.loads(entry)["id"] for entry in store.zrange(of.redis_pending(key), 0, -1)],
        5,
        "pending",
    )
    assert ids == ["p2"]


def test_a_miss_without_the_mark_is_no_new_customer(stack: Any, service: serving.Process) -> None:
    """While the profiles of the set aren't complete in Redis, a missing profile is stated."""
    store = redis_client.Redis.from_url(stack.redis.url)
    mark = stack.config.identity.redis_complete(stack.config.hash6)
    store.delete(mark)
    try:
        answer = call(service.url + "/v1/decisions", stack.transaction("nomark", card="unknown"))[0][1]
        assert answer["degraded"] == ["profiles_incomplete"]
    finally:
        store.set(mark, 1)


def test_a_label_report_is_durable(stack: Any, service: serving.Process) -> None:
    """202 once it is in label-reports; an unknown source is refused."""
    report = {"id": "whole", "label": "fraud", "source": "analyst"}
    assert call(service.url + "/v1/labels", report)[0] == (202, report)
    [message] = stack.broker.read(stack.config.identity.topic("label-reports"))
    assert orjson.loads(message.value()) == report
    status, answer = call(service.url + "/v1/labels", {**report, "source": "rumour"})[0]
    assert (status, answer["error"]["field"]) == (422, "source")


def test_a_new_release_is_taken_without_a_restart(stack: Any, service: serving.Process) -> None:
    """A changed mounted release is in use within a few seconds; a broken one changes nothing."""
    stack.release(
        "r2", {"bands": {"review": 0, "decline": 1000}, "fallback": serving.NO_STREAM | {"deadline": "1s"}}
    )
    wait_for(lambda: call(service.url + "/v1/release")[0][1]["name"] == "r2", 10, "release r2")
    answer = call(service.url + "/v1/decisions", stack.transaction("r2"))[0][1]
    assert (answer["action"], answer["release"]) == ("review", "r2")
    (stack.folder / "release.json").write_text("{")
    wait_for(lambda: unreadable(service, "release") > 0, 10, "the broken release to be refused")
    assert call(service.url + "/v1/release")[0][1]["name"] == "r2"
    stack.release()
    wait_for(lambda: call(service.url + "/v1/release")[0][1]["name"] == "r1", 10, "release r1")


def test_a_silent_predictor_is_a_declared_fallback(stack: Any, service: serving.Process) -> None:
    """A stopped predictor costs the deadline, not the answer: model_unavailable, by onModelLoss."""
    assert stack.predictor.process is not None
    stack.predictor.process.send_signal(signal.SIGSTOP)
    try:
        start = time.monotonic()
        status, answer = call(service.url + "/v1/decisions", stack.transaction("silent"))[0]
        assert (status, answer["degraded"], answer["score"]) == (200, ["model_unavailable"], None)
        assert time.monotonic() - start < 3
    finally:
        stack.predictor.process.send_signal(signal.SIGCONT)


def test_without_redis_the_answer_is_degraded_and_recovers(stack: Any, service: serving.Process) -> None:
    """Redis gone: decided without profiles and without a claim, both stated; back, all is as before."""
    stack.redis.stop()
    try:
        status, answer = call(service.url + "/v1/decisions", stack.transaction("noredis"))[0]
        assert (status, answer["degraded"]) == (200, ["idempotency", "profiles_unavailable"])
    finally:
        stack.redis.start()
    store = redis_client.Redis.from_url(stack.redis.url)
    store.set(stack.config.identity.redis_complete(stack.config.hash6), 1)

    def back() -> bool:
        answer = call(service.url + "/v1/decisions", stack.transaction(f"back-{time.time()}"))[0][1]
        return bool(answer["degraded"] == [])

    wait_for(back, 10, "decisions with profiles again")


def test_without_kafka_a_decision_is_refused_and_a_retry_completes_it(
    stack: Any, service: serving.Process
) -> None:
    """onKafkaLoss Refuse: 503, nothing lost; the same request later gets the claimed decision and appends it."""
    stack.broker.stop(signal.SIGKILL)
    try:
        body = stack.transaction("nokafka")
        status, answer = call(service.url + "/v1/decisions", body)[0]
        assert (status, answer["error"]["code"]) == (503, "kafka_unavailable")
    finally:
        stack.broker.start()
    wait_for(lambda: call(service.url + "/v1/decisions", body)[0][0] == 200, 30, "the retry")
    assert {r["event"]["id"] for r in accepted(stack)} >= {"nokafka"}


def test_another_currency_is_refused_with_the_detectors(stack: Any) -> None:
    """400 wrong_currency names the field and the one currency, which the API's description gives, too."""
    event = {
        **detectors.SPEC["event"],
        "amount": {"field": "amount", "currency": "EUR", "currencyField": "cur"},
    }
    config = detectors.detector(stack.broker.bootstrap, partitions=2, event=event)
    folder = stack.folder / "currency"
    folder.mkdir()
    (folder / "release.json").write_text((stack.folder / "release.json").read_text())
    with serving.decision_service(config, folder, stack.redis.url) as process:
        url = process.url + "/v1/decisions"
        assert call(url, stack.transaction("eur", cur="EUR"))[0][0] == 200
        for currency in ("JPY", "KWD", "ZZZ", None):
            status, answer = call(url, stack.transaction("jpy", cur=currency))[0]
            assert (status, answer["error"]["code"], answer["error"]["field"]) == (
                400,
                "wrong_currency",
                "cur",
            )
            assert "EUR" in answer["error"]["message"]
        document = call(process.url + "/openapi.json")[0][1]
        body = document["paths"]["/v1/decisions"]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"]["properties"]["cur"] == {"enum": ["EUR"]}
        assert "cur" in body["schema"]["required"]


def test_sigterm_ends_it_cleanly(stack: Any, service: serving.Process) -> None:
    """The process drains and exits with 0."""
    assert service.stop() == 0
