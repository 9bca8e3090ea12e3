"""What nobody would send: from the API's own description, and tens of thousands of byte strings into both doors."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from fraud_contracts.errors import Reason
from fraud_testing import byte_cases, traffic
from fraud_testing.platform import Platform

pytestmark = [pytest.mark.integration, pytest.mark.slow]
API_CASES, TOPIC_CASES = 20_000, 30_000
EXAMPLES = 150
CODES = {str(reason) for reason in Reason}
OPERATIONS = ("POST /v1/decisions", "GET /v1/decisions/{id}", "POST /v1/labels", "GET /v1/release")


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_from_the_description(platform: Platform, operation: str, mode: GenerationMode) -> None:
    """No 5xx, no hang, every answer as the description says: its status, its media type, its schema."""
    schema = schemathesis.openapi.from_url(platform.service.url + "/openapi.json")
    operations = {str(one.ok().label): one.ok() for one in schema.get_all_operations()}
    assert set(operations) == set(OPERATIONS)
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operations[operation].as_strategy(generation_mode=mode))
    def each(case: schemathesis.Case) -> None:
        answer = case.call(base_url=platform.service.url, headers=traffic.KEY, timeout=10)
        statuses[answer.status_code] += 1
        case.validate_response(
            answer,
            checks=[
                schemathesis.checks.not_a_server_error,
                *schemathesis.checks.CHECKS.get_by_names(
                    ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
                ),
            ],
        )

    each()
    assert statuses
    assert max(statuses) < 500


def test_bytes_into_the_api(platform: Platform) -> None:
    """Each is decided or refused with a code of the list, and everything decided is in the log once."""
    now = int(time.time() * 1000)
    bodies = {str(i): raw for i, raw in enumerate(byte_cases.cases(API_CASES, 11, "fuzz-api-", now))}
    answers: list[traffic.Answer] = []
    for _ in range(50):  # what is refused for the load, or not recorded in time, is sent again
        sent = asyncio.run(traffic.together(platform.service.url + "/v1/decisions", list(bodies.items())))
        refused = [answer for answer in sent if answer.status == 503]
        assert {answer.document["error"]["code"] for answer in refused} <= {
            "overloaded",
            "kafka_unavailable",
        }
        answers += [answer for answer in sent if answer.status != 503]
        bodies = {answer.id: bodies[answer.id] for answer in refused}
        if not bodies:
            break
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) <= {200, 400, 409, 413}, statuses
    assert sum(statuses.values()) == API_CASES
    codes = Counter(answer.document["error"]["code"] for answer in answers if answer.status != 200)
    assert set(codes) <= CODES, codes
    assert len(codes) > 10, codes
    decided = {answer.document["id"] for answer in answers if answer.status == 200}
    platform.settled(180)
    counts = Counter(one["id"] for one in platform.read("decisions") if one["id"] in decided)
    assert set(counts) == decided
    assert max(counts.values()) == 1
    assert max(answer.seconds for answer in answers) < 30


def test_bytes_into_the_topic(platform: Platform) -> None:
    """Through Flink: each record ends as one feature record or one dead letter, each feature record as one decision or repeat."""
    now = int(time.time() * 1000)
    topic = platform.topic("transactions")
    start = {m.partition(): m.offset() + 1 for m in platform.broker.read(topic)}
    bodies = [*byte_cases.cases(TOPIC_CASES - 1, 12, "fuzz-topic-", now), None]
    platform.broker.produce(topic, [(None, raw) for raw in bodies])
    ends = {m.partition(): m.offset() + 1 for m in platform.broker.read(topic)}
    sent = {(p, offset) for p, end in ends.items() for offset in range(start.get(p, 0), end)}
    assert len(sent) == TOPIC_CASES
    platform.settled(240)

    def places(records: list[dict[str, object]]) -> Counter[tuple[int, int]]:
        counts: Counter[tuple[int, int]] = Counter()
        for record in records:
            source = record["source"]
            assert isinstance(source, dict)
            if source["topic"] == topic and (source["partition"], source["offset"]) in sent:
                counts[source["partition"], source["offset"]] += 1
        return counts

    letters = [one for one in platform.read("dead-letters") if one["reason"] in CODES]
    refused = places([one for one in letters if one["stage"] == "stream"])
    features = [orjson.loads(m.value()) for m in platform.broker.read(platform.topic("features"))]
    passed = places(features)
    assert refused + passed == Counter(dict.fromkeys(sent, 1))
    assert len({one["reason"] for one in letters}) > 10
    decided = Counter(one["id"] for one in platform.read("decisions"))
    reused = {one["id"] for one in letters if one["reason"] == "id_reused"}
    mine = {
        one["event"]["id"]
        for one in features
        if (one["source"]["partition"], one["source"]["offset"]) in sent
    }
    assert mine - set(decided) - reused == set()
    assert max(decided.values()) == 1
