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
from fraud_flink.intake import EVENT, LABEL, SEED, Dead, Element, Intake, entity_key
from fraud_flink.stages import EntityStage
from fraud_flink.tables import SOURCES

ELEMENT = Types.PICKLED_BYTE_ARRAY()
BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
KEY_VALUE = Types.ROW_NAMED(["k", "v"], [BYTES, BYTES])
DEAD_LETTERS = OutputTag("dead-letters", KEY_VALUE)
PROFILES = OutputTag("profiles", KEY_VALUE)
STATE = "profile-v1"


class IntakeFunction(ProcessFunction):  # type: ignore[misc]
    """First step of all input topics; rows are (noun, key, value, partition, offset, append time)."""

    def open(self, runtime_context: RuntimeContext) -> None:
        log.setup()
        config = load_config()
        self._topics = {noun: config.identity.topic(noun) for noun in SOURCES}
        self._intake = Intake.from_environment(config, os.environ)

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Iterator[Any]:
        noun, key, body, partition, offset, appended = value
        source: Source = {"topic": self._topics[noun], "partition": partition, "offset": offset}
        found = self._intake.take(noun, key, body, source, appended)
        if isinstance(found, Dead):
            yield DEAD_LETTERS, Row(k=found.key, v=found.value)
        else:
            yield from found


class EntityKey(KeySelector):  # type: ignore[misc]
    def __init__(self, entity: str) -> None:
        self._entity = entity

    def get_key(self, value: Element) -> str:
        return entity_key(value, self._entity)


class EntityFunction(KeyedProcessFunction):  # type: ignore[misc]
    """One entity's stage: applies events, labels and seeds to the key's state, and emits what it became to ``profiles``.

    What is addressed to a later stage passes through. The last stage emits finished feature records instead of elements.
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
        kind, addressee, body = value
        stage = self._stage
        if addressee is not None and addressee != stage.entity:
            yield value
            return
        if kind == LABEL:
            token, state = body["entities"][stage.entity], stage.label(self._state.value(), body)
        elif kind == SEED:
            token, state = body[0], stage.seed(self._state.value(), body[1])
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
