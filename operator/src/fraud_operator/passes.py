"""One queue for each detector: any number of events while a pass runs lead to one further pass."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from fraud_contracts.errors import FraudError
from fraud_operator.meters import Meters
from fraud_operator.reconcile import Outcome

LOG: Final = logging.getLogger(__name__)
Key = tuple[str, str]

# While something is on its way it is looked at often: not everything that we wait for sends us an event (lags, replicas).
SOON: Final = 3.0
# A settled detector is looked at for drift, and for children whose kinds send no events.
RESYNC: Final = 20.0
# Events come in bursts: one apply of ours alone makes a dozen.
QUIET: Final = 0.2
# While many children come up their events never cease; a look a second is enough.
APART: Final = 1.0
LONGEST_RETRY: Final = 60.0


@dataclass
class Passes:
    """``run`` is synchronous and goes to a thread; passes of one detector never overlap."""

    run: Callable[[str, str], Outcome]
    meters: Meters
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "pass"))
    _wake: dict[Key, asyncio.Event] = field(default_factory=dict)
    _tasks: dict[Key, asyncio.Task[None]] = field(default_factory=dict)
    alive: float = field(default_factory=time.monotonic)

    def ask(self, namespace: str, name: str) -> None:
        """Something may have changed for this detector."""
        key = (namespace, name)
        self._wake.setdefault(key, asyncio.Event()).set()
        if key not in self._tasks or self._tasks[key].done():
            self._tasks[key] = asyncio.get_running_loop().create_task(
                self._serve(key), name=f"passes {namespace}/{name}"
            )

    async def _serve(self, key: Key) -> None:
        wake, failures, started = self._wake[key], 0, time.monotonic() - APART
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
            self.alive = time.monotonic()
            self.meters.passed("ok", time.monotonic() - started)
            self.meters.observed(".".join(key), outcome)
            if outcome.ready is None:
                self._wake.pop(key, None)
                return
            await self._pause(wake, RESYNC if outcome.settled else SOON)

    async def _pause(self, wake: asyncio.Event, seconds: float) -> None:
        try:
            await asyncio.wait_for(wake.wait(), seconds)
        except TimeoutError:
            return  # nothing came: time for a look of our own

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.pool.shutdown(wait=False, cancel_futures=True)
