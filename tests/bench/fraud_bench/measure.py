"""What a figure is measured with, and how it is handed to the driver: one JSON line on standard output."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any


def begin() -> None:
    """From now on SIGTERM ends a bench as an exception does, which takes its servers with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def report(name: str, **values: Any) -> None:
    """Hands a figure to the driver."""
    sys.stdout.write(json.dumps({"figure": name, **values}) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """For who watches; standard output is the driver's."""
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far; steadier than any latency on a machine that does more than one thing."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def samples(url: str, name: str) -> dict[str, float]:
    """A metric's samples from a /metrics page, by everything before the value."""
    with urllib.request.urlopen(url + "/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)}


def histogram_quantile(
    before: dict[str, float], after: dict[str, float], share: float, also: str = ""
) -> float:
    """Upper edge of the bucket in which the quantile of what came between two looks lies; ``also`` chooses the child."""
    edges: list[tuple[float, float]] = []
    for key, value in after.items():
        if "_bucket{" in key and also in key:
            edge = key.split('le="', 1)[1].split('"', 1)[0]
            edges.append((float("inf") if edge == "+Inf" else float(edge), value - before.get(key, 0.0)))
    edges.sort()
    total = edges[-1][1] if edges else 0.0
    return next((edge for edge, count in edges if count >= share * total), float("nan"))


def versions(*names: str) -> dict[str, str]:
    return {name: metadata.version(name) for name in names}
