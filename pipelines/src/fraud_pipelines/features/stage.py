"""One entity's keyed stage: pure methods from (state, event) to (values, new state), and the same over decoded objects.

The byte form serves the stream and the decision service; ``open`` gives the object form, for replay and for anyone who
applies several events in a row. Both run the same code, so their values are equal bit for bit.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Final

from fraud_contracts import profile_header
from fraud_pipelines.features.curve import INT64_MAX, Curve
from fraud_pipelines.features.grid import Grid
from fraud_pipelines.features.last_seen import LastSeen
from fraud_pipelines.features.plan import NAN, CurvePlan, Event, FraudPlan, Value, hash64
from fraud_pipelines.features.profile import FIXED, VERSION, ProfileError, check_version

TAG: Final = 0xFFFFFFFF
MASK: Final = 0xFFFFFFFFFFFFFFFF
MIX_TIME: Final = 0x9E3779B97F4A7C15  # odd numbers of well-spread bits
MIX_AMOUNT: Final = 0xD1B54A32D192ED03
MIX: Final = 0xBF58476D1CE4E5B9
COUNTER_MAX: Final = 0xFFFFFFFF

SawEntry = tuple[
    int, int, int
]  # one entity's part of ``records.Saw``, the digest still a number: (epoch, seq, digest)
Label = Mapping[str, Any]


def event_hash(event: Event, key: int) -> int:
    """What an event adds to the digest; ``key`` is ``hash64`` of its id.

    Time and amount belong to it: two bodies under one id are two events. The mixing keeps it from being a sum of its parts:
    digests are sums, so two ids that change their bodies would give the digest that they gave before.
    """
    mixed = event_hash_v1(event, key)
    mixed = (mixed ^ mixed >> 32) * MIX & MASK
    return mixed ^ mixed >> 29


def event_hash_v1(event: Event, key: int) -> int:
    """What an event adds to a digest of version 1, by XOR; only the audit still follows such."""
    mixed: int = key + event["time"] * MIX_TIME + event["amount"] * MIX_AMOUNT
    return mixed & MASK


def label_hash(event_id: str, known_at: int) -> int:
    """What a label adds to the digest; ``person`` keeps it apart from the hash of its event."""
    text = f"{known_at}:{event_id}".encode()
    return int.from_bytes(blake2b(text, digest_size=8, person=b"label").digest(), "little")


class KeyState:
    """A key's state, decoded. Made by ``Stage.open``."""

    __slots__ = ("curves", "digest", "epoch", "frauds", "last_seen", "seq", "stage", "too_old")

    def __init__(
        self,
        stage: Stage,
        head: tuple[int, int, int, int],
        curves: list[Curve],
        last_seen: list[list[LastSeen]],
        frauds: Curve | None,
    ) -> None:
        self.stage = stage
        self.epoch, self.seq, self.digest, self.too_old = head
        self.curves, self.last_seen, self.frauds = curves, last_seen, frauds

    @property
    def saw(self) -> SawEntry:
        return self.epoch, self.seq, self.digest

    def observe(self, event: Event, key: int | None = None) -> list[Value] | None:
        """Takes an event; -> its values, None for a repeated id. ``key`` is ``hash64`` of its id, if the caller has it.

        *Out of order*: the event takes its place by its own time, and its values are as of that time. Values that were
        computed for later events are not revised. *Too late* (``is_too_late``): nothing changes but a counter, and the values
        are those of a key's only event. *Ties* count in the order of arrival: the second event of a millisecond sees the first.
        """
        stage, curves = self.stage, self.curves
        t: int = event["time"]
        if key is None:
            key = hash64(event["id"])
        tag = key & TAG
        ts = curves[0].ts
        if ts and t <= ts[-1]:
            if self.is_too_late(t):
                self.too_old = min(self.too_old + 1, COUNTER_MAX)
                return stage.open(None).observe(event, key)
            for plan, curve in zip(stage.plans, curves, strict=True):
                if plan.matches(event) and curve.find(t, tag) >= 0:
                    return None
        self.seq += 1
        self.digest = self.digest + event_hash(event, key) & MASK
        out: list[Value] = []
        first = 0
        if stage.only is not None:  # as below, without a loop
            first = curves[0].add(t, tag, stage.only.measure(event))
            out = stage.only.read(curves[0], self.last_seen[0], t, first, True)
        for i, plan in enumerate(stage.plans if stage.only is None else ()):
            curve, last_seen = curves[i], self.last_seen[i]
            own = plan.where is None or plan.matches(event)
            if not own:
                rows = bisect_right(curve.ts, t)
            elif plan.plain:
                rows = curve.add(t, tag, plan.measure(event))
            else:
                rows = plan.add(curve, last_seen, t, tag, event)
            first = first or rows
            out += plan.read(curve, last_seen, t, rows, own)
        fraud, frauds = stage.fraud, self.frauds
        if fraud is not None and frauds is not None:
            main = curves[0]
            limit = main.ts[-1] - stage.grid.retain
            if frauds.ts and frauds.ts[0] <= limit:
                frauds.expire(limit)
            fraud.read(main, frauds, t, first, out)
        return out

    def is_too_late(self, t: int) -> bool:
        """The rule for late events and labels: too late is what lies behind the key's newest event by at least the entity's
        longest window (with its label's delay) plus ``lifetimes.LATENESS``. It is not applied to the state.
        """
        ts = self.curves[0].ts
        return bool(ts) and t <= ts[-1] - self.stage.grid.retain

    def unsure(self, event: Event) -> bool:
        """Whether it can't be told if this event was applied before: single events of its time have been thinned to cells."""
        t, curves = event["time"], self.curves
        ts, cells = curves[0].ts, len(curves[0].counts)
        if not cells or not ts[-1] - self.stage.grid.retain < t <= ts[cells]:
            return False
        tag = hash64(event["id"]) & TAG
        pairs = zip(self.stage.plans, curves, strict=True)
        return not any(plan.matches(event) and curve.find(t, tag) >= 0 for plan, curve in pairs)

    def read(self, event: Event) -> list[Value]:
        """The values as of an event that was taken before; nothing changes."""
        t: int = event["time"]
        out: list[Value] = []
        for plan, curve, last_seen in zip(self.stage.plans, self.curves, self.last_seen, strict=True):
            out += plan.read(curve, last_seen, t, bisect_right(curve.ts, t), plan.matches(event))
        if self.stage.fraud is not None and self.frauds is not None:
            self.stage.fraud.read(self.curves[0], self.frauds, t, bisect_right(self.curves[0].ts, t), out)
        return out

    def peek(self, event: Event) -> list[Value]:
        """The values as if the event were taken now; nothing changes."""
        copy = self.stage.open(self.dump())
        values = copy.observe(event)
        return copy.read(event) if values is None else values

    def label(self, label: Label) -> bool:
        """Takes a label; -> whether anything changed."""
        frauds = self.frauds
        if frauds is None:
            return False
        event_id, t, known_at = label["id"], label["time"], label["known"]
        tag = hash64(event_id) & TAG
        row = frauds.find(t, tag)
        if not label["fraud"]:
            if row < 0:
                return False
            self.digest = self.digest - label_hash(event_id, frauds.peaks[0][row]) & MASK
            frauds.remove(row)
        elif row >= 0:
            before = frauds.peaks[0][row]
            if before <= known_at:
                return False
            self.digest = self.digest - label_hash(event_id, before) + label_hash(event_id, known_at) & MASK
            frauds.peaks[0][row] = known_at
        else:
            if self.is_too_late(t):
                return False
            frauds.add(t, tag, (), (known_at,))
            self.digest = self.digest + label_hash(event_id, known_at) & MASK
        self.seq += 1
        return True

    def dump(self) -> bytes:
        """The binary form."""
        stage, newest = self.stage, self.curves[0].ts
        sizes: list[int] = []
        parts: list[Any] = []
        for curve in self.curves if self.frauds is None else (*self.curves, self.frauds):
            sizes += (len(curve.counts), len(curve.tags), curve.base, *curve.base_sums)
            parts += (curve.ts, *curve.sums, *curve.peaks, curve.counts, curve.tags)
        for tables in self.last_seen:
            for table in tables:
                sizes.append(len(table.lasts))
                parts += (table.lasts, table.hashes)
        fixed = stage.layout.pack(
            profile_header.MAGIC,
            VERSION,
            stage.set_hash,
            self.epoch,
            self.seq,
            self.digest,
            newest[-1] if newest else 0,
            self.too_old,
            *sizes,
        )
        return b"".join((fixed, *parts))


class Stage:
    """Everything that is computed per key of one entity. ``values`` are for ``FeatureSet.vector`` to read."""

    def __init__(
        self, entity: str, set_hash8: str, grid: Grid, plans: tuple[CurvePlan, ...], fraud: FraudPlan | None
    ) -> None:
        self.entity = entity
        self.set_hash = bytes.fromhex(set_hash8)
        self.grid, self.plans, self.fraud = grid, plans, fraud
        # The plan of a set without filters, extremes and tables of values, as the preset's are.
        self.only = plans[0] if len(plans) == 1 and plans[0].plain else None
        self._shapes = [(grid, len(plan.columns), plan.maxima) for plan in plans]
        if fraud is not None:
            # Of each label: when it was known. Only events move a key's time on: where a stream catches up, labels run days
            # ahead of the events, which still ask for what a label's own time would have it forget.
            self._shapes.append((replace(grid, retain=INT64_MAX), 0, (True,)))
        form = FIXED.format
        for _, sums, _ in self._shapes:
            form += "IIq" + "q" * sums
        form += "I" * sum(len(plan.last_seen) for plan in plans)
        self.layout = struct.Struct(form)
        self.width = len(self.open(None).read({"time": 0, "fields": {}}))
        self.nulls: list[float] = [NAN] * self.width

    def observe(
        self, state: bytes | None, event: Event, epoch: int = 0
    ) -> tuple[list[float] | None, bytes, SawEntry]:
        """Applies an event: -> (values for ``FeatureSet.vector``, new state, what the state had seen before).

        For a repeated id the values are None and the state is unchanged. A new state (``state`` None) begins in ``epoch``.
        """
        key_state = self.open(state, epoch)
        saw = key_state.saw
        values = key_state.observe(event)
        if values is None and state is not None:
            return None, state, saw
        return values, key_state.dump(), saw

    def peek(self, state: bytes | None, event: Event) -> list[float]:
        """The values as if the event were taken now, whether it is a repeat or not; no state changes."""
        key_state = self.open(state)
        values = key_state.observe(event)
        return key_state.read(event) if values is None else values

    def label(self, state: bytes | None, label: Label, epoch: int = 0) -> bytes:
        """New state after a label; the same object where nothing changed. A label may come before its transaction.

        ``fraud: false`` takes an earlier label of the same id back, while that is among the newest K of its key; later it
        stays. The same label again has no effect, under the same limit.
        """
        key_state = self.open(state, epoch)
        changed = key_state.label(label)
        return state if state is not None and not changed else key_state.dump()

    def seed(self, profile: bytes, epoch: int) -> bytes:
        """The same profile under another epoch."""
        key_state = self.open(profile)
        key_state.epoch = epoch
        return key_state.dump()

    def open(self, state: bytes | None, epoch: int = 0) -> KeyState:
        """Decodes a state, a new one where it is None; ProfileError where it isn't one of this stage and set."""
        if state is None:
            return self._new(epoch)
        if len(state) < self.layout.size:
            raise ProfileError(
                f"the profile is cut: {len(state)} bytes, its fixed part alone has {self.layout.size}"
            )
        magic, version, set_hash, epoch, seq, digest, _, too_old, *sizes = self.layout.unpack_from(state)
        if magic != profile_header.MAGIC:
            raise ProfileError("these bytes are no profile: they don't begin with a profile's header")
        check_version(version)
        if set_hash != self.set_hash:
            raise ProfileError(
                f"the profile is of feature set {set_hash.hex()}, this stage of {self.set_hash.hex()}"
            )
        try:
            return self._decode(state, (epoch, seq, digest, too_old), sizes)
        except ProfileError:
            raise
        except ValueError as error:  # a column cut in the middle of a number
            raise ProfileError(
                f"the profile is cut: {len(state)} bytes are fewer than its sizes say"
            ) from error

    def _new(self, epoch: int) -> KeyState:
        grid = self.grid
        curves = [Curve.empty(*shape) for shape in self._shapes]
        last_seen = [[LastSeen(grid.k, grid.retain) for _ in plan.last_seen] for plan in self.plans]
        return KeyState(
            self, (epoch, 0, 0, 0), curves, last_seen, curves.pop() if self.fraud is not None else None
        )

    def _decode(self, state: bytes, head: tuple[int, int, int, int], sizes: list[int]) -> KeyState:
        """Cuts the columns out of the bytes. A wrong size shows at the end: slices never fail."""
        at, i = self.layout.size, 0
        curves: list[Curve] = []
        for grid, columns, maxima in self._shapes:
            cells, single, base = sizes[i : i + 3]
            i += 3
            step = 8 * (cells + single)
            ts = array("q", state[at : at + step])
            at += step
            base_sums: list[int] = []
            sums: list[array[int]] = []
            if columns:
                base_sums = sizes[i : i + columns]
                i += columns
                for _ in base_sums:
                    sums.append(array("q", state[at : at + step]))
                    at += step
            peaks: list[array[int]] = []
            for _ in maxima:
                peaks.append(array("q", state[at : at + step]))
                at += step
            counts = array("q", state[at : at + 8 * cells])
            at += 8 * cells
            tags = array("I", state[at : at + 4 * single])
            at += 4 * single
            curves.append(Curve(grid, maxima, base, base_sums, ts, sums, peaks, counts, tags))
        last_seen: list[list[LastSeen]] = []
        for plan in self.plans:
            tables: list[LastSeen] = []
            for _ in plan.last_seen:
                table = LastSeen(self.grid.k, self.grid.retain)
                step = 8 * sizes[i]
                table.lasts.frombytes(state[at : at + step])
                table.hashes.frombytes(state[at + step : at + 2 * step])
                at += 2 * step
                i += 1
                tables.append(table)
            last_seen.append(tables)
        if at != len(state):
            raise ProfileError(f"the profile has {len(state)} bytes where its sizes say {at}")
        return KeyState(self, head, curves, last_seen, curves.pop() if self.fraud is not None else None)
