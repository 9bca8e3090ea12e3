"""The score of one request: the routed arm's, or the stable model's where the candidate gives none in its part of the time.

A candidate is on trial, so no payment may suffer from it. It gets half of the time that is left for a score; down, late or
broken, it costs its request no more than that, and after some failures in a row only one request a second tries it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from fraud_contracts import names
from fraud_contracts.errors import StoreError
from fraud_contracts.records import Event
from fraud_contracts.release import ModelPackage
from fraud_serving.clients.model_client import ModelClient
from fraud_serving.cooldown import CoolDown
from fraud_serving.decision.request_clock import SCORED, RequestClock
from fraud_serving.ruling import Prediction, RoutedScore, Ruling

# Of the time that is left for a score.
_CANDIDATE_PART: Final = 0.5
_LEAST_SECONDS: Final = 0.001
CANDIDATE_FAILURES: Final = 3
_log = logging.getLogger(__name__)


class RequestScorer:
    """``detector`` is the detector's name, of which the predictors' names are made."""

    def __init__(self, detector: str) -> None:
        self._detector, self._model = detector, ModelClient()
        self._cool_down = CoolDown(CANDIDATE_FAILURES)

    async def score(
        self, ruling: Ruling, event: Event, vector: Sequence[float | None] | None, clock: RequestClock
    ) -> RoutedScore:
        """Without a vector no model is asked."""
        route = ruling.route(event)
        package = route.package
        if package is None or vector is None:
            return RoutedScore(route, None)
        if route.arm == "candidate":
            key = f"{package.slot} {package.digest}"
            if self._cool_down.take_turn(key, time.monotonic()):
                seconds = clock.left(SCORED) * _CANDIDATE_PART
                prediction = await self.predict(package, vector, seconds)
                if prediction is not None:
                    self._cool_down.answered(key)
                    return RoutedScore(route, prediction)
                self._cool_down.failed(key, time.monotonic())
            route = ruling.without_candidate(route)
            assert route.package is not None
            package = route.package
        return RoutedScore(route, await self.predict(package, vector, clock.left(SCORED)))

    async def predict(
        self, package: ModelPackage, vector: Sequence[float | None], seconds: float
    ) -> Prediction | None:
        """None where the predictor failed or took longer than ``seconds``; it isn't asked where nothing could come of it."""
        if seconds < _LEAST_SECONDS:
            return None
        service = names.inference_service(self._detector, package.slot)
        try:
            return (await self._model.score(package, service, [vector], seconds))[0]
        except StoreError as error:
            _log.warning("no score", extra={"data": {"version": package.version, "error": error.message}})
            return None

    def close(self) -> None:
        self._model.close()
