"""Who reaches whom, and what they may there, on the cluster of the demo that runs now: `make demo`, then `make test-network`.

From Pods in everybody's place: a stranger's, each component's with all that it holds, and a second detector's.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fraud_contracts import names
from fraud_local import paths
from fraud_local.demo.kubectl import Kubectl, KubectlError
from fraud_testing import trespass
from fraud_testing.required import require


@pytest.fixture(scope="module")
def findings() -> trespass.Findings:
    kube = Kubectl(Path(os.environ.get("KUBECONFIG", paths.KUBECONFIG)), paths.NODE_BIN)
    try:
        detectors = kube.get(names.PLURAL, "-A")["items"]
    except KubectlError as error:
        detectors = []
        require(f"no cluster with a detector: make demo ({error})")
    require(None if detectors else "no detector on this cluster: make demo")
    return trespass.find(kube)


def test_only_the_tables_ways_are_open(findings: trespass.Findings) -> None:
    """Each of its lines is open and nothing else is, for every detector of the cluster and for a second one beside it."""
    assert findings.ways == []
    assert findings.tried > 10_000


def test_each_pod_holds_what_its_component_reads(findings: trespass.Findings) -> None:
    """As Flink, KServe and KubeRay made it of what the operator asked for: no Secret more, and none less."""
    assert findings.items == []


def test_each_component_may_what_its_line_says(findings: trespass.Findings) -> None:
    """With its account's token and every Secret that it holds: at Redis, PostgreSQL, MLflow, Kafka, the engines and the API server."""
    assert findings.deeds == []


def test_a_key_opens_its_scopes_at_its_own_detector(findings: trespass.Findings) -> None:
    """At both doors, whoever asks from wherever: not without a key, with its hash, or with the second detector's."""
    assert findings.answers == []
