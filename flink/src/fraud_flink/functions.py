"""Flink's side of the steps: state handles, side outputs, keys. What is done to a record is in ``intake`` and ``stages``.

Elements travel as pickles: one opaque column costs the least in thread mode, keeps NaN and 64-bit integers, and never
leaves this job. State is ``bytes`` under PICKLED_BYTE_ARRAY, since a primitive byte array crashes thread mode while the
state is empty. Nothing here buffers: what a Python object holds is in no checkpoint.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import time
from collections.abc import Iterator
from typing import Any

from pyflink.common import Row, Time, Types
from pyflink.datastream import (
    KeyedProcessFunction,
    KeySelector,
    OutputTag,
    ProcessFunction,
    RuntimeContext,
)
from pyflink.datastream.state import ListStateDescriptor, StateTtlConfig, ValueStateDescriptor

from fraud_contracts import lifetimes, log
from fraud_contracts.config import load_config
from fraud_contracts.lineage import NO_STATE, SOURCES, Beginning
from fraud_contracts.records import Source
from fraud_flink.elements import (
    Element,
    EventElement,
    LabelElement,
    Packed,
    ProgressElement,
    SeedElement,
    entity_key,
    unpack,
)
from fraud_flink.intake import DeadLetterRow, Intake
from fraud_flink.progress import ALONE, ProgressRecords, SourceOffsets, SubtaskProgress, copies
from fraud_flink.silence import Silence
from fraud_flink.stages import EntityStage
from fraud_flink.tables import TICKS

ELEMENT = Types.PICKLED_BYTE_ARRAY()
BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
KEY_VALUE = Types.ROW_NAMED(["k", "v"], [BYTES, BYTES])
DEAD_LETTERS = OutputTag("dead-letters", KEY_VALUE)
PROFILES = OutputTag("profiles", KEY_VALUE)
STATE = "profile-v1"
WAITING = "waiting-v1"
# Longer than two inline decisions may lie apart, with their deadlines and an append. No caller waits for it.
WAIT_MS = 500
WAITING_MAX = 64
BEFORE_SEED = "before-seed-v1"
SEED_ENDS = "seed-ends-v1"
# How long after a job's start a key's seed is still waited for; a million are read in some minutes.
SEEDING_MS = 30 * 60_000
# A key that takes more than so much meanwhile goes on without its seed.
BEFORE_SEED_MAX = 20_000
_log = logging.getLogger(__name__)


class IntakeFunction(ProcessFunction):  # type: ignore[misc]  # PyFlink has no types
    """First step of all input topics; rows are (noun, key, value, partition, offset, append time).

    A row of ``TICKS`` is no record: how far the sources are is told with each.
    """

    def __init__(self, beginning: Beginning = NO_STATE, keys: tuple[str, ...] = ALONE) -> None:
        """``keys``: of each subtask of the next step one that Flink sends there."""
        self._beginning, self._keys = beginning, keys

    def open(self, runtime_context: RuntimeContext) -> None:
        log.setup()
        config = load_config()
        self._silence = Silence(config.identity, self._beginning)
        self._topics = {noun: config.identity.topic(noun) for noun in SOURCES}
        self._intake = Intake.from_environment(config, os.environ, self._beginning.seeds)
        self._origin = _attempt()
        seeded = self._beginning.starts_at if self._beginning.seeds else {}
        self._offsets = SourceOffsets(seeded)

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Iterator[Any]:
        noun, key, body, partition, offset, appended = value
        if noun == TICKS:
            for copy in copies(self._origin, 0, self._keys, self._offsets.positions()):
                yield copy.packed()
            return
        self._offsets.read(noun, partition, offset)
        source: Source = {"topic": self._topics[noun], "partition": partition, "offset": offset}
        outcome = self._intake.take(noun, key, body, source, appended)
        if isinstance(outcome, DeadLetterRow):
            if not self._silence.covers(source):
                yield DEAD_LETTERS, Row(k=outcome.key, v=outcome.value)
            return
        for element in outcome:
            yield element.packed()


def _attempt() -> str:
    """Unique per attempt and subtask. Thread mode of Flink 2.2 can't tell the subtask's index (its bridge calls a method that is gone),
    hence the random tail."""
    return f"{time.time_ns() // 1_000_000:011x}-{secrets.token_hex(3)}"


def profile_state(reach: int) -> ValueStateDescriptor:
    """A key's state, which goes by itself once no value can depend on it any more; ``reach`` as in ``lifetimes``.

    What waits beside it has timers that end it. Both clean-ups are named, as Flink would choose them: Python's defaults, and one without a
    period, ask for a Java gateway, which a TaskManager doesn't have.
    """
    descriptor = ValueStateDescriptor(STATE, Types.PICKLED_BYTE_ARRAY())
    descriptor.enable_time_to_live(
        StateTtlConfig.new_builder(Time.milliseconds(lifetimes.state_kept(reach)))
        .update_ttl_on_create_and_write()
        .never_return_expired()
        .disable_cleanup_in_background()
        .cleanup_incrementally(5, False)
        .cleanup_in_rocksdb_compact_filter(1000, Time.days(30))
        .build()
    )
    return descriptor


class EntityKey(KeySelector):  # type: ignore[misc]  # PyFlink has no types
    def __init__(self, entity: str) -> None:
        self._entity = entity

    def get_key(self, value: Packed) -> str:
        return entity_key(unpack(value), self._entity)


class EntityFunction(KeyedProcessFunction):  # type: ignore[misc]  # PyFlink has no types
    """One entity's stage: applies events, labels and seeds to the key's state, and emits what it became to ``profiles``.

    Labels and seeds of another entity pass through. The last stage emits feature records instead of elements.

    An event that was decided inline waits a moment for those of its key that the decision service saw before
    it: two partitions bring them in any order, and the stream shall see what the decision saw
    (docs/decisions/0005). Waiting events are in the key's state, so a checkpoint has them.
    """

    def __init__(
        self, index: int, last: bool, beginning: Beginning = NO_STATE, keys: tuple[str, ...] = ALONE
    ) -> None:
        """``keys`` as for ``IntakeFunction``; of all stages they are the same."""
        self._index, self._last, self._beginning, self._keys = index, last, beginning, keys

    def open(self, runtime_context: RuntimeContext) -> None:
        log.setup()
        config = self._config = load_config()
        self._reach = lifetimes.reach(config.spec.features, config.spec.entities)
        self._state = runtime_context.get_state(profile_state(self._reach))
        self._waiting = runtime_context.get_state(ValueStateDescriptor(WAITING, Types.PICKLED_BYTE_ARRAY()))
        # Keys that may have waiting events; only spares a look at their state. After a restore the timers come at once.
        self._held: set[str] = set()
        # A reader can tell a first emission by it from one after a restore.
        self._run = _attempt()
        self._stage = EntityStage(config, self._index, self._run)
        self._progress = SubtaskProgress(1 if self._index == 0 else len(self._keys))
        self._progress_records: ProgressRecords | None = None
        self._silence = Silence(config.identity, self._beginning)
        self._before_seed = runtime_context.get_list_state(
            ListStateDescriptor(BEFORE_SEED, Types.PICKLED_BYTE_ARRAY())
        )
        # Of a key that waits for its seed: until when, and how much it has kept; a list's length costs a look at all of it.
        self._seed_ends = runtime_context.get_state(
            ValueStateDescriptor(SEED_ENDS, Types.PICKLED_BYTE_ARRAY())
        )
        # A job without state reads its seeds and what follows them at the same time.
        self._seeding_ends = int(time.time() * 1000) + SEEDING_MS

    def process_element(self, value: Packed, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        element = unpack(value)
        stage = self._stage
        if isinstance(element, ProgressElement):
            yield from self._tell(element)
            return
        if not isinstance(element, EventElement) and element.entity != stage.entity:
            yield value
            return
        key = ctx.get_current_key()
        if isinstance(element, EventElement):
            token = stage.token(element)
            if token is None:
                yield from self._forward(element)
                return
            state = self._state.value()
            if stage.lacking(state, element) and self._hold(key, element, ctx):
                return
            self._keep_before_seed(state, element, ctx)
            yield from self._apply(element, token, stage.event(state, element))
        elif isinstance(element, LabelElement):
            state = self._state.value()
            self._keep_before_seed(state, element, ctx)
            yield from self._apply(element, element.token, stage.label(state, element.label))
        else:
            yield from self._apply(element, element.token, self._seed(element))
        if key in self._held:
            yield from self._release(key, 0, ctx)

    def _tell(self, element: ProgressElement) -> Iterator[Any]:
        """Writes behind the profiles how far the sources are in them, and tells the next stage."""
        applied = self._progress.hear(element)
        if applied is None:
            return
        if self._progress_records is None:  # only now a subtask knows which it is
            of = self._config
            self._progress_records = ProgressRecords(
                of.hash6,
                of.epoch,
                (self._index, len(of.spec.entities)),
                (element.subtask, len(self._keys)),
                of.kafka.partitions,
                self._reach,
            )
        for key, value in self._progress_records.rows(applied):
            yield PROFILES, Row(k=key, v=value)
        if not self._last:
            for copy in copies(self._run, element.subtask, self._keys, applied):
                yield copy.packed()

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        waits = self._seed_waits()
        if waits is not None and timestamp >= waits[0]:
            self._wait_no_more()
        yield from self._release(ctx.get_current_key(), timestamp, ctx)

    def _seed_waits(self) -> tuple[int, int] | None:
        """Until when the key waits for its seed, and how much it has kept meanwhile; None where it doesn't wait."""
        packed = self._seed_ends.value() if self._beginning.seeds else None
        if packed is None:
            return None
        until, kept = pickle.loads(packed)  # noqa: S301 - this job's own state
        return int(until), int(kept)

    def _wait_no_more(self) -> None:
        self._before_seed.clear()
        self._seed_ends.clear()

    def _keep_before_seed(
        self, state: bytes | None, element: EventElement | LabelElement, ctx: KeyedProcessFunction.Context
    ) -> None:
        """Keeps what a key without a seed takes, while its seed may still be on its way: what the seed holds came before."""
        if not self._beginning.seeds:
            return
        timers, waits = ctx.timer_service(), self._seed_waits()
        if waits is None and state is None and timers.current_processing_time() < self._seeding_ends:
            waits = self._seeding_ends, 0
            timers.register_processing_time_timer(self._seeding_ends)
        if waits is None:
            return
        until, kept = waits
        if kept >= BEFORE_SEED_MAX:
            _log.warning("a busy key of entity %s goes on without its seed", self._stage.entity)
            self._wait_no_more()
            return
        self._before_seed.add(element.stored())
        self._seed_ends.update(pickle.dumps((until, kept + 1)))

    def _kept_before_seed(self) -> list[EventElement | LabelElement]:
        try:
            elements = [unpack(stored) for stored in self._before_seed.get()]
        except Exception:  # whatever the bytes make of the reader, they would do so again after each restart
            _log.exception(
                "what came to a key of entity %s before its seed can't be read and is dropped",
                self._stage.entity,
            )
            return []
        return [element for element in elements if isinstance(element, EventElement | LabelElement)]

    def _seed(self, element: SeedElement) -> bytes | None:
        """The key's state with a seed, and with what came to the key before its seed; None where nothing changes."""
        kept = [] if self._seed_waits() is None else self._kept_before_seed()
        seeded = self._stage.seed(None if kept else self._state.value(), element.profile)
        if seeded is None:
            return None
        self._wait_no_more()
        for earlier in kept:
            if isinstance(earlier, EventElement):
                seeded = self._stage.event(seeded, earlier) or seeded
            elif isinstance(earlier, LabelElement):
                seeded = self._stage.label(seeded, earlier.label) or seeded
        return seeded

    def _apply(self, element: Element, token: str, new: bytes | None) -> Iterator[Any]:
        if new is not None:
            self._state.update(new)
            yield PROFILES, Row(k=self._stage.profile_key(token), v=new)
        if isinstance(element, EventElement):
            yield from self._forward(element)

    def _forward(self, element: EventElement) -> Iterator[Any]:
        """To the next stage; from the last one as a finished feature record."""
        if not self._last:
            yield element.packed()
        elif not self._silence.covers(element.source):
            yield Row(k=self._stage.feature_key(element), v=self._stage.feature_record(element))

    def _hold(self, key: str, element: EventElement, ctx: KeyedProcessFunction.Context) -> bool:
        """Lets an event wait, unless too many do."""
        waiting = self._waiting_of()
        if len(waiting) >= WAITING_MAX:
            return False
        timers = ctx.timer_service()
        until = timers.current_processing_time() + WAIT_MS
        self._keep([*waiting, (until, element)])
        timers.register_processing_time_timer(until)
        self._held.add(key)
        return True

    def _keep(self, waiting: list[tuple[int, EventElement]]) -> None:
        self._waiting.update(pickle.dumps([(until, element.stored()) for until, element in waiting]))

    def _waiting_of(self) -> list[tuple[int, EventElement]]:
        packed_list = self._waiting.value()
        if packed_list is None:
            return []
        try:
            stored: list[tuple[int, Packed]] = pickle.loads(packed_list)  # noqa: S301 - this job's own state
            elements = [(until, unpack(packed)) for until, packed in stored]
        except Exception:  # whatever the bytes make of the reader, they would do so again after each restart
            _log.exception(
                "what waits at a key of entity %s can't be read and is dropped", self._stage.entity
            )
            return []
        return [(until, element) for until, element in elements if isinstance(element, EventElement)]

    def _release(self, key: str, now: int, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        """Applies events that lack nothing and, while one has waited until ``now``, the least lacking one."""
        waiting, stage = self._waiting_of(), self._stage
        before = len(waiting)
        while waiting:
            state = self._state.value()
            lacking = [stage.lacking(state, element) for _, element in waiting]
            if min(lacking) and all(until > now for until, _ in waiting):
                break
            _, element = waiting.pop(lacking.index(min(lacking)))
            token = stage.token(element)
            if token is not None:
                self._keep_before_seed(state, element, ctx)
                yield from self._apply(element, token, stage.event(state, element))
        if not waiting:
            self._waiting.clear()
            self._held.discard(key)
        elif len(waiting) != before:
            self._keep(waiting)
