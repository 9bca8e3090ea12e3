"""Reads from Redis what a request needs, before its event is judged: the entities' profiles, and its id's claim.

Reading leaves the event itself in the *pending* set of each of its entities, in the same round trip. So whoever asks next
sees it, however long this one takes, and Redis alone says which of two came first; the stream follows that order
(docs/decisions/0005). An event that isn't decided after all is taken out again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import Degraded, StoreError
from fraud_contracts.names import profile_key
from fraud_contracts.records import Event
from fraud_pipelines.features import FeatureSet
from fraud_serving.claims import Command
from fraud_serving.clients.redis_link import RedisLink, no_room, wrong_type
from fraud_serving.decision.profiles_age import ProfilesAge
from fraud_serving.wholeness import Mark, Wholeness

_log = logging.getLogger(__name__)
# Where a key has so many, the profile is behind; what is more than that is dropped.
PENDING_KEPT: Final = 500
# What hasn't become part of a profile by then never will, as its process died before it was decided, or the profiles are further behind than
# any policy lets pass without a mark.
PENDING_SECONDS: Final = 600
_PRUNED: Final = 100
_NOTICE_SECONDS: Final = 1.0
# KEYS: a pending set. ARGV: time, an event, seconds to live. What isn't one gives way to one of this event.
_REPLACE: Final = """
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then redis.call('DEL', KEYS[1]) end
redis.call('ZADD', KEYS[1], 'NX', ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""


@dataclass(slots=True)
class ProfileSnapshot:
    """What Redis held about one event, and where the event was left in it.

    ``keys`` are (entity, profile key) of the entities that the event has; ``entry`` is the event's JSON, a member of their
    pending sets. ``profiles`` and ``pending`` are by entity; ``complete`` says that an absent profile is a new key, not a
    lost one. ``claim`` are the bytes under the id: empty where they can't be a claim, None where there are none. ``added``
    are the pending sets that didn't have the event before, ``lost`` the entities whose pending set was no set.
    ``degraded`` marks what is missing. Where Redis was ``away`` nothing is known, and nothing can be claimed. Where claims were lost
    lately ``doubt`` is the mark that says so: an absent claim says nothing then.
    """

    entry: bytes
    keys: list[tuple[str, str]]
    claim: bytes | None
    profiles: dict[str, bytes | None]
    pending: dict[str, list[bytes]]
    complete: bool
    added: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    away: bool = False
    doubt: Mark | None = None


def entity_keys(features: FeatureSet, event: Event) -> list[tuple[str, str]]:
    """(entity, profile key) of the entities that the event has."""
    tokens = event["entities"]
    return [
        (stage.entity, profile_key(features.hash6, stage.entity, token))
        for stage in features.stages
        if (token := tokens.get(stage.entity)) is not None
    ]


def are_too_many(pending: int) -> bool:
    """Whether so many entries, a request's own among them, lie in a pending set that some may have been dropped before."""
    return pending > PENDING_KEPT


class ProfileReader:
    def __init__(
        self,
        redis: RedisLink,
        config: DetectorConfig,
        features: FeatureSet,
        wholeness: Wholeness,
        age: ProfilesAge,
    ) -> None:
        self._redis, self._of, self._epoch = redis, config.identity, config.epoch
        self._features, self._wholeness, self._age = features, wholeness, age
        self._complete = self._of.redis_complete(config.hash6)

    async def read_and_add_pending(self, event: Event, seconds: float) -> ProfileSnapshot:
        """Where Redis is away or takes longer than ``seconds``, the snapshot says so. Where it is full, no event is left in it any more, so
        the profiles count as stale.

        Pending first, profiles last: an entry is taken out only once its profile has it, so no event falls between.
        """
        of, now = self._of, int(time.time() * 1000)
        keys, entry = entity_keys(self._features, event), orjson.dumps(event)
        commands: list[Command] = []
        for _, key in keys:
            name = of.redis_pending(key)
            commands += [
                ("ZADD", name, "NX", now, entry),
                ("EXPIRE", name, PENDING_SECONDS),
                ("ZRANGE", name, 0, -1),
            ]
        names = [of.redis_claim(event["id"]), self._complete, *(of.redis_profile(key) for _, key in keys)]
        commands += [("GET", name) for name in names]
        commands.append(("MGET", *self._wholeness.keys))
        witnessed = self._wholeness.confirmed_before(now)
        try:
            replies = await self._redis.each(commands, seconds)
        except StoreError as error:
            _log.warning("no profiles", extra={"data": {"store": "redis", "error": error.message}})
            marks: list[str] = [Degraded.IDEMPOTENCY, Degraded.PROFILES_UNAVAILABLE]
            absent: dict[str, bytes | None] = {entity: None for entity, _ in keys}
            return ProfileSnapshot(entry, keys, None, absent, {}, True, degraded=marks, away=True)
        # What isn't bytes is as unreadable as no bytes are.
        claim, epoch, *profiles = (
            b"" if wrong_type(reply) else reply for reply in replies[3 * len(keys) : -1]
        )
        self._hear(replies[-1], witnessed, now)
        replies = replies[: 3 * len(keys)]
        snapshot = ProfileSnapshot(
            entry,
            keys,
            claim,
            {entity: profile for (entity, _), profile in zip(keys, profiles, strict=True)},
            {},
            epoch is not None and epoch.isdigit() and len(epoch) < 20 and int(epoch) >= self._epoch,
            doubt=self._wholeness.doubt(now),
        )
        full = False
        for (entity, key), new, entries in zip(keys, replies[::3], replies[2::3], strict=True):
            name = of.redis_pending(key)
            if wrong_type(new) or wrong_type(entries):
                snapshot.lost.append(entity)
                self._redis.post([("EVAL", _REPLACE, 1, name, now, entry, PENDING_SECONDS)])
            else:
                snapshot.pending[entity] = entries
            if no_room(new):
                full = True
            elif new:
                snapshot.added.append(name)
        if snapshot.lost:
            snapshot.degraded.append(Degraded.PROFILES_INCOMPLETE)
        if full:  # so are others' events, which this one's vector then lacks
            snapshot.degraded.append(Degraded.PROFILES_STALE)
        return snapshot

    async def notice_loss(self) -> None:
        """To be called when Redis is there again, perhaps with an earlier state: so that it needn't be a request that finds out."""
        now = int(time.time() * 1000)
        witnessed = self._wholeness.confirmed_before(now)
        try:
            [held] = await self._redis.many([("MGET", *self._wholeness.keys)], _NOTICE_SECONDS)
        except StoreError as error:
            _log.info("no mark of claims", extra={"data": {"store": "redis", "error": error.message}})
            return
        self._hear(held, witnessed, now)

    def _hear(self, held: Sequence[bytes | None], witnessed: int, now: int) -> None:
        """Where Redis lost claims it lost profiles, too, and how far they were: what comes back first is older.

        A mark of before is no loss: so a new detector's says, once it is known that there was nothing to lose.
        """
        known = self._wholeness.heard_since
        loss = self._wholeness.heard(held, witnessed, now)
        if loss is not None:
            self._redis.post([loss])
        if known is not None and (self._wholeness.since or 0) > known:
            self._age.forget(time.monotonic())

    def take_out(self, snapshot: ProfileSnapshot) -> None:
        """Takes the event out of the pending sets that its request put it in."""
        if snapshot.added:
            self._redis.post([("ZREM", name, snapshot.entry) for name in snapshot.added])

    def prune(self, snapshot: ProfileSnapshot, applied: dict[str, list[bytes]]) -> None:
        """Takes out the entries that may go (``applied``, by entity), what is too old to be on its way, and what is too much."""
        commands: list[Command] = []
        for entity, key in snapshot.keys:
            name, old = self._of.redis_pending(key), applied.get(entity)
            if old:
                # By value, not by position: another replica may be doing the same.
                since = int(time.time() - PENDING_SECONDS) * 1000
                commands += [("ZREM", name, *old[:_PRUNED]), ("ZREMRANGEBYSCORE", name, "-inf", since)]
            if are_too_many(len(snapshot.pending.get(entity, ()))):
                commands.append(("ZREMRANGEBYRANK", name, 0, -PENDING_KEPT - 1))
        if commands:
            self._redis.post(commands)

    async def warm_up(self, event: Event) -> None:
        """Runs the code of a read and leaves nothing behind; Redis may be away."""
        for _ in range(10):
            snapshot = await self.read_and_add_pending(event, 1.0)
            if snapshot.away:
                return
        snapshot.added = [self._of.redis_pending(key) for _, key in snapshot.keys]
        self.take_out(snapshot)
