"""One queue for each detector: any number of events while a pass runs lead to one further pass."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from fraud_contracts.background import watched
from fraud_contracts.errors import FraudError
from fraud_operator.detector import DetectorKey
from fraud_operator.meters import OperatorMeters
from fraud_operator.reconcile import PassResult

LOG: Final = logging.getLogger(__name__)

# Between passes while something is on its way, since lags and replicas send no events.
SOON: Final = 3.0
# Passes that change nothing come less and less often, up to this.
SELDOM: Final = 12.0
# A settled detector's children send events; this is for what was missed nevertheless.
RESYNC: Final = 60.0
# Secrets send us no events, so they are glanced at.
GLANCE: Final = 5.0
# Events come in bursts: one apply of ours alone makes a dozen.
QUIET: Final = 0.2
# While many children come up their events never cease; a look a second is enough.
APART: Final = 1.0
LONGEST_RETRY: Final = 60.0


@dataclass
class Passes:
    """``run`` and ``glance`` are synchronous and go to a thread; passes of one detector never overlap."""

    run: Callable[[str, str], PassResult]
    meters: OperatorMeters
    glance: Callable[[str, str], bool]
    # Passes wait for answers far more than they compute: a Kafka that gives none must not hold up the other detectors.
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16, "pass"))
    _wake: dict[DetectorKey, asyncio.Event] = field(default_factory=dict)
    _tasks: dict[DetectorKey, asyncio.Task[None]] = field(default_factory=dict)

    def ask(self, namespace: str, name: str) -> None:
        """Something may have changed for this detector."""
        key = (namespace, name)
        self._wake.setdefault(key, asyncio.Event()).set()
        if key not in self._tasks or self._tasks[key].done():
            self._tasks[key] = watched(
                asyncio.get_running_loop().create_task(self._serve(key), name=f"passes {namespace}/{name}")
            )

    async def _serve(self, key: DetectorKey) -> None:
        wake, failures, started, look = self._wake[key], 0, time.monotonic() - APART, SOON
        while True:
            await asyncio.sleep(max(QUIET, started + APART - time.monotonic()))
            wake.clear()
            started = time.monotonic()
            try:
                outcome = await asyncio.get_running_loop().run_in_executor(self.pool, self.run, *key)
            except FraudError as error:
                failures += 1
                self.meters.passed("retry", time.monotonic() - started)
                LOG.warning("pass failed", extra={"data": {"detector": ".".join(key), "error": str(error)}})
                await self._pause(wake, min(LONGEST_RETRY, SOON * 2 ** min(failures, 5)))
                continue
            except Exception:
                # A fault of ours in one detector must not stop the others; it is counted, logged whole and tried again.
                failures += 1
                self.meters.passed("error", time.monotonic() - started)
                LOG.exception("pass broke", extra={"data": {"detector": ".".join(key)}})
                await self._pause(wake, min(LONGEST_RETRY, SOON * 2 ** min(failures, 5)))
                continue
            failures = 0
            self.meters.passed("ok", time.monotonic() - started)
            self.meters.observed(".".join(key), outcome)
            if outcome.ready is None:
                self._wake.pop(key, None)
                return
            look = SOON if outcome.changed else min(SELDOM, look * 1.5)
            await self._rest(key, wake, RESYNC if outcome.settled else look)

    async def _rest(self, key: DetectorKey, wake: asyncio.Event, seconds: float) -> None:
        """Until something comes, a Secret differs or the time is over."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if await self._pause(wake, min(left, GLANCE)):
                return
            try:
                if await asyncio.get_running_loop().run_in_executor(self.pool, self.glance, *key):
                    return
            except (FraudError, ValueError) as error:
                LOG.info("glance failed", extra={"data": {"detector": ".".join(key), "error": str(error)}})
            except Exception:
                # A fault of ours, as in a pass: without this task nobody would look at the detector any more.
                LOG.exception("glance broke", extra={"data": {"detector": ".".join(key)}})

    async def _pause(self, wake: asyncio.Event, seconds: float) -> bool:
        """Whether something came."""
        try:
            await asyncio.wait_for(wake.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.pool.shutdown(wait=False, cancel_futures=True)
