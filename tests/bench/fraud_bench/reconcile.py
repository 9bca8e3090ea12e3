"""The operator against a real API server: from a new CR to its last child, and the writes of passes that change nothing.

python -m fraud_bench.reconcile
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from fraud_bench import measure
from fraud_contracts.child_kinds import DETECTOR
from fraud_contracts.config import POSTGRES_DSN, REDIS_URL
from fraud_testing import postgres, redis
from fraud_testing.api_server import ROOT, serve
from fraud_testing.kafka import wait_for
from fraud_testing.operator_process import OperatorProcess, install, render

DETECTORS: Final = 6  # the first one warms up
QUIET: Final = 2.0
IDLE: Final = float(os.environ.get("BENCH_SECONDS", 20))
# What isn't a child: what the operator says about itself and about the detector.
APART: Final = ("events", "leases", "frauddetectors")


def detector(namespace: str) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = namespace
    return body


def at(write: dict[str, Any]) -> float:
    return datetime.fromisoformat(write["stageTimestamp"]).timestamp()


def applied(writes: list[dict[str, Any]], namespace: str) -> dict[tuple[str, str], float]:
    """When each child was first written."""
    first: dict[tuple[str, str], float] = {}
    for write in writes:
        what = write["objectRef"]
        if what.get("namespace") == namespace and what["resource"] not in APART:
            first.setdefault((what["resource"], what.get("name", "")), at(write))
    return first


def main() -> None:
    measure.begin()
    with tempfile.TemporaryDirectory(prefix="fraud-bench-") as name:
        folder = Path(name)
        measure.note("an API server for the operator")
        with serve(folder) as server, redis.server() as cache, postgres.server() as database:
            namespaces = [f"bench-{number}" for number in range(DETECTORS)]
            for namespace in ("fraud-platform", *namespaces):
                server.namespace(namespace)
            kube = server.kube()
            install(kube, render())
            stores = {REDIS_URL: cache.url, POSTGRES_DSN: database.dsn}
            running = OperatorProcess(server.api, folder, namespaces, **stores)
            try:
                running.start()
                install_and_rest(server, kube, running, namespaces)
            finally:
                log = folder / "operator.log"
                failed = sys.exc_info()[0] is not None
                if running.alive:
                    running.kill()
                if failed and log.exists():
                    sys.stderr.write(log.read_text()[-3000:])


def install_and_rest(server: Any, kube: Any, running: OperatorProcess, namespaces: list[str]) -> None:
    """Times each detector from its creation to its last child, then counts the writes of passes that change nothing."""
    took: list[float] = []
    count = 0
    for namespace in namespaces:
        measure.note(f"a detector in {namespace}")
        start = time.time()
        kube.create(DETECTOR, detector(namespace))
        wait_for(partial(settled, server, namespace), 60, f"the children in {namespace}")
        children = applied(server.api.writes(), namespace)
        count = len(children)
        took.append(max(children.values()) - start)
    measure.note("settled passes")
    # Applied Flink and Kafka objects have no operators here; what still moves ends before this.
    wait_for(lambda: quiet(server, QUIET * 2), 90, "the detectors to settle")
    before, passes = len(server.api.writes()), reconciles(running)
    time.sleep(IDLE)
    writes = server.api.writes()[before:]
    measure.report(
        "reconcile",
        detectors=len(took) - 1,
        children=count,
        worst_s=round(max(took[1:]), 2),
        median_s=round(sorted(took[1:])[len(took[1:]) // 2], 2),
        first_s=round(took[0], 2),
        idle_s=IDLE,
        settled_passes=round(reconciles(running) - passes),
        settled_writes=len(writes),
    )


def settled(server: Any, namespace: str) -> bool:
    children = applied(server.api.writes(), namespace)
    return bool(children) and time.time() - max(children.values()) > QUIET


def quiet(server: Any, seconds: float) -> bool:
    last = [at(write) for write in server.api.writes()[-20:]]
    return bool(last) and time.time() - max(last) > seconds


def reconciles(running: OperatorProcess) -> float:
    lines = running.get("/metrics").splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("fraud_operator_reconciles_total")
    )


if __name__ == "__main__":
    main()
