"""What accounts of a detector may do at the API server: docs/rights.md as data, for the tests that ask rules, authorizer and Pods."""

from __future__ import annotations

from typing import Final

from fraud_contracts import names
from fraud_contracts.detector import Component

READ: Final = frozenset({"get", "list", "watch"})
WRITE: Final = frozenset({"create", "patch", "delete"})
# By resource with its group: verbs, and the only names where there are such.
Rights = dict[str, tuple[frozenset[str], tuple[str, ...]]]
FLINK: Final[Rights] = {
    "pods": (READ | WRITE | {"update"}, ()),
    "configmaps": (READ | WRITE | {"update"}, ()),
    "deployments.apps": (READ | {"update", "patch", "delete"}, ()),
    "deployments/finalizers.apps": (frozenset({"update"}), ()),
}


def rights_of(detector: str) -> dict[Component, Rights]:
    """In the detector's namespace; the other components have none."""
    pointer: Rights = {"configmaps": (READ, (names.release_pointer(detector),))}
    return {
        Component.DECISION_SERVICE: pointer,
        Component.WORKER: pointer,
        Component.FEATURES: FLINK,
    }
