"""``python -m fraud_operator [--namespace NS]...``: watches the whole cluster, or only the namespaces given."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import kopf
from kubernetes.client import ApiClient

from fraud_contracts import log
from fraud_contracts.background import end_process, watched
from fraud_contracts.config import METRICS_PORT
from fraud_contracts.errors import FraudError
from fraud_operator import handlers, leader
from fraud_operator.events import Recorder
from fraud_operator.indexed import IndexedKube, Indexes
from fraud_operator.kube import Kube, load_client
from fraud_operator.leader import Leader
from fraud_operator.liveness import Pulse, health_server
from fraud_operator.meters import OperatorMeters
from fraud_operator.observe import Observer
from fraud_operator.passes import Passes
from fraud_operator.passwords import fill_in
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform, load_platform
from fraud_operator.watches import Standby, Watches

LOG: Final = logging.getLogger("fraud_operator")
# Passes wait so long for a list of each kind, then they ask for what wasn't had.
LISTED_SECONDS: Final = 30.0
A_DAY: Final = 86_400.0


async def operate(
    api: ApiClient, platform: Platform, namespaces: Sequence[str], pulse: Pulse, stop: asyncio.Event
) -> None:
    """Stands by, watching, until it leads, then acts; until ``stop`` is set."""
    loop, elected = asyncio.get_running_loop(), asyncio.Event()
    standby = Standby(Kube(api), namespaces)

    def deposed(holder: str) -> None:
        # What it remembers of rollouts may be old by now. The next process remembers nothing, and stands by.
        end_process(f"{holder} leads")

    one = Leader(
        # A renewal that has to wait is as good as none.
        Kube(api, timeout=leader.TIMEOUT, tries=1),
        platform.namespace,
        leader.lease_name(namespaces),
        leader.identity(),
        elected=lambda: loop.call_soon_threadsafe(elected.set),
        deposed=deposed,
        stands_by=standby.start,
    )
    beat = watched(asyncio.create_task(pulse.beat(), name="pulse"))
    one.start()
    pulse.ready = lambda: bool(one.holder)
    try:
        await _first(elected, stop)
        if not stop.is_set():
            await _act(api, platform, namespaces, pulse, one, standby, stop)
    finally:
        pulse.ready = lambda: False
        standby.stop()
        beat.cancel()
        await asyncio.to_thread(one.resign)


async def _first(*events: asyncio.Event) -> None:
    """Until one of them is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _act(
    api: ApiClient,
    platform: Platform,
    namespaces: Sequence[str],
    pulse: Pulse,
    one: Leader,
    standby: Standby,
    stop: asyncio.Event,
) -> None:
    standby.stop()
    indexes = Indexes()
    kube = IndexedKube(api, indexes, one.leads)
    reconciler = Reconciler(kube, platform, Observer(kube), Recorder(kube))
    passes = Passes(reconciler.reconcile, OperatorMeters(), reconciler.glance, one.leads)
    pulse.hung = passes.hung
    passes.start()
    loop = asyncio.get_running_loop()

    def ask(namespace: str, name: str) -> None:
        with suppress(RuntimeError):  # the loop has just ended, and with it everything that could be asked
            loop.call_soon_threadsafe(passes.ask, namespace, name)

    renewal = watched(asyncio.create_task(_renew(kube.live, platform), name="certificates"))
    watches = Watches(kube.live, namespaces, ask, indexes, cluster_scoped=platform.cluster_scoped)
    watches.start()
    await asyncio.to_thread(watches.ask_for_all, LISTED_SECONDS, standby.news)
    LOG.info("started", extra={"data": {"namespaces": list(namespaces) or "all"}})
    try:
        await kopf.operator(
            registry=handlers.registry(passes, indexes),
            settings=handlers.settings(),
            clusterwide=not namespaces,
            namespaces=list(namespaces),
            standalone=True,
            stop_flag=stop,
        )
    finally:
        renewal.cancel()
        watches.stop()
        await passes.close()


async def _renew(kube: Kube, platform: Platform) -> None:
    """Looks each day whether a certificate of the trial stores is to be renewed."""
    servers, stores = platform.servers, platform.stores
    look = partial(
        fill_in,
        kube,
        platform.namespace,
        servers.secret,
        (),
        servers=servers.hosts,
        known_as=stores.redis_ca or stores.postgres_ca,
    )
    while servers.hosts:
        try:
            await asyncio.to_thread(look)
        except FraudError as error:
            LOG.warning("certificates weren't looked at", extra={"data": {"error": str(error)}})
        await asyncio.sleep(A_DAY)


async def _main(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pulse = Pulse()
    api = load_client()
    server = health_server(pulse, options.port, Kube(api), options.namespace)
    server.start()
    try:
        await operate(api, load_platform(), options.namespace, pulse, stop)
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
