"""The commands of README and docs, run on a native node as a person would run them, page after page."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from fraud_contracts.names import Identity
from fraud_local import cluster, paths
from fraud_local.demo.kubectl import Kubectl
from fraud_testing import pages, probe_pods, probes
from fraud_testing.required import require

ENVIRON = {
    "KUBECONFIG": str(paths.KUBECONFIG),
    "PATH": f"{paths.NODE_BIN}:{os.environ['PATH']}",
}


def page(name: str, seconds: float = 300) -> str:
    """What the page's blocks for a cluster print."""
    return pages.run(pages.blocks("cluster", name), ENVIRON, seconds)


@pytest.fixture(scope="module")
def readme() -> Iterator[str]:
    """What the README's commands print; they make the cluster, the platform and the detector."""
    lacking = cluster.missing()
    require(f"the native node lacks: {lacking}" if lacking else None)
    try:
        yield page("README.md", 900)
    finally:
        subprocess.run(["make", "down"], cwd=pages.ROOT, check=True, timeout=300)


def test_the_readme_ends_in_a_decision(readme: str) -> None:
    """Without history or model a rule decides, and the answer says so."""
    answer = json.loads(readme[readme.index('{"id":') :].splitlines()[0])
    assert (answer["action"], answer["degraded"]) == ("review", ["no_model"])
    assert [reason["code"] for reason in answer["reasons"]] == ["rule:large"]


def test_a_decision_is_read_and_labelled(readme: str) -> None:
    """The page on integrating reads the decision again and reports a label."""
    printed = page("docs/integrate.md")
    assert '"id":"readme-1"' in printed
    assert '"label":"fraud"' in printed


def test_console_ledger_and_release_say_why(readme: str) -> None:
    """The page on investigating finds the decision's rule in console, ledger and release."""
    deadline, printed = time.monotonic() + 120, page("docs/investigate.md")
    # The decision reaches the ledger by the stream, which has just started.
    while printed.count("rule:large") < 3 and time.monotonic() < deadline:
        printed = page("docs/investigate.md")
    assert printed.count("rule:large") >= 3
    assert "features.customer_count_1h" in printed


def test_dead_letters_are_listed(readme: str) -> None:
    """The page on dead letters counts how ids ended."""
    assert "decided" in page("docs/dead-letters.md")


def test_stores_are_rebuilt(readme: str) -> None:
    """The page on stores writes each store anew from the topics, beside its sink."""
    page("docs/stores.md")


def test_only_the_tables_ways_are_open(readme: str) -> None:
    """From Pods in everybody's place, each line of the page on security is open, and nothing else is."""
    kube, identity = Kubectl(paths.KUBECONFIG, paths.NODE_BIN), Identity("payments", "rules")
    places = [*probes.component_probes(identity, {}), *probes.other_probes(identity)]
    with probe_pods.running(kube, places, probes.PORTS) as addresses:
        tried, wrong = probes.differing(kube, identity, addresses)
    assert wrong == []
    assert tried > 1000


def test_upgrade_and_removal_run_and_leave_nothing(readme: str) -> None:
    """The page on installing explains a field, upgrades, and takes everything away: the last of this file."""
    assert "deadline" in page("docs/install.md", 600)
    assert "fraudnode" not in subprocess.check_output(["ip", "netns"], text=True)
