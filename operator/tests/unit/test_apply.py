"""What is written, what is left alone and what is taken away."""

from __future__ import annotations

from typing import Any

import pytest

from fraud_contracts import names
from fraud_operator.apply import covers
from fraud_operator.ownership import surplus


@pytest.mark.parametrize(
    ("live", "wanted", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"l": [1, 2]}, {"l": [1]}, False),
        ({"l": []}, {"l": []}, True),
        (
            {"e": [{"name": "x", "value": "1", "z": 0}, {"name": "y"}]},
            {"e": [{"name": "x", "value": "1"}]},
            True,
        ),
        ({"e": [{"name": "x", "value": "2"}]}, {"e": [{"name": "x", "value": "1"}]}, False),
        ({"p": [{"port": 1, "protocol": "TCP"}]}, {"p": [{"port": 1}]}, True),
        (None, {"a": 1}, False),
    ],
)
def test_covers(live: Any, wanted: Any, same: bool) -> None:
    """Defaults that the server added don't count as a difference; a missing or other value does."""
    assert covers(live, wanted) is same


UID = "9a998dae"


def _child(kind: str, name: str, **meta: Any) -> dict[str, Any]:
    labels = {names.UID_LABEL: UID}
    return {"kind": kind, "metadata": {"name": name, "labels": labels, **meta}}


def _owner(kind: str, uid: str, *, controller: bool = True) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": "x", "uid": uid, "controller": controller}]


def _wrote(manager: str, label: str = names.UID_LABEL, operation: str = "Apply") -> list[dict[str, Any]]:
    fields = {"f:metadata": {"f:labels": {f"f:{label}": {}}}}
    return [{"manager": manager, "operation": operation, "fieldsV1": fields}]


OURS = {
    "owned": _child("Service", "d-old", ownerReferences=_owner(names.KIND, UID)),
    "kept": _child("KafkaTopic", "d-old", managedFields=_wrote(names.FIELD_MANAGER)),
    "made once": _child("ConfigMap", "d-old", managedFields=_wrote(names.FIELD_MANAGER, operation="Update")),
}
FOREIGN = {
    "Strimzi's": _child("Service", "d-kafka", ownerReferences=_owner("Kafka", "2", controller=False)),
    "KServe's": _child("Service", "d-a-predictor", ownerReferences=_owner("InferenceService", "3")),
    "a person's": _child("ConfigMap", "notes", managedFields=_wrote("kubectl-create", operation="Update")),
    "no one's": _child("ConfigMap", "notes"),
    "another detector's": _child("Service", "e-old", ownerReferences=_owner(names.KIND, "4")),
    "touched by us": _child("ConfigMap", "notes", managedFields=_wrote(names.FIELD_MANAGER, "another")),
}


@pytest.mark.parametrize("case", [*OURS, *FOREIGN])
def test_only_what_is_provably_ours_is_surplus(case: str) -> None:
    """Ours is what our owner reference or our field manager's entry for the label proves; the label alone proves nothing."""
    live = {**OURS, **FOREIGN}[case]
    children = surplus({("any", "one"): live}, UID, [])
    assert children == ([live] if case in OURS else [])
    assert surplus({("any", "one"): live}, UID, [], [("any", "one")]) == []
