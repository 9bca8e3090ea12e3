"""The audit of decided vectors, on a stream that the tests play themselves: killed, restored, in other orders."""

from __future__ import annotations

import random
import struct
from copy import deepcopy
from typing import Any

import pytest

from fraud_contracts.detector import parse_spec
from fraud_contracts.names import profile_key
from fraud_pipelines.audit import audit
from fraud_pipelines.features import compile_detector, read_header
from fraud_pipelines.features.plan import hash64
from fraud_pipelines.features.stage import event_hash_v1
from fraud_pipelines.state_reconstruction import solve

SPEC = parse_spec(
    {
        "event": {"id": {"field": "id"}, "time": {"field": "t"}, "amount": {"field": "a"}},
        "entities": [
            {"name": "customer", "field": "c"},
            {"name": "counterparty", "field": "m", "labelDelay": "1h"},
        ],
    }
)
ENGINE = compile_detector(SPEC)
START = 1_700_000_000_000
MINUTE = 60_000


def event(number: int) -> dict[str, Any]:
    """Number 55's customer is new; every 13th has no counterparty."""
    return {
        "id": f"e{number}",
        "time": START + number * MINUTE,
        "amount": 100 + number,
        "currency": None,
        "entities": {
            "customer": f"c{number % 2}" if number != 55 else "new",
            "counterparty": f"m{number % 3 % 2}" if number % 13 else None,
        },
        "fields": {},
    }


class Stream:
    """The keyed stages as Flink runs them: states that can be taken back, and a log of emissions that can't."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}
        self.records: list[dict[str, Any]] = []
        self.run = "1"

    def key(self, entity: str, body: dict[str, Any]) -> str:
        return profile_key(ENGINE.hash6, entity, body["entities"][entity])

    def apply(self, body: dict[str, Any], emit: bool = True) -> None:
        vector, new, saw = ENGINE.observe(
            {
                entity: self.states[self.key(entity, body)]
                for entity, token in body["entities"].items()
                if token is not None and self.key(entity, body) in self.states
            },
            body,
        )
        self.states.update({self.key(entity, body): state for entity, state in new.items()})
        if emit:
            self.records.append(record(body, vector, saw, len(self.records), self.run))

    def label(self, body: dict[str, Any]) -> None:
        stage, key = ENGINE.stage("counterparty"), self.key("counterparty", body)
        self.states[key] = stage.label(self.states.get(key), body)


def with_nulls(vector: list[float]) -> list[float | None]:
    return [None if value != value else value for value in vector]


def shown(saw: dict[str, tuple[int, int, int]]) -> dict[str, list[Any]]:
    return {entity: [epoch, seq, f"{digest:016x}"] for entity, (epoch, seq, digest) in saw.items()}


def record(body: dict[str, Any], vector: list[float], saw: Any, offset: int, run: str) -> dict[str, Any]:
    return {
        "event": body,
        "set": ENGINE.hash,
        "vector": with_nulls(vector),
        "saw": shown(saw),
        "repeat": False,
        "reason": None,
        "run": run,
        "source": {"topic": "t", "partition": 0, "offset": int(body["id"][1:])},
        "at": [START + offset, 0, offset],
    }


def first_decided(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first emission of each id, as the worker would decide it."""
    first: dict[str, dict[str, Any]] = {}
    for one in records:
        first.setdefault(one["event"]["id"], one)
    return [
        {"id": name, "door": "stream", **{k: one[k] for k in ("event", "set", "vector", "saw", "source")}}
        for name, one in first.items()
    ]


def seeded() -> tuple[Stream, dict[str, list[bytes]]]:
    stream = Stream()
    for number in range(1, 30):
        stream.apply(event(number), emit=False)
    return stream, {key: [state] for key, state in stream.states.items()}


def label(number: int, offset: int, fraud: bool = True) -> dict[str, Any]:
    body = event(number)
    return {
        **{name: body[name] for name in ("id", "time", "entities")},
        "fraud": fraud,
        "source": "chargeback",
        "claimed": 0,
        "known": body["time"] + 30 * MINUTE,
        "at": [START + offset, 0, offset],
    }


def test_decisions_made_by_the_engine_agree_whatever_order_they_lie_in() -> None:
    """Every known event's vector is made again, bit for bit, with the topic's records and without them."""
    stream, seeds = seeded()
    for number in range(30, 60):
        stream.apply(event(number))
    decisions = first_decided(stream.records)[::-1]
    for records in (stream.records, []):
        result = audit([ENGINE], seeds, decisions, records)
        assert (result["share"], result["differing"], result["unreproducible"]) == (1.0, 0, 0)
        assert (result["known"], result["equal"]) == (29, 30)


def test_one_changed_value_is_found() -> None:
    """A vector that differs in one number counts, and its id is shown."""
    stream, seeds = seeded()
    for number in range(30, 60):
        stream.apply(event(number))
    decisions = deepcopy(first_decided(stream.records))
    decisions[3]["vector"][0] += 1.0
    result = audit([ENGINE], seeds, decisions, stream.records)
    assert result["examples"] == [decisions[3]["id"]]
    assert (result["differing"], result["unreproducible"]) == (1, 0)
    assert result["share"] < 1.0


@pytest.mark.parametrize("seed", range(12))
def test_after_a_restore_in_another_order_each_first_emission_is_made_again(seed: int) -> None:
    """The stream goes back to a checkpoint and applies the same events and labels in another order; some emissions of the
    first time were swallowed by the kill: none differs, none is lost, those emitted twice are counted."""
    dice = random.Random(seed)
    stream, seeds = seeded()
    labels: list[dict[str, Any]] = []

    def play(numbers: list[int], label_records: list[dict[str, Any]], swallowed: float) -> None:
        waiting = list(label_records)
        for number in numbers:
            while waiting and dice.random() < 0.3:
                stream.label(waiting.pop(0))
            stream.apply(event(number), emit=dice.random() >= swallowed)
        for unsent in waiting:
            stream.label(unsent)

    for n, number in enumerate((3, 5, 8, 31, 32)):
        labels.append(label(number, n))
    labels += [label(5, 6, fraud=False), label(34, 7)]
    play(list(range(30, 60)), labels[:3], 0.0)
    checkpoint = dict(stream.states)
    after = list(range(60, 110))
    play(after, labels[3:], 0.2)
    once = len(stream.records)
    stream.states, stream.run = checkpoint, "2"
    # Two partitions, each in its own order, mixed anew.
    odd, even = [n for n in after if n % 2], [n for n in after if not n % 2]
    mixed = []
    while odd or even:
        mixed.append((odd if odd and (not even or dice.random() < 0.5) else even).pop(0))
    play(mixed, labels[3:], 0.0)
    decisions = first_decided(stream.records)
    result = audit([ENGINE], seeds, decisions, stream.records, labels)
    assert (result["differing"], result["unreproducible"], result["why"]) == (0, 0, {})
    assert result["equal"] == len(decisions) == 80
    assert result["emitted_twice"] == once - 30
    assert result["emitted_twice_with_other_values"] > 0
    assert (result["first_emission"], result["runs"]) == ({"kept": 80}, 2)


def test_an_inline_vector_that_saw_pending_events_is_made_again() -> None:
    """Profiles some events behind, brought up to date with some of the lacking ones: the set is solved for."""
    stream, seeds = seeded()
    early = {}
    for number in range(30, 50):
        stream.apply(event(number))
        if number == 40:
            early = dict(stream.states)
    # The inline door of event 50 saw the profiles as of 40, and 44 and 48 as pending.
    inline = Stream()
    inline.states = early
    for number in (44, 48, 50):
        inline.apply(event(number))
    stream.apply(event(50))
    streamed = {name: stream.records[-1][name] for name in ("set", "vector", "saw")}
    decisions = first_decided(stream.records)
    decisions[-1] |= {
        "door": "inline",
        "vector": inline.records[-1]["vector"],
        "saw": inline.records[-1]["saw"],
        "streamed": streamed,
        "parity": "stale",
    }
    result = audit([ENGINE], seeds, decisions, stream.records)
    assert (result["equal"], result["differing"], result["unreproducible"]) == (22, 0, 0)
    assert result["first_emission"] == {"kept": 21}
    decisions[-1]["vector"][0] += 1.0
    assert audit([ENGINE], seeds, decisions, stream.records)["differing"] == 1


@pytest.mark.parametrize(
    ("waited_ms", "degraded", "frozen"),
    [(60_000, [], 1), (9_000, [], 0), (60_000, ["profiles_stale"], 0)],
    ids=["long", "a moment", "marked"],
)
def test_an_approval_on_a_profile_that_stood_still_is_counted(
    waited_ms: int, degraded: list[str], frozen: int
) -> None:
    """It lacked events that had been accepted for longer than profiles may be behind, and no mark says so."""
    stream, seeds = seeded()
    for number in range(30, 46):
        stream.apply(event(number))
    inline = Stream()
    inline.states = dict(stream.states)
    for number in range(46, 50):
        stream.apply(event(number))
    inline.apply(event(50))
    stream.apply(event(50))
    streamed = {name: stream.records[-1][name] for name in ("set", "vector", "saw")}
    decisions = first_decided(stream.records)
    for decision in decisions:
        decision |= {"appended": START, "degraded": [], "action": "approve"}
    seen = {name: inline.records[-1][name] for name in ("vector", "saw")}
    decisions[-1] |= {"door": "inline", **seen, "streamed": streamed, "parity": "stale"}
    decisions[-1] |= {"degraded": degraded, "decided": START + waited_ms, "appended": START + waited_ms}
    assert audit([ENGINE], seeds, decisions, stream.records)["frozen"] == frozen


def test_an_inline_vector_whose_events_the_stream_applied_much_later_is_made_again() -> None:
    """It saw what a stream had applied that was then killed; the restored one takes up these events after two hundred others."""
    stream, seeds = seeded()
    inline = Stream()
    inline.states = dict(stream.states)
    for number in (56, 60, 62, 66):
        inline.apply(event(number))
    for number in (*range(100, 400), 60, 56, 62, 66):
        stream.apply(event(number))
    [streamed] = (one for one in stream.records if one["event"]["id"] == "e66")
    decisions = first_decided(stream.records)
    decisions[-1] |= {
        "door": "inline",
        **{key: inline.records[-1][key] for key in ("vector", "saw")},
        "streamed": {key: streamed[key] for key in ("set", "vector", "saw")},
        "parity": "stale",
    }
    result = audit([ENGINE], seeds, decisions, stream.records)
    assert (result["equal"], result["differing"], result["unreproducible"]) == (305, 0, 0)


def test_a_set_that_the_evidence_does_not_hold_is_said_to_be_lost() -> None:
    """Without the record of an event that a vector had seen there is nothing to apply: counted, with why, as no agreement."""
    stream, seeds = seeded()
    for number in range(30, 40):
        stream.apply(event(number), emit=number != 31)
    result = audit([ENGINE], seeds, first_decided(stream.records), stream.records)
    assert result["unreproducible"] > 0
    assert set(result["why"]) <= {"customer: events not in evidence", "counterparty: events not in evidence"}
    assert result["equal"] + result["unreproducible"] == 9
    assert (result["differing"], result["share"] < 1.0) == (0, True)


@pytest.mark.parametrize(("among", "counts"), [(48, (0, 1, 2, 4, 6, 43, 47, 48)), (32, (10, 16, 20))])
def test_the_events_behind_a_digest_are_found(among: int, counts: tuple[int, ...]) -> None:
    """Sum of some of so many random hashes: the solver names exactly those; no other number is a sum of as many."""
    dice = random.Random(1)
    for count in counts:
        hashes = [dice.getrandbits(64) for _ in range(among)]
        chosen = dice.sample(hashes, count)
        target = sum(chosen) % 2**64
        assert sorted(solve(hashes, target, count) or []) == sorted(chosen)
        assert solve(hashes, dice.getrandbits(64), count) is None
        assert count == 0 or solve(hashes, target, count - 1) is None


def test_of_too_many_ways_those_of_the_first_hashes_are_tried() -> None:
    """Twenty of 48 are 10^13 ways: the solver then looks among as many of the first as it can."""
    dice = random.Random(1)
    hashes = [dice.getrandbits(64) for _ in range(48)]
    chosen = dice.sample(hashes[:32], 20)
    assert sorted(solve(hashes, sum(chosen) % 2**64, 20) or []) == sorted(chosen)


def test_decisions_from_before_and_after_an_update_are_made_again() -> None:
    """The stream's first part summed its digests by XOR, as version 1 did; the state goes on as version 2. The audit follows
    both, from a seed that version 1 wrote."""
    stream, seeds = seeded()
    stream.states = {key: as_version_1(state) for key, state in stream.states.items()}
    seeds = {key: [state] for key, state in stream.states.items()}
    for number in range(30, 45):
        before = dict(stream.states)
        stream.apply(event(number))
        for key, state in stream.states.items():
            if before.get(key) != state:
                was = read_header(before[key]).digest if key in before else 0
                body = event(number)
                stream.states[key] = as_version_1(state, was ^ event_hash_v1(body, hash64(body["id"])))
    for number in range(45, 60):
        stream.apply(event(number))
    result = audit([ENGINE], seeds, first_decided(stream.records), stream.records)
    assert (result["differing"], result["unreproducible"], result["why"]) == (0, 0, {})
    assert result["equal"] == 30


def as_version_1(profile: bytes, digest: int | None = None) -> bytes:
    """The profile as version 1 wrote it, with this digest."""
    changed = bytearray(profile)
    struct.pack_into("<H", changed, 2, 1)
    if digest is not None:
        struct.pack_into("<Q", changed, 20, digest)
    return bytes(changed)
