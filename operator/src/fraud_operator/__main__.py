"""``python -m fraud_operator [--namespace NS]...``: watches the whole cluster, or only the namespaces given."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import kopf
from prometheus_client import REGISTRY

from fraud_contracts import log
from fraud_contracts.background import watched
from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_contracts.config import METRICS_PORT
from fraud_operator import handlers, targets
from fraud_operator.events import Recorder
from fraud_operator.kube import ApiError, Kube, load_client
from fraud_operator.meters import OperatorMeters
from fraud_operator.observe import Observer
from fraud_operator.passes import Passes
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform, load_platform
from fraud_operator.watches import Watches
from fraud_process.health import JSON, TEXT, HealthServer, Page, probe

LOG: Final = logging.getLogger("fraud_operator")
# The event loop answers within this time, or the Pod is restarted.
STALL: Final = 60.0
POD: Final = BY_KIND["Pod"]


class Pulse:
    """Beaten by the event loop, read by the liveness probe."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.ready = False

    async def beat(self) -> None:
        while True:
            self.last = time.monotonic()
            await asyncio.sleep(2)

    @property
    def healthy(self) -> bool:
        return time.monotonic() - self.last < STALL


def health_server(pulse: Pulse, port: int, kube: Kube, namespaces: Sequence[str]) -> HealthServer:
    """Metrics, probes and /targets, on threads of its own: they answer while the event loop stalls."""

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
            "/healthz": lambda: probe(pulse.healthy, "the event loop stalls"),
            "/readyz": lambda: probe(pulse.ready, "starting"),
            "/targets": targets_page,
        },
    )


async def operate(
    kube: Kube, platform: Platform, namespaces: Sequence[str], pulse: Pulse, stop: asyncio.Event
) -> None:
    """Runs until ``stop`` is set."""
    meters = OperatorMeters()
    reconciler = Reconciler(kube, platform, Observer(kube), Recorder(kube))
    passes = Passes(reconciler.reconcile, meters, reconciler.secrets_differ)
    beat = watched(asyncio.create_task(pulse.beat(), name="pulse"))
    # kopf's stream may come late where a kind is missing; what is there already is taken up at once.
    scopes: Sequence[str | None] = namespaces or (None,)
    for namespace in scopes:
        for body in await asyncio.to_thread(kube.list, DETECTOR, namespace):
            passes.ask(body["metadata"]["namespace"], body["metadata"]["name"])
    loop = asyncio.get_running_loop()

    def ask(namespace: str, name: str) -> None:
        with suppress(RuntimeError):  # the loop has just ended, and with it everything that could be asked
            loop.call_soon_threadsafe(passes.ask, namespace, name)

    watches = Watches(kube, namespaces, ask)
    watches.start()
    pulse.ready = True
    LOG.info("started", extra={"data": {"namespaces": list(namespaces) or "all"}})
    try:
        await kopf.operator(
            registry=handlers.registry(passes),
            settings=handlers.settings(),
            clusterwide=not namespaces,
            namespaces=list(namespaces),
            standalone=True,
            stop_flag=stop,
        )
    finally:
        pulse.ready = False
        watches.stop()
        beat.cancel()
        await passes.close()


async def _main(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pulse = Pulse()
    kube = Kube(load_client())
    server = health_server(pulse, options.port, kube, options.namespace)
    server.start()
    try:
        await operate(kube, load_platform(), options.namespace, pulse, stop)
    finally:
        server.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="fraud_operator", description=__doc__)
    parser.add_argument(
        "--namespace", action="append", default=[], help="watch this namespace only; may be repeated"
    )
    parser.add_argument("--port", type=int, default=METRICS_PORT, help="of /metrics, /healthz and /readyz")
    options = parser.parse_args(arguments)
    log.setup()
    logging.getLogger("kopf").setLevel(logging.WARNING)
    asyncio.run(_main(options))


if __name__ == "__main__":
    main()
