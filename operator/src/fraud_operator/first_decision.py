"""Shows that the platform works: ``python -m fraud_operator.first_decision NAMESPACE NAME``, which ``helm test`` runs.

It makes a detector that decides by one rule, waits until it is Ready, has a payment decided, and takes the detector away
again: on a new installation there is no other that could be asked. What it didn't make it leaves alone.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import signal
import sys
import time
from typing import Final

import requests

from fraud_contracts import names
from fraud_contracts.child_kinds import DETECTOR, SECRET
from fraud_contracts.clients import API_KEY
from fraud_contracts.config import HTTP_PORT
from fraud_contracts.errors import FraudError
from fraud_operator.kube import ConflictError, Kube, UnknownKindError, load_client
from fraud_operator.objects import Json

READY_SECONDS: Final = 600.0
ANSWER_SECONDS: Final = 60.0
GONE_SECONDS: Final = 300.0
PAUSE: Final = 1.0
RULE: Final = "large"
# Of the clients that a spec has by default the one that may ask for decisions.
CLIENT: Final = "payments"


class NoDecisionError(FraudError):
    """The platform made no decision; the message says what is missing."""


def rules_detector(namespace: str, name: str) -> Json:
    """The smallest detector that decides, with a Kafka of its own, of which nothing stays in the cluster."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "event": {
                "id": {"field": "transaction_id"},
                "time": {"field": "timestamp"},
                "amount": {"field": "amount"},
                "sensitive": ["card"],
            },
            "entities": [
                {"name": "customer", "field": "card"},
                {"name": "counterparty", "field": "merchant_id"},
            ],
            "model": {"none": {}},
            "policy": {"rules": [{"name": RULE, "when": "event.amount >= 500000", "action": "Review"}]},
            "kafka": {"managed": {"replicas": 1, "storage": "1Gi"}, "partitions": 1},
            "deletionPolicy": "Delete",
        },
    }


def payment(now: int) -> Json:
    """One that the rule asks to review, with an id of its own: a store may remember those of earlier runs."""
    return {
        "transaction_id": f"test-{secrets.token_hex(8)}",
        "timestamp": now,
        "amount": 7129.90,
        "card": "4000001234567899",
        "merchant_id": "m-4",
    }


def create(kube: Kube, body: Json) -> Json:
    meta = body["metadata"]
    try:
        return kube.create(DETECTOR, body)
    except ConflictError as error:
        raise NoDecisionError(
            f"{meta['namespace']} has a FraudDetector {meta['name']} already, left from an earlier test or somebody's own: "
            f"kubectl -n {meta['namespace']} delete {names.PLURAL} {meta['name']}"
        ) from error
    except UnknownKindError as error:
        raise NoDecisionError(f"{error}: install the chart first") from error


def wait_ready(kube: Kube, namespace: str, name: str, seconds: float = READY_SECONDS) -> None:
    """Returns once it is Ready, and prints each change; NoDecisionError where it can't be, or isn't in time."""
    deadline, shown = time.monotonic() + seconds, ""
    while True:
        body = kube.get(DETECTOR, namespace, name)
        if body is None:
            raise NoDecisionError(f"the FraudDetector {namespace}/{name} was deleted by somebody else")
        conditions = (body.get("status") or {}).get("conditions") or []
        lacking = next((c for c in conditions if c.get("reason") == "OperatorMissing"), None)
        if lacking is not None:
            raise NoDecisionError(f"{lacking['type']}: {lacking['message']}")
        ready: Json = next((c for c in conditions if c["type"] == "Ready"), {})
        if ready.get("status") == "True":
            return
        state = (
            f"{ready.get('reason', 'NoStatus')}: {ready.get('message', 'the operator has said nothing yet')}"
        )
        if state != shown:
            sys.stdout.write(f"{state}\n")
            sys.stdout.flush()
            shown = state
        if time.monotonic() > deadline:
            raise NoDecisionError(f"not Ready within {seconds:.0f} s: {state}")
        time.sleep(PAUSE)


def decide(kube: Kube, namespace: str, name: str, url: str, seconds: float = ANSWER_SECONDS) -> Json:
    """The decision service's answer; NoDecisionError where none comes in time, or another one than the rule's."""
    secret = kube.get(SECRET, namespace, names.client(name, CLIENT))
    if secret is None:
        raise NoDecisionError(
            f"the Secret {names.client(name, CLIENT)} isn't there, though the detector is Ready"
        )
    key = base64.b64decode(secret["data"][API_KEY]).decode()
    body = payment(int(time.time() * 1000))
    deadline = time.monotonic() + seconds
    while True:
        status, text = _ask(url, key, body)
        # A Service follows its Pods with some delay; no other failure is worth a second try.
        if status not in (None, 503) or time.monotonic() > deadline:
            break
        time.sleep(PAUSE)
    if status != 200:
        raise NoDecisionError(f"{url} made no decision: {status or 'no answer'}: {text}")
    answer: Json = json.loads(text)
    if answer.get("action") != "review" or f"rule:{RULE}" not in [r.get("code") for r in answer["reasons"]]:
        raise NoDecisionError(f"the rule {RULE} asks for a review, and the answer is {text}")
    return answer


def _ask(url: str, key: str, body: Json) -> tuple[int | None, str]:
    """Status and text of the answer; None and the reason where nobody answered."""
    try:
        response = requests.post(f"{url}/v1/decisions", json=body, headers={"X-API-Key": key}, timeout=5)
    except requests.RequestException as error:
        return None, str(error)
    return response.status_code, response.text


def remove(kube: Kube, detector: Json, seconds: float = GONE_SECONDS) -> None:
    """Deletes that one detector and waits until it is gone."""
    meta = detector["metadata"]
    kube.delete(DETECTOR, meta["namespace"], meta["name"], meta["uid"])
    deadline = time.monotonic() + seconds
    while True:
        body = kube.get(DETECTOR, meta["namespace"], meta["name"])
        if body is None or body["metadata"]["uid"] != meta["uid"]:
            return
        if time.monotonic() > deadline:
            raise NoDecisionError(
                f"the detector isn't gone after {seconds:.0f} s: kubectl -n {meta['namespace']} describe {names.PLURAL} {meta['name']}"
            )
        time.sleep(PAUSE)


def run(kube: Kube, namespace: str, name: str, url: str) -> None:
    """The whole test. NoDecisionError says what didn't work; the detector goes in any case."""
    detector = create(kube, rules_detector(namespace, name))
    try:
        wait_ready(kube, namespace, name)
        answer = decide(kube, namespace, name, url)
        sys.stdout.write(f"{answer['id']} was decided: {answer['action']}, by {answer['release']}\n")
        sys.stdout.flush()
    finally:
        remove(kube, detector)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fraud_operator.first_decision", description=__doc__)
    parser.add_argument("namespace", help="of the detector that is made")
    parser.add_argument("name", help="of the detector that is made")
    options = parser.parse_args(arguments)
    # A test that is called off still takes its detector away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    url = f"http://{names.decision_service(options.name)}.{options.namespace}.svc:{HTTP_PORT}"
    try:
        run(Kube(load_client()), options.namespace, options.name, url)
    except FraudError as error:
        sys.stdout.write(f"no decision: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
