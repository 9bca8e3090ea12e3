"""What stays though no builder names it any more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts import names
from fraud_operator.records import kept_records
from fraud_testing.healthy import healthy_facts, make_detector

DETECTOR = make_detector()


def run(state: str, config: str) -> dict[str, Any]:
    volumes = [{"name": "config", "configMap": {"name": config}}, {"name": "tmp", "emptyDir": {}}]
    head = {"template": {"spec": {"volumes": volumes}}}
    status = {"jobDeploymentStatus": state, "jobStatus": {"Complete": "SUCCEEDED"}.get(state, "")}
    meta = {"name": "d-train-1", "creationTimestamp": "2026-11-30T00:00:00Z"}
    return {"metadata": meta, "spec": {"rayClusterSpec": {"headGroupSpec": head}}, "status": status}


@pytest.mark.parametrize(("state", "kept"), [("Initializing", True), ("Running", True), ("Complete", False)])
def test_a_training_under_way_keeps_its_document(state: str, kept: bool) -> None:
    """Its Pod may start once another feature set answers, and the document would have another name by then."""
    document = names.stream_config("d", "ffffff-2")
    facts = replace(healthy_facts(DETECTOR), children={("RayJob", "d-train-1"): run(state, document)})
    assert (("ConfigMap", document) in kept_records(DETECTOR, facts)) is kept


def test_the_detectors_own_document_is_no_record() -> None:
    """Whoever builds it keeps it."""
    facts = replace(
        healthy_facts(DETECTOR), children={("RayJob", "d-train-1"): run("Running", names.config("d"))}
    )
    assert kept_records(DETECTOR, facts) == []
