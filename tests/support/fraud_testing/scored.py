"""Payments of the simulator with what the platform makes of each: event, vector, states, feature record, decision.

All by the platform's own code but for the model, which gives three reasons and a probability as a real one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector_policy import Policy
from fraud_contracts.names import profile_key
from fraud_contracts.records import Decision, Event
from fraud_contracts.release import Release
from fraud_pipelines import simulator
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import FeatureSet, compile_detector
from fraud_pipelines.simulated_payments import DAY
from fraud_serving.ruling import Case, Prediction, RoutedScore, Ruling
from fraud_testing import detectors, packages, serving

EXAMPLE = Path(__file__).parents[3] / "manifests" / "examples" / "payments.yaml"
START = 1_764_000_000_000
DIGEST = f"sha256:{'a1' * 32}"


@dataclass
class Scored:
    """``raw`` is what a client sends, ``record`` what lies on ``features`` without its decision, ``decision`` what is published."""

    raw: bytes
    event: Event
    record: dict[str, Any]
    decision: Decision

    @property
    def customer(self) -> str:
        return str(self.event["entities"]["customer"])


@dataclass
class ScoredPayments:
    """Of the example detector: its features are the preset's. ``states`` holds the profiles so far, by profile key."""

    config: DetectorConfig = field(default_factory=lambda: example())
    states: dict[str, bytes] = field(default_factory=dict)

    def make(self, count: int, seed: int = 7) -> Iterator[Scored]:
        """``count`` payments of 30 days."""
        config = self.config
        features = compile_detector(config.spec)
        schema = EventSchema(config.spec.event, config.spec.entities)
        tokeniser = Tokeniser.from_hex(serving.TOKEN_KEY)
        package = packages.release_package(DIGEST, config.feature_set, "http://nowhere:80")
        release = Release(
            name=f"{config.name}-release-43d6f935", stable=package, policy=Policy(), policy_revision=1
        )
        ruling = Ruling(release, config.spec, config.feature_set, features.names, tokeniser)
        for at, row in enumerate(simulator.simulate(count, seed, 30, START)):
            sent = {name: row[name] for name in simulator.FIELDS if name != "is_fraud"}  # type: ignore[literal-required]
            raw = orjson.dumps(sent)
            event, digest = schema.parse(raw, tokeniser, START + 40 * DAY)
            vector, saw = self._observe(features, event)
            case = Case(
                event, digest, config.feature_set, vector, saw, "inline",
                source={"topic": config.identity.topic("accepted"), "partition": at % 12, "offset": at},
                appended=event["time"] + 18,
            )  # fmt: skip
            score = RoutedScore(ruling.route(event), _prediction(at, vector))
            decision = ruling.judge(case, score, (0, 0), event["time"] + 9)
            published: Any = {**decision, "latency_ms": 7.025, "streamed": None, "parity": "equal"}
            yield Scored(raw, event, _record(case), published)

    def _observe(self, features: FeatureSet, event: Event) -> tuple[list[float | None], Any]:
        keys = {
            entity: profile_key(features.hash6, entity, token)
            for entity, token in event["entities"].items()
            if token is not None
        }
        before = {entity: self.states.get(key) for entity, key in keys.items()}
        vector, new, saw = features.observe(before, event, 1)
        self.states.update({keys[entity]: state for entity, state in new.items()})
        values = [None if value is None or math.isnan(value) else value for value in vector or []]
        return values, {entity: (epoch, seq, f"{seen:016x}") for entity, (epoch, seq, seen) in saw.items()}


def example() -> DetectorConfig:
    spec = yaml.safe_load(EXAMPLE.read_text())["spec"]
    return detectors.document(spec, partitions=12, namespace="payments", name="payments")


def _prediction(at: int, vector: list[float | None]) -> Prediction:
    columns = [(at * 7 + step) % len(vector) for step in (0, 5, 11)]
    reasons = tuple((column, 0.710099 / (step + 1)) for step, column in enumerate(columns))
    return Prediction(0.03736657 + at % 100 / 10_000, reasons, "1", DIGEST)


def _record(case: Case) -> dict[str, Any]:
    return {
        "event": case.event,
        "hash": case.body_hash,
        "set": case.feature_set,
        "vector": case.vector,
        "reason": None,
        "degraded": [],
        "saw": case.saw,
        "run": "1a22c8f7adf-39c4aa",
        "repeat": False,
        "source": case.source,
        "appended": case.appended,
        "decision": None,
    }
