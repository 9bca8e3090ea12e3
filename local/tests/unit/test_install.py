"""The script of the prerequisites asks for what there is, and for what the native node runs or imitates."""

from __future__ import annotations

import re

from fraud_local import paths
from fraud_local.demo.demo_cluster import _module_version

SCRIPT = (paths.CLONE / "manifests/prerequisites/install.sh").read_text()
VERSIONS = dict(re.findall(r"^(\w+)_VERSION=v?(\S+)$", SCRIPT, re.M))


def test_the_node_and_the_script_are_of_one_version() -> None:
    """What the demo shows on the native node is what a cluster gets."""
    modules = ("github.com/ray-project/kuberay/ray-operator", "github.com/kserve/kserve")
    assert (VERSIONS["STRIMZI"], VERSIONS["FLINK_OPERATOR"]) == (
        paths.STRIMZI_VERSION,
        paths.FLINK_OPERATOR_VERSION,
    )
    assert [f"v{VERSIONS[name]}" for name in ("KUBERAY", "KSERVE")] == [_module_version(m) for m in modules]


def test_cert_managers_chart_is_one_that_was_published() -> None:
    """In the OCI registry that the script names, its charts begin with 1.18."""
    assert re.search(r"^ *chart cert-manager cert-manager oci://", SCRIPT, re.M)
    assert tuple(map(int, VERSIONS["CERT_MANAGER"].split("."))) >= (1, 18)
