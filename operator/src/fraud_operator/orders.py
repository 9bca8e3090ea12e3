"""Who ordered what a rollout does: the field manager that set the annotation or the pin, as the API server keeps it. Pure.

The API server keeps no user's name in an object; its audit log has that. A manager is what the client calls itself:
kubectl-annotate, kubectl-edit, argocd-controller, or what a person gave as --field-manager.
"""

from __future__ import annotations

from dataclasses import dataclass

from fraud_contracts import names
from fraud_operator.objects import Json
from fraud_operator.ownership import owns

UNNAMED = "a manager that the API server doesn't name"


@dataclass(frozen=True)
class Orders:
    """Who set each of what a rollout obeys, in words for people."""

    approve: str = UNNAMED
    abort: str = UNNAMED
    rollback: str = UNNAMED
    pin: str = UNNAMED


def set_by(body: Json, *path: str) -> str:
    """The manager of a field by its path in managedFields, with the operation and the time of its last write of this object.

    Of several managers that agree on the value the one that wrote last.
    """
    entries = [e for e in body["metadata"].get("managedFields") or [] if owns(e, *path) and e.get("manager")]
    if not entries:
        return UNNAMED
    last = max(entries, key=lambda entry: str(entry.get("time", "")))
    when = f" at {last['time']}" if last.get("time") else ""
    return f"{last['manager']} ({last.get('operation', 'Update')}{when})"


def of(body: Json) -> Orders:
    """From a FraudDetector as the API server has it."""

    def annotation(key: str) -> str:
        return set_by(body, "f:metadata", "f:annotations", f"f:{key}")

    return Orders(
        approve=annotation(names.APPROVE_ANNOTATION),
        abort=annotation(names.ABORT_ANNOTATION),
        rollback=annotation(names.ROLLBACK_ANNOTATION),
        pin=set_by(body, "f:spec", "f:model", "f:pin"),
    )
