"""What Redis knows of an event before it is judged: its claim, its entities' profiles, and events on their way to these.

Reading leaves the event itself in the *pending* set of each of its entities, in the same round trip. So whoever asks next
sees it, however long this one takes, and Redis alone says which of two came first; the stream follows that order
(docs/decisions/0005). An event that isn't decided after all is taken out again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from fraud_contracts.config import DetectorConfig
from fraud_serving.clients.redis_link import RedisLink, wrong_type

Command = tuple[str | bytes | int, ...]
PENDING_KEPT: Final = 64
# What hasn't become part of a profile by then never will: its process died before it was decided.
PENDING_SECONDS: Final = 600
_PRUNED: Final = 16
# KEYS: a pending set. ARGV: time, an event, seconds to live. What isn't one gives way to one of this event.
_REPLACE: Final = """
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then redis.call('DEL', KEYS[1]) end
redis.call('ZADD', KEYS[1], 'NX', ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""


@dataclass(slots=True)
class Recalled:
    """``profiles`` and ``pending`` by entity; ``added`` are the pending sets that didn't have the event before.

    ``claim`` are the bytes under the id. ``lost`` are entities whose pending set was no set: its events are. Where Redis was ``away`` nothing is known, and nothing can be claimed.
    """

    claim: bytes | None
    profiles: dict[str, bytes | None]
    pending: dict[str, list[bytes]]
    complete: bool
    added: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    away: bool = False


class Recall:
    def __init__(self, redis: RedisLink, config: DetectorConfig) -> None:
        self._redis, self._of, self._epoch = redis, config.identity, config.epoch
        self._complete = self._of.redis_complete(config.hash6)

    async def read(
        self, event_id: str, entry: bytes, keys: list[tuple[str, str]], seconds: float
    ) -> Recalled:
        """``entry`` is the event's JSON, ``keys`` are (entity, profile key). StoreError where Redis is away or late.

        Pending first, profiles last: an entry is taken out only once its profile has it, so no event falls between.
        """
        of, now = self._of, int(time.time() * 1000)
        commands: list[Command] = []
        for _, key in keys:
            name = of.redis_pending(key)
            commands += [
                ("ZADD", name, "NX", now, entry),
                ("EXPIRE", name, PENDING_SECONDS),
                ("ZRANGE", name, 0, -1),
            ]
        wanted = [of.redis_claim(event_id), self._complete, *(of.redis_profile(key) for _, key in keys)]
        commands += [("GET", name) for name in wanted]
        replies = await self._redis.each(commands, seconds)
        # What isn't bytes is as unreadable as no bytes are.
        claim, mark, *profiles = (b"" if wrong_type(one) else one for one in replies[3 * len(keys) :])
        replies = replies[: 3 * len(keys)]
        entities = [entity for entity, _ in keys]
        pending: dict[str, list[bytes]] = {}
        added: list[str] = []
        lost: list[str] = []
        for (entity, key), new, entries in zip(keys, replies[::3], replies[2::3], strict=True):
            name = of.redis_pending(key)
            if wrong_type(new) or wrong_type(entries):
                lost.append(entity)
                self._redis.post([("EVAL", _REPLACE, 1, name, now, entry, PENDING_SECONDS)])
            else:
                pending[entity] = entries
            if new:
                added.append(name)
        return Recalled(
            claim,
            dict(zip(entities, profiles, strict=True)),
            pending,
            mark is not None and mark.isdigit() and len(mark) < 20 and int(mark) >= self._epoch,
            added,
            lost,
        )

    def take_out(self, names: list[str], entry: bytes) -> None:
        """Takes an event out of the pending sets that its request put it in."""
        if names:
            self._redis.post([("ZREM", name, entry) for name in names])

    def tidy(
        self, keys: list[tuple[str, str]], pending: dict[str, list[bytes]], applied: dict[str, list[bytes]]
    ) -> None:
        """Takes out what the profiles have by now, what is too old to be on its way, and what is too much."""
        commands: list[Command] = []
        for entity, key in keys:
            name, old = self._of.redis_pending(key), applied.get(entity)
            if old:
                # By value, not by position: another replica may be doing the same.
                since = int(time.time() - PENDING_SECONDS) * 1000
                commands += [("ZREM", name, *old[:_PRUNED]), ("ZREMRANGEBYSCORE", name, "-inf", since)]
            if len(pending.get(entity, ())) > PENDING_KEPT:
                commands.append(("ZREMRANGEBYRANK", name, 0, -PENDING_KEPT - 1))
        if commands:
            self._redis.post(commands)

    async def warm_up(self, entry: bytes, keys: list[tuple[str, str]]) -> None:
        """Runs the code of a read and leaves nothing behind."""
        for _ in range(10):
            await self.read("warm-up", entry, keys, 1.0)
        self.take_out([self._of.redis_pending(key) for _, key in keys], entry)
