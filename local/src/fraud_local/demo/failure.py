"""What a failed demo says and keeps before the teardown, so that the failure can be read afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fraud_local import paths
from fraud_local.demo.kubectl import Kubectl, KubectlError

TAIL = 15


def last_logs(kube: Kubectl, namespace: str, *pods: str) -> str:
    """The last lines of these Pods (a name, or ``-l`` and a selector), or why there are none."""
    try:
        return kube.kubectl("-n", namespace, "logs", *pods, f"--tail={TAIL}", "--all-containers")
    except KubectlError as error:
        return str(error)


def unready(pod: dict[str, Any]) -> str | None:
    """Why a Pod isn't ready, in words; None of one that is, or that has done its work."""
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return None
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    main = status.get("containerStatuses", [])
    if main and all(one["ready"] for one in main):
        return None
    reasons = [
        one["message"]
        for one in status.get("conditions", [])
        if one["type"] == "PodScheduled" and one["status"] == "False" and one.get("message")
    ]
    for one in containers:
        state = one.get("state") or {}
        held = state.get("waiting") or state.get("terminated") or {}
        if held and held.get("reason") != "Completed":
            reasons.append(f"{one['name']} {held.get('reason', 'without a reason')}")
        if one.get("restartCount"):
            reasons.append(f"{one['name']} restarted {one['restartCount']} times")
    return ", ".join([str(status.get("phase", "Unknown")), *reasons])


def keep(kube: Kubectl, namespaces: tuple[str, ...], folder: Path, say: Callable[[str], None]) -> None:
    """Keeps every Pod's log, the objects' state and the local node's own logs in ``folder``; shows the Pods that aren't ready."""
    folder.mkdir(parents=True, exist_ok=True)
    for namespace in namespaces:
        try:
            pods = kube.get("-n", namespace, "pods").get("items", [])
            described = kube.kubectl("-n", namespace, "describe", "pods,frauddetectors")
        except KubectlError as error:
            say(f"Pods of {namespace}: {error}")
            continue
        (folder / f"{namespace}.describe.txt").write_text(described)
        for line in _pods(kube, namespace, pods, folder):
            say(line)
    if paths.LOGS.is_dir():
        shutil.copytree(paths.LOGS, folder / "node", dirs_exist_ok=True)
    say(f"logs of all Pods: {folder}")


def _pods(kube: Kubectl, namespace: str, pods: list[dict[str, Any]], folder: Path) -> Iterator[str]:
    for pod in pods:
        name = pod["metadata"]["name"]
        try:
            text = kube.kubectl("-n", namespace, "logs", name, "--all-containers", "--prefix", "--tail=2000")
        except KubectlError as error:  # one Pod that is gone meanwhile leaves the others' logs to be kept
            text = str(error)
        (folder / f"{namespace}.{name}.log").write_text(text)
        if reason := unready(pod):
            yield f"not ready: Pod {namespace}/{name}: {reason}"
            yield from (f"  {line}" for line in text.splitlines()[-TAIL:])
