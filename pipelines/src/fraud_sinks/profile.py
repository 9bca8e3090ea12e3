"""``python -m fraud_sinks.profile``: profiles from Kafka to Redis, where the decision service reads them.

A profile never goes back in time: a stored one with a higher ``(epoch, seq)`` stays, so repeats after a restore of the
stream, a rebuild beside the running sink and a second replica all do no harm. The comparison is made inside Redis.

Redis may lose everything. The sink then has no mark there, reads the compacted topic from the beginning and sets the
mark when it has caught up; until then the decision service calls a miss ``profiles_incomplete`` and no new customer.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraud_contracts import profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_sinks import run
from fraud_sinks.loop import Reading
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record, StoreLostError

log = logging.getLogger(__name__)

TIMEOUT: Final = 2.0
# One script call blocks Redis for all readers, some 2 us a key: few keys a call keep that far below a decision's budget.
CHUNK: Final = 50

# KEYS: profile keys. ARGV: magic, header size, 1-based positions of epoch and seq, then one profile per key.
# Equal (epoch, seq) is written: of two such profiles the topic's order decides.
_SET_NEWER: Final = """
local magic, size, at_epoch, at_seq = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local written = 0
for i, key in ipairs(KEYS) do
  local new = ARGV[4 + i]
  local old = redis.call('GETRANGE', key, 0, size - 1)
  local keep = false
  if #old == size and string.sub(old, 1, #magic) == magic then
    local old_epoch, new_epoch = struct.unpack('<I4', old, at_epoch), struct.unpack('<I4', new, at_epoch)
    if old_epoch ~= new_epoch then
      keep = old_epoch > new_epoch
    else
      keep = struct.unpack('<I8', old, at_seq) > struct.unpack('<I8', new, at_seq)
    end
  end
  if not keep then
    redis.call('SET', key, new)
    written = written + 1
  end
end
return written
"""
_LAYOUT: Final = (
    profile_header.MAGIC,
    profile_header.HEADER.size,
    profile_header.EPOCH_OFFSET + 1,
    profile_header.SEQ_OFFSET + 1,
)


class ProfileWriter:
    """Writes profiles and keeps the mark that says that all of them have been written."""

    def __init__(
        self, client: redis.Redis, identity: Identity, hash6: str, epoch: int, partitions: int, meters: Meters
    ) -> None:
        self._redis = client
        self._set_newer = client.register_script(_SET_NEWER)
        self._identity, self._meters = identity, meters
        self._mark, self._written = identity.redis_complete(hash6), identity.redis_written(hash6)
        self._epoch, self._partitions = epoch, partitions
        self._me = uuid.uuid4().hex + "-sign"  # not a number, unlike a partition
        self._marked = False

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """From the beginning, unless Redis says that it has the partition: the group's offsets outlive what Redis lost."""
        mark, members = self._call(
            lambda: self._redis.pipeline(transaction=False).get(self._mark).smembers(self._written).execute()
        )
        self._marked = mark is not None and int(mark) >= self._epoch
        if self._marked:
            return {}
        if mark is not None:  # a new epoch: the mark and the set speak of the old one
            self._call(lambda: self._redis.delete(self._mark, self._written))
            members = set()
        self._call(lambda: self._redis.sadd(self._written, self._me))
        have = {int(member) for member in members if member.isdigit()}
        return {place: 0 for place in places if place.partition not in have}

    def write(self, records: Sequence[Record]) -> int:
        newest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
        for record in records:
            if record.key is None or record.value is None:
                self._refuse(record, "no key or no value")
                continue
            try:
                header = profile_header.read(record.value)
            except ValueError as error:
                self._refuse(record, str(error))
                continue
            age = (header.epoch, header.seq)
            if record.key not in newest or age >= newest[record.key][0]:
                newest[record.key] = (age, record.value)
        written, keys = 0, list(newest)
        for at in range(0, len(keys), CHUNK):
            chunk = keys[at : at + CHUNK]
            names = [self._identity.redis_profile(key.decode()) for key in chunk]
            values = [newest[key][1] for key in chunk]
            written += self._call(lambda n=names, v=values: self._set_newer(keys=n, args=[*_LAYOUT, *v]))
        if self._marked:  # while it catches up the age of a record says nothing
            now = time.time() * 1000
            for record in records:
                self._meters.freshness.observe(max(0.0, now - record.appended) / 1000)
        return written

    def caught_up(self, place: Place) -> None:
        if self._marked or self._check():
            return

        def mark() -> None:
            pipe = self._redis.pipeline(transaction=False)
            _, members = pipe.sadd(self._written, place.partition).smembers(self._written).execute()
            if sum(member.isdigit() for member in members) >= self._partitions:
                self._redis.pipeline().set(self._mark, self._epoch).delete(self._written).execute()
                self._marked = True
                log.info("complete", extra={"data": {"mark": self._mark, "epoch": self._epoch}})

        self._call(mark)

    def tick(self) -> None:
        self._check()

    def _check(self) -> bool:
        """Whether the mark is there. Neither the mark nor our sign in the set of partitions: Redis lost its data, and profiles with it."""
        mark, sign = self._call(
            lambda: (
                self._redis.pipeline(transaction=False)
                .get(self._mark)
                .sismember(self._written, self._me)
                .execute()
            )
        )
        if mark is None and (self._marked or not sign):
            raise StoreLostError("redis", "its data are gone; profiles must be written from the beginning")
        self._marked = mark is not None and int(mark) >= self._epoch
        return self._marked

    def close(self) -> None:
        self._redis.close()

    def _refuse(self, record: Record, why: str) -> None:
        self._meters.refused.inc()
        where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        log.error("profile refused", extra={"data": {"why": why, **where}})

    @staticmethod
    def _call(call: Any) -> Any:
        try:
            return call()
        except redis.RedisError as error:
            raise StoreError("redis", str(error)) from error


def connect(url: str) -> redis.Redis:
    """No retries inside the client: it would hide a restart of Redis behind calls of seconds; the loop retries."""
    return redis.Redis.from_url(
        url,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
    )


def make(config: DetectorConfig, meters: Meters, rebuild: bool) -> tuple[ProfileWriter, Reading]:
    writer = ProfileWriter(
        connect(os.environ["REDIS_URL"]),
        config.identity,
        config.hash6,
        config.epoch,
        config.kafka.partitions,
        meters,
    )
    return writer, run.reading(config, "profile", ("profiles",), batch=500, linger=0.005)


if __name__ == "__main__":
    sys.exit(run.main("profile", make))
