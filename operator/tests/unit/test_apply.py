"""What is written, what is left alone and what is taken away."""

from __future__ import annotations

from typing import Any

import pytest

from fraud_contracts import names
from fraud_operator.apply import covers
from fraud_operator.ownership import applied_no_more, surplus


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


SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "d", "namespace": "n", "labels": {"a": "1"}, "finalizers": ["x/y"]},
    "spec": {"ports": [{"port": 80, "name": "http"}], "selector": {}},
}
FIELDS: dict[str, Any] = {
    "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {'v:"x/y"': {}}},
    "f:spec": {
        "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}}},
        "f:selector": {},
    },
}


def _entry(fields: dict[str, Any] = FIELDS, **more: str) -> dict[str, Any]:
    ours = {"manager": names.FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1"}
    return {**ours, "fieldsV1": fields, **more}


def _live(*entries: dict[str, Any]) -> dict[str, Any]:
    return {**SERVICE, "metadata": {**SERVICE["metadata"], "managedFields": list(entries)}}


def test_what_was_applied_and_is_wanted_is_not_applied_again() -> None:
    """Our entry names nothing that the wanted body lacks, so applying it would take nothing away; others' entries don't count."""
    others = _entry({"f:spec": {"f:type": {}}}, manager="kubectl", operation="Update")
    assert applied_no_more(_live(others, _entry()), SERVICE)


@pytest.mark.parametrize(
    "fields",
    [
        {"f:metadata": {"f:labels": {"f:b": {}}}},
        {"f:metadata": {"f:finalizers": {'v:"x/z"': {}}}},
        {"f:spec": {"f:ports": {'k:{"port":81,"protocol":"TCP"}': {"f:port": {}}}}},
        {"f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {"f:nodePort": {}}}}},
        {"f:spec": {"f:selector": {"f:app": {}}}},
        {"f:data": {}},
        {"f:spec": {"f:ports": {"i:0": {}}}},
    ],
)
def test_what_was_applied_and_is_wanted_no_more_is_taken_away(fields: dict[str, Any]) -> None:
    """A label, a list's item, a field of it, a whole part: what our entry names and the body lacks asks for an apply."""
    assert not applied_no_more(_live(_entry(fields)), SERVICE)


def test_without_our_own_word_a_child_is_applied() -> None:
    """No entry of ours, one of another API version, or two of them tell nothing."""
    for entries in (
        [],
        [_entry(manager="kubectl")],
        [_entry(operation="Update")],
        [_entry(apiVersion="v2")],
        [_entry()] * 2,
    ):
        assert not applied_no_more(_live(*entries), SERVICE)
