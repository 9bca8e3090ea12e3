"""``python -m fraud_sinks.profile``: profiles from Kafka to Redis, where the decision service reads them.

A profile never goes back in time: a stored one with a higher ``(epoch, seq)`` stays, so repeats after a restore of the
stream, a rebuild beside the running sink and a second replica all do no harm. The comparison is made inside Redis. It goes by itself once
its key's next event couldn't depend on it (``fraud_contracts.lifetimes``), counted from its record and not from when it was read.

Redis may lose everything, or only the newest writes (a restart from an older file). It holds the progress of each partition
beside the profiles, so the sink begins where Redis's own progress says, or at the beginning where that is lost too. The
mark says that all profiles are written; without it the decision service takes a missing profile for
``profiles_incomplete`` and not for a new customer. A loss is noticed within a second, whether or not records come.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis

from fraud_contracts import lifetimes, profile_header
from fraud_contracts.config import REDIS_URL, DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_contracts.stream_progress import Applied, is_progress, read_progress
from fraud_process.redis_store import RedisStore
from fraud_process.store_address import StoreAddress, store_address
from fraud_sinks import run
from fraud_sinks.loop import Reading
from fraud_sinks.meters import Meters
from fraud_sinks.profile_order import ProfileAge, replaces
from fraud_sinks.profile_progress import PartitionProgress
from fraud_sinks.profile_scripts import ADVANCE, CAUGHT_UP, MARKS_SECONDS, SET_NEWER, VOUCH
from fraud_sinks.records import Place, Record, StoreLostError

log = logging.getLogger(__name__)

TIMEOUT: Final = 2.0
TICK_SECONDS: Final = 1.0  # how soon a loss of Redis is noticed where no record comes
# One script call blocks Redis for all readers, some 2 us a key: few keys a call keep that far below a decision's budget.
CHUNK: Final = 50

_LOST: Final = "data are gone; profiles must be written again"
_LAYOUT: Final = (
    profile_header.MAGIC,
    profile_header.HEADER.size,
    profile_header.EPOCH_OFFSET + 1,
    profile_header.SEQ_OFFSET + 1,
    profile_header.NEWEST_OFFSET + 1,
)
# Of a set whose stream hasn't said yet how far its values look back: longer than any.
_UNTOLD_MS: Final = 1_000 * 86_400_000


class ProfileWriter:
    """Writes profiles and keeps the mark that says that all of them have been written.

    ``reach`` is that of the feature set, 0 where it isn't known; that of others, whose jobs run beside, they say themselves.
    ``rebuild``: another process owns the progress. This one keeps its own under another key, and fills the common one where
    it is missing.
    """

    def __init__(
        self,
        store: RedisStore,
        identity: Identity,
        hash6: str,
        epoch: int,
        partitions: int,
        meters: Meters,
        rebuild: bool = False,
        reach: int = 0,
    ) -> None:
        self._store = store
        self._identity, self._meters, self._hash6 = identity, meters, hash6
        self._mark_key, self._written_key = identity.redis_complete(hash6), identity.redis_written(hash6)
        self._progress_key = self._own_progress_key = identity.redis_progress(hash6)
        self._rebuilds = rebuild
        if rebuild:
            self._own_progress_key = f"{self._progress_key}:rebuild:{uuid.uuid4().hex}"
        self._epoch, self._partitions = epoch, partitions
        # What Redis must have of each of our partitions, by field, unless it lost something.
        self._following: dict[str, int] = {}
        self._marked = False
        self._known_sources: dict[tuple[int, str], PartitionProgress] = {}
        self._reaches = {hash6: reach}

    @property
    def _redis(self) -> redis.Redis:
        return self._store.client

    def _run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return self._call(lambda: self._redis.register_script(script)(keys=keys, args=arguments))

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Begins where Redis's own progress says: the group's offsets know nothing of what Redis lost."""
        mark, complete, progress = self._stored_progress()
        self._marked = mark is not None and mark >= self._epoch
        recreated = [place for place in places if _is_recreated(place, progress)]
        for topic, topic_id in sorted({(place.topic, place.topic_id) for place in recreated}):
            self._meters.reread("the topic was made anew", {"topic": topic, "topic_id": topic_id})
        if recreated or (not self._marked and mark is not None):  # all of it is of the old topic or epoch
            self._call(lambda: self._redis.delete(self._mark_key, self._written_key, self._progress_key))
            self._marked, complete, progress = False, set(), {}
        self._following, self._known_sources = {}, {}
        if self._rebuilds:
            return dict.fromkeys(places, 0)
        begin = {}
        for place in places:
            field, before = _field(place), str(place.partition)
            if field not in progress and before in progress:
                self._adopt(field, before, progress[before], before in complete)
                progress[field] = progress[before]
                complete |= {field} if before in complete else set()
            if field in progress and (self._marked or field in complete):
                self._following[field] = begin[place] = progress[field]
            else:
                begin[place] = 0
        return begin

    def _stored_progress(self) -> tuple[int | None, set[str], dict[str, int]]:
        """The mark, the fields of the partitions written so far, and the offset by field. What can't be read is deleted and
        counted, as if Redis had lost it."""
        try:
            mark, members, progress = self._call(
                lambda: (
                    self._redis.pipeline(transaction=False)
                    .get(self._mark_key)
                    .smembers(self._written_key)
                    .hgetall(self._progress_key)
                    .execute()
                )
            )
            numbers = {field: _number(following) for field, following in progress.items()}
            if (mark is None or _number(mark) is not None) and None not in numbers.values():
                offsets = {
                    field.decode(errors="replace"): at for field, at in numbers.items() if at is not None
                }
                return _number(mark), {member.decode(errors="replace") for member in members}, offsets
        except StoreLostError:
            pass  # of another type than it was written as
        self._meters.refused.inc()
        log.error("mark or progress unreadable: written anew", extra={"data": {"mark": self._mark_key}})
        self._call(lambda: self._redis.delete(self._mark_key, self._written_key, self._progress_key))
        return None, set(), {}

    def _adopt(self, field: str, before: str, following: int, complete: bool) -> None:
        """Moves progress from before topic ids were kept to the field of the present topic."""
        pipe = (
            self._redis.pipeline()
            .hsetnx(self._progress_key, field, following)
            .hdel(self._progress_key, before)
        )
        if complete:
            pipe = pipe.sadd(self._written_key, field).srem(self._written_key, before)
        self._call(pipe.execute)

    def write(self, records: Sequence[Record]) -> int:
        newest: dict[bytes, tuple[ProfileAge, Record]] = {}
        applied: dict[tuple[int, str], bytes] = {}
        for record in records:
            if record.key is None or record.value is None:
                self._refuse(record, "no key or no value")
                continue
            try:
                record.key.decode()
                if is_progress(record.value):
                    hash6, progress = read_progress(record.key, record.value)
                    self._reaches[hash6] = progress.reach or self._reach(hash6)
                    of = record.partition, hash6
                    if not self._rebuilds and (news := self._sources(*of).read(progress)) is not None:
                        applied[of] = news
                    continue
                age = ProfileAge.of(record.value)
            except UnicodeDecodeError:
                self._refuse(record, "the key is no text")
                continue
            except ValueError as error:
                self._refuse(record, str(error))
                continue
            before = newest.get(record.key)
            if before is None or replaces(age, before[0], self._reach(_set_of(record.key))):
                newest[record.key] = (age, record)
        written, keys, now = 0, list(newest), int(time.time() * 1000)
        for at in range(0, len(keys), CHUNK):
            chunk = keys[at : at + CHUNK]
            names = [self._identity.redis_profile(key.decode()) for key in chunk]
            values = [word for key in chunk for word in self._kept(key, newest[key][1], now)]
            written += self._run(SET_NEWER, names, [*_LAYOUT, *values])
        self._advance_progress(records, applied)
        self._vouch(newest)
        if self._marked:  # while it catches up the age of a record says nothing
            for record in records:
                self._meters.freshness.observe(max(0.0, now - record.appended) / 1000)
        return written

    def _kept(self, key: bytes, record: Record, now: int) -> tuple[bytes | None, int, int]:
        """A profile, when it goes, and its set's reach. A clock that is wrong makes none last longer."""
        reach = self._reach(_set_of(key))
        since = min(record.appended, now) if record.appended > 0 else now
        return record.value, since + lifetimes.profile_kept(reach or _UNTOLD_MS), reach

    def _reach(self, hash6: str) -> int:
        """What the set's stream last said, here or to the process before; 0 where it hasn't yet."""
        reach = self._reaches.get(hash6)
        if reach is None:
            try:
                held = self._call(lambda: self._redis.hgetall(self._identity.redis_applied(hash6)))
                reach = max((Applied.model_validate_json(one).reach for one in held.values()), default=0)
            except (StoreLostError, ValueError):  # of another type, or no such document: as good as lost
                reach = 0
            self._reaches[hash6] = reach
        return reach

    def _sources(self, partition: int, hash6: str) -> PartitionProgress:
        known = self._known_sources.get((partition, hash6))
        if known is None:
            key, held = self._identity.redis_applied(hash6), None
            try:
                value = self._call(lambda: self._redis.hget(key, str(partition)))
                held = None if value is None else Applied.model_validate_json(value)
            except (StoreLostError, ValueError):  # of another type, or no such document: as good as lost
                self._meters.refused.inc()
                log.error("what is applied is unreadable: written anew", extra={"data": {"key": key}})
            known = self._known_sources[partition, hash6] = PartitionProgress(held)
        return known

    def _advance_progress(self, records: Sequence[Record], applied: Mapping[tuple[int, str], bytes]) -> None:
        """``applied``: by partition and feature set what the records say of the stream's sources."""
        ends = {record.place: record.offset + 1 for record in records}
        for place, following in ends.items():
            field = _field(place)
            news = {
                hash6: value for (partition, hash6), value in applied.items() if partition == place.partition
            }
            keys = [self._own_progress_key, *map(self._identity.redis_applied, news)]
            arguments = [field, self._following.get(field, ""), following, place.partition, *news.values()]
            if not self._run(ADVANCE, keys, arguments):
                raise StoreLostError("redis", _LOST)
            self._following[field] = following
        if self._rebuilds:  # goes by itself if the rebuild is killed
            self._call(lambda: self._redis.expire(self._own_progress_key, 86_400))

    def _vouch(self, newest: Mapping[bytes, tuple[ProfileAge, Record]]) -> None:
        """Says of the other sets among these profiles how far theirs are written, too."""
        if not self._marked or self._rebuilds:
            return
        epochs: dict[str, int] = {}
        for key, (age, _) in newest.items():
            other = _set_of(key)
            if other != self._hash6:
                epochs[other] = max(age.epoch, epochs.get(other, 0))
        of = self._identity
        for other, epoch in epochs.items():
            keys = [
                self._progress_key,
                self._mark_key,
                of.redis_complete(other),
                of.redis_progress(other),
            ]
            self._run(VOUCH, keys, [self._epoch, epoch])

    def caught_up(self, place: Place, following: int) -> None:
        if self._marked or self._check():
            return
        field = _field(place)
        least = self._following.get(field, "")
        outcome = self._run(
            CAUGHT_UP,
            [self._own_progress_key, self._written_key, self._mark_key, self._progress_key],
            [field, least, following, self._epoch, self._partitions],
        )
        if not outcome:
            raise StoreLostError("redis", _LOST)
        if not self._rebuilds:
            self._following.setdefault(field, following)
        if outcome == 2:
            self._marked = True
            log.info("complete", extra={"data": {"mark": self._mark_key, "epoch": self._epoch}})

    def tick(self) -> None:
        self._check()

    def _check(self) -> bool:
        """Whether the mark is set. StoreLostError where Redis has less than this process wrote, or no mark any more."""
        ours = sorted(self._following)
        pipe = self._redis.pipeline(transaction=False).get(self._mark_key)
        for field in ours:
            pipe = pipe.hget(self._own_progress_key, field)
        if self._marked and not self._rebuilds:
            pipe = pipe.expire(self._mark_key, MARKS_SECONDS)
        mark, *offsets = (_number(value) for value in self._call(pipe.execute)[: 1 + len(ours)])
        short = [f for f, at in zip(ours, offsets, strict=True) if at is None or at < self._following[f]]
        if short or (self._marked and mark is None):
            raise StoreLostError("redis", _LOST)
        self._marked = mark is not None and mark >= self._epoch
        return self._marked

    def close(self) -> None:
        if self._rebuilds:
            try:
                self._redis.delete(self._own_progress_key)
            except (redis.RedisError, StoreError) as error:
                log.warning(
                    "left behind", extra={"data": {"key": self._own_progress_key, "error": str(error)}}
                )
        self._store.close()

    def _refuse(self, record: Record, why: str) -> None:
        self._meters.refused.inc()
        where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        log.error("profile refused", extra={"data": {"why": why, **where}})

    def _call(self, call: Any) -> Any:
        try:
            return call()
        except redis.RedisError as error:
            # Waiting doesn't mend a key of another type: it counts as lost.
            if isinstance(error, redis.ResponseError) and "WRONGTYPE" in str(error):
                raise StoreLostError("redis", str(error)) from error
            raise self._store.failure(error) from error


def _field(place: Place) -> str:
    """The partition's field in the progress hash."""
    return f"{place.partition}/{place.topic_id}" if place.topic_id else str(place.partition)


def _set_of(key: bytes) -> str:
    """The feature set of a profile's key."""
    return key.partition(b":")[0].decode()


def _is_recreated(place: Place, progress: Mapping[str, int]) -> bool:
    """Whether the topic was recreated: the progress is that of an earlier topic of its name."""
    others = any(field.startswith(f"{place.partition}/") for field in progress)
    return others and bool(place.topic_id) and _field(place) not in progress


def _number(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else None


def connect(address: StoreAddress) -> RedisStore:
    return RedisStore(address, TIMEOUT, health_check=15)


def make(config: DetectorConfig, meters: Meters, rebuild: bool) -> tuple[ProfileWriter, Reading]:
    writer = ProfileWriter(
        connect(store_address(REDIS_URL)),
        config.identity,
        config.hash6,
        config.epoch,
        config.kafka.partitions,
        meters,
        rebuild,
        lifetimes.reach(config.spec.features, config.spec.entities),
    )
    return writer, run.reading(config, "profile", ("profiles",), batch=5_000, linger=0.005, tick=TICK_SECONDS)


if __name__ == "__main__":
    sys.exit(run.main("profile", make))
