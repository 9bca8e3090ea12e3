"""The score of one request: the routed arm's, or the stable model's where the candidate gives none in its part of the time.

A candidate is on trial, so no payment may suffer from it. It gets half of what is left of the deadline; down, late or
broken, it costs its request no more than that, and after some failures in a row only one request a second tries it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from fraud_contracts import names
from fraud_contracts.errors import StoreError
from fraud_contracts.release import ModelPackage
from fraud_serving.clients.model_client import ModelClient
from fraud_serving.deciding import Route, Ruling, Score

# Parts: of the deadline the model is left at least so much, and of what is left then the candidate may use so much.
_MODEL_PART, _CANDIDATE_PART = 0.2, 0.5
FAILURES: Final = 3
COOL_DOWN: Final = 1.0
_log = logging.getLogger(__name__)


class CoolDown:
    """Whether to ask a predictor that may be dead. ``now`` is in seconds of a steady clock."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def ready(self, key: str, now: float) -> bool:
        """True until it failed ``FAILURES`` times in a row; then for one caller each ``COOL_DOWN`` seconds."""
        if self._failures.get(key, 0) < FAILURES:
            return True
        if now < self._until[key]:
            return False
        self._until[key] = now + COOL_DOWN
        return True

    def answered(self, key: str) -> None:
        self._failures.pop(key, None)

    def failed(self, key: str, now: float) -> None:
        self._failures[key] = self._failures.get(key, 0) + 1
        self._until[key] = now + COOL_DOWN


class Scoring:
    """``detector`` is the detector's name, of which the predictors' names are made."""

    def __init__(self, detector: str) -> None:
        self._detector, self._model, self._cooling = detector, ModelClient(), CoolDown()

    async def score(
        self, ruling: Ruling, route: Route, vector: Sequence[float], start: float, deadline: float
    ) -> tuple[Route, Score | None]:
        """The route that was taken at last, and its score if there is one. ``start`` by perf_counter, all in seconds."""

        def left() -> float:
            return max(deadline - (time.perf_counter() - start), deadline * _MODEL_PART)

        package = route.package
        if package is None:
            return route, None
        if route.arm == "candidate":
            key = f"{package.slot} {package.digest}"
            if self._cooling.ready(key, time.monotonic()):
                score = await self.ask(package, vector, left() * _CANDIDATE_PART)
                if score is not None:
                    self._cooling.answered(key)
                    return route, score
                self._cooling.failed(key, time.monotonic())
            route = ruling.without_candidate(route)
            assert route.package is not None
            package = route.package
        return route, await self.ask(package, vector, left())

    async def ask(self, package: ModelPackage, vector: Sequence[float], seconds: float) -> Score | None:
        service = names.inference_service(self._detector, package.slot)
        try:
            return (await self._model.score(package, service, [vector], seconds))[0]
        except StoreError as error:
            _log.warning("no score", extra={"data": {"version": package.version, "error": error.message}})
            return None

    def close(self) -> None:
        self._model.close()
