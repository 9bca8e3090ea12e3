"""Offline replay of features on one core, its bits against the stream's form and the oracle, and pandas beside it.

python -m fraud_bench.replay
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from fraud_bench import measure
from fraud_pipelines import simulator
from fraud_pipelines.audit import bits
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import FeatureSet, compile_detector
from fraud_pipelines.replay import replay
from fraud_testing import detectors, serving
from fraud_testing.definition import Oracle

ROWS = int(os.environ.get("BENCH_ROWS", 200_000))
DAYS = 90
CHECKED, CHECKED_BY_ORACLE = 20_000, 1_500
WINDOWS = ("1h", "1d", "7d", "30d")
DAY = 86_400_000


def history() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Canonical events of a simulated history in time order, and what became known of its frauds, three days later."""
    spec = detectors.detector("none", features={}).spec
    schema, tokeniser = EventSchema(spec.event, spec.entities), Tokeniser.from_hex(serving.TOKEN_KEY)
    start = time.time_ns() // 1_000_000 - (DAYS + 1) * DAY
    events: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for row in simulator.simulate(ROWS, 7, DAYS, start):
        transaction = {
            "id": row["transaction_id"],
            "time": row["timestamp"],
            "amount": row["amount"],
            "card": row["card"],
            "merchant": row["merchant_id"],
            "category": row["category"],
        }
        event = schema.canonical(transaction, tokeniser, start + (DAYS + 1) * DAY)
        events.append(dict(event))
        if row["is_fraud"]:
            known_at = event["time"] + 3 * DAY
            label = {"id": event["id"], "time": event["time"], "entities": event["entities"]}
            labels.append({**label, "fraud": True, "known": known_at})
    return events, labels


def streamed(
    features: FeatureSet, events: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]
) -> Iterator[list[float]]:
    """The same events and labels as the stream takes them: one by one, from bytes to bytes."""
    states: dict[tuple[str, str], bytes] = {}
    for label, event in in_order(events, labels):
        keys = {entity: (entity, token) for entity, token in (event or label)["entities"].items()}
        if event is None:
            for stage in features.stages:
                if stage.fraud is not None:
                    key = keys[stage.entity]
                    states[key] = stage.label(states.get(key), label)
            continue
        vector, new, _ = features.observe({e: states.get(k) for e, k in keys.items()}, event)
        states.update({keys[entity]: state for entity, state in new.items()})
        yield vector


def in_order(events: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """(label, None) and (None, event), a label that was known at an event's time before it."""
    waiting = deque(labels)
    for event in events:
        while waiting and waiting[0]["known"] <= event["time"]:
            yield waiting.popleft(), None
        yield None, event


def defined(
    features: FeatureSet, events: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]
) -> Iterator[list[float]]:
    retain = {stage.entity: stage.grid.retain for stage in features.stages}
    definition = Oracle(features.spec, retain)
    for label, event in in_order(events, labels):
        if event is None:
            definition.label(label)
        else:
            yield definition.observe(event)


def with_pandas(events: Sequence[dict[str, Any]]) -> float:
    """Seconds for the customer's twelve windows alone, with rolling windows by group."""
    frame = pd.DataFrame(
        {
            "customer": [event["entities"]["customer"] for event in events],
            "amount": [float(event["amount"]) for event in events],
        },
        index=pd.to_datetime([event["time"] for event in events], unit="ms"),
    )
    start = time.process_time()
    groups = frame.groupby("customer", sort=False)["amount"]
    for window in WINDOWS:
        rolling = groups.rolling(window)
        rolling.count(), rolling.sum(), rolling.mean()
    return time.process_time() - start


def main() -> None:
    measure.begin()
    # The preset alone.
    features = compile_detector(detectors.detector("none", features={}).spec)
    measure.note(f"offline replay, {ROWS} rows")
    events, labels = history()
    for _ in replay(features, events[:20_000], labels):
        pass
    start, wall = time.process_time(), time.perf_counter()
    for _ in replay(features, events, labels):
        pass
    used, wall = time.process_time() - start, time.perf_counter() - wall
    some = events[:CHECKED]
    replayed = [bits(vector) for _, vector in replay(features, some, labels)]
    same = sum(a == bits(b) for a, b in zip(replayed, streamed(features, some, labels), strict=True))
    few = some[:CHECKED_BY_ORACLE]
    by_definition = sum(a == bits(b) for a, b in zip(replayed, defined(features, few, labels), strict=False))
    measure.report(
        "replay",
        rows=ROWS,
        features=len(features.names),
        per_core_s=round(ROWS / used),
        wall_per_s=round(ROWS / wall),
        checked=len(some),
        equal_to_stream=same,
        checked_by_oracle=len(few),
        equal_to_oracle=by_definition,
    )
    measure.note("pandas rolling windows")
    part = events[: min(len(events), 100_000)]
    measure.report("pandas", rows=len(part), features=12, per_core_s=round(len(part) / with_pandas(part)))


if __name__ == "__main__":
    main()
