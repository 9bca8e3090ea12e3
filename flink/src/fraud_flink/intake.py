"""From the bytes of an input topic to an element of the stream, or to a dead letter. Imports nothing of Flink.

Nothing here raises on a bad record: an exception in a stream would come back after every restart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson

from fraud_contracts.config import MAX_EVENT_BYTES, DetectorConfig
from fraud_contracts.errors import Degraded, EventError, Reason
from fraud_contracts.event_values import MAX_INTEGER
from fraud_contracts.names import parse_seed_key
from fraud_contracts.records import Label, Source
from fraud_flink.elements import Element, EventElement, LabelElement, SeedElement
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import ProfileError, compile_detector

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeadLetterRow:
    """A dead letter as Kafka key and value."""

    key: bytes
    value: bytes


class Intake:
    """The first step of each input topic. Made once per subtask, since it holds keys and the compiled schema."""

    def __init__(
        self, config: DetectorConfig, tokeniser: Tokeniser, cipher: DeadLetterCipher, seeds: str = ""
    ) -> None:
        """``seeds``: the run of training whose seeds are taken; empty takes those of any."""
        spec = config.spec
        self._seeds = seeds
        self._schema = EventSchema(spec.event, spec.entities)
        self._tokeniser, self._cipher = tokeniser, cipher
        self._hash6 = config.hash6
        self._entities = tuple(entity.name for entity in spec.entities)
        self._stages = {stage.entity: stage for stage in compile_detector(spec).stages}
        self._labelled = tuple(stage.entity for stage in self._stages.values() if stage.fraud is not None)

    @classmethod
    def from_environment(cls, config: DetectorConfig, environ: Mapping[str, str], seeds: str = "") -> Intake:
        """With the keys of the detector's Secret; KeyError names the one that is missing."""
        tokeniser = Tokeniser.from_hex(environ["TOKEN_KEY"], config.token_key)
        return cls(config, tokeniser, DeadLetterCipher(environ["DEAD_LETTER_KEY"]), seeds)

    def take(
        self, noun: str, key: bytes | None, value: bytes | None, source: Source, appended: int
    ) -> list[Element] | DeadLetterRow:
        """A record of the topic of ``noun``: the elements that it makes, or its dead letter."""
        if noun == "seeds":
            return self.seed(key, value, source, appended)
        if noun == "labels":
            return self.label(value, source, appended)
        read = self.transaction if noun == "transactions" else self.accepted
        outcome = read(value, source, appended)
        return outcome if isinstance(outcome, DeadLetterRow) else [outcome]

    def transaction(self, value: bytes | None, source: Source, appended: int) -> EventElement | DeadLetterRow:
        """A client's raw transaction, judged and tokenised; whatever is wrong with it makes a dead letter."""
        try:
            event, body = self._schema.parse(value or b"", self._tokeniser, appended)
        except EventError as error:
            return self._dead(value, source, appended, error)
        return EventElement(event, body, source, appended, None)

    def accepted(self, value: bytes | None, source: Source, appended: int) -> EventElement | DeadLetterRow:
        """A decided event: it goes on whatever happens, since its decision must reach ``decisions``.

        A damaged event passes without a vector; the decision holds event and hash as well. Only bytes that hold no
        decision at all become a dead letter, as there is nothing to publish; the decision service can't write such.
        """
        try:
            record = orjson.loads(value or b"")
        except orjson.JSONDecodeError:
            return self._refuse(value, source, appended, Reason.INVALID_JSON, "the record is no valid JSON")
        if not isinstance(record, dict) or not isinstance(record.get("decision"), dict):
            event = record.get("event") if isinstance(record, dict) else None
            event_id = event.get("id") if isinstance(event, dict) else None
            message = "the record of accepted holds no decision"
            named = event_id if isinstance(event_id, str) else None
            return self._dead(
                value, source, appended, EventError(Reason.NOT_AN_OBJECT, message, event_id=named)
            )
        decision, event, body = record["decision"], record.get("event"), record.get("hash")
        problem = self._problem(event) or _other_id(event, decision)
        if problem is not None:
            log.error("an accepted event is damaged: %s", problem, extra={"data": {"source": source}})
            own = decision.get("event")
            event = own if isinstance(own, dict) and own.get("id") == decision.get("id") else event
        if problem is not None or not isinstance(body, str):
            body = decision.get("hash", body)
        # Damaged ones keep whatever their event and hash are: no stage looks at them once there is a reason.
        reason = None if problem is None else Degraded.FEATURES_FAILED.value
        return EventElement(event, body, source, appended, decision, reason=reason)

    def label(self, value: bytes | None, source: Source, appended: int) -> list[Element] | DeadLetterRow:
        """A joined label, once for each entity with features of labels.

        Only the ledger sink writes them, so a bad one is a fault worth a dead letter.
        """
        try:
            record = orjson.loads(value or b"")
        except orjson.JSONDecodeError:
            return self._refuse(value, source, appended, Reason.INVALID_JSON, "the label is no valid JSON")
        if not isinstance(record, dict):
            return self._refuse(value, source, appended, Reason.NOT_AN_OBJECT, "the label is no JSON object")
        wanted: tuple[tuple[str, type], ...] = (
            ("id", str),
            ("time", int),
            ("entities", dict),
            ("fraud", bool),
            ("known", int),
        )
        for name, kind in wanted:
            if not isinstance(record.get(name), kind):
                reason = Reason.WRONG_TYPE if name in record else Reason.MISSING_FIELD
                return self._refuse(
                    value, source, appended, reason, f"the label's {name} is missing or wrong"
                )
        for name in ("time", "known"):
            if not 0 <= record[name] <= MAX_INTEGER:
                return self._refuse(
                    value, source, appended, Reason.WRONG_TYPE, f"the label's {name} is no time"
                )
        label = cast(Label, record)  # its fields were checked above
        tokens = record["entities"]
        return [
            LabelElement(entity, label) for entity in self._labelled if isinstance(tokens.get(entity), str)
        ]

    def seed(
        self, key: bytes | None, value: bytes | None, source: Source, appended: int
    ) -> list[Element] | DeadLetterRow:
        """A seed of this feature set and of the training that is taken from; others share the topic and are passed over.

        Only training writes them, so one that can't be read is a fault worth a dead letter: its key begins cold.
        """
        hash6, run, entity, token = parse_seed_key((key or b"").decode("utf-8", "replace"))
        ours = hash6 == self._hash6 and (not self._seeds or run == self._seeds)
        if not ours or entity not in self._entities or not token or not value:
            return []
        try:
            self._stages[entity].open(value)
        except ProfileError as error:
            message = f"the seed of a key of {entity} can't be read: {error}"
            return self._refuse(value, source, appended, Reason.WRONG_TYPE, message)
        return [SeedElement(entity, token, value)]

    def _problem(self, event: Any) -> str | None:
        if not isinstance(event, dict):
            return "no event"
        for name, kind in (("id", str), ("time", int), ("amount", int), ("entities", dict), ("fields", dict)):
            if not isinstance(event.get(name), kind) or isinstance(event[name], bool):
                return f"{name} is missing or of another type"
        if not isinstance(event.get("currency", 0), str | None):
            return "currency is missing or no string"
        if any(isinstance(value, list | dict) for value in event["fields"].values()):
            return "a field is no single value"
        tokens = [event["entities"].get(name) for name in self._entities]
        if not isinstance(tokens[0], str) or any(t is not None and not isinstance(t, str) for t in tokens):
            return "an entity is missing or no string"
        return None

    def _refuse(
        self, value: bytes | None, source: Source, appended: int, reason: Reason, message: str
    ) -> DeadLetterRow:
        return self._dead(value, source, appended, EventError(reason, message))

    def _dead(self, value: bytes | None, source: Source, appended: int, error: EventError) -> DeadLetterRow:
        letter = {
            "id": error.event_id,
            "reason": error.reason.value,
            "message": error.message,
            "stage": "stream",
            "source": source,
            "appended": appended,
            # An oversized record keeps its first bytes: enough to find its sender, little enough to keep.
            "payload": self._cipher.encrypt((value or b"")[:MAX_EVENT_BYTES]),
        }
        return DeadLetterRow((error.event_id or "").encode(), orjson.dumps(letter))


def _other_id(event: Any, decision: dict[str, Any]) -> str | None:
    return None if event["id"] == decision.get("id") else "its decision is of another id"
