"""When helm may take the operator away."""

from __future__ import annotations

from typing import Any

from fraud_contracts.names import FINALIZER
from fraud_operator.uninstall import refusal


def detector(name: str, *finalizers: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "payments", "name": name, "finalizers": list(finalizers)}}


def test_each_detector_that_would_hang_is_named_with_its_command() -> None:
    """The message says what to type for each of them, and how to go on without."""
    message = refusal([detector("b", FINALIZER), detector("a", "other", FINALIZER)], "helm rollback x 3")
    assert message.startswith("2 FraudDetector(s)")
    commands = [line.strip() for line in message.splitlines() if line.startswith("  ")]
    assert commands == [
        "kubectl -n payments delete frauddetectors a",
        "kubectl -n payments delete frauddetectors b",
        "helm rollback x 3",
    ]
    assert "--no-hooks" in message


def test_a_detector_without_our_finalizer_holds_nothing_up() -> None:
    """One that no operator has taken up yet can be deleted without it."""
    assert refusal([detector("new"), detector("theirs", "other")], "") == ""
