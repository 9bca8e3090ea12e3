"""One claim in a real Redis, from claimed to shrunk, whatever is done to it in whatever order; and how many bytes it takes."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import orjson
import pytest
import redis as redis_client
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_serving import claims
from fraud_serving.claims import RETRY_WINDOW_SECONDS, ClaimAttempt, ClaimRef
from fraud_testing import redis
from fraud_testing.batches import CONFIG, OF
from fraud_testing.feature_stream import Stream
from fraud_testing.kafka import wait_for

pytestmark = pytest.mark.integration
WINDOW = RETRY_WINDOW_SECONDS * 1000
NOW = 1_800_000_000_000
KEY, DUE = OF.redis_claim("pay"), OF.redis_due
TOPIC_ID = "b7Fm3XkFQkGvYlQ1r2s3tA"
STREAM = Stream(SimpleNamespace(config=CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # no servers
FIRST: Any = STREAM.inline(STREAM.record("pay"))["decision"]
# Of the same body, decided anew; and of another body.
DECISIONS: tuple[Any, ...] = (
    FIRST,
    {**FIRST, "decided": FIRST["decided"] + 1, "action": "decline"},
    {**FIRST, "hash": "0" * 32},
)
NUMBER = st.integers(0, len(DECISIONS) - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), NUMBER, st.booleans(), st.booleans(), st.sampled_from(["seen", "older"])),
        st.tuples(st.just("take before"), NUMBER, st.sampled_from([b"0", b"1"])),
        st.tuples(st.just("appended"), NUMBER),
        st.tuples(st.just("published"), NUMBER),
        st.tuples(st.just("rewrite"), NUMBER),
        st.tuples(st.just("shrink"), st.sampled_from([0, WINDOW // 2, WINDOW])),
    ),
    min_size=1,
    max_size=14,
)
RANK = {b"0": 0, b"C": 0, b"1": 1, b"L": 1, b"A": 2, b"R": 2, b"D": 2, b"P": 2}


def rank(value: bytes) -> int:
    """How far a claim is; those of before say it at their end."""
    return 2 if value[:1] == b"1" and value[-1:] == b"\n" else RANK[value[:1]]


class OneClaim:
    """One id's claim in a real Redis, and what it must be after each step."""

    def __init__(self, store: Any) -> None:
        self.store, self.now = store, NOW
        store.flushall()
        # What an earlier reader saw.
        self.older = b""
        # Which decision lies there, and when it was published.
        self.number: int | None = None
        self.published_at: int | None = None

    @property
    def value(self) -> bytes:
        found: bytes = self.store.get(KEY) or b""
        return found

    def do(self, step: tuple[Any, ...]) -> None:
        before = self.value
        getattr(self, step[0].replace(" ", "_"))(before, *step[1:])
        self.check()
        self.older = before

    def take(self, before: bytes, number: int, appended: bool, published: bool, seen: str) -> None:
        value = claims.pack(DECISIONS[number], appended, published)
        taken = self._take(before, number, value, before if seen == "seen" else self.older)
        if taken and published:
            self.published_at = self.now

    def take_before(self, before: bytes, number: int, state: bytes) -> None:
        """By the version before, which knows no other form."""
        self._take(before, number, state + orjson.dumps(DECISIONS[number]), before)

    def _take(self, before: bytes, number: int, value: bytes, instead_of: bytes) -> bool:
        [held] = self.store.execute_command(
            *claims.take([ClaimAttempt(KEY, value, instead_of)], DUE, self.now)
        )
        if instead_of != before:
            assert (held, self.value) == (before, before)
            return False
        assert (held, self.value) == (None, value)
        self.number, self.published_at = number, None
        return True

    def appended(self, before: bytes, number: int) -> None:
        self.store.execute_command(*claims.mark_appended([ref(number)]))
        self._marked(before, number, rank_after=1)

    def published(self, before: bytes, number: int) -> None:
        self.store.execute_command(*claims.mark_published([ref(number)], DUE, self.now))
        if before and rank(before) < 2 and number == self.number and before[:1] not in b"01":
            self.published_at = self.now
        self._marked(before, number, rank_after=2)

    def _marked(self, before: bytes, number: int, rank_after: int) -> None:
        if not before or number != self.number or rank(before) >= rank_after:
            assert self.value == before
        else:
            assert rank(self.value) == rank_after

    def rewrite(self, before: bytes, number: int) -> None:
        told = {**DECISIONS[number], "degraded": ["kafka_unavailable"]}
        was_there = self.store.execute_command(*claims.rewrite(KEY, told))
        own = bool(before) and number == self.number and len(before) != claims.HEAD
        assert was_there == own
        if own:
            assert rank(self.value) == rank(before)
            assert len(self.value) > claims.HEAD
        else:
            assert self.value == before

    def shrink(self, before: bytes, later: int) -> None:
        self.now += later
        self.store.execute_command(*claims.shrink(DUE, self.now, 10))
        over = self.published_at is not None and self.now >= self.published_at + WINDOW
        assert self.value == (before[: claims.HEAD] if over else before)

    def check(self) -> None:
        """It is what it was made for, is readable, goes by itself, and is to be shrunk where it can be."""
        value = self.value
        assert bool(value) == (self.number is not None)
        if self.number is None:
            return
        claim = claims.read(value, "pay")
        assert claim is not None
        assert claim.is_of(DECISIONS[self.number]["hash"])
        if claim.decision is not None:
            assert claim.decision["decided"] == DECISIONS[self.number]["decided"]
        assert 0 < self.store.ttl(KEY) <= claims.TTL_SECONDS
        if self.published_at is not None and claim.decision is not None:
            assert self.store.zscore(DUE, KEY) == self.published_at


def ref(number: int) -> ClaimRef:
    decision = DECISIONS[number]
    place = claims.place(TOPIC_ID, 0, number)
    return ClaimRef(KEY, decision["hash"], decision["decided"], decision["action"], place)


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_no_state_is_taken_back_and_no_write_is_blind(
    server: redis.Server, steps: Sequence[tuple[Any, ...]]
) -> None:
    """Whatever processes do to a claim, in whatever order: it goes on by its own decision's marks, only what was published and
    waited is shrunk, and what somebody else's step finds there stays."""
    one = OneClaim(redis_client.Redis.from_url(server.url))
    for step in steps:
        one.do(step)


def test_a_claim_goes_from_claimed_to_shrunk(store: Any) -> None:
    """It says more of its decision's place, then less of the decision; its life begins anew with each mark, not when it is shrunk."""
    run = store.execute_command
    run(*claims.take([ClaimAttempt(KEY, claims.pack(FIRST, appended=False))], DUE, NOW))
    states = [store.get(KEY)[:1]]
    run(*claims.mark_appended([ref(0)]))
    states.append(store.get(KEY)[:1])
    run(*claims.mark_published([ref(0)], DUE, NOW))
    states.append(store.get(KEY)[:1])
    store.expire(KEY, 500)
    assert run(*claims.shrink(DUE, NOW + WINDOW - 1, 10)) == 0
    assert len(store.get(KEY)) > claims.HEAD
    assert run(*claims.shrink(DUE, NOW + WINDOW, 10)) == 1
    assert states == [b"C", b"L", b"A"]
    place = claims.Place(TOPIC_ID[:5], 0, 0)
    assert claims.read(store.get(KEY), "pay") == claims.Claim(FIRST["hash"], None, True, True, place)
    assert 0 < store.ttl(KEY) <= 500
    assert not store.exists(DUE)


def test_past_a_number_of_whole_claims_the_oldest_are_shrunk_early(store: Any) -> None:
    """So many of them at a time as are asked for."""
    keys = [OF.redis_claim(f"e{number}") for number in range(8)]
    value = claims.pack(FIRST, appended=True, published=True)
    for at, key in enumerate(keys):
        store.execute_command(*claims.take([ClaimAttempt(key, value)], DUE, NOW + at))
    assert store.execute_command(*claims.shrink(DUE, NOW, 3, most=4)) == 3
    assert [len(one) == claims.HEAD for one in store.mget(keys)] == [True] * 3 + [False] * 5
    assert store.execute_command(*claims.shrink(DUE, NOW, 3, most=5)) == 0


def test_a_stranger_in_the_place_of_the_set_gives_way(store: Any) -> None:
    """A key of another type under its name: claims are marked, and shrunk from the next one on."""
    store.set(DUE, "x")
    assert store.execute_command(*claims.shrink(DUE, NOW, 10)) == 0
    store.set(DUE, "x")
    store.set(KEY, claims.pack(FIRST, appended=True))
    store.execute_command(*claims.mark_published([ref(0)], DUE, NOW))
    assert store.execute_command(*claims.shrink(DUE, NOW + WINDOW, 10)) == 1
    assert len(store.get(KEY)) == claims.HEAD


def test_members_that_are_no_claims_of_ours_are_left_out(server: redis.Server, store: Any) -> None:
    """A key that is gone, of another type, of another detector: nothing is made of it, and it comes no second time."""
    other = "other.detector:claim:x"
    store.set(other, claims.pack(FIRST, appended=True, published=True))
    store.rpush(OF.redis_claim("list"), "x")
    store.zadd(DUE, {other: NOW, OF.redis_claim("list"): NOW, OF.redis_claim("gone"): NOW})
    own = redis_client.Redis.from_url(server.login(OF))
    assert own.execute_command(*claims.shrink(DUE, NOW + WINDOW, 10)) == 3
    assert len(store.get(other)) > claims.HEAD
    assert store.llen(OF.redis_claim("list")) == 1
    assert not store.exists(OF.redis_claim("gone"), DUE)


def test_a_full_redis_lets_claims_be_marked_and_shrunk(store: Any) -> None:
    """It takes no new claim, and room comes of itself."""
    store.set(KEY, claims.pack(FIRST, appended=True))
    store.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis_client.RedisError):
            store.execute_command(*claims.take([ClaimAttempt(OF.redis_claim("new"), b"x")], DUE, NOW))
        store.execute_command(*claims.mark_published([ref(0)], DUE, NOW))
        assert store.execute_command(*claims.shrink(DUE, NOW + WINDOW, 10)) == 1
    finally:
        store.config_set("maxmemory", 0)
    assert len(store.get(KEY)) == claims.HEAD


def used(server: redis.Server, store: Any, commands: Sequence[claims.Command]) -> int:
    """``used_memory`` after the commands, once their client and its buffers are gone."""
    with redis_client.Redis.from_url(server.url) as client:
        for command in commands:
            client.execute_command(*command)
    wait_for(lambda: store.info("clients")["connected_clients"] == 1, 10, "the client's end")
    return int(store.info("memory")["used_memory"])


def test_bytes_of_a_claim(server: redis.Server, store: Any) -> None:
    """200 for an id of 36 characters once it is shrunk, entries for key and expiry included."""
    count = 100_000
    keys = [OF.redis_claim(str(UUID(int=number))) for number in range(count)]
    reasons = [
        {"code": f"customer_amount_sum_{n}h", "text": "Spent within the time", "contribution": n / 7}
        for n in range(3)
    ]
    decision: Any = {**FIRST, "vector": [n / 7 for n in range(len(FIRST["vector"]))], "reasons": reasons}
    value = claims.pack(decision, appended=True, published=True)
    takes = [
        claims.take([ClaimAttempt(key, value) for key in keys[at : at + 1000]], DUE, NOW)
        for at in range(0, count, 1000)
    ]
    shrinks = [claims.shrink(DUE, NOW + WINDOW, 1000)] * len(takes)
    # Redis keeps scripts, too.
    used(server, store, [takes[0], shrinks[0]])
    store.flushall()
    empty = used(server, store, [])
    whole = (used(server, store, takes) - empty) / count
    shrunk = (used(server, store, shrinks) - empty) / count
    store.flushall()
    print(
        f"a shrunk claim takes {shrunk:.1f} bytes; a whole one {whole:.0f}, {len(value)} its own, "
        f"of {len(orjson.dumps(decision))} of JSON"
    )
    assert shrunk <= 200
    assert whole <= 1200
