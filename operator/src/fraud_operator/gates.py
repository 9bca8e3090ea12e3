"""Measures the gates of a candidate. What can't be measured is NoData, which holds a rollout and never lets it pass.

ServiceHealth asks Prometheus how the candidate's predictor does. AlertRate compares the arms by entity, which the ledger
alone can tell; the operator doesn't read the ledger yet, so it holds until a person approves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import requests

from fraud_contracts import metrics, names
from fraud_contracts.errors import StoreError
from fraud_operator.detector import Detector
from fraud_operator.rollout import Gate, GateResult
from fraud_operator.rollout_state import RolloutPhase, RolloutState

WINDOW: Final = "5m"
# Rows that a predictor must have scored in the window before its share of errors means anything.
MIN_ROWS: Final = 200
MAX_ERRORS: Final = 0.01
TIMEOUT: Final = (1.0, 3.0)


def service_health(rows: float | None, errors: float | None) -> Gate:
    """Failed requests beside scored rows of the candidate's predictor: a request of many rows counts once where it fails."""
    bound = f"{MAX_ERRORS:.0%} errors"
    if rows is None:
        return Gate("ServiceHealth", GateResult.NO_DATA, None, bound)
    bad = errors or 0.0
    if rows + bad < MIN_ROWS:
        return Gate("ServiceHealth", GateResult.NOT_ENOUGH, f"{rows + bad:.0f} of {MIN_ROWS} rows", bound)
    share = bad / (rows + bad)
    result = GateResult.PASS if share <= MAX_ERRORS else GateResult.FAIL
    return Gate("ServiceHealth", result, f"{share:.2%} errors", bound)


@dataclass
class Gates:
    """Asks the Prometheus at ``url``; without one everything is NoData."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def measure(self, detector: Detector, state: RolloutState) -> tuple[Gate, ...]:
        """All gates of the candidate that is shadowing or ramping; none otherwise."""
        if state.phase not in (RolloutPhase.SHADOW, RolloutPhase.RAMP) or state.candidate is None:
            return ()
        pods = f"{names.predictor(names.inference_service(detector.name, state.candidate.slot))}-.*"
        chosen = f'namespace="{detector.namespace}",pod=~"{pods}"'
        alerts = Gate("AlertRate", GateResult.NO_DATA, None, "the stable arm's")
        try:
            rows = self._sum(metrics.PREDICT_ROWS.name, chosen)
            errors = self._sum(metrics.PREDICT_ERRORS.name, chosen)
        except StoreError as error:
            return (Gate("ServiceHealth", GateResult.NO_DATA, str(error)[:200]), alerts)
        return (service_health(rows, errors), alerts)

    def _sum(self, metric: str, chosen: str) -> float | None:
        """Growth of a counter over the window, summed over its series; None where there is no series."""
        if not self.url:
            return None
        query = f"sum(increase({metric}{{{chosen}}}[{WINDOW}]))"
        try:
            answer = self.session.get(
                f"{self.url.rstrip('/')}/api/v1/query", params={"query": query}, timeout=TIMEOUT
            )
            answer.raise_for_status()
            result: list[dict[str, Any]] = answer.json()["data"]["result"]
        except (requests.RequestException, ValueError, KeyError) as error:
            raise StoreError("prometheus", f"no answer to a query at {self.url}") from error
        return float(result[0]["value"][1]) if result else None
