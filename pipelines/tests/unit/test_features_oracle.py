"""The engine against its definition: a slow oracle that keeps every event and label and scans them all, each time."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts.feature_kinds import Aggregate, Transform
from fraud_pipelines.features import EntitySpec, FeatureSet, FeatureSetSpec, FeatureSpec
from fraud_pipelines.replay import replay
from fraud_testing import histories
from fraud_testing.definition import DAY, HOUR, NAN, Oracle

MINUTE = 60_000
START = 1_700_000_000_000

TRAVEL = ("category", "travel")


def example_set(k: int, lateness: int = HOUR) -> FeatureSetSpec:
    """Every aggregate, filtered and not, and every transform, of four entities."""

    def of(name: str, aggregate: str, window: int, of: str | None = None, where: Any = None) -> FeatureSpec:
        return FeatureSpec(name, "customer", aggregate, of=of, window_ms=window, where=where)

    features = [
        of("count_1h", "Count", HOUR),
        of("count_7d", "Count", 7 * DAY),
        of("sum_1d", "Sum", DAY, "amount"),
        of("mean_7d", "Mean", 7 * DAY, "amount"),
        of("min_1d", "Min", DAY, "amount"),
        of("max_7d", "Max", 7 * DAY, "amount"),
        of("items_sum_7d", "Sum", 7 * DAY, "items"),
        of("items_mean_1d", "Mean", DAY, "items"),
        of("items_min_7d", "Min", 7 * DAY, "items"),
        of("categories_1d", "Distinct", DAY, "category"),
        of("merchants_7d", "Distinct", 7 * DAY, "merchant"),
        of("travel_count_7d", "Count", 7 * DAY, where=TRAVEL),
        of("travel_max_1d", "Max", DAY, "amount", where=TRAVEL),
        of("travel_items_mean_7d", "Mean", 7 * DAY, "items", where=TRAVEL),
        FeatureSpec("since", "customer", "SecondsSinceLast"),
        FeatureSpec("travel_since_1d", "customer", "SecondsSinceLast", window_ms=DAY, where=TRAVEL),
        FeatureSpec("merchant_count_1d", "merchant", "Count", window_ms=DAY),
        FeatureSpec("frauds_1d", "merchant", "FraudCount", window_ms=DAY),
        FeatureSpec("fraud_rate_1d", "merchant", "FraudRate", window_ms=DAY),
        FeatureSpec("fraud_rate_7d", "merchant", "FraudRate", window_ms=7 * DAY),
        FeatureSpec("device_sum_1h", "device", "Sum", of="amount", window_ms=HOUR),
        FeatureSpec("device_travel_1d", "device", "Count", window_ms=DAY, where=TRAVEL),
        FeatureSpec("customers_1d", "country", "Distinct", of="customer", window_ms=DAY),
        FeatureSpec("bulk_least_1d", "country", "Min", of="amount", window_ms=DAY, where=("items", 3)),
        FeatureSpec("ratio", transform="Ratio", args=("amount", "mean_7d")),
        FeatureSpec("difference", transform="Difference", args=("max_7d", "min_1d")),
        FeatureSpec("hour", transform="Hour"),
        FeatureSpec("night", transform="Night"),
        FeatureSpec("weekend", transform="Weekend"),
        FeatureSpec("is_travel", transform="Equals", where=TRAVEL),
    ]
    return FeatureSetSpec(
        preset="none",
        entities=(
            EntitySpec("customer"),
            EntitySpec("merchant", 2 * DAY),
            EntitySpec("device"),
            EntitySpec("country"),
        ),
        features=tuple(features),
        fields=(("category", "string"), ("items", "integer")),
        k=k,
        lateness_ms=lateness,
    )


RETAIN = {
    "customer": 7 * DAY + HOUR,
    "merchant": 9 * DAY + HOUR,
    "device": DAY + HOUR,
    "country": DAY + HOUR,
}


def bits(vector: list[float]) -> list[bytes]:
    return [struct.pack("<d", NAN if value != value else value) for value in vector]


def differing(names: tuple[str, ...], got: list[float], want: list[float]) -> dict[str, tuple[float, float]]:
    """The features that differ: what a failing test shows."""
    return {
        name: (a, b)
        for name, a, b, x, y in zip(names, got, want, bits(got), bits(want), strict=True)
        if x != y
    }


def test_every_kind_of_feature_is_compared_with_its_definition() -> None:
    """One without a feature in ``example_set`` would be compared with nothing."""
    features = example_set(1).features
    assert {feature.aggregate for feature in features if feature.aggregate} == {
        str(kind) for kind in Aggregate
    }
    assert {feature.transform for feature in features if feature.transform} == {
        str(kind) for kind in Transform
    }


GAPS = st.one_of(
    st.just(0),
    st.integers(0, 5_000),
    st.integers(0, 3 * HOUR),
    st.integers(0, 3 * DAY),
    st.just(HOUR),
    st.just(DAY),
    st.just(4 * DAY),  # else hardly any history outlasts the longest window
)
EVENT = st.fixed_dictionaries(
    {
        "do": st.just("event"),
        "gap": GAPS,
        "late": st.booleans(),
        "amount": st.integers(0, 500_000),
        "category": st.sampled_from(["travel", "food", "fuel", None]),
        "items": st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**53) + 1, 2**53 - 1)),
        "customer": st.sampled_from(["a", "a", "a", "b"]),
        "merchant": st.sampled_from(["m", "m", "n", None]),
        "device": st.sampled_from(["d", "e", None]),
        "country": st.sampled_from(["here", None]),
    }
)
REPEAT = st.fixed_dictionaries({"do": st.just("repeat"), "which": st.integers(0, 10**6)})
LABEL = st.fixed_dictionaries(
    {
        "do": st.just("label"),
        "which": st.integers(0, 10**6),
        "fraud": st.sampled_from([True, True, True, False]),
        "delay": GAPS,
    }
)
EARLY = st.fixed_dictionaries({"do": st.just("early"), "ahead": st.integers(0, DAY)})
STEP = st.one_of(EVENT, EVENT, EVENT, REPEAT, LABEL, EARLY)
STEPS = st.one_of(st.lists(STEP, min_size=1, max_size=20), st.lists(STEP, min_size=40, max_size=80))


def story(steps: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Steps as events and labels: ('event' | 'repeat' | 'label', body)."""
    entries: list[tuple[str, dict[str, Any]]] = []
    events: list[dict[str, Any]] = []
    now = START
    for n, step in enumerate(steps):
        if step["do"] == "event":
            time = now - step["gap"] if step["late"] else now + step["gap"]
            now = max(now, time)
            event = {
                "id": f"tx{n}",
                "time": time,
                "amount": step["amount"],
                "currency": "USD",
                "entities": {name: step[name] for name in RETAIN},
                "fields": {"category": step["category"], "items": step["items"]},
            }
            events.append(event)
            entries.append(("event", event))
        elif step["do"] == "early":
            entries.append(
                (
                    "label",
                    label_of(
                        {
                            "id": f"early{n}",
                            "time": now + step["ahead"],
                            "entities": {"customer": "a", "merchant": "m"},
                        },
                        True,
                        now,
                    ),
                )
            )
        elif events:
            event = events[step["which"] % len(events)]
            if step["do"] == "repeat":
                entries.append(("repeat", event))
            else:
                known_at = max(event["time"], now) + step["delay"]
                entries.append(("label", label_of(event, step["fraud"], known_at)))
    return entries


def label_of(event: dict[str, Any], fraud: bool, known_at: int) -> dict[str, Any]:
    return {
        "id": event["id"],
        "time": event["time"],
        "entities": event["entities"],
        "fraud": fraud,
        "source": "chargeback",
        "claimed": event["time"],
        "known": known_at,
    }


class Stream:
    """The byte form, a dictionary of profiles beside it."""

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        self.states: dict[tuple[str, str], bytes] = {}

    def mine(self, event: dict[str, Any]) -> dict[str, bytes]:
        pairs = [(entity, (entity, token)) for entity, token in event["entities"].items()]
        return {entity: self.states[key] for entity, key in pairs if key in self.states}

    def observe(self, event: dict[str, Any]) -> tuple[list[float], dict[str, bytes], dict[str, Any]]:
        vector, new, saw = self.features.observe(self.mine(event), event)
        self.states.update({(entity, event["entities"][entity]): state for entity, state in new.items()})
        return vector, new, saw

    def label(self, label: dict[str, Any]) -> None:
        for stage in self.features.stages:
            token = label["entities"].get(stage.entity)
            if token is not None:
                key = (stage.entity, token)
                self.states[key] = stage.label(self.states.get(key), label)


@histories.many()
@given(STEPS)
def test_vectors_are_the_definition_while_a_key_holds_at_most_k_events(steps: list[dict[str, Any]]) -> None:
    """Ties, gaps, late, too old and repeated events, labels early, late, twice and withdrawn: every value equals the oracle's."""
    histories.TRIED["the engine is its definition"] += 1
    spec = example_set(k=1_000)
    stream, oracle = Stream(FeatureSet(spec)), Oracle(spec, RETAIN)
    for kind, body in story(steps):
        if kind == "label":
            stream.label(body)
            oracle.label(body)
            continue
        before = dict(stream.states)
        peeked = {
            stage.entity: stage.peek(before.get((stage.entity, body["entities"][stage.entity])), body)
            for stage in stream.features.stages
            if body["entities"].get(stage.entity) is not None
        }
        vector, _, _ = stream.observe(body)
        want = oracle.observe(body)
        assert not differing(stream.features.names, vector, want)
        assert bits(stream.features.vector(body, peeked)) == bits(vector)


@histories.many(0.25)
@given(STEPS, st.sampled_from([1, 2, 5, 1_000]))
def test_object_form_and_byte_form_are_equal_in_every_bit(steps: list[dict[str, Any]], k: int) -> None:
    """Replay over decoded states gives the stream's vectors, and its last states are the stream's profiles."""
    histories.TRIED["replay is the stream"] += 1
    features = FeatureSet(example_set(k))
    stream = Stream(features)
    events: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for kind, body in story(steps):
        (labels if kind == "label" else events).append(body)
    events.sort(key=lambda event: event["time"])
    labels.sort(key=lambda label: label["known"])
    run = replay(features, events, labels)
    waiting = list(labels)
    for event, vector in run:
        while waiting and waiting[0]["known"] <= event["time"]:
            stream.label(waiting.pop(0))
        assert bits(stream.observe(event)[0]) == bits(vector)
    for label in waiting:
        stream.label(label)
    seeds = dict(run.profiles(3))
    for (entity, token), state in stream.states.items():
        seeded = features.stage(entity).seed(state, 3)
        assert seeds.get(f"{features.hash6}:{entity}:{token}", seeded) == seeded


ARRIVAL = st.tuples(GAPS, st.booleans(), st.integers(0, 10_000))
BUSY = st.one_of(st.lists(ARRIVAL, min_size=1, max_size=20), st.lists(ARRIVAL, min_size=60, max_size=150))


@histories.many(0.25)
@given(BUSY, st.sampled_from([1, 4, 200]), st.randoms(use_true_random=False))
def test_the_order_of_arrival_leaves_no_trace(
    steps: list[tuple[int, bool, int]], k: int, shuffler: random.Random
) -> None:
    """The same events and labels in another order give the same profile, to the byte, while no event came too late."""
    histories.TRIED["order leaves no trace"] += 1
    features = FeatureSet(example_set(k, lateness=400 * DAY))
    facts: list[tuple[str, dict[str, Any]]] = []
    now = START
    for n, (gap, late, amount) in enumerate(steps):
        time = now - gap if late else now + gap
        now = max(now, time)
        event = {
            "id": str(n),
            "time": time,
            "amount": amount,
            "entities": {"customer": "a", "merchant": "m"},
            "fields": {"category": "travel" if amount % 3 else "food", "items": amount % 7 or None},
        }
        facts.append(("event", event))
        if amount % 4 == 0:
            facts.append(("label", label_of(event, True, time + amount)))
    finals = []
    for _ in range(2):
        stream = Stream(features)
        for kind, body in facts:
            if kind == "event":
                stream.observe(body)
            else:
                stream.label(body)
        finals.append(stream.states)
        shuffler.shuffle(facts)
    assert finals[0] == finals[1]


def moved(body: dict[str, Any], by: int) -> dict[str, Any]:
    """The same event or label later, under another id."""
    times = {name: body[name] + by for name in ("time", "known", "claimed") if name in body}
    return {**body, "id": f"back-{body['id']}", **times}


@histories.many(0.5)
@given(STEPS, STEPS, st.sampled_from([1, 2, 5, 1_000]), st.integers(0, 3 * DAY))
def test_a_key_that_comes_back_after_the_reach_is_a_new_key(
    before: list[dict[str, Any]], after: list[dict[str, Any]], k: int, more: int
) -> None:
    """With its old state and without it the vectors are the same, whatever else comes later: late and repeated events, labels of both times."""
    histories.TRIED["a forgotten state is no state"] += 1
    features = FeatureSet(example_set(k))
    kept, forgotten = Stream(features), Stream(features)
    end, withheld = START, list[dict[str, Any]]()
    for n, (kind, body) in enumerate(story(before)):
        end = max(end, body["time"])
        if kind != "label":
            kept.observe(body)
        elif n % 2:
            kept.label(body)
        else:
            withheld.append(body)
    for label in withheld:
        kept.label(label)
        forgotten.label(label)
    back = story(after)
    begin = min((body["time"] for _, body in back), default=0)
    reach = max(stage.grid.retain for stage in features.stages)
    for kind, body in back:
        later = moved(body, end + reach + more - begin)
        if kind == "label":
            kept.label(later)
            forgotten.label(later)
        else:
            vectors = [one.observe(later)[0] for one in (kept, forgotten)]
            assert not differing(features.names, *vectors)


def test_as_many_histories_were_tried_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers are printed; a generator that gave up early would show here."""
    histories.show(
        capsys,
        **{
            "the engine is its definition": 1,
            "replay is the stream": 0.25,
            "order leaves no trace": 0.25,
            "a forgotten state is no state": 0.5,
        },
    )
