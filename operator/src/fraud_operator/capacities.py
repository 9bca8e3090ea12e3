"""Asks stores how full they are, once a minute each, and keeps what they said for as long as growth is measured by.

Each store is asked on a thread of its own, for all detectors that use it; a pass reads what is known and never waits. Only the
platform's Redis and PostgreSQL are asked: to those that a spec names the operator doesn't connect.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import redis

from fraud_contracts.errors import StoreError
from fraud_operator import capacity, kafka_log_dirs
from fraud_operator.capacity import KAFKA, POSTGRES, REDIS, CapacityFact, Reading, Room, StoreKind, Volume
from fraud_operator.detector import Detector
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.postgres_logins import connected as postgres_connected
from fraud_operator.postgres_logins import hosts
from fraud_operator.redis_logins import failure
from fraud_operator.settings import Platform
from fraud_operator.store_login import LoginRefusedError, StoreAdmin
from fraud_process.redis_store import connected

LOG: Final = logging.getLogger(__name__)
AGAIN: Final = 60.0
TIMEOUT: Final = 3.0
_DATABASES: Final = "SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')"
# What no pass has asked about for so long isn't asked any more.
_UNUSED: Final = 900.0
_OWN: Final = "the spec names its own"
_REFUSED: Final = "the login may not ask"
_AWAY: Final = "it gives no answer"

Volumes = Mapping[str, Volume]


@dataclass(frozen=True)
class Question:
    """``key`` is of the place that is asked; ``ask`` gives its volumes by name, none where it has no limit. StoreError."""

    kind: StoreKind
    key: Hashable
    ask: Callable[[], Volumes] = field(compare=False)


def questions(detector: Detector, target: KafkaTarget | None) -> list[Question | tuple[str, str]]:
    """What is asked for a detector; in place of a question (store, why there is none)."""
    platform, stores = detector.platform.stores, detector.spec.stores
    out: list[Question | tuple[str, str]] = []
    if stores.redis is not None or not platform.redis_url:
        out.append((REDIS.title, _OWN))
    else:
        admin = StoreAdmin(platform.redis_url, platform.redis_ca)
        out.append(Question(REDIS, admin, partial(redis_volumes, admin)))
    if target is not None:
        out.append(Question(KAFKA, target, partial(kafka_log_dirs.volumes, target)))
    own = stores.postgres is not None or not platform.postgres_dsn
    limit = _postgres_limit(detector.platform)
    if own or limit is None:
        out.append((POSTGRES.title, _OWN if own else POSTGRES.unlimited))
    else:
        admin = StoreAdmin(platform.postgres_dsn, platform.postgres_ca)
        out.append(Question(POSTGRES, admin, partial(postgres_volumes, admin, limit)))
    return out


def redis_volumes(admin: StoreAdmin) -> Volumes:
    """The master's memory beside its maxmemory."""
    try:
        with closing(connected(admin.address, admin.authority, TIMEOUT)) as client:
            said = client.info("memory")
            used, limit = int(said["used_memory"]), int(said["maxmemory"])
    except redis.RedisError as error:
        raise failure(error) from error
    except (KeyError, ValueError) as error:
        raise StoreError("redis", f"no answer of Redis': {type(error).__name__}") from error
    return {"": Volume(used, limit)} if limit > 0 else {}


def postgres_volumes(admin: StoreAdmin, limit: int) -> Volumes:
    """All databases that the login may connect to, without the log of writes, beside the size of the server's volume."""
    with postgres_connected(admin) as connection:
        row = connection.execute(_DATABASES).fetchone()
    return {"": Volume(int(row[0]) if row else 0, limit)}


def _postgres_limit(platform: Platform) -> int | None:
    """The size of the trial's volume, where that is the platform's PostgreSQL."""
    trial = platform.servers.hosts.get("POSTGRES", ())
    return platform.servers.volume_bytes if set(hosts(platform.stores.postgres_dsn)) & set(trial) else None


@dataclass
class _Kept:
    """Of one place. ``why``: nothing is known of it, and for what reason; None while it hasn't been asked yet."""

    readings: dict[str, list[Reading]] = field(default_factory=dict)
    rooms: dict[str, Room] = field(default_factory=dict)
    why: str | None = None
    due: float = 0.0
    seen: float = 0.0
    running: Future[None] | None = None

    @property
    def idle(self) -> bool:
        return self.running is None or self.running.done()


@dataclass
class Capacities:
    """Safe to use from several threads. ``clock`` is in seconds."""

    clock: Callable[[], float] = time.monotonic
    pool: Executor = field(default_factory=lambda: ThreadPoolExecutor(4, "capacity"))
    _kept: dict[tuple[str, Hashable], _Kept] = field(default_factory=dict)
    # Reentrant: a pool may run what it is given at once.
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def look(self, detector: Detector, target: KafkaTarget | None) -> CapacityFact:
        return self.answers(questions(detector, target))

    def answers(self, asked: list[Question | tuple[str, str]]) -> CapacityFact:
        """What is known now; asks again in the background where it is time."""
        rooms: list[Room] = []
        unknown: list[tuple[str, str]] = []
        asking = False
        now = self.clock()
        with self._lock:
            for one in asked:
                if isinstance(one, tuple):
                    unknown.append(one)
                    continue
                kept = self._kept.setdefault((one.kind.title, one.key), _Kept())
                kept.seen = now
                if kept.idle and now >= kept.due:
                    kept.due = now + AGAIN
                    kept.running = self.pool.submit(self._ask, one, kept)
                rooms += kept.rooms.values()
                if not kept.rooms:
                    unknown += [] if kept.why is None else [(one.kind.title, kept.why)]
                    asking = asking or kept.why is None
            self._drop(now)
        return CapacityFact(tuple(rooms), tuple(unknown), asking)

    def _drop(self, now: float) -> None:
        for key in [key for key, kept in self._kept.items() if kept.idle and now - kept.seen > _UNUSED]:
            del self._kept[key]

    def _ask(self, question: Question, kept: _Kept) -> None:
        store, why = question.kind.title, _AWAY
        found: Volumes = {}
        try:
            found, why = question.ask(), question.kind.unlimited
        except StoreError as error:
            why = _REFUSED if isinstance(error, LoginRefusedError) else _AWAY
            if why != kept.why:  # else it would be in the log each minute
                LOG.info("capacity unknown", extra={"data": {"store": store, "error": str(error)}})
        except Exception:
            # A fault of ours must neither pass for an answer nor make every pass ask again.
            LOG.exception("capacity check broke", extra={"data": {"store": store}})
        with self._lock:
            self._note(question.kind, kept, found, why)

    def _note(self, kind: StoreKind, kept: _Kept, found: Volumes, why: str) -> None:
        """A store that gives no answer for a while stays as it was last seen, for as long as its growth is measured by."""
        now = self.clock()
        for name, volume in found.items():
            kept.readings.setdefault(name, []).append(Reading(now, volume))
        for name in list(kept.readings):
            readings = kept.readings[name] = capacity.recent(kept.readings[name], now)
            if not readings or (found and name not in found):
                del kept.readings[name]
                kept.rooms.pop(name, None)
            elif name in found:
                kept.rooms[name] = capacity.judge(kind, name, readings, kept.rooms.get(name))
        kept.why = None if kept.rooms else why
