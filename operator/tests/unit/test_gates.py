"""Gates: what is measured and how it is judged."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from fraud_contracts.detector import parse_spec
from fraud_contracts.release import ModelPackage
from fraud_operator.detector import Detector
from fraud_operator.gates import Gates, service_health
from fraud_operator.rollout import GateResult
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_operator.settings import Platform

SPEC: dict[str, Any] = {
    "event": {"id": {"field": "i"}, "time": {"field": "t"}, "amount": {"field": "a"}},
    "entities": [{"name": "customer", "field": "c"}],
}
DETECTOR = Detector("n", "d", "u", 1, 0, {}, parse_spec(SPEC), Platform())
CANDIDATE = ModelPackage(
    name="n.d", version="2", digest="sha256:2", feature_set="f", slot="b", url="u", score_map=[(0.0, 0.0)]
)
SHADOW = RolloutState(phase=RolloutPhase.SHADOW, candidate=CANDIDATE)


@pytest.mark.parametrize(
    ("rows", "errors", "result"),
    [
        (None, None, GateResult.NO_DATA),
        (10.0, 0.0, GateResult.NOT_ENOUGH),
        (1000.0, None, GateResult.PASS),
        (1000.0, 5.0, GateResult.PASS),
        (1000.0, 50.0, GateResult.FAIL),
        (0.0, 500.0, GateResult.FAIL),
    ],
)
def test_service_health(rows: float | None, errors: float | None, result: GateResult) -> None:
    """Up to one per cent of errors passes; too few rows never do, and no series is no data."""
    assert service_health(rows, errors).result is result


def test_without_prometheus_everything_holds() -> None:
    """No Prometheus, or one that gives no answer, is NoData."""
    for url in ("", "http://127.0.0.1:9"):
        assert {gate.result for gate in Gates(url).measure(DETECTOR, SHADOW)} == {GateResult.NO_DATA}


def test_nobody_is_judged_without_a_candidate() -> None:
    """Outside Shadow and Ramp there is nothing to judge."""
    assert Gates("").measure(DETECTOR, RolloutState()) == ()


def test_prometheus_is_asked_for_the_candidates_pods() -> None:
    """The query names the candidate's slot, and its answer becomes the gate's value."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlparse(self.path).query)["query"][0]
            asked.append(query)
            value = "3" if "errors" in query else "997"
            body = json.dumps({"data": {"result": [{"value": [0, value]}]}}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        health, alerts = Gates(f"http://127.0.0.1:{server.server_port}").measure(DETECTOR, SHADOW)
    finally:
        server.shutdown()
    assert health.result is GateResult.PASS and health.value == "0.30% errors"
    assert alerts.result is GateResult.NO_DATA
    assert all('pod=~"d-b-predictor-.*"' in query for query in asked)
