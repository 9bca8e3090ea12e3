"""Asks the ledger for ids of requests: those whose claims may be lost, and those whose claims are shrunk.

Those that come while it answers are its next question.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fraud_contracts.background import watched
from fraud_contracts.errors import StoreError
from fraud_serving.claims import Claim
from fraud_serving.clients.ledger_link import Look
from fraud_serving.past_decisions import Past, PastDecisions
from fraud_serving.wholeness import Mark

# At most, however long the deadline is.
_SECONDS: Final = 0.05
_AT_ONCE: Final = 256
# Nothing can be decided in the place of a published decision, so whoever asks for one waits longer than a deadline.
_RECALL_SECONDS: Final = 1.0
# It was decided for certain: a ledger that lacks it is behind.
_PUBLISHED: Final = Mark(0)


class PastRequests:
    def __init__(self, past: PastDecisions) -> None:
        self._past = past
        self._waiting: dict[str, asyncio.Future[Look | None]] = {}
        self._asking: asyncio.Task[None] | None = None
        # Somebody has waited in vain for the question that is out: nobody else does.
        self._late = False
        # The same of a wait for _RECALL_SECONDS.
        self._silent = False

    async def find(self, event_id: str, mark: Mark, seconds: float) -> Past:
        """What the ledger says of an id within ``seconds``, or within 50 ms."""
        look = None
        if not self._late:
            look = await self._answer(event_id, min(_SECONDS, seconds))
        return self._past.read(event_id, look, mark)

    async def recall(self, event_id: str) -> Claim | None:
        """What the ledger holds of an id that was published, as its claim was; None where it doesn't say so in _RECALL_SECONDS."""
        look = None
        if not self._silent:
            look = await self._answer(event_id, _RECALL_SECONDS)
            self._silent = self._late and look is None
        return self._past.read(event_id, look, _PUBLISHED).claim

    async def _answer(self, event_id: str, seconds: float) -> Look | None:
        answer = self._waiting.get(event_id)
        if answer is None:
            answer = self._waiting[event_id] = asyncio.get_running_loop().create_future()
        if self._asking is None or self._asking.done():
            self._asking = watched(asyncio.create_task(self._ask(), name="past decisions"))
        await asyncio.wait([answer], timeout=seconds)
        if answer.done():
            return answer.result()
        self._past.late()
        self._late = not self._asking.done()
        self._waiting.pop(event_id, None)
        return None

    async def _ask(self) -> None:
        while self._waiting:
            some = dict(list(self._waiting.items())[:_AT_ONCE])
            for event_id in some:
                del self._waiting[event_id]
            look = await self._look(list(some))
            self._late = self._silent = False
            for answer in some.values():
                answer.set_result(look)

    async def _look(self, ids: list[str]) -> Look | None:
        asked = self._past.ask(ids)
        if asked is None:
            return None
        try:
            look = await asyncio.wrap_future(asked)
        except StoreError as error:
            self._past.failed(error)
            return None
        self._past.answered()
        return look
