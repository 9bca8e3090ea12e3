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

from pyflink.common import Row, Types
from pyflink.datastream import (
    KeyedProcessFunction,
    KeySelector,
    OutputTag,
    ProcessFunction,
    RuntimeContext,
)
from pyflink.datastream.state import ValueStateDescriptor

from fraud_contracts import log
from fraud_contracts.config import load_config
from fraud_contracts.records import Source
from fraud_flink.elements import Element, EventElement, LabelElement, Packed, entity_key, unpack
from fraud_flink.intake import DeadLetterRow, Intake
from fraud_flink.stages import EntityStage
from fraud_flink.tables import SOURCES

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
_log = logging.getLogger(__name__)


class IntakeFunction(ProcessFunction):  # type: ignore[misc]  # PyFlink has no types
    """First step of all input topics; rows are (noun, key, value, partition, offset, append time)."""

    def open(self, runtime_context: RuntimeContext) -> None:
        log.setup()
        config = load_config()
        self._topics = {noun: config.identity.topic(noun) for noun in SOURCES}
        self._intake = Intake.from_environment(config, os.environ)

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Iterator[Any]:
        noun, key, body, partition, offset, appended = value
        source: Source = {"topic": self._topics[noun], "partition": partition, "offset": offset}
        outcome = self._intake.take(noun, key, body, source, appended)
        if isinstance(outcome, DeadLetterRow):
            yield DEAD_LETTERS, Row(k=outcome.key, v=outcome.value)
            return
        for element in outcome:
            yield element.packed()


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

    def __init__(self, index: int, last: bool) -> None:
        self._index, self._last = index, last

    def open(self, runtime_context: RuntimeContext) -> None:
        log.setup()
        self._state = runtime_context.get_state(ValueStateDescriptor(STATE, Types.PICKLED_BYTE_ARRAY()))
        self._waiting = runtime_context.get_state(ValueStateDescriptor(WAITING, Types.PICKLED_BYTE_ARRAY()))
        # Keys that may have waiting events; only spares a look at their state. After a restore the timers come at once.
        self._held: set[str] = set()
        # Unique per attempt and subtask: a reader can tell a first emission from one after a restore. Thread mode of
        # Flink 2.2 can't tell the subtask's index (its bridge calls a method that is gone), hence the random tail.
        run = f"{time.time_ns() // 1_000_000:011x}-{secrets.token_hex(3)}"
        self._stage = EntityStage(load_config(), self._index, run)

    def process_element(self, value: Packed, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        element = unpack(value)
        stage = self._stage
        if not isinstance(element, EventElement) and element.entity != stage.entity:
            yield value
            return
        key = ctx.get_current_key()
        if isinstance(element, EventElement):
            token = stage.token(element)
            if token is None:
                yield self._forward(element)
                return
            state = self._state.value()
            if stage.lacking(state, element) and self._hold(key, element, ctx):
                return
            yield from self._apply(element, token, stage.event(state, element))
        elif isinstance(element, LabelElement):
            state = self._state.value()
            yield from self._apply(element, element.token, stage.label(state, element.label))
        else:
            state = self._state.value()
            yield from self._apply(element, element.token, stage.seed(state, element.profile))
        if key in self._held:
            yield from self._release(key, 0)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        yield from self._release(ctx.get_current_key(), timestamp)

    def _apply(self, element: Element, token: str, new: bytes | None) -> Iterator[Any]:
        if new is not None:
            self._state.update(new)
            yield PROFILES, Row(k=self._stage.profile_key(token), v=new)
        if isinstance(element, EventElement):
            yield self._forward(element)

    def _forward(self, element: EventElement) -> Any:
        """To the next stage; from the last one as a finished feature record."""
        if not self._last:
            return element.packed()
        return Row(k=self._stage.feature_key(element), v=self._stage.feature_record(element))

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

    def _release(self, key: str, now: int) -> Iterator[Any]:
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
                yield from self._apply(element, token, stage.event(state, element))
        if not waiting:
            self._waiting.clear()
            self._held.discard(key)
        elif len(waiting) != before:
            self._keep(waiting)
