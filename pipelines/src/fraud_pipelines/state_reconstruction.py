"""Reconstructs the state that a key had when a vector saw it, from the digest of the events that had been applied.

A digest is the sum of 64-bit hashes. So the digest after an event follows from the one before it, and the events between
two digests can be solved for. A state depends on the set of its events and not on their order, so every path to a digest
gives the same state. Vectors can therefore be reproduced after a restore, too, where a stage applies the same events in
another order.

So they can over several lineages, whose states have other sets, and nobody needs to be told which seeds one began with or where: the digest
of a seed is that of the events that it holds. A job that takes records in silence leaves hundreds of events between two of its states
that are in evidence: ``event_rows`` finds those.

Records from before an update may hold digests of version 1, sums by XOR. Those are followed from record to record, up to
where the stream went on by addition. Where such a record is missing, what comes after it counts as not in evidence.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import comb
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fraud_pipelines.event_rows import SKEWS, EventRows, Origin
from fraud_pipelines.features import KeyState, Stage
from fraud_pipelines.features.plan import Event, Value, hash64
from fraud_pipelines.features.stage import MASK, event_hash, event_hash_v1

StateId = tuple[
    int, int
]  # (digest, seq): the seq gives the number of events between two; old digests may cancel

# Base, its state with some labels more, the state that is sought, the difference of digests and the count of events -> their hashes.
Search = Callable[[StateId, KeyState, StateId, int, int], list[int] | None]

BASES: Final = 64  # reconstructed states from which another one is sought, those nearest in seq
# Events that may make up the difference: with their 2^48 sums, one that fits 64 bits is as good as always the one.
CANDIDATES: Final = 48
LABELS: Final = 256  # labels in a row that may make up the difference
# Sums of half the candidates that are tried: 0.2 ms and, where all else failed, 20 ms.
FEW: Final = 1 << 10
MANY: Final = 1 << 17
ROWS: Final = 8  # bases from which windows of events are sought, beside the seeds
OWN_BASES: Final = 8  # of the same epoch, beside those nearest in seq
BACK: Final = 400  # steps back over which a state's events are collected, so that none is applied twice


class Lookup(NamedTuple):
    """An event for which its key's state was looked up. ``applied``: the stream then applied the event to that state.

    ``epoch`` is that of the state: its lineage.
    """

    state_id: StateId
    event: Event
    applied: bool
    epoch: int = 0
    origin: Origin = Origin()


def hash_of(event: Event) -> int:
    """What the event adds to a digest."""
    return event_hash(event, hash64(event["id"]))


@dataclass
class _Reconstructed:
    """A state: its ``profile``, and how it came from its ``parent``."""

    profile: bytes | None
    labels: int  # how many of the key's labels, in their order, have been applied
    parent: StateId | None
    added: tuple[Event, ...] = ()


class StateReconstruction:
    """The states of one key that its lookups name, and what each event's values are in them.

    ``labels`` come in the order of their topic, ``others`` are the key's events, and where they came from, that no lookup is of: a job of another feature
    set decided them, and one of this set took them in silence. ``values``: by state and ``hash_of`` an event. ``solved``: how many states had
    to be solved for. ``lost``: why a state can't be reconstructed.
    """

    def __init__(
        self,
        stage: Stage,
        seeds: Iterable[bytes],
        lookups: Sequence[Lookup],
        labels: Sequence[Mapping[str, Any]] = (),
        others: Iterable[tuple[Event, Origin]] = (),
    ) -> None:
        self._stage, self._labels = stage, labels if stage.fraud is not None else ()
        self._states: dict[StateId, _Reconstructed] = {}
        self._by_seq: list[tuple[int, int]] = []
        self._unvisited: list[StateId] = []
        self._lookups: dict[StateId, dict[int, Lookup]] = defaultdict(dict)
        self._events: dict[int, Event] = {}
        origins: dict[int, Origin] = {}  # the first of each: what was sent again is taken once
        for event, origin in (*others, *((lookup.event, lookup.origin) for lookup in lookups)):
            key = hash_of(event)
            self._events[key] = event
            origins[key] = min(origins.get(key, origin), origin, key=lambda one: one.appended)
        self._epochs: dict[StateId, set[int]] = defaultdict(set)
        self._of_epoch: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._roots: list[StateId] = []
        earliest: dict[int, int] = {}  # least seq at which an event came
        for lookup in lookups:
            key = hash_of(lookup.event)
            self._epochs[lookup.state_id].add(lookup.epoch)
            if lookup.applied or key not in self._lookups[lookup.state_id]:
                self._lookups[lookup.state_id][key] = lookup
            earliest[key] = min(earliest.get(key, lookup.state_id[1]), lookup.state_id[1])
        self._by_earliest_seq = sorted((seq, key) for key, seq in earliest.items())
        self._by_time = sorted((event["time"], key) for key, event in self._events.items())
        self._rows = EventRows(origins, {key: event["time"] for key, event in self._events.items()})
        self.values: dict[tuple[StateId, int], list[Value]] = {}
        self.solved = 0
        self.lost: dict[StateId, str] = {}
        for state in (None, *seeds):
            key_state = stage.open(state)
            self._roots.append((key_state.digest, key_state.seq))
            self._add((key_state.digest, key_state.seq), _Reconstructed(state, 0, None))
        self._run(bool(list(seeds)))

    def newest(self, state_id: StateId) -> int:
        """When the newest event of a state took place, UTC ms; -1 where it has none."""
        return _newest(self._stage.open(self._states[state_id].profile))

    def _run(self, seeded: bool) -> None:
        """Follows the lookups from state to state; a state to which none leads is solved for by its digest."""
        waiting = sorted(self._lookups, key=lambda state_id: state_id[1])
        at = 0
        while True:
            while self._unvisited:
                self._visit(self._unvisited.pop())
            while at < len(waiting) and waiting[at] in self._states:
                at += 1
            if at == len(waiting):
                break
            state_id = waiting[at]
            at += 1
            state = self._solve_for(state_id)
            if state is not None:
                self.solved += 1
                self._add(state_id, state)
        same = {state_id[0]: state for state_id, state in self._states.items()}
        for state_id in waiting:
            if state_id in self._states:
                continue
            # One set under another seq: of another epoch's seed, say.
            if state_id[0] in same:
                self._states[state_id] = same[state_id[0]]
                self._visit(state_id)
            else:
                self.lost[state_id] = "events not in evidence" if seeded else "no seed in evidence"

    def _add(self, state_id: StateId, state: _Reconstructed) -> None:
        if state_id not in self._states:
            self._states[state_id] = state
            insort(self._by_seq, (state_id[1], state_id[0]))
            for epoch in self._epochs.get(state_id, ()):
                insort(self._of_epoch[epoch], (state_id[1], state_id[0]))
            self._unvisited.append(state_id)

    def _visit(self, state_id: StateId) -> None:
        state = self._states[state_id]
        for name, lookup in self._lookups.get(state_id, {}).items():
            key_state = self._stage.open(state.profile)
            values = key_state.observe(lookup.event)
            fresh = values is not None
            self.values[state_id, name] = key_state.read(lookup.event) if values is None else values
            if lookup.applied and fresh:
                after = (key_state.digest, key_state.seq)
                if after not in self._states:
                    self._add(
                        after, _Reconstructed(key_state.dump(), state.labels, state_id, (lookup.event,))
                    )
                as_v1 = (state_id[0] ^ event_hash_v1(lookup.event, hash64(lookup.event["id"])), key_state.seq)
                if as_v1 in self._lookups and as_v1 not in self._states:
                    key_state.digest = as_v1[0]
                    self._add(
                        as_v1, _Reconstructed(key_state.dump(), state.labels, state_id, (lookup.event,))
                    )

    def _solve_for(self, state_id: StateId) -> _Reconstructed | None:
        near = [*_below(self._by_seq, state_id[1], BASES)]
        # Where lineages have states of the same seq, those nearest may all be of another one.
        for epoch in self._epochs.get(state_id, ()):
            near += _below(self._of_epoch[epoch], state_id[1], OWN_BASES)
        near = list(dict.fromkeys([*near, *(root for root in self._roots if root[1] <= state_id[1])]))
        rows = list(dict.fromkeys([*near[:ROWS], *self._roots]))
        tries: list[tuple[Sequence[StateId], int, Search]] = [
            (near, 0, partial(self._nearby, FEW)),
            *((rows, LABELS, partial(self._windows, skew)) for skew in SKEWS),
            (near, LABELS, partial(self._nearby, FEW)),
            (near, 0, partial(self._nearby, MANY)),
        ]
        for bases, labels, search in tries:
            for base in bases:
                state = self._reach(base, state_id, labels, search)
                if state is not None:
                    return state
        return None

    def _reach(self, base: StateId, state_id: StateId, most: int, search: Search) -> _Reconstructed | None:
        """The state ``state_id``, from ``base``: up to ``most`` labels more, in order, then the missing events; None where none fit."""
        state = self._states[base]
        key_state = self._stage.open(state.profile)
        labels = state.labels
        while key_state.seq <= state_id[1]:
            lacking = self._lacking(base, key_state, state_id, search)
            if lacking is not None:
                candidate = self._stage.open(key_state.dump())
                for event in sorted(lacking, key=lambda one: (one["time"], one["id"])):
                    candidate.observe(event)
                if (candidate.digest, candidate.seq) == state_id:
                    return _Reconstructed(candidate.dump(), labels, base, tuple(lacking))
            if labels >= min(len(self._labels), state.labels + most):
                return None
            key_state.label(self._labels[labels])
            labels += 1
        return None

    def _lacking(
        self, base: StateId, key_state: KeyState, state_id: StateId, search: Search
    ) -> Sequence[Event] | None:
        """The events whose hashes are the difference of the two digests; None where no such events are in evidence."""
        difference, count = state_id[0] - key_state.digest & MASK, state_id[1] - key_state.seq
        if count == 0:
            return None if difference else ()
        if count == 1:
            one = self._events.get(difference)
            return None if one is None else (one,)
        chosen = search(base, key_state, state_id, difference, count)
        return None if chosen is None else [self._events[key] for key in chosen]

    def _nearby(
        self, sums: int, base: StateId, _: KeyState, state_id: StateId, difference: int, count: int
    ) -> list[int] | None:
        """Hashes of events that were looked up, or took place, at about the same time."""
        if count > CANDIDATES:
            return None
        applied = self._recent_events(base)
        # Near in seq are those that a stream applied about then. Near in time are those that were pending at the inline door:
        # they are applied much later, and one that was decided without a profile has no seq at all.
        time = min(lookup.event["time"] for lookup in self._lookups[state_id].values())
        for ranked, middle in (self._by_earliest_seq, state_id[1]), (self._by_time, time):
            chosen = solve(_nearest(ranked, middle, applied), difference, count, sums)
            if chosen is not None:
                return chosen
        return None

    def _windows(
        self, skew: int, _: StateId, key_state: KeyState, state_id: StateId, difference: int, count: int
    ) -> list[int] | None:
        """Hashes of the events that a job took in silence; with those that were pending, where the inline door saw the state."""
        lookups = self._lookups[state_id]
        inline = not any(lookup.applied for lookup in lookups.values())
        seen = max((lookup.event["time"], key) for key, lookup in lookups.items())[1] if inline else None
        return self._rows.windows(difference, count, _newest(key_state), skew, seen)

    def _recent_events(self, state_id: StateId) -> set[int]:
        """Hashes of the events applied in the last ``BACK`` steps to the state."""
        hashes: set[int] = set()
        at: StateId | None = state_id
        for _ in range(BACK):
            if at is None:
                break
            state = self._states[at]
            hashes.update(hash_of(event) for event in state.added)
            at = state.parent
        return hashes


def _newest(key_state: KeyState) -> int:
    return key_state.curves[0].ts[-1] if key_state.curves[0].ts else -1


def _below(ranked: Sequence[tuple[int, int]], seq: int, most: int) -> list[StateId]:
    """Of (seq, digest) in order, the ``most`` highest up to ``seq``, the highest first."""
    end = bisect_right(ranked, (seq, 1 << 64))
    return [(digest, at) for at, digest in ranked[max(0, end - most) : end][::-1]]


def _nearest(ranked: Sequence[tuple[int, int]], middle: int, without: set[int]) -> list[int]:
    """Of (rank, hash) in order, the hashes whose ranks are nearest to ``middle``, at most ``CANDIDATES``, without those."""
    at = bisect_left(ranked, (middle, 0))
    around = ranked[max(0, at - 4 * CANDIDATES) : at + 4 * CANDIDATES]
    near = sorted((abs(rank - middle), key) for rank, key in around if key not in without)
    return [key for _, key in near[:CANDIDATES]]


def solve(hashes: Sequence[int], target: int, count: int, most: int = MANY) -> list[int] | None:
    """The ``count`` of ``hashes`` whose sum mod 2^64 is ``target``; None where none are.

    Meet in the middle: a sum over one half must be the target less a sum over the other. At most ``most`` sums of each half
    are computed; where there are more, the last of ``hashes`` are left out.
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
