"""Scores of a batch, arm by arm: those that decisions are made by, and the other arm's beside them (shadow)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.errors import StoreError
from fraud_contracts.records import Decision, Event
from fraud_contracts.release import ModelPackage
from fraud_serving.clients.blocking_model import BlockingModelClient
from fraud_serving.cooldown import COOL_DOWN, CoolDown
from fraud_serving.ruling import Prediction, RoutedScore, Ruling

# A candidate is on trial, and all decisions of a batch wait for it: it gets less time, and is left alone for longer.
CANDIDATE_SECONDS: Final = 1.0
CANDIDATE_COOL_DOWN: Final = 5.0
Vector = list[float | None]
_log = logging.getLogger(__name__)


class ArmScorer:
    """``detector`` is the detector's name, of which the predictors' names are made."""

    def __init__(self, detector: str, model: BlockingModelClient) -> None:
        self._detector, self._model = detector, model
        self._cool_down = CoolDown(failures=1)

    def score(
        self, ruling: Ruling, events: Sequence[Event], vectors: Sequence[Vector | None]
    ) -> list[RoutedScore]:
        """One score an event, by the arm that it is routed to; what the candidate doesn't score the stable model does."""
        routes = [ruling.route(event) for event in events]
        packages = [route.package if route.arm == "candidate" else None for route in routes]
        predictions = self._predict(ruling, packages, vectors)
        for i, package in enumerate(packages):
            if package is not None and vectors[i] is not None and predictions[i] is None:
                routes[i] = ruling.without_candidate(routes[i])
        packages = [route.package if route.arm == "stable" else None for route in routes]
        others = self._predict(ruling, packages, vectors)
        return [
            RoutedScore(route, prediction or other)
            for route, prediction, other in zip(routes, predictions, others, strict=True)
        ]

    def add_shadow_scores(self, ruling: Ruling, decisions: Sequence[Decision]) -> list[Decision]:
        """The decisions with the other arm's score of the vector that was decided on, as far as there is one."""
        arms = [
            None if (decision.get("shadow") or {}).get("arm") else ruling.shadow_arm(decision["arm"])
            for decision in decisions
        ]
        packages = [arm[1] if arm is not None else None for arm in arms]
        vectors = [ruling.readable_vector(decision["set"], decision["vector"]) for decision in decisions]
        predictions = self._predict(ruling, packages, vectors, explain=False)
        return [
            decision
            if arm is None or prediction is None
            else _with_shadow(ruling, decision, *arm, prediction)
            for decision, arm, prediction in zip(decisions, arms, predictions, strict=True)
        ]

    def _predict(
        self,
        ruling: Ruling,
        packages: Sequence[ModelPackage | None],
        vectors: Sequence[Vector | None],
        explain: bool = True,
    ) -> list[Prediction | None]:
        """The prediction of each row by its package, in one call a package; None where there is no package, vector or answer."""
        predictions: list[Prediction | None] = [None] * len(vectors)
        for package in (ruling.candidate, ruling.stable):
            if package is None:
                continue
            rows = {i: v for i, v in enumerate(vectors) if v is not None and packages[i] is package}
            if rows:
                answers = self._ask(ruling, package, list(rows.values()), explain)
                if answers is not None:
                    for i, prediction in zip(rows, answers, strict=True):
                        predictions[i] = prediction
        return predictions

    def _ask(
        self, ruling: Ruling, package: ModelPackage, rows: list[Vector], explain: bool
    ) -> list[Prediction] | None:
        on_trial = package is ruling.candidate
        predictor = f"predictor {package.slot}"
        service = names.inference_service(self._detector, package.slot)
        if not self._cool_down.take_turn(predictor, time.monotonic()):
            return None
        try:
            seconds = CANDIDATE_SECONDS if on_trial else None
            predictions = self._model.score(package, service, rows, explain, seconds)
        except StoreError as error:
            _log.warning("store failed", extra={"data": {"store": predictor, "error": error.message}})
            rest = CANDIDATE_COOL_DOWN if on_trial else COOL_DOWN
            self._cool_down.failed(predictor, time.monotonic(), rest)
            return None
        self._cool_down.answered(predictor)
        return predictions


def _with_shadow(
    ruling: Ruling, decision: Decision, arm: str, package: ModelPackage, prediction: Prediction
) -> Decision:
    score = ruling.map_score(package, prediction.probability)
    shadow: dict[str, Any] = {
        **(decision.get("shadow") or {}),
        "arm": arm,
        "model_version": prediction.model_version,
        "model_digest": prediction.model_digest,
        "probability": prediction.probability,
        "score": score,
        "action": ruling.policy.band(score).value.lower(),
    }
    return {**decision, "shadow": shadow}
