"""Who reaches whom on the cluster of the demo that runs now, from Pods in everybody's place: `make demo`, then `make test-network`."""

from __future__ import annotations

import os
from pathlib import Path

from fraud_local import paths
from fraud_local.demo.kubectl import Kubectl, KubectlError
from fraud_testing import probes
from fraud_testing.required import require


def test_only_the_tables_ways_are_open() -> None:
    """Each of its lines is open and nothing else is, for every detector of the cluster."""
    kube = Kubectl(Path(os.environ.get("KUBECONFIG", paths.KUBECONFIG)), paths.NODE_BIN)
    try:
        detectors = kube.get("frauddetectors", "-A")["items"]
    except KubectlError as error:
        detectors = []
        require(f"no cluster with a detector: make demo ({error})")
    require(None if detectors else "no detector on this cluster: make demo")
    for detector in detectors:
        meta = detector["metadata"]
        tried, wrong = probes.differing(kube, meta["name"], meta["namespace"])
        assert wrong == []
        assert tried > 1000
