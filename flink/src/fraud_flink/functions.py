"""Flink's side of the steps: state handles, side outputs, keys. What is done to a record is in ``intake`` and ``stages``.

Elements travel as pickles: one opaque column costs the least in thread mode, keeps NaN and 64-bit integers, and never
leaves this job. State is ``bytes`` under PICKLED_BYTE_ARRAY, since a primitive byte array crashes thread mode while the
state is empty. Nothing here buffers: what a Python object holds is in no checkpoint.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

from pyflink.common import Row, Types
from pyflink.datastream import (
    FilterFunction,
    KeyedProcessFunction,
    KeySelector,
    OutputTag,
    ProcessFunction,
    RuntimeContext,
)
from pyflink.datastream.state import ValueStateDescriptor

from fraud_contracts import log
from fraud_contracts.config import load_config
from fraud_flink.intake import EVENT, LABEL, SEED, Dead, Element, Intake, concerns, entity_key
from fraud_flink.stages import EntityStage

ELEMENT = Types.PICKLED_BYTE_ARRAY()
BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
KEY_VALUE = Types.ROW_NAMED(["k", "v"], [BYTES, BYTES])
DEAD_LETTERS = OutputTag("dead-letters", KEY_VALUE)
PROFILES = OutputTag("profiles", KEY_VALUE)
STATE = "profile-v1"


class IntakeFunction(ProcessFunction):  # type: ignore[misc]
    """First step of the topic of ``noun``; rows are (key, value, partition, offset, append time)."""

    def __init__(self, noun: str) -> None:
        self._noun = noun

    def open(self, runtime_context: RuntimeContext) -> None:
        log.setup()
        config = load_config()
        self._topic = config.identity.topic(self._noun)
        self._intake = Intake.from_environment(config, os.environ)

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Iterator[Any]:
        key, body, partition, offset, appended = value
        if self._noun == "seeds":
            seed = self._intake.seed(key, body)
            if seed is not None:
                yield seed
            return
        source = {"topic": self._topic, "partition": partition, "offset": offset}
        if self._noun == "transactions":
            found = self._intake.transaction(body, source, appended)
        elif self._noun == "accepted":
            found = self._intake.accepted(body, source, appended)
        else:
            found = self._intake.label(body, source, appended)
        if isinstance(found, Dead):
            yield DEAD_LETTERS, Row(k=found.key, v=found.value)
        else:
            yield found


class Concerns(FilterFunction):  # type: ignore[misc]
    """Lets labels and seeds through that have something for one entity."""

    def __init__(self, entity: str) -> None:
        self._entity = entity

    def filter(self, value: Element) -> bool:
        return concerns(value, self._entity)


class EntityKey(KeySelector):  # type: ignore[misc]
    def __init__(self, entity: str) -> None:
        self._entity = entity

    def get_key(self, value: Element) -> str:
        return entity_key(value, self._entity)


class EntityFunction(KeyedProcessFunction):  # type: ignore[misc]
    """One entity's stage: applies events, labels and seeds to the key's state, and emits what it became to ``profiles``.

    The last stage emits finished feature records instead of elements.
    """

    def __init__(self, index: int, last: bool) -> None:
        self._index, self._last = index, last

    def open(self, runtime_context: RuntimeContext) -> None:
        log.setup()
        self._state = runtime_context.get_state(ValueStateDescriptor(STATE, Types.PICKLED_BYTE_ARRAY()))
        # Unique per attempt and subtask: a reader can tell a first emission from one after a restore. Thread mode of
        # Flink 2.2 can't tell the subtask's index (its bridge calls a method that is gone), hence the random tail.
        run = f"{time.time_ns() // 1_000_000:011x}-{secrets.token_hex(3)}"
        self._stage = EntityStage(load_config(), self._index, run)

    def process_element(self, value: Element, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        kind, body = value
        stage = self._stage
        if kind == LABEL:
            token, state = body["entities"][stage.entity], stage.label(self._state.value(), body)
        elif kind == SEED:
            token, state = body[1], stage.seed(self._state.value(), body[2])
        else:
            token = stage.token(body)
            state = None if token is None else stage.event(self._state.value(), body)
        if state is not None:
            self._state.update(state)
            yield PROFILES, Row(k=stage.profile_key(token), v=state)
        if kind != EVENT:
            return
        if self._last:
            yield Row(k=stage.feature_key(body), v=stage.feature_record(body))
        else:
            yield value
