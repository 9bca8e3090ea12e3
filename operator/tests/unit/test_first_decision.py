"""What helm test does with a detector of its own, against an API server and a door that answer as told."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any, cast

import pytest

from fraud_contracts.child_kinds import DETECTOR
from fraud_contracts.clients import API_KEY
from fraud_operator import first_decision
from fraud_operator.detector import Detector, check
from fraud_operator.first_decision import NoDecisionError, run
from fraud_operator.kube import ConflictError, Kube
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses
from fraud_testing.http_server import QuietHandler, serving

READY = {"type": "Ready", "status": "True", "reason": "Serving", "message": "rules alone"}
REVIEW = {"id": "test-1", "action": "review", "release": "r-1", "reasons": [{"code": "rule:large"}]}


class Door(ThreadingHTTPServer):
    """Answers with the next status of ``statuses``, the last one again and again, and always the same body."""

    statuses: list[int]
    answer: dict[str, Any]
    asked: list[dict[str, Any]]


class Handler(QuietHandler):
    server: Door

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"key": self.headers["X-API-Key"], **body})
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        text = json.dumps(self.server.answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def door() -> Iterator[Door]:
    one = Door(("127.0.0.1", 0), Handler)
    one.statuses, one.answer, one.asked = [200], REVIEW, []
    with serving(one):
        yield one


class Server:
    """Keeps detectors; each look at one shows the next of ``states``."""

    def __init__(self, *states: list[dict[str, Any]]) -> None:
        self.states = list(states)
        self.detectors: dict[str, dict[str, Any]] = {}
        self.deleted: list[tuple[str, str]] = []

    def create(self, kind: object, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if name in self.detectors:
            raise ConflictError(409, "exists")
        self.detectors[name] = {**body, "metadata": {**body["metadata"], "uid": "mine"}}
        return self.detectors[name]

    def get(self, kind: object, namespace: str, name: str) -> dict[str, Any] | None:
        if kind is not DETECTOR:
            return {"data": {API_KEY: base64.b64encode(b"secret").decode()}}
        body = self.detectors.get(name)
        if body is not None and self.states:
            body["status"] = {"conditions": self.states.pop(0) if len(self.states) > 1 else self.states[0]}
        return body

    def delete(self, kind: object, namespace: str, name: str, uid: str) -> None:
        self.deleted.append((name, uid))
        del self.detectors[name]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_decision, "PAUSE", 0.01)


def trial(server: Server, door: Door) -> None:
    run(cast(Kube, server), "payments", "helm-test", f"http://127.0.0.1:{door.server_address[1]}")


def test_a_decision_is_made_and_nothing_is_left(door: Door) -> None:
    """Once the detector is Ready a payment is decided with its key, and the detector goes."""
    server = Server([], [{**READY, "status": "False"}], [READY])
    trial(server, door)
    assert [ask["key"] for ask in door.asked] == ["secret"]
    assert server.deleted == [("helm-test", "mine")]


def test_a_door_that_isnt_there_yet_is_asked_again(door: Door) -> None:
    """503 is the answer of a door that has no release yet."""
    door.statuses = [503, 503, 200]
    trial(Server([READY]), door)
    assert len({ask["transaction_id"] for ask in door.asked}) == 1


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [(401, {}, "401"), (200, {**REVIEW, "action": "approve"}, "asks for a review")],
)
def test_another_answer_fails_and_the_detector_goes(
    door: Door, status: int, answer: dict[str, Any], message: str
) -> None:
    """What isn't the rule's decision is no success, and is told with the answer."""
    door.statuses, door.answer = [status], answer
    server = Server([READY])
    with pytest.raises(NoDecisionError, match=message):
        trial(server, door)
    assert server.deleted == [("helm-test", "mine")]


def test_a_missing_prerequisite_is_told_at_once(door: Door) -> None:
    """What the cluster lacks won't come by waiting."""
    lacking = {
        "type": "KafkaReady",
        "status": "False",
        "reason": "OperatorMissing",
        "message": "install Strimzi",
    }
    server = Server([lacking])
    with pytest.raises(NoDecisionError, match="KafkaReady: install Strimzi"):
        trial(server, door)
    assert server.deleted == [("helm-test", "mine")]


def test_somebody_elses_detector_stays(door: Door) -> None:
    """A detector of the name that is there already is neither asked nor deleted."""
    server = Server([READY])
    server.detectors["helm-test"] = {"metadata": {"uid": "theirs"}}
    with pytest.raises(NoDecisionError, match="already"):
        trial(server, door)
    assert server.deleted == [] and door.asked == []


def test_the_tests_detector_is_one_that_the_operator_takes() -> None:
    """Its spec has no fault, and leaves nothing in the cluster."""
    body = first_decision.rules_detector("payments", "helm-test")
    body["metadata"]["uid"] = "u"
    stores = StoreAddresses(
        redis_url="redis://r", postgres_dsn="postgresql://p", mlflow_tracking_uri="http://m"
    )
    parsed = Detector.parse(body, Platform(storage=StorageSettings(uri="s3://bucket"), stores=stores))
    assert check(parsed) == []
    assert parsed.spec.deletion_policy == "Delete"
