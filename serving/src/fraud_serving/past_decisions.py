"""Decisions of ids whose claims Redis has lost or shrunk, as the ledger holds them. Asked on a thread of its own, so that no door waits for it longer than it will.

What it found takes the place of a claim: published, since the ledger reads what is published.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol

from fraud_contracts import metrics
from fraud_contracts.errors import StoreError
from fraud_process.instruments import Instruments
from fraud_serving import stored_records
from fraud_serving.claims import Claim
from fraud_serving.clients.ledger_link import Look
from fraud_serving.cooldown import CoolDown
from fraud_serving.wholeness import Mark

_LEDGER: Final = "ledger"
_log = logging.getLogger(__name__)


class Ledger(Protocol):
    """StoreError where it doesn't answer."""

    def look(self, ids: Sequence[str]) -> Look: ...


class Past(NamedTuple):
    """What is known of an id: its claim, had it been kept, or None; then ``certain`` says that it wasn't decided before the loss."""

    claim: Claim | None
    certain: bool


class PastDecisions:
    def __init__(self, ledger: Ledger, instruments: Instruments, door: str) -> None:
        self._ledger, self._instruments, self._door = ledger, instruments, door
        self._cool_down = CoolDown(failures=1)
        self._asker = ThreadPoolExecutor(1, _LEDGER)
        self._asked: Future[Look] | None = None

    def ask(self, ids: Sequence[str]) -> Future[Look] | None:
        """The answer to be; None while the ledger rests after a failure, or has not answered an earlier question."""
        if self._asked is not None and not self._asked.done():
            return None
        if not self._cool_down.take_turn(_LEDGER, time.monotonic()):
            return None
        self._asked = self._asker.submit(self._ledger.look, ids)
        return self._asked

    def answered(self) -> None:
        self._cool_down.answered(_LEDGER)

    def failed(self, error: StoreError) -> None:
        """It didn't answer: the next questions don't wait for it."""
        _log.warning("no past decisions", extra={"data": {"store": _LEDGER, "error": error.message}})
        self.late()

    def late(self) -> None:
        """It hasn't answered in time."""
        self._cool_down.failed(_LEDGER, time.monotonic())

    def wait(self, ids: Sequence[str], seconds: float) -> Look | None:
        """The answer, waited for so long; None where there is none."""
        asked = self.ask(ids)
        if asked is None:
            return None
        try:
            look = asked.result(seconds)
        except StoreError as error:
            self.failed(error)
            return None
        except TimeoutError:
            self.late()
            return None
        self.answered()
        return look

    def read(self, event_id: str, look: Look | None, mark: Mark) -> Past:
        """What an answer says of an id; bytes that are no decision of it say nothing."""
        past, result = self._judge(event_id, look, mark)
        self._instruments(metrics.LEDGER_LOOKUPS, door=self._door, result=result).inc()
        return past

    def _judge(self, event_id: str, look: Look | None, mark: Mark) -> tuple[Past, str]:
        if look is None:
            return Past(None, False), "away"
        record = look.decisions.get(event_id)
        if record is not None:
            try:
                decision = stored_records.read_decision(record, event_id)
            except ValueError as error:
                self._instruments.unreadable("decision", id=event_id, error=str(error))
                return Past(None, False), "away"
            return Past(Claim(decision["hash"], decision, appended=True, published=True), True), "found"
        # An earlier state of the ledger, put back, isn't as far as it was.
        certain = bool(mark.ledger) and all(
            look.reached.get((one.lineage, one.partition), 0) >= one.following for one in mark.ledger
        )
        return Past(None, certain), "absent" if certain else "behind"
