"""One inline decision, step by step. HTTP is in ``app``; the judgement itself is ``fraud_serving.ruling``.

Four round trips in order: Redis (pending, claim, profiles), predictor, Redis (claim), Kafka. Within a day of a loss of claims
the ledger is asked for an id that has none, between the first and the second (docs/decisions/0020), and at any time for the answer of
one whose claim is shrunk (docs/decisions/0023). The claim and the append are never overlapped: what is appended must be what the winner
of the claim decided. Each step has what is left of one deadline (``request_clock``).
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import orjson

from fraud_contracts import metrics
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import Degraded
from fraud_contracts.records import Decision, Event
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import FeatureSet, compile_detector
from fraud_process.instruments import Instruments
from fraud_serving.claims import Claim
from fraud_serving.clients.kafka_log import KafkaLog
from fraud_serving.clients.redis_link import RedisLink
from fraud_serving.decision.accepted_log import AcceptedLog
from fraud_serving.decision.errors import NoReleaseError, NotRecalledError, NotRecordedError
from fraud_serving.decision.inline_vector import InlineVector, compute_inline
from fraud_serving.decision.past_requests import PastRequests
from fraud_serving.decision.profile_reader import ProfileReader, ProfileSnapshot, are_too_many
from fraud_serving.decision.profiles_age import ProfilesAge
from fraud_serving.decision.request_claims import RequestClaims
from fraud_serving.decision.request_clock import CLAIMED, READ, RECALLED, RequestClock
from fraud_serving.decision.scoring import RequestScorer
from fraud_serving.past_decisions import Ledger, PastDecisions
from fraud_serving.policy import Tally
from fraud_serving.release_in_use import ReleaseInUse
from fraud_serving.ruling import Case, Ruling
from fraud_serving.wholeness import Mark, Wholeness

_log = logging.getLogger(__name__)
# However late it is: others have seen the event by then, so it is claimed and recorded, whatever its caller is told.
_CLAIM_PART: Final = 0.2
_ANSWERED: Final = (
    "id", "action", "score", "probability", "reasons", "release", "model_version", "model_digest", "arm", "degraded",
    "decided", "latency_ms",
)  # fmt: skip


def answer(decision: Decision) -> bytes:
    """What a caller gets: always made from the stored decision, so a retry gets the same bytes."""
    return orjson.dumps({name: decision[name] for name in _ANSWERED})  # type: ignore[literal-required]  # names of the record


class DecisionService:
    """Everything that one replica needs to decide."""

    def __init__(
        self,
        config: DetectorConfig,
        tokeniser: Tokeniser,
        redis: RedisLink,
        log: KafkaLog,
        ledger: Ledger,
        age: ProfilesAge,
        instruments: Instruments,
    ) -> None:
        self._age = age
        self.config, self.tokeniser, self.redis, self.log = config, tokeniser, redis, log
        self.instruments = instruments
        self.identity = config.identity
        self.schema = EventSchema(config.spec.event, config.spec.entities)
        self.features: FeatureSet = compile_detector(config.spec)
        if self.features.hash != config.feature_set:
            raise ValueError("this image computes another feature set than the detector document asks for")
        self.release = ReleaseInUse(config, self.features.names, tokeniser, instruments, "inline")
        self.scorer = RequestScorer(config.name)
        wholeness = Wholeness(self.identity, instruments)
        self._profiles = ProfileReader(redis, config, self.features, wholeness, age)
        self._claims = RequestClaims(redis, self.identity, instruments, config.spec.event.id.field, wholeness)
        self._past = PastRequests(PastDecisions(ledger, instruments, "inline"))
        redis.on_connection = self._profiles.notice_loss
        self._accepted = AcceptedLog(
            log, self.identity.topic("accepted"), config.spec.entities[0].name, self._claims, instruments
        )
        self._tally = Tally()

    @property
    def deadline(self) -> float:
        """Seconds that a request has; without a release none is decided, and it doesn't matter."""
        return self.release.ruling.deadline if self.release.ruling is not None else 1.0

    async def decide(self, raw: bytes, arrived: float | None = None) -> bytes:
        """The answer to one transaction; EventError or RequestRefusedError where there is none.

        ``arrived`` is when it came, by perf_counter; now where that isn't said.
        """
        timer, now = _StepTimer(self.instruments, arrived), int(time.time() * 1000)
        timer.done("queue")
        ruling = self.release.ruling
        if ruling is None:
            raise NoReleaseError
        clock = RequestClock(timer.start, ruling.deadline)
        event, body_hash = self.schema.parse(raw, self.tokeniser, now)
        timer.done("parse")
        snapshot = await self._profiles.read_and_add_pending(event, clock.left(READ))
        timer.done("read")
        try:
            earlier, marks = self._claims.read(event["id"], snapshot.claim)
            if earlier is None and snapshot.doubt is not None:
                earlier = await self._find_past(
                    event["id"], snapshot, snapshot.doubt, clock.left(RECALLED), marks
                )
            if earlier is not None:
                if earlier.appended:
                    self._profiles.take_out(snapshot)  # the stream has it for long
                return await self._answer_again(ruling, clock, event["id"], earlier, body_hash)
            inline = self._compute(event, snapshot)
            timer.done("features")
            score = await self.scorer.score(ruling, event, inline.vector, clock)
            timer.done("model")
            marks += snapshot.degraded + inline.degraded
            if self._age.seconds(time.monotonic()) > ruling.staleness:
                marks.append(Degraded.PROFILES_STALE)
            case = Case(event, body_hash, self.features.hash, inline.vector, inline.saw, "inline", marks)
            decision = ruling.judge(case, score, self._tally.counts(now), now)
            decision["latency_ms"] = timer.elapsed_ms()
            timer.done("policy")
            if not snapshot.away:
                seconds = clock.left(CLAIMED, at_least=_CLAIM_PART)
                decision, earlier = await self._claims.take(decision, snapshot.claim or b"", seconds)
                if earlier is not None:
                    return await self._answer_again(ruling, clock, event["id"], earlier, body_hash)
            timer.done("claim")
            self._tally.note(decision["action"], now)
            self._profiles.prune(snapshot, inline.applied)
            recorded = await self._accepted.record(decision, ruling.policy.fallback.on_kafka_loss, clock)
            timer.done("append")
            if Degraded.KAFKA_UNAVAILABLE not in recorded["degraded"]:
                self._age.accepted(time.monotonic())
            self._count(decision, time.perf_counter() - timer.start)
            return answer(recorded)
        except NotRecordedError:
            raise  # decided: its retry records it
        except Exception:
            self._profiles.take_out(snapshot)  # what isn't decided must not be counted
            raise

    async def _find_past(
        self, event_id: str, snapshot: ProfileSnapshot, doubt: Mark, seconds: float, marks: list[str]
    ) -> Claim | None:
        """What the ledger holds of an id whose claim may be lost; where it can't say for certain that it is none, a mark more."""
        claim, certain = await self._past.find(event_id, doubt, seconds)
        if claim is not None and claim.decision is not None:
            self._claims.put_back(claim.decision, snapshot.claim or b"")
        elif not certain:
            marks.append(Degraded.IDEMPOTENCY)
        return claim

    async def _answer_again(
        self, ruling: Ruling, clock: RequestClock, event_id: str, claim: Claim, body_hash: str
    ) -> bytes:
        """The stored answer of an id that was claimed before, recorded if it isn't; IdReusedError for another body."""
        decision = claim.decision
        if decision is None and claim.is_of(body_hash):
            claim, decision = await self._recall(event_id, claim)
        self._claims.check_body(claim, body_hash)
        assert decision is not None, "a shrunk claim of another body is refused"
        if claim.appended:
            return answer(decision)
        return answer(await self._accepted.record(decision, ruling.policy.fallback.on_kafka_loss, clock))

    async def _recall(self, event_id: str, claim: Claim) -> tuple[Claim, Decision]:
        """What the ledger holds of an id whose claim is shrunk; NotRecalledError where it doesn't say."""
        recalled = await self._past.recall(event_id)
        if recalled is None or recalled.decision is None:
            place = None if claim.place is None else claim.place._asdict()
            _log.warning("not recalled", extra={"data": {"id": event_id, "decisions": place}})
            raise NotRecalledError
        return recalled, recalled.decision

    def _compute(self, event: Event, snapshot: ProfileSnapshot) -> InlineVector:
        """The vector of what Redis held; what of it couldn't be read is counted, and a profile that lacks too much is marked."""
        inline = compute_inline(
            self.features, event, snapshot.profiles, snapshot.pending, snapshot.complete, self.config.epoch
        )
        for entity, entries in snapshot.pending.items():
            if are_too_many(len(entries) - len(inline.applied.get(entity, ()))):
                snapshot.degraded.append(Degraded.PROFILES_STALE)
        for what, entity in [*inline.unreadable, *(("pending", entity) for entity in snapshot.lost)]:
            self.instruments.unreadable(what, id=event["id"], entity=entity)
        return inline

    async def find(self, event_id: str) -> bytes | None:
        """The stored answer of an id, while its claim lives; StoreError where Redis is away, NotRecalledError where the ledger is."""
        claim = await self._claims.find(event_id)
        if claim is None:
            return None
        return answer(claim.decision or (await self._recall(event_id, claim))[1])

    async def drain(self, seconds: float) -> None:
        """Waits for what runs in the background, as long as it helps."""
        self._claims.flush()
        await self._accepted.drain(seconds)
        self._claims.flush()

    async def warm_up(self) -> None:
        """Runs the code of a decision without its effects, so that the first callers don't pay for it."""
        entities: dict[str, str | None] = {
            entity.name: f"warm-up-{entity.name}" for entity in self.config.spec.entities
        }
        fields: dict[str, Any] = {field.name: None for field in self.config.spec.event.fields}
        event: Event = {
            "id": "warm-up",
            "time": int(time.time() * 1000),
            "amount": 1,
            "currency": None,
            "entities": entities,
            "fields": fields,
        }
        profiles: dict[str, bytes | None] = dict.fromkeys(entities)
        for _ in range(50):
            inline = compute_inline(self.features, event, profiles, {}, True, self.config.epoch)
        await self._profiles.warm_up(event)
        ruling = self.release.ruling
        if ruling is not None and ruling.stable is not None and inline.vector is not None:
            for _ in range(10):
                await self.scorer.predict(ruling.stable, inline.vector, 1.0)

    def _count(self, decision: Decision, seconds: float) -> None:
        count = self.instruments
        count(metrics.DECISION_SECONDS).observe(seconds)
        count(
            metrics.DECISIONS, door="inline", action=decision["action"], arm=decision["arm"] or "none"
        ).inc()
        for mark in decision["degraded"]:
            count(metrics.DEGRADED, door="inline", degraded=mark).inc()


class _StepTimer:
    """Measures the steps of one request, each from the end of the one before. Times are of ``perf_counter``, in seconds.

    The first begins when the request arrived, or now.
    """

    __slots__ = ("_instruments", "_last", "start")

    def __init__(self, instruments: Instruments, arrived: float | None) -> None:
        self._instruments = instruments
        self.start = self._last = time.perf_counter() if arrived is None else arrived

    def done(self, step: str) -> None:
        now = time.perf_counter()
        self._instruments(metrics.STEP_SECONDS, step=step).observe(now - self._last)
        self._last = now

    def elapsed_ms(self) -> float:
        return round((time.perf_counter() - self.start) * 1000, 3)
