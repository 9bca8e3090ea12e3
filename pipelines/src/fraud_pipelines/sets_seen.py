"""A key's state for any set of events that a vector says it saw: found by the set's digest, made by applying it.

A digest is the sum of 64-bit hashes, so the digest after an event follows from the one before it, and what lies between
two digests can be solved for. States are functions of the set, not of the order, so one path to a digest is as good as
another. That is what makes a vector reproducible after a restore, where a stage applied the same events in two orders.

Records from before an update may hold digests of version 1, sums by XOR; those are followed from record to record, up to
where the stream went on by addition. Where such a record is lacking, what comes after it counts as not in evidence.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fraud_pipelines.features import KeyState, Stage
from fraud_pipelines.features.plan import Value, hash64
from fraud_pipelines.features.stage import MASK, event_hash, event_hash_v1

Event = Mapping[str, Any]
Place = tuple[int, int]  # (digest, seq): the seq tells how many events are sought; old digests may cancel

BASES: Final = 64  # known states from which a set is sought, those nearest in seq
# Events that may make up the difference: with their 2^48 sums, one that fits 64 bits is as good as always the one.
CANDIDATES: Final = 48
LABELS: Final = 256  # labels in a row that may make up the difference
# Sums of half the candidates that are tried: 0.2 ms and, where all else failed, 20 ms.
FEW: Final = 1 << 10
MANY: Final = 1 << 17
BACK: Final = 400  # steps back in which a state's events are looked for, so that none is taken twice


class Look(NamedTuple):
    """An event's look at its key's state. ``applied``: the stream took it into the state that it looked at."""

    place: Place
    event: Event
    applied: bool


def name_of(event: Event) -> int:
    """An event as digests know it."""
    return event_hash(event, hash64(event["id"]))


@dataclass
class _State:
    state: bytes | None
    labels: int  # how many of the key's labels, in their order, were offered to it
    parent: Place | None
    added: tuple[Event, ...] = ()


class KeyStates:
    """All states of one key that its looks ask for. ``labels`` in the order of their topic."""

    def __init__(
        self,
        stage: Stage,
        seeds: Iterable[bytes],
        looks: Sequence[Look],
        labels: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._stage, self._labels = stage, labels if stage.fraud is not None else ()
        self._known: dict[Place, _State] = {}
        self._by_seq: list[tuple[int, int]] = []
        self._open: list[Place] = []
        self._looks: dict[Place, dict[int, Look]] = defaultdict(dict)
        self._events: dict[int, Event] = {}
        seen: dict[int, int] = {}  # least seq at which an event came
        for look in looks:
            key = name_of(look.event)
            self._events[key] = look.event
            if look.applied or key not in self._looks[look.place]:
                self._looks[look.place][key] = look
            seen[key] = min(seen.get(key, look.place[1]), look.place[1])
        self._came = sorted((seq, key) for key, seq in seen.items())
        self.values: dict[tuple[Place, int], list[Value]] = {}
        self.solved = 0
        self.lost: dict[Place, str] = {}
        for state in (None, *seeds):
            key_state = stage.open(state)
            self._learn((key_state.digest, key_state.seq), _State(state, 0, None))
        self._run(bool(list(seeds)))

    def _run(self, seeded: bool) -> None:
        """Follows the looks from state to state; a state that no look leads to is sought by its digest."""
        waiting = sorted(self._looks, key=lambda place: place[1])
        at = 0
        while True:
            while self._open:
                self._visit(self._open.pop())
            while at < len(waiting) and waiting[at] in self._known:
                at += 1
            if at == len(waiting):
                break
            place = waiting[at]
            at += 1
            found = self._seek(place)
            if found is not None:
                self.solved += 1
                self._learn(place, found)
        same = {place[0]: known for place, known in self._known.items()}
        for place in waiting:
            if place in self._known:
                continue
            # One set under another seq: of another epoch's seed, say.
            if place[0] in same:
                self._known[place] = same[place[0]]
                self._visit(place)
            else:
                self.lost[place] = "events not in evidence" if seeded else "no seed in evidence"

    def _learn(self, place: Place, state: _State) -> None:
        if place not in self._known:
            self._known[place] = state
            insort(self._by_seq, (place[1], place[0]))
            self._open.append(place)

    def _visit(self, place: Place) -> None:
        known = self._known[place]
        for name, look in self._looks.get(place, {}).items():
            key_state = self._stage.open(known.state)
            values = key_state.observe(look.event)
            fresh = values is not None
            self.values[place, name] = key_state.read(look.event) if values is None else values
            if look.applied and fresh:
                after = (key_state.digest, key_state.seq)
                if after not in self._known:
                    self._learn(after, _State(key_state.dump(), known.labels, place, (look.event,)))
                as_v1 = (place[0] ^ event_hash_v1(look.event, hash64(look.event["id"])), key_state.seq)
                if as_v1 in self._looks and as_v1 not in self._known:
                    key_state.digest = as_v1[0]
                    self._learn(as_v1, _State(key_state.dump(), known.labels, place, (look.event,)))

    def _seek(self, place: Place) -> _State | None:
        end = bisect_right(self._by_seq, (place[1], 1 << 64))
        near = [(digest, seq) for seq, digest in self._by_seq[max(0, end - BASES) : end][::-1]]
        for labels, sums in ((0, FEW), (LABELS, FEW), (0, MANY)) if self._labels else ((0, FEW), (0, MANY)):
            for base in near:
                found = self._from(base, place, labels, sums)
                if found is not None:
                    return found
        return None

    def _from(self, base: Place, place: Place, most: int, sums: int) -> _State | None:
        """The state at ``place`` out of the one at ``base``: some labels, in order, then the events that are lacking."""
        known = self._known[base]
        key_state = self._stage.open(known.state)
        labels = known.labels
        while key_state.seq <= place[1]:
            lacking = self._lacking(base, key_state, place, sums)
            if lacking is not None:
                made = self._stage.open(key_state.dump())
                for event in sorted(lacking, key=lambda one: (one["time"], one["id"])):
                    made.observe(event)
                if (made.digest, made.seq) == place:
                    return _State(made.dump(), labels, base, tuple(lacking))
            if labels >= min(len(self._labels), known.labels + most):
                return None
            key_state.label(self._labels[labels])
            labels += 1
        return None

    def _lacking(self, base: Place, key_state: KeyState, place: Place, sums: int) -> Sequence[Event] | None:
        """The events whose hashes are the difference of two digests; None where none are known."""
        difference, count = place[0] - key_state.digest & MASK, place[1] - key_state.seq
        if count == 0:
            return None if difference else ()
        if count == 1:
            one = self._events.get(difference)
            return None if one is None else (one,)
        if count > CANDIDATES:
            return None
        member = self._members(base)
        middle = bisect_left(self._came, (place[1], 0))
        around = self._came[max(0, middle - 4 * CANDIDATES) : middle + 4 * CANDIDATES]
        near = sorted((abs(seq - place[1]), key) for seq, key in around if key not in member)
        chosen = solve([key for _, key in near[:CANDIDATES]], difference, count, sums)
        return None if chosen is None else [self._events[key] for key in chosen]

    def _members(self, place: Place) -> set[int]:
        found: set[int] = set()
        at: Place | None = place
        for _ in range(BACK):
            if at is None:
                break
            known = self._known[at]
            found.update(name_of(event) for event in known.added)
            at = known.parent
        return found


def solve(hashes: Sequence[int], target: int, count: int, most: int = MANY) -> list[int] | None:
    """The ``count`` of ``hashes`` whose sum mod 2^64 is ``target``; None where none are.

    Two halves meet: a sum of some of the one must be the target less a sum of some of the other. Of each half at most
    ``most`` sums are made; where there are more, the last of ``hashes`` are left out.
    """
    n = len(hashes)
    while n > count and _ways(n - n // 2, n // 2, count) > most:
        n -= 1
    if n < count or _ways(n - n // 2, n // 2, count) > most:
        return None
    one, other = hashes[: n - n // 2], hashes[n - n // 2 : n]
    sums, chosen = _sums(one, count - len(other), count)
    order = np.argsort(sums)
    sums, chosen = sums[order], chosen[order]
    others, others_chosen = _sums(other, count - len(one), count)
    wanted = np.uint64(target) - others
    at = np.minimum(np.searchsorted(sums, wanted), len(sums) - 1)
    for i in np.flatnonzero(sums[at] == wanted):
        bits = int(chosen[at[i]]) | int(others_chosen[i]) << len(one)
        if bits.bit_count() == count:
            return [value for j, value in enumerate(hashes[:n]) if bits >> j & 1]
    return None


def _ways(half: int, other: int, count: int) -> int:
    """How many sums of the larger half there are, where both together have ``count`` summands."""
    return sum(comb(half, k) for k in range(max(0, count - other), min(half, count) + 1))


def _sums(hashes: Sequence[int], least: int, most: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The sums mod 2^64 of all choices of ``least`` to ``most`` of ``hashes``, and the choices as bits."""
    sums, chosen, size = np.zeros(1, np.uint64), np.zeros(1, np.uint64), np.zeros(1, np.int64)
    for j, value in enumerate(hashes):
        sums = np.concatenate((sums, sums + np.uint64(value)))
        chosen = np.concatenate((chosen, chosen | np.uint64(1 << j)))
        size = np.concatenate((size, size + 1))
        kept = (size <= most) & (size + len(hashes) - 1 - j >= least)
        sums, chosen, size = sums[kept], chosen[kept], size[kept]
    return sums, chosen
