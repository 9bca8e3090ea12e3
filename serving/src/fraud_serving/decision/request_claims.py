"""The inline door's claims: taking an id for a decision, and what its claim is to say afterwards."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from fraud_contracts import metrics
from fraud_contracts.errors import Degraded, StoreError
from fraud_contracts.names import Identity
from fraud_contracts.records import Decision
from fraud_process.instruments import Instruments
from fraud_serving import claims
from fraud_serving.claims import Claim
from fraud_serving.clients.redis_link import RedisLink, wrong_type
from fraud_serving.decision.errors import IdReusedError
from fraud_serving.ruling import with_mark
from fraud_serving.wholeness import Wholeness

_TRIES: Final = 3
_MARK_SECONDS: Final = 0.02
# Whoever asks for a stored answer has no deadline but their client's own, and a node where much begins at once may stand still for a second.
_FIND_SECONDS: Final = 5.0
_log = logging.getLogger(__name__)


class RequestClaims:
    def __init__(
        self, redis: RedisLink, of: Identity, instruments: Instruments, id_field: str, wholeness: Wholeness
    ) -> None:
        self._redis, self._of, self._instruments, self._id_field = redis, of, instruments, id_field
        self._wholeness = wholeness
        self._appended: list[claims.ClaimRef] = []

    def read(self, event_id: str, value: bytes | None) -> tuple[Claim | None, list[str]]:
        """The claim in a stored value, and the marks of a decision that is made without it.

        What isn't a claim is as good as lost: it is counted, and the decision says that an earlier one may stand.
        """
        try:
            return claims.read(value, event_id), []
        except ValueError as error:
            self._instruments.unreadable("claim", id=event_id, error=str(error))
            return None, [Degraded.IDEMPOTENCY]

    async def find(self, event_id: str) -> Claim | None:
        """The claim of an id while it lives; StoreError where Redis is away."""
        [value] = await self._redis.each([("GET", self._of.redis_claim(event_id))], seconds=_FIND_SECONDS)
        return self.read(event_id, b"" if wrong_type(value) else value)[0]

    def check_body(self, claim: Claim, body_hash: str) -> None:
        """IdReusedError (409) where the id was claimed with another body; else the request is a repeat."""
        if not claim.is_of(body_hash):
            self._instruments(metrics.CONFLICTS, door="inline").inc()
            raise IdReusedError(self._id_field)
        self._instruments(metrics.REPEATS, door="inline").inc()

    async def take(
        self, decision: Decision, instead_of: bytes, seconds: float
    ) -> tuple[Decision, Claim | None]:
        """The decision that is the id's now, and None; or the claim of whoever decided this id meanwhile.

        ``instead_of`` are the bytes that were read where a claim should be. Where Redis doesn't say within ``seconds`` whether the claim was
        stored, the decision is marked: if it was, a retry finds it; if not, the ledger guards.
        """
        key = self._of.redis_claim(decision["id"])
        try:
            for _ in range(_TRIES):
                attempt = claims.ClaimAttempt(key, claims.pack(decision, appended=False), instead_of)
                now = int(time.time() * 1000)
                witness = self._wholeness.bear_witness(now)
                commands = [claims.take([attempt], self._of.redis_due, now), witness.command]
                [[held], reply] = await self._redis.many(commands, seconds)
                self._wholeness.confirmed(witness, reply, now)
                if held is None:
                    return decision, None
                claim, marks = self.read(decision["id"], held)
                if claim is not None:
                    return decision, claim
                instead_of = held
                if marks:
                    decision = with_mark(decision, Degraded.IDEMPOTENCY)
        except StoreError as error:
            _log.warning("no claim", extra={"data": {"store": "redis", "error": error.message}})
        # Redis didn't answer, or what lies under the id is no claim and changes all the time.
        return with_mark(decision, Degraded.IDEMPOTENCY), None

    def put_back(self, decision: Decision, instead_of: bytes) -> None:
        """Claims an id again as what the ledger holds of it; ``instead_of`` as for ``take``. Nobody waits for it."""
        value = claims.pack(decision, appended=True, published=True)
        attempt = claims.ClaimAttempt(self._of.redis_claim(decision["id"]), value, instead_of)
        self._redis.post([claims.take([attempt], self._of.redis_due, int(time.time() * 1000))])

    async def mark_kafka_loss(self, decision: Decision, seconds: float) -> Decision:
        """Marks the decision, in its claim too, so that a retry gets the same answer.

        Where Redis doesn't take the mark within ``seconds``, the decision gets another one: a retry may be answered otherwise.
        """
        marked = with_mark(decision, Degraded.KAFKA_UNAVAILABLE)
        rewrite = claims.rewrite(self._of.redis_claim(marked["id"]), marked)
        try:
            if await self._redis.call(*rewrite, seconds=seconds):
                return marked
        except StoreError as error:
            _log.info("claim not marked", extra={"data": {"error": error.message}})
        return with_mark(marked, Degraded.IDEMPOTENCY)

    def mark_appended(self, decision: Decision) -> None:
        """Marks the claim as appended, a moment later and together with others.

        The mark may be lost: a retry then appends the record once more.
        """
        if not self._appended:
            asyncio.get_running_loop().call_later(_MARK_SECONDS, self.flush)
        key = self._of.redis_claim(decision["id"])
        self._appended.append(claims.ClaimRef(key, decision["hash"], decision["decided"]))

    def flush(self) -> None:
        """Sends the marks that wait."""
        refs, self._appended = self._appended, []
        if refs:
            self._redis.post([claims.mark_appended(refs)])
