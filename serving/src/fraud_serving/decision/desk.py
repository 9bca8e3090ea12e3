"""One inline decision, step by step. HTTP is in ``app``; the judgement itself is ``fraud_serving.deciding``.

Four round trips in order: Redis (pending, claim, profiles), predictor, Redis (claim), Kafka. The claim and the append are
never overlapped: what is appended must be what the winner of the claim decided.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Any, Final

import orjson
from prometheus_client import REGISTRY

from fraud_contracts import durations, metrics
from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector_policy import OnKafkaLoss
from fraud_contracts.errors import Degraded, Reason, StoreError
from fraud_contracts.records import Decision, Event
from fraud_contracts.release import Release
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import FeatureSet, compile_detector
from fraud_serving import claims, inline
from fraud_serving.claims import Claim
from fraud_serving.clients.kafka_log import KafkaLog
from fraud_serving.clients.redis_link import RedisLink, wrong_type
from fraud_serving.deciding import Ruling, decide, write_up
from fraud_serving.decision.recall import Recall, Recalled
from fraud_serving.decision.scoring import Scoring
from fraud_serving.instruments import Instruments
from fraud_serving.policy import Tally

# Profiles may use so much of the deadline; scoring says what the model is left.
_READ_PART: Final = 0.6
_LATE_APPENDS: Final = 10_000
_MARK_SECONDS: Final = 0.02
_CLAIM_SECONDS: Final = 0.05
_CLAIM_TRIES: Final = 3
_ANSWERED: Final = (
    "id", "action", "score", "probability", "reasons", "release", "model_version", "model_digest", "arm", "degraded",
    "decided", "latency_ms",
)  # fmt: skip
_log = logging.getLogger(__name__)


class RefusedError(Exception):
    """An answer other than a decision: HTTP status, stable code, text, field at fault."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field = status, code, message, field


def answer(decision: Decision) -> bytes:
    """What a caller gets: always made from the stored decision, so a retry gets the same bytes."""
    return orjson.dumps({name: decision[name] for name in _ANSWERED})  # type: ignore[literal-required]


class Desk:
    """Everything that one replica needs to decide. ``ruling`` is replaced whole when a release arrives."""

    def __init__(self, config: DetectorConfig, tokeniser: Tokeniser, redis: RedisLink, log: KafkaLog) -> None:
        self.config, self.tokeniser, self.redis, self.log = config, tokeniser, redis, log
        self.identity = config.identity
        self.schema = EventSchema(config.spec.event, config.spec.entities)
        self.features: FeatureSet = compile_detector(config.spec)
        if self.features.hash != config.feature_set:
            raise ValueError("this image computes another feature set than the detector document asks for")
        self.recall = Recall(redis, config)
        self.scoring = Scoring(config.name)
        self.ruling: Ruling | None = None
        self.tally = Tally()
        self.instruments = Instruments(REGISTRY, detector=str(self.identity))
        self._accepted = self.identity.topic("accepted")
        self._first = config.spec.entities[0].name
        self._background: set[asyncio.Task[Any]] = set()
        self._marks: list[claims.Own] = []

    def use(self, release: Release) -> None:
        """Takes a release; problems in it are told, what can't be used of it is left out."""
        ruling = Ruling(release, self.config.spec, self.config.feature_set, self.tokeniser)
        for problem in ruling.problems:
            _log.error("release has a problem", extra={"data": {"release": release.name, "problem": problem}})
        info = metrics.RELEASE_INFO
        if self.ruling is not None:
            old = self.ruling.release
            self.instruments(
                info, release=old.name, model_version=old.stable.version if old.stable else ""
            ).set(0)
        version = release.stable.version if release.stable else ""
        self.instruments(info, release=release.name, model_version=version).set(1)
        self.ruling = ruling

    async def decide(self, raw: bytes) -> bytes:
        """The answer to one transaction; EventError or RefusedError where there is none."""
        start, now = time.perf_counter(), int(time.time() * 1000)
        ruling = self.ruling
        if ruling is None:
            raise RefusedError(503, "no_release", "no release has arrived yet; retry in a moment")
        event, body_hash = self.schema.parse(raw, self.tokeniser, now)
        at = self._step("parse", start)
        deadline = durations.to_ms(ruling.policy.fallback.deadline) / 1000
        keys, entry = inline.keys(self.features, event), orjson.dumps(event)
        degraded: list[str] = []
        try:
            read = await self.recall.read(event["id"], entry, keys, deadline * _READ_PART)
        except StoreError:
            degraded += [Degraded.IDEMPOTENCY, Degraded.PROFILES_UNAVAILABLE]
            read = Recalled(None, {entity: None for entity, _ in keys}, {}, True, away=True)
        at = self._step("read", at)
        try:
            claim = self._read_claim(event["id"], read.claim, degraded)
            if claim is not None:
                if claim.appended:
                    self.recall.take_out(read.added, entry)  # the stream has it for long
                return await self._claimed(body_hash, claim)
            return await self._judge(
                ruling, event, body_hash, keys, read, degraded, (start, at, deadline), now
            )
        except Exception as error:
            # What isn't decided must not be counted; what is decided, but not recorded, its retry records.
            if not (isinstance(error, RefusedError) and error.status == 503):
                self.recall.take_out(read.added, entry)
            raise

    async def _judge(
        self,
        ruling: Ruling,
        event: Event,
        body_hash: str,
        keys: list[tuple[str, str]],
        read: Recalled,
        degraded: list[str],
        clock: tuple[float, float, float],
        now: int,
    ) -> bytes:
        start, at, deadline = clock
        made = inline.compute(
            self.features, event, read.profiles, read.pending, read.complete, self.config.epoch
        )
        degraded += made.degraded
        if read.lost and Degraded.PROFILES_INCOMPLETE not in degraded:
            degraded.append(Degraded.PROFILES_INCOMPLETE)
        for what, entity in [*made.unreadable, *(("pending", entity) for entity in read.lost)]:
            self.instruments.unreadable(what, id=event["id"], entity=entity)
        at = self._step("features", at)
        route, score = ruling.route(event), None
        if made.vector is not None:
            routed = route.arm
            route, score = await self.scoring.score(ruling, route, made.vector, start, deadline)
            if route.arm != routed:
                degraded.append(Degraded.CANDIDATE_UNAVAILABLE)
        at = self._step("model", at)
        verdict = decide(
            ruling,
            route,
            event,
            made.vector,
            self.features.names,
            score,
            degraded,
            self.tally.counts(now),
            now,
        )
        for rule in verdict.failed_rules:
            self.instruments(metrics.RULES_FAILED, door="inline", rule=rule).inc()
        decision = write_up(
            ruling,
            route,
            verdict,
            score,
            door="inline",
            event=event,
            body_hash=body_hash,
            feature_set=self.features.hash,
            vector=made.vector,  # type: ignore[arg-type]
            saw=made.saw,
            now=now,
        )
        decision["latency_ms"] = round((time.perf_counter() - start) * 1000, 3)
        at = self._step("policy", at)
        if not read.away:
            try:
                winner = await self._claim(decision, read.claim or b"", max(deadline, _CLAIM_SECONDS))
            except StoreError:
                # It may or may not have been stored. If it was, a retry finds this decision; if not, the ledger guards.
                decision["degraded"] = sorted({*decision["degraded"], Degraded.IDEMPOTENCY})
                winner = None
            if winner is not None:
                return await self._claimed(body_hash, winner)
        at = self._step("claim", at)
        self.tally.note(decision["action"], now)
        self.recall.tidy(keys, read.pending, made.applied)
        reply = await self._append(decision)
        self._step("append", at)
        self._count(decision, time.perf_counter() - start)
        return reply

    async def _claim(self, decision: Decision, instead_of: bytes, seconds: float) -> Claim | None:
        """None: ours now. Else somebody decided this id, while we did. ``instead_of`` was read where a claim should be."""
        key, degraded = self.identity.redis_claim(decision["id"]), list(decision["degraded"])
        for _ in range(_CLAIM_TRIES):
            taking = claims.Taking(key, claims.pack(decision, appended=False), instead_of)
            [held] = await self.redis.call(*claims.take([taking]), seconds=seconds)
            if held is None:
                return None
            claim = self._read_claim(decision["id"], held, degraded)
            if claim is not None:
                return claim
            decision["degraded"], instead_of = sorted(set(degraded)), held
        raise StoreError("redis", "what lies under the id is no claim and changes all the time")

    def _read_claim(self, event_id: str, value: bytes | None, degraded: list[str]) -> Claim | None:
        """What isn't a claim is as good as lost: it is counted, and the decision says that an earlier one may stand."""
        try:
            return claims.read(value, event_id)
        except ValueError as error:
            self.instruments.unreadable("claim", id=event_id, error=str(error))
            degraded.append(Degraded.IDEMPOTENCY)
            return None

    async def _claimed(self, body_hash: str, claim: Claim) -> bytes:
        """The stored answer of an id that was claimed before, or 409 where it was claimed with another body."""
        if claim.hash != body_hash:
            self.instruments(metrics.CONFLICTS, door="inline").inc()
            raise RefusedError(
                409,
                Reason.ID_REUSED,
                "this id was used with another body before",
                self.config.spec.event.id.field,
            )
        self.instruments(metrics.REPEATS, door="inline").inc()
        if not claim.appended:
            return await self._append(claim.decision)
        return answer(claim.decision)

    async def _append(self, decision: Decision) -> bytes:
        """Appends to ``accepted`` and gives the answer; without an acknowledgement the policy says what happens."""
        assert self.ruling is not None
        try:
            await self._append_once(decision)
            return answer(decision)
        except StoreError as error:
            _log.warning("not appended", extra={"data": {"error": error.message}})
            refuse = self.ruling.policy.fallback.on_kafka_loss is OnKafkaLoss.REFUSE
            if refuse or len(self._background) >= _LATE_APPENDS:
                raise RefusedError(
                    503,
                    Degraded.KAFKA_UNAVAILABLE,
                    "decided, but not recorded; repeat the request to complete it",
                ) from error
            self.instruments(metrics.DEGRADED, door="inline", degraded=str(Degraded.KAFKA_UNAVAILABLE)).inc()
            marked: Decision = {
                **decision,
                "degraded": sorted({*decision["degraded"], Degraded.KAFKA_UNAVAILABLE}),
            }
            await self._tell_claim(marked)
            self._in_background(self._append_later(marked))
            return answer(marked)

    async def _tell_claim(self, marked: Decision) -> None:
        """The claim says what the caller is about to hear, so that a retry hears the same; the answer says where it can't."""
        key, own = self.identity.redis_claim(marked["id"]), False
        try:
            own = bool(await self.redis.call(*claims.rewrite(key, marked), seconds=_CLAIM_SECONDS))
        except StoreError as error:
            _log.info("claim not told", extra={"data": {"error": error.message}})
        if not own:
            marked["degraded"] = sorted({*marked["degraded"], Degraded.IDEMPOTENCY})

    async def _append_once(self, decision: Decision) -> None:
        event = decision["event"]
        token = event["entities"][self._first] or ""
        record = orjson.dumps({"event": event, "hash": decision["hash"], "decision": decision})
        await self.log.append(self._accepted, token.encode(), record)
        self._mark(decision)

    async def _append_later(self, decision: Decision) -> None:
        """Goes on until the record is in the log; a crash before loses it unless the caller repeats the request."""
        pause = 0.5
        while True:
            await asyncio.sleep(pause)
            try:
                await self._append_once(decision)
                return
            except StoreError:
                pause = min(pause * 2, 10.0)

    def _mark(self, decision: Decision) -> None:
        """Notes in the claim that the record is in the log, a moment later and with others: it is a help, no promise.

        Lost, it costs one more append on a retry.
        """
        if not self._marks:
            asyncio.get_running_loop().call_later(_MARK_SECONDS, self._flush_marks)
        key = self.identity.redis_claim(decision["id"])
        self._marks.append(claims.Own(key, decision["hash"], decision["decided"]))

    def _flush_marks(self) -> None:
        marks, self._marks = self._marks, []
        self.redis.post([claims.mark(marks, published=False)])

    def _in_background(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """A task whose StoreError is nobody's concern: what it does is a help, not a promise."""

        async def run() -> None:
            try:
                await work
            except StoreError as error:
                _log.info("left undone", extra={"data": {"error": str(error)}})

        task = asyncio.create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def drain(self, seconds: float) -> None:
        """Waits for what runs in the background, as long as it helps."""
        if self._marks:
            self._flush_marks()
        if self._background:
            await asyncio.wait(set(self._background), timeout=seconds)

    async def find(self, event_id: str) -> bytes | None:
        """The stored answer of an id, while its claim lives."""
        [value] = await self.redis.each([("GET", self.identity.redis_claim(event_id))], seconds=1.0)
        claim = self._read_claim(event_id, b"" if wrong_type(value) else value, [])
        return None if claim is None else answer(claim.decision)

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
        keys = inline.keys(self.features, event)
        for _ in range(50):
            profiles: dict[str, bytes | None] = dict.fromkeys(entities)
            made = inline.compute(self.features, event, profiles, {}, True, self.config.epoch)
        try:
            await self.recall.warm_up(orjson.dumps(event), keys)
        except StoreError:
            pass  # Redis may be away at start: decisions then are degraded, not refused
        ruling = self.ruling
        if ruling is not None and ruling.stable is not None and made.vector is not None:
            for _ in range(10):
                await self.scoring.ask(ruling.stable, made.vector, 1.0)

    def _step(self, name: str, since: float) -> float:
        now = time.perf_counter()
        self.instruments(metrics.STEP_SECONDS, step=name).observe(now - since)
        return now

    def _count(self, decision: Decision, seconds: float) -> None:
        count = self.instruments
        count(metrics.DECISION_SECONDS).observe(seconds)
        count(
            metrics.DECISIONS, door="inline", action=decision["action"], arm=decision["arm"] or "none"
        ).inc()
        for mark in decision["degraded"]:
            count(metrics.DEGRADED, door="inline", degraded=mark).inc()
