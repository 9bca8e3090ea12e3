"""Looks for planted card numbers in what this side of the cluster sees: objects, logs, folders. Runs after the demo's Pod has ended.

A cluster forgets: a Pod that has ended takes its log with it. What ``container_logs`` has kept is searched instead; where it kept
nothing the gap is told, and it is no failure. A running container's log that can't be read is one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fraud_contracts.child_kinds import DETECTOR, LISTED_KINDS
from fraud_local.demo.container_logs import kept
from fraud_local.demo.leaks import LeakReport, Needles, files, pieces, planted

# Every kind of object in which a program could leave a message: the children's, and what their operators make of them.
SEARCHED = (
    *(kind.resource for kind in LISTED_KINDS if not kind.optional),
    *(DETECTOR.resource, "pods", "events", "jobs.batch", "rayclusters.ray.io"),
)


def cluster(needles: Needles, kubectl: Callable[..., str], followed: Path) -> LeakReport:
    """What kubectl shows: the objects of all namespaces, and the logs of all containers, ended and restarted ones too.

    ``followed`` is the folder of ``container_logs.Follower``: what it has kept, the cluster may forget.
    """
    report = LeakReport()
    for kind in SEARCHED:
        try:
            text = kubectl("get", kind, "-A", "-o", "json", "--ignore-not-found")
        except (
            Exception
        ) as error:  # a kind that this cluster lacks, or a server that gives no answer: both are reported
            report.miss(f"objects/{kind}", error)
            continue
        for item in json.loads(text or '{"items": []}').get("items", []):
            meta = item["metadata"]
            where = f"{kind} {meta.get('namespace', '')}/{meta['name']}"
            report.search(needles, "objects", where, json.dumps(item, ensure_ascii=False).encode())
            if kind == "pods":
                _logs(needles, kubectl, item, followed, report)
    return report


def _statuses(pod: dict[str, Any]) -> list[dict[str, Any]]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _logs(
    needles: Needles, kubectl: Callable[..., str], pod: dict[str, Any], followed: Path, report: LeakReport
) -> None:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    for container in _statuses(pod):
        state, restarts = container.get("state", {}), container.get("restartCount", 0)
        looks: list[tuple[int, list[str]]] = (
            [(restarts, [])] if "running" in state or "terminated" in state else []
        )
        looks += [(restarts - 1, ["--previous"])] if restarts else []
        for start, more in looks:
            where = f"{namespace}/{name}/{container['name']}{' before its restart' if more else ''}"
            try:
                text = kubectl("-n", namespace, "logs", name, "-c", container["name"], *more)
            except Exception as error:  # told: a log that nobody could read is no clean log
                if kept(followed, pod, container["name"], start).exists():
                    continue
                if more or _ended(kubectl, pod, container):
                    report.gap(f"logs/{where}")
                else:
                    report.miss(f"logs/{where}", error)
                continue
            for data in pieces(io.BytesIO(text.encode())):
                report.search(needles, "logs", where, data)


def _ended(kubectl: Callable[..., str], pod: dict[str, Any], listed: dict[str, Any]) -> bool:
    """Whether the container that was listed runs no more; not as long as nobody can say so."""
    meta = pod["metadata"]
    try:
        text = kubectl(
            "-n", meta["namespace"], "get", "pod", meta["name"], "-o", "json", "--ignore-not-found"
        )
    except Exception:  # the miss that follows tells of it
        return False
    now = json.loads(text or "{}")
    if now.get("metadata", {}).get("uid") != meta["uid"]:
        return True
    return not any(
        one["name"] == listed["name"]
        and one.get("containerID") == listed.get("containerID")
        and "running" in one.get("state", {})
        for one in _statuses(now)
    )


def complete(
    path: Path,
    live: Path,
    kubectl: Callable[..., str],
    followed: Path,
) -> LeakReport:
    """Adds to what the Pod found in the stores what only this side sees: objects and logs."""
    needles = planted(live)
    report = LeakReport.of(json.loads(path.read_text())).join(cluster(needles, kubectl, followed))
    if followed.exists():
        report.join(files(needles, "podlogs", followed))
    path.write_text(json.dumps({"planted": len(needles.numbers), **report.document()}, indent=1))
    return report
