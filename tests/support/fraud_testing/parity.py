"""One story of payments and labels for all that compute features, and the form in which each leaves its vectors.

The story is a list of *chapters*: the payments of one, then its labels. A path that can't tell where a label lay between
payments (the stream reads them from another topic) waits at the chapter's end. Payments hold what tears apart clocks and
orders: ties, bursts past K, gaps, late and too old ones, repeats, missing entities, and fraud labels with corrections.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fraud_contracts.config import DetectorConfig
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import FeatureSet
from fraud_testing import detectors

TOKEN_KEY = "00112233445566778899aabbccddeeff" * 2
START = 1_760_000_000_000
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NOW = START + 400 * DAY
CHAPTERS, PAYMENTS = 4, 600
FIRST, SECOND_ENTITY = "customer", "counterparty"

TRAVEL = {"field": "category", "equals": "travel"}
EXTRA: list[dict[str, Any]] = [
    {
        "name": "travel_7d",
        "entity": FIRST,
        "aggregate": "Sum",
        "of": "amount",
        "window": "7d",
        "where": TRAVEL,
    },
    {"name": "greatest_30d", "entity": FIRST, "aggregate": "Max", "of": "amount", "window": "30d"},
    {"name": "items_least_7d", "entity": FIRST, "aggregate": "Min", "of": "items", "window": "7d"},
    {"name": "items_mean_7d", "entity": FIRST, "aggregate": "Mean", "of": "items", "window": "7d"},
    {"name": "shops_7d", "entity": FIRST, "aggregate": "Distinct", "of": SECOND_ENTITY, "window": "7d"},
    {"name": "kinds_1d", "entity": FIRST, "aggregate": "Distinct", "of": "category", "window": "1d"},
    {
        "name": "since_travel",
        "entity": FIRST,
        "aggregate": "SecondsSinceLast",
        "window": "7d",
        "where": TRAVEL,
    },
    {"name": "frauds_1d", "entity": SECOND_ENTITY, "aggregate": "FraudCount", "window": "1d"},
    {"name": "above", "transform": "Difference", "args": ["amount", "greatest_30d"]},
    {"name": "is_travel", "transform": "Equals", "where": TRAVEL},
]


def config(bootstrap: str = "none:9092", partitions: int = 1) -> DetectorConfig:
    event = {
        **detectors.SPEC["event"],
        "fields": [{"name": "category", "type": "string"}, {"name": "items", "type": "integer"}],
    }
    return detectors.detector(
        bootstrap,
        partitions,
        name=f"parity-{partitions}",
        event=event,
        features={"extra": EXTRA},
        model={"train": {"history": {"path": "history", "labelField": "fraud"}}},
    )


@dataclass(frozen=True)
class Payment:
    """``n`` is its number in the story. It travels in the raw record as a field that no detector declares."""

    n: int
    chapter: int
    row: dict[str, Any]
    repeat: bool


@dataclass(frozen=True)
class Story:
    payments: list[Payment]
    labels: list[list[dict[str, Any]]]
    """Of each chapter, known before the next one's first payment."""

    def items(self, order: Iterable[int] | None = None) -> Iterator[Payment | dict[str, Any]]:
        """Payments in the given order, each chapter's labels behind its payments; chapters must lie one after another."""
        at = 0
        for n in range(len(self.payments)) if order is None else order:
            payment = self.payments[n]
            while payment.chapter > at:
                yield from self.labels[at]
                at += 1
            yield payment


def tell(seed: int = 7) -> Story:
    """The same story for the same seed, wherever it is told."""
    dice = random.Random(seed)
    payments: list[Payment] = []
    labels: list[list[dict[str, Any]]] = []
    now = START
    for chapter in range(CHAPTERS):
        for _ in range(PAYMENTS):
            now += dice.choice((0, 0, 1, 3 * SECOND, MINUTE, 10 * MINUTE))
            if dice.random() < 0.003:
                now += 2 * DAY
            time = now
            if dice.random() < 0.1:
                time -= dice.choice((1, 40 * SECOND, 50 * MINUTE, 2 * DAY, 45 * DAY))
            n = len(payments)
            # Within what a stage still knows as a single event: past that a repeat can't be told.
            old = [p for p in payments[-200:] if p.row["card"] != "hot" and p.row["time"] > now - 10 * DAY]
            if old and dice.random() < 0.03:
                payments.append(Payment(n, chapter, {**dice.choice(old).row, "n": n}, True))
                continue
            row = {
                "id": f"tx-{n}",
                "time": time,
                "amount": dice.choice((dice.randrange(100_000) / 100, 1.0, 0.0)),
                "card": dice.choice(("hot", f"card-{dice.randrange(60)}", f"card-{dice.randrange(600)}")),
                "merchant": dice.choice(
                    (None, "big", "big", f"shop-{dice.randrange(40)}", f"shop-{dice.randrange(40)}")
                ),
                "category": dice.choice(("travel", "food", None)),
                "items": dice.choice((None, 1, -3, 2**53 - 1)),
                "n": n,
            }
            payments.append(Payment(n, chapter, row, False))
        now += 3 * DAY
        labels.append(_labels(dice, payments, now))
        now += HOUR
    return Story(payments, labels)


def _labels(dice: random.Random, payments: Sequence[Payment], now: int) -> list[dict[str, Any]]:
    """Reports of frauds, some of them twice, known earlier by another source, or taken back at once or a chapter later."""
    schema, tokeniser = intake()
    labels = []
    for payment in dice.sample([p for p in payments if not p.repeat], 60):
        event = schema.canonical(payment.row, tokeniser, NOW)
        known = now - dice.randrange(2 * DAY)
        label = {
            "id": event["id"],
            "time": event["time"],
            "entities": event["entities"],
            "fraud": True,
            "source": "chargeback",
            "claimed": known,
            "known": known,
        }
        labels.append(label)
        again = dice.random()
        if again < 0.1:
            labels.append(label)
        elif again < 0.2:
            labels.append({**label, "source": "analyst", "known": known - HOUR})
        elif again < 0.35:
            labels.append({**label, "fraud": False, "known": known + HOUR})
    return labels


def intake() -> tuple[EventSchema, Tokeniser]:
    spec = config().spec
    return EventSchema(spec.event, spec.entities), Tokeniser.from_hex(TOKEN_KEY)


def raw(payment: Payment) -> bytes:
    return json.dumps(payment.row).encode()


def hexes(vector: Iterable[float | None], columns: Iterable[int] | None = None) -> str:
    """The bits of a vector, or of some of its columns; each null is the same NaN."""
    values = [float("nan") if value is None or value != value else value for value in vector]
    return b"".join(
        struct.pack("<d", values[i]) for i in (range(len(values)) if columns is None else columns)
    ).hex()


def columns(features: FeatureSet, entity: str) -> list[int]:
    """Places in the vector that depend on one entity's key alone, or on the event alone."""
    of: dict[str, set[str]] = {"amount": set()}
    for feature in features.spec.features:
        known = {feature.entity} if feature.entity else set()
        of[feature.name] = known.union(*(of[arg] for arg in feature.args))
    return [i for i, name in enumerate(features.names) if of[name] <= {entity}]


def folder() -> Path:
    """Where the paths leave their vectors; a test skips where nobody asked for them."""
    place = os.environ.get("FRAUD_PARITY")
    if not place:
        pytest.skip("tests/run parity runs the paths one after another, each in its own environment")
    return Path(place)


def leave(name: str, vectors: dict[str, Any]) -> None:
    (folder() / f"{name}.json").write_text(json.dumps(vectors))


@cache
def fetch(name: str) -> dict[str, Any]:
    path = folder() / f"{name}.json"
    if not path.exists():
        if os.environ.get("FRAUD_REQUIRE") == "all":
            pytest.fail(f"{name} left no vectors")
        pytest.skip(f"{name} left no vectors: its environment or a server is missing")
    vectors: dict[str, Any] = json.loads(path.read_text())
    return vectors


def orders() -> dict[str, list[int]]:
    """For each entity, the payments of the run with two partitions in the order in which that entity's stage took them."""
    by_entity: dict[str, list[int]] = fetch("stream-two")["orders"]
    return by_entity
