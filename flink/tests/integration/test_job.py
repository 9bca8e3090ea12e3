"""The whole job against a real broker: what comes in, comes out once, with the bits that plain calls give."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from fraud_contracts import profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.names import profile_key
from fraud_contracts.records import body_hash
from fraud_contracts.stream_progress import is_progress
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors, kafka, stream

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(kafka.missing()), reason=str(kafka.missing())),
    pytest.mark.skipif(bool(stream.missing()), reason=str(stream.missing())),
]
BAD = {
    b"{": "invalid_json",
    b"\xff\xfe": "invalid_json",
    b"[1]": "not_an_object",
    b'{"id":"b1"}': "missing_field",
    b'{"id":"b2","id":"b3","time":1,"amount":1}': "duplicate_key",
    b'{"id":"b4","time":1795000000000,"amount":"1","card":"c","merchant":"m"}': "wrong_type",
    b'{"id":"b5","time":1795000000000,"amount":-1,"card":"c","merchant":"m"}': "invalid_amount",
    b'{"id":"b6","time":4070908800000,"amount":1,"card":"c","merchant":"m"}': "time_in_future",
    b'{"id":"b7","time":1795000000000,"amount":1,"card":"c","merchant":"m","decision":{}}': "carries_decision",
}


@dataclass
class JobOutcome:
    config: DetectorConfig
    start: int
    features: list[dict[str, Any]]
    keys: list[bytes]
    letters: list[dict[str, Any]]
    profiles: dict[bytes, bytes]
    seed_key: bytes
    seed: bytes
    sent: list[dict[str, Any]]
    accepted: list[dict[str, Any]]


def transactions(start: int) -> list[dict[str, Any]]:
    """300 payments of 7 cards at 5 merchants, one without a merchant; every 50th is sent again."""
    payments: list[dict[str, Any]] = []
    for i in range(300):
        payments.append(
            {
                "id": f"tx-{i}",
                "time": start + i * 1000,
                "amount": (i % 40) + 0.25,
                "card": f"card-{i % 7}",
                "merchant": None if i == 33 else f"shop-{i % 5}",
                "category": "travel" if i % 3 else "food",
            }
        )
        if i % 50 == 49:
            payments.append(payments[-5])
    return payments


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> JobOutcome:
    folder = tmp_path_factory.mktemp("job")
    start = time.time_ns() // 1_000_000 - 200_000
    with kafka.broker(folder / "kafka") as broker:
        config = detectors.detector(broker.bootstrap)
        identity = config.identity
        broker.create_detector_topics(str(identity))
        engine = compile_detector(config.spec)
        schema = EventSchema(config.spec.event, config.spec.entities)
        tokeniser = Tokeniser.from_hex(stream.TOKEN_KEY)

        # A seed for a card that no payment of this test has shown yet, and one of another feature set.
        token = tokeniser.token("card", "card-3")
        past = schema.canonical(
            {"id": "old", "time": start - 86_400_000, "amount": 9, "card": "card-3", "merchant": "shop-1"},
            tokeniser,
            start,
        )
        _, seed, _ = engine.stages[0].observe(None, past, config.epoch)
        seed_key = profile_key(config.hash6, "customer", token).encode()
        broker.produce(
            identity.topic("seeds"),
            [(seed_key, seed), (profile_key("000000", "customer", token), seed), (seed_key, seed[:40])],
        )
        with stream.mini_cluster(config, folder) as job:
            group = identity.features_group(config.hash6)

            def consumed(noun: str, count: int) -> bool:
                if job.poll() is not None:
                    raise RuntimeError(f"the job ended:\n{(folder / 'job.log').read_text()[-4000:]}")
                return broker.committed(group, identity.topic(noun)).get(0) == count

            kafka.wait_for(lambda: consumed("seeds", 3), 300, "the seeds' offsets in a checkpoint")
            sent = transactions(start)
            raw = [(tx["card"], orjson.dumps(tx)) for tx in sent]
            half = len(raw) // 2
            first = raw[:half] + [(None, bad) for bad in BAD]
            broker.produce(identity.topic("transactions"), first)
            kafka.wait_for(
                lambda: broker.count(identity.topic("features")) >= half, 120, "the first half's features"
            )
            label = {**_label(start), "entities": {"customer": token, "counterparty": "shop-3"}}
            damaged = [b"{}", b'{"id":"x","time":"soon","entities":{},"fraud":true,"known":1}']
            broker.produce(
                identity.topic("labels"),
                [(None, orjson.dumps(label))] + [(None, bad) for bad in damaged],
            )
            kafka.wait_for(lambda: consumed("labels", 3), 120, "the labels' offsets in a checkpoint")
            broker.produce(identity.topic("transactions"), raw[half:])
            accepted = _accepted(schema, tokeniser, start)
            broker.produce(
                identity.topic("accepted"),
                [(None, orjson.dumps(one)) for one in accepted] + [(None, b"not json")],
            )
            features, letters = len(sent) + len(accepted), len(BAD) + len(damaged) + 1
            kafka.wait_for(
                lambda: (
                    broker.count(identity.topic("features")) >= features
                    and broker.count(identity.topic("dead-letters")) >= letters
                    and consumed("accepted", len(accepted) + 1)
                ),
                120,
                "every record's outcome",
            )
        messages = broker.read(identity.topic("features"))
        return JobOutcome(
            config,
            start,
            [orjson.loads(m.value()) for m in messages],
            [m.key() for m in messages],
            [orjson.loads(m.value()) for m in broker.read(identity.topic("dead-letters"))],
            {
                m.key(): m.value()
                for m in broker.read(identity.topic("profiles"))
                if not is_progress(m.value())
            },
            seed_key,
            seed,
            sent,
            accepted,
        )


def _label(start: int) -> dict[str, Any]:
    """A fraud of nine days ago, known between the two halves of the stream."""
    known_at = start + 140_000
    return {
        "id": "fraud-1",
        "time": start - 9 * 86_400_000,
        "fraud": True,
        "source": "chargeback",
        "claimed": known_at,
        "known": known_at,
    }


def _accepted(schema: EventSchema, tokeniser: Tokeniser, start: int) -> list[dict[str, Any]]:
    """Two decided events: a whole one and one whose event was damaged on the way."""
    row = {"id": "in-1", "time": start + 400_000, "amount": 3, "card": "card-1", "merchant": "shop-2"}
    event = schema.canonical(row, tokeniser, start + 400_000)
    decision = {"id": "in-1", "door": "inline", "event": event, "action": "approve"}
    broken = {**event, "id": "in-2", "entities": {"customer": 7}}
    return [
        {"event": event, "hash": body_hash(event), "decision": decision},
        {"event": broken, "hash": "00", "decision": {**decision, "id": "in-2"}},
    ]


def test_each_record_ends_once(outcome: JobOutcome) -> None:
    """Every good record is in features once per send, every bad one in dead-letters with its reason."""
    ids = Counter(record["event"]["id"] for record in outcome.features)
    expected = Counter(tx["id"] for tx in outcome.sent) + Counter(["in-1", "in-2"])
    assert ids == expected
    reasons = Counter(letter["reason"] for letter in outcome.letters)
    others = Counter(["missing_field", "wrong_type", "invalid_json", "wrong_type"])  # the last: a cut seed
    assert reasons == Counter(BAD.values()) + others


def test_features_equal_plain_calls(outcome: JobOutcome) -> None:
    """Replaying the records in the order of emission through the plain engine gives the same vectors, bit for bit."""
    engine = compile_detector(outcome.config.spec)
    tokeniser = Tokeniser.from_hex(stream.TOKEN_KEY)
    states: dict[tuple[str, str], bytes] = {("customer", tokeniser.token("card", "card-3")): outcome.seed}
    half = len(outcome.sent) // 2
    for position, record in enumerate(outcome.features):
        if position == half:
            key = ("counterparty", "shop-3")
            states[key] = engine.stages[1].label(states[key], _label(outcome.start), outcome.config.epoch)
        if record["vector"] is None:
            continue
        event = record["event"]
        mine = {entity: states.get((entity, token)) for entity, token in event["entities"].items() if token}
        vector, new, saw = engine.observe(mine, event, outcome.config.epoch)
        assert record["vector"] == [None if v != v else v for v in vector], event["id"]
        assert record["saw"] == {e: [s[0], s[1], f"{s[2]:016x}"] for e, s in saw.items()}
        for entity, state in new.items():
            states[(entity, event["entities"][entity])] = state
        assert record["repeat"] == (event["id"] in _ids_before(outcome, position))
    for (entity, token), state in states.items():
        assert outcome.profiles[_key(outcome, entity, token)] == state, (entity, token)


def _ids_before(outcome: JobOutcome, position: int) -> set[str]:
    return {record["event"]["id"] for record in outcome.features[:position]}


def _key(outcome: JobOutcome, entity: str, token: str) -> bytes:
    return profile_key(outcome.config.hash6, entity, token).encode()


def test_a_seed_is_taken_before_the_first_event(outcome: JobOutcome) -> None:
    """The seeded card's first vector builds on the seed, in the job's own epoch."""
    token = outcome.seed_key.decode().split(":", 2)[2]
    first = next(r for r in outcome.features if r["event"]["entities"]["customer"] == token)
    assert first["saw"]["customer"][:2] == [outcome.config.epoch, 1]
    assert profile_header.read(outcome.profiles[outcome.seed_key]).epoch == outcome.config.epoch


def test_a_label_reaches_the_counterparty(outcome: JobOutcome) -> None:
    """After the label the shop's stage has applied one more than its events."""
    key = _key(outcome, "counterparty", "shop-3")
    events = {
        r["event"]["id"] for r in outcome.features if r["event"]["entities"].get("counterparty") == "shop-3"
    }
    assert profile_header.read(outcome.profiles[key]).seq == len(events) + 1
    at = compile_detector(outcome.config.spec).names.index("counterparty_fraud_count_30d")
    shop = [r for r in outcome.features if r["event"]["entities"].get("counterparty") == "shop-3"]
    assert (shop[0]["vector"][at], shop[-1]["vector"][at]) == (0.0, 1.0)


def test_an_event_without_an_entity_skips_its_stage(outcome: JobOutcome) -> None:
    """The payment without a merchant has the customer's values and nulls for the rest."""
    record = next(r for r in outcome.features if r["event"]["id"] == "tx-33")
    assert set(record["saw"]) == {"customer"}
    assert None in record["vector"]
    assert any(value is not None for value in record["vector"])


def test_an_accepted_record_is_never_lost(outcome: JobOutcome) -> None:
    """A damaged accepted event goes on with its decision, a null vector and a reason; a whole one with a vector."""
    whole, damaged = (
        next(r for r in outcome.features if r["event"]["id"] == one) for one in ("in-1", "in-2")
    )
    assert whole["vector"] is not None
    assert whole["decision"]["id"] == "in-1"
    assert damaged["vector"] is None
    assert damaged["reason"] == "features_failed"
    assert damaged["decision"]["id"] == "in-2"


def test_records_are_keyed_by_the_first_entity(outcome: JobOutcome) -> None:
    """The Kafka key is the customer's token, and no clear card number leaves the intake."""
    for key, record in zip(outcome.keys, outcome.features, strict=True):
        if record["event"]["id"] != "in-2":
            assert key.decode() == record["event"]["entities"]["customer"]
            assert key.startswith(b"t_")
        assert "card-" not in str(record)


def test_a_dead_letter_opens_with_the_key(outcome: JobOutcome) -> None:
    """Each letter holds the bytes that came, sealed, and says where they lay."""
    cipher = DeadLetterCipher(stream.DEAD_LETTER_KEY)
    opened = {cipher.decrypt(letter["payload"]): letter for letter in outcome.letters}
    for raw, reason in BAD.items():
        assert opened[raw]["reason"] == reason
        assert opened[raw]["source"]["topic"] == outcome.config.identity.topic("transactions")
        assert opened[raw]["source"]["offset"] >= len(outcome.sent) // 2


def test_it_says_which_run_it_was(outcome: JobOutcome) -> None:
    """All records of one attempt carry one run, and the set they were computed by."""
    assert len({record["run"] for record in outcome.features}) == 1
    assert {record["set"] for record in outcome.features} == {outcome.config.feature_set}


def test_nothing_else_is_written(outcome: JobOutcome) -> None:
    """Every profile key belongs to this set and to one of the detector's entities."""
    for key in outcome.profiles:
        hash6, entity, _ = key.decode().split(":", 2)
        assert hash6 == outcome.config.hash6
        assert entity in ("customer", "counterparty")
