"""What the kubelet's probes and Prometheus ask the operator, answered on threads of their own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import REGISTRY

from fraud_contracts.child_kinds import POD
from fraud_operator import targets
from fraud_operator.kube import ApiError, Kube
from fraud_process.health import JSON, TEXT, HealthServer, Page, probe

# The event loop answers within this time, or the Pod is restarted.
STALL: Final = 60.0


class Pulse:
    """Beaten by the event loop, read by the probes.

    ``ready``: the operator leads, or knows who does and stands by. ``hung`` names what has run for too long, or nothing.
    """

    def __init__(self) -> None:
        self.ready: Callable[[], bool] = lambda: False
        self.hung: Callable[[], str] = lambda: ""
        self._last = time.monotonic()

    async def beat(self) -> None:
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(2)

    def trouble(self) -> str:
        """For what a restart is the remedy; empty where all is well."""
        if time.monotonic() - self._last >= STALL:
            return "the event loop stalls"
        return self.hung()


def health_server(pulse: Pulse, port: int, kube: Kube, namespaces: Sequence[str]) -> HealthServer:
    """Metrics, probes and /targets; they answer while the event loop stalls."""

    def alive() -> Page:
        trouble = pulse.trouble()
        return probe(not trouble, trouble)

    def targets_page() -> Page:
        try:
            pods = [
                pod
                for namespace in (namespaces or (None,))
                for pod in kube.list(POD, namespace, targets.PLATFORM_PODS)
            ]
        except ApiError as error:
            return Page(503, TEXT, f"{error}\n".encode())
        return Page(200, JSON, json.dumps(targets.targets(pods)).encode())

    return HealthServer(
        port,
        REGISTRY,
        {
            "/healthz": alive,
            "/readyz": lambda: probe(pulse.ready(), "neither leads nor knows who does"),
            "/targets": targets_page,
        },
    )
