"""One queue for each detector: any number of events while a pass runs lead to one further pass."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from fraud_contracts.background import watched
from fraud_contracts.errors import FraudError
from fraud_operator.detector import DetectorKey
from fraud_operator.glances import Glance
from fraud_operator.meters import OperatorMeters
from fraud_operator.pass_result import PassResult

LOG: Final = logging.getLogger(__name__)

# Between passes while something is on its way that sends no events: lags, replicas, a rollout's gates.
SOON: Final = 3.0
# Passes that change nothing come less and less often, up to this.
SELDOM: Final = 12.0
# And up to this where all that is waited for sends events. The registry, time and what was missed nevertheless send none.
RESYNC: Final = 60.0
# Secrets send us no events, so they are glanced at, each detector's in its turn: so often, ...
GLANCE: Final = 5.0
# ... but so much time for each Secret, however many there are: half of what 200 idle detectors may cost the API server.
A_SECRET: Final = 0.4
# Events come in bursts: one apply of ours alone makes a dozen.
QUIET: Final = 0.2
# While many children come up their events never cease; a look a second is enough.
APART: Final = 1.0
LONGEST_RETRY: Final = 60.0
# While another operator may lead.
LAPSE: Final = 0.5
# No pass takes as long: each of its requests has a time limit, and the first that isn't answered ends it.
HUNG: Final = 600.0


def _always() -> bool:
    return True


@dataclass
class Passes:
    """``run`` and ``glance`` are synchronous and go to a thread; passes of one detector never overlap.

    None begins while ``leads`` says no.
    """

    run: Callable[[str, str], PassResult]
    meters: OperatorMeters
    glance: Callable[[str, str], Glance]
    leads: Callable[[], bool] = _always
    # Passes wait for answers far more than they compute: a Kafka that gives none must not hold up the other detectors.
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16, "pass"))
    _wake: dict[DetectorKey, asyncio.Event] = field(default_factory=dict)
    _tasks: dict[DetectorKey, asyncio.Task[None]] = field(default_factory=dict)
    # Since when the passes that are running do so.
    _running: dict[DetectorKey, float] = field(default_factory=dict)
    _glances: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to glance at Secrets; passes begin with the first ``ask``."""
        self._glances = watched(
            asyncio.get_running_loop().create_task(self._glance_in_turn(), name="glances")
        )

    def ask(self, namespace: str, name: str) -> None:
        """Something may have changed for this detector."""
        key = (namespace, name)
        self._wake.setdefault(key, asyncio.Event()).set()
        if key not in self._tasks:
            self._tasks[key] = watched(
                asyncio.get_running_loop().create_task(self._serve(key), name=f"passes {namespace}/{name}")
            )

    def hung(self) -> str:
        """Which pass has run longer than any may; empty where none has. For any thread."""
        now = time.monotonic()
        for (namespace, name), since in list(self._running.items()):
            if now - since > HUNG:
                return f"the pass of {namespace}/{name} has run for {now - since:.0f} s"
        return ""

    async def _serve(self, key: DetectorKey) -> None:
        wake, failures, started, look = self._wake[key], 0, time.monotonic() - APART, SOON
        while True:
            await asyncio.sleep(max(QUIET, started + APART - time.monotonic()))
            if not self.leads():
                await asyncio.sleep(LAPSE)
                continue
            wake.clear()
            started = time.monotonic()
            try:
                outcome = await asyncio.get_running_loop().run_in_executor(self.pool, self._run, key)
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
            if outcome.ready is None and not wake.is_set():
                del self._wake[key], self._tasks[key]
                return
            if outcome.overtaken:
                continue
            longest = SELDOM if outcome.unwatched else RESYNC
            look = SOON if outcome.changed else min(longest, look * 1.5)
            await self._pause(wake, _spread(RESYNC) if outcome.settled else look)

    def _run(self, key: DetectorKey) -> PassResult:
        self._running[key] = time.monotonic()
        try:
            return self.run(*key)
        finally:
            del self._running[key]

    async def _glance_in_turn(self) -> None:
        """A Secret that differs from what was last seen asks for a pass."""
        requests = 0
        while True:
            keys = list(self._tasks)
            for key in keys:
                await asyncio.sleep(max(GLANCE / len(keys), requests * A_SECRET))
                requests = 0
                if self.leads() and key not in self._running:
                    differs, requests = await self._glance(key)
                    if differs:
                        self.ask(*key)
            if not keys:
                await asyncio.sleep(GLANCE)

    async def _glance(self, key: DetectorKey) -> Glance:
        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, self.glance, *key)
        except (FraudError, ValueError) as error:
            LOG.info("glance failed", extra={"data": {"detector": ".".join(key), "error": str(error)}})
        except Exception:
            # A fault of ours, as in a pass: without this task nobody would look at any Secret any more.
            LOG.exception("glance broke", extra={"data": {"detector": ".".join(key)}})
        return Glance(differs=False, requests=1)

    async def _pause(self, wake: asyncio.Event, seconds: float) -> bool:
        """Whether something came."""
        try:
            # Not wait_for, which loses a cancellation that comes together with what it waits for: close would wait for ever.
            async with asyncio.timeout(seconds):
                await wake.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        tasks = [*self._tasks.values(), *([self._glances] if self._glances is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.pool.shutdown(wait=False, cancel_futures=True)


def _spread(seconds: float) -> float:
    """About so long: detectors that began together don't ask the registry together for ever."""
    return random.uniform(0.8 * seconds, seconds)
