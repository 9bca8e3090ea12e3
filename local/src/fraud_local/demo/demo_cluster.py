"""The cluster that the demo runs on: kind or the native node, with its kubeconfig and tools."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud_local import build, cluster, down, kind, paths


@dataclass(frozen=True)
class DemoCluster:
    """``operators`` are objects with name, version and kind (``real`` or ``stand-in``)."""

    kubeconfig: Path
    tools: Path
    operators: tuple[dict[str, str], ...]
    # Values files for helm: which images the cluster has.
    values: tuple[Path, ...] = ()


def _module_version(module: str) -> str:
    """Version of a module in the node's go.mod: the one its program was compiled from."""
    text = (paths.LOCAL / "node" / "go.mod").read_text()
    match = re.search(rf"^\s*{re.escape(module)} (v\S+)", text, re.M)
    return match[1] if match else "unknown"


def up(built: bool) -> DemoCluster:
    """Makes the cluster: kind where a Docker engine answers, else this machine as a node, with ``built`` images or development's."""
    native = not kind.docker_answers()
    cluster.up(native, built)
    # What the demo simulates and audits with; on a native node it is there already.
    build.environment("serving")
    real = (
        ("kuberay", _module_version("github.com/ray-project/kuberay/ray-operator"), "real"),
        ("kserve", _module_version("github.com/kserve/kserve"), "real"),
    )
    others = "stand-in" if native else "real"
    rest = (
        ("strimzi", paths.STRIMZI_VERSION, others),
        ("flink-kubernetes-operator", paths.FLINK_OPERATOR_VERSION, others),
    )
    operators = tuple(
        {"name": name, "version": version, "kind": sort} for name, version, sort in (*real, *rest)
    )
    if native:
        values = paths.LOCAL / "node" / ("built-values.yaml" if built else "development-values.yaml")
        return DemoCluster(paths.KUBECONFIG, paths.NODE_BIN, operators, (values,))
    upstream = paths.CLONE / "charts" / "fraud-platform" / "upstream-images.yaml"
    return DemoCluster(kind.kubeconfig(), Path("/usr/local/bin"), operators, (upstream,))


def restricted_namespace(name: str) -> dict[str, Any]:
    """A namespace whose Pods the API server admits by Pod Security's strictest level alone."""
    enforce = "pod-security.kubernetes.io/enforce"
    labels = {enforce: "restricted", f"{enforce}-version": "latest"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def take_down(say: Callable[[str], None]) -> None:
    """Takes the cluster away, whatever state it is in."""
    say("taking everything down")
    down.command()
