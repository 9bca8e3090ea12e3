"""What is written, what is left alone and what is taken away."""

from __future__ import annotations

from typing import Any

import pytest

from fraud_contracts import names
from fraud_operator.apply import covers, surplus


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


def _child(kind: str, name: str, owner: str | None) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name}
    if owner is not None:
        meta["ownerReferences"] = [{"kind": owner, "controller": True}]
    return {"kind": kind, "metadata": meta}


def test_only_our_own_children_are_surplus() -> None:
    """KServe copies our labels to the Service that it makes; that one is KServe's, and is never deleted by us."""
    live = {
        ("Service", "d-a-predictor"): _child("Service", "d-a-predictor", "InferenceService"),
        ("Service", "d-old"): _child("Service", "d-old", names.KIND),
        ("ConfigMap", "d-release-x"): _child("ConfigMap", "d-release-x", None),
    }
    assert [child["metadata"]["name"] for child in surplus(live, [])] == ["d-release-x", "d-old"]
    assert surplus(live, [], [("ConfigMap", "d-release-x"), ("Service", "d-old")]) == []
