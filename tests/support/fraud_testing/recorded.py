"""Status sequences that the real operators wrote, as objects to read or to write to an API server."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[3] / "operator" / "tests" / "recorded"
_LINE = re.compile(r"(FLINK|KAFKA) (\S+) gen (\d+) obs (\d+|None)( .*?)? (\[.*\])$")


def _conditions(text: str) -> list[dict[str, str]]:
    """Times have nanoseconds, as both operators write them."""
    parts = ("type", "status", "reason", "message")
    return [
        {key: value for key, value in zip(parts, values, strict=False) if value}
        | {"lastTransitionTime": "2026-11-28T23:11:06.091917618Z"}
        for values in ast.literal_eval(text)
    ]


def sequence(name: str, kind: str) -> list[dict[str, Any]]:
    """Of ``FlinkDeployment`` or ``Kafka``: metadata.generation and status of each change, oldest first."""
    out = []
    for line in (FOLDER / f"watch-{name}.txt").read_text().splitlines():
        match = _LINE.match(line)
        if match is None or match[1] != {"FlinkDeployment": "FLINK", "Kafka": "KAFKA"}[kind]:
            continue
        status: dict[str, Any] = {"conditions": _conditions(match[6])}
        if match[4] != "None":
            status["observedGeneration"] = int(match[4])
        if kind == "FlinkDeployment":
            lifecycle, manager, job, reconciled, error = [*(match[5] or "").strip().split(" ", 4), ""][:5]
            status |= {
                key: value
                for key, value in (("lifecycleState", lifecycle), ("jobManagerDeploymentStatus", manager),
                                   ("error", error.strip())) if value not in ("None", "")
            }  # fmt: skip
            if job != "None":
                status["jobStatus"] = {"state": job}
            if reconciled != "None":
                status["reconciliationStatus"] = {"state": reconciled}
        out.append(
            {
                "kind": kind,
                "metadata": {"generation": int(match[3])},
                "status": status if len(status) > 1 else {},
            }
        )
    return out


def strimzi() -> list[dict[str, Any]]:
    """A Kafka whose brokers keep their data in the Pod, and a KafkaTopic; both are ready."""
    objects: list[dict[str, Any]] = json.loads((FOLDER / "strimzi.json").read_text())
    return objects
