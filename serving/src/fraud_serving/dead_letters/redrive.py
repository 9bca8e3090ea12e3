"""What may be sent again, why the rest may not, and the record itself."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from fraud_contracts import durations
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import EventError, Reason
from fraud_contracts.names import Identity
from fraud_contracts.raw_json import decode
from fraud_contracts.records import DeadLetter
from fraud_pipelines.dead_letter_cipher import CipherError, DeadLetterCipher
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_serving.dead_letters.topic import PATIENCE, DeadLetterTopic, Position

HEADER: Final = "redriven-from"
MAX_HELD: Final = (
    32 * 2**20
)  # bytes of one run: the command shares the memory limit of the Pod that it runs in
BATCH: Final = 500


class ResentRecord(NamedTuple):
    """A record to produce again, ordered as its originals were appended."""

    source: Position
    letter: Position
    key: bytes | None
    value: bytes


def obstacle(letter: DeadLetter, of: Identity, named: bool) -> str | None:
    """Why a letter must not be sent again, from what is written on it; ``named`` is one that was asked for by position."""
    topic = letter["source"]["topic"]
    if topic == of.topic("accepted"):
        return "from accepted: its client acted on the decision, which is never made twice"
    if topic != of.topic("transactions"):
        return f"from {topic}: only transactions are sent again"
    if letter["reason"] == Reason.TOO_LARGE:
        return "too_large: the letter holds only the first bytes"
    # The worker's only letters of transactions; their originals must be looked up, one by one.
    if not named and (letter["reason"] == Reason.ID_REUSED or letter["stage"] == "worker"):
        return "id_reused: another payment has this id; name it with --only if it must be decided as well"
    return None


def refused(schema: EventSchema, payload: bytes, now_ms: int) -> str | None:
    """Why the stream would refuse the bytes again under the detector's spec of today."""
    try:
        # Whether a record is valid doesn't depend on the key, so this command doesn't ask for it.
        schema.parse(payload, Tokeniser(secrets.token_bytes(32)), now_ms)
    except EventError as error:
        return f"would be refused again: {error.reason.value}"
    return None


def field_text(payload: bytes, field: str) -> str | None:
    """A raw field as the text that it counts as; None where the bytes or the field can't be read."""
    try:
        value = decode(payload)[0].get(field)
    except EventError:
        return None
    return str(value) if value.__class__ in (str, int) and value != "" else None


def now_ms() -> int:
    return int(time.time() * 1000)


class Redrive:
    """One run: what to send, in the order in which it was first appended; the record; the tally."""

    def __init__(self, topic: DeadLetterTopic, config: DetectorConfig, cipher: DeadLetterCipher) -> None:
        self.topic, self._cipher = topic, cipher
        self._schema = EventSchema(config.spec.event, config.spec.entities)
        self._id, self._key = config.spec.event.id.field, config.spec.entities[0].field
        self.skipped: Counter[str] = Counter()
        self._sources: dict[Position, Position] = {}
        self.doubles: dict[Position, list[Position]] = {}
        self.memory = topic.memory()
        self.unopened = 0  # letters that this key doesn't open

    def named(self, positions: list[Position]) -> list[ResentRecord]:
        letters = [(at, self.topic.letter(at)) for at in dict.fromkeys(positions)]
        return sorted(record for at, letter in letters if (record := self._take(at, letter, named=True)))

    def all(self, reason: str | None) -> list[ResentRecord]:
        """Everything not sent before, up to MAX_HELD bytes."""
        kept = self.topic.memory_ms()
        oldest = now_ms() - kept
        held, records = 0, []
        for at, letter in self.topic.letters():
            if letter is None:
                self.skipped["no dead letter"] += 1
            elif reason is not None and letter["reason"] != reason:
                continue
            elif at.offset in self.memory[at.partition]:
                self.skipped["redriven before"] += 1
            elif letter["appended"] < oldest:
                self.skipped[
                    f"older than {durations.from_ms(kept)}, as long as redrives are remembered: use --only"
                ] += 1
            elif held > MAX_HELD:
                self.skipped["left for the next run"] += 1
            elif (record := self._take(at, letter, named=False)) is not None:
                held += len(record.value)
                records.append(record)
        return sorted(records)

    def _take(self, at: Position, letter: DeadLetter, named: bool) -> ResentRecord | None:
        why = obstacle(letter, self.topic.of, named)
        source = Position(letter["source"]["partition"], letter["source"]["offset"])
        if why is None and source in self._sources:
            # The stream's outputs repeat after a restore: two letters, one record.
            self.doubles.setdefault(self._sources[source], []).append(at)
            why = "another letter is of the same record"
        payload = None
        if why is None:
            try:
                payload = self._original(letter, source)
            except CipherError as error:
                if named:
                    raise
                self.unopened += 1
                why = str(error)
            if payload is None and why is None:
                why = "id_reused: the original is no longer in transactions"
            elif payload is not None and not named:
                why = refused(self._schema, payload, now_ms())
        if why is not None or payload is None:
            self.skipped[str(why)] += 1
            return None
        self._sources[source] = at
        key = field_text(payload, self._key)
        return ResentRecord(source, at, key.encode() if key is not None else None, payload)

    def _original(self, letter: DeadLetter, source: Position) -> bytes | None:
        """The client's bytes. The worker seals the tokenised event, which must not be tokenised again: fetch those."""
        if letter["stage"] != "worker":
            return self._cipher.decrypt(letter["payload"])
        message = self.topic.record(letter["source"]["topic"], source)
        value = message.value() if message is not None else None
        return value if value and field_text(value, self._id) == letter["id"] else None

    def send(self, records: list[ResentRecord]) -> tuple[int, Counter[str]]:
        """-> how many were acknowledged, and the errors of the others. Remembered batch by batch."""
        producer = Producer(
            {
                **self.topic.kafka.producer_settings(),
                "log_level": 3,
                "delivery.timeout.ms": int(PATIENCE * 1000),
            }
        )
        sent, failed = 0, Counter[str]()
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            touched = {at.partition for record in batch for at in self._letters(record)}
            # Before anything is sent: what can't be remembered must not be sent.
            supposed = {p: offsets | self._offsets(batch, p) for p, offsets in self.memory.items()}
            self.topic.packed(supposed, touched)
            done, errors = self._produce(producer, batch)
            failed += errors
            sent += len(done)
            for partition in touched:
                self.memory[partition] |= self._offsets(done, partition)
            if done:
                self.topic.remember(self.topic.packed(self.memory, touched))
            if failed:
                break  # later records of an entity must not overtake those that failed
        return sent, failed

    def _produce(
        self, producer: Producer, batch: list[ResentRecord]
    ) -> tuple[list[ResentRecord], Counter[str]]:
        """-> what all in-sync replicas have, and the errors of the rest; waits for both."""
        done: list[ResentRecord] = []
        failed: Counter[str] = Counter()
        topic = self.topic.of.topic("transactions")
        for record in batch:

            def delivered(error: KafkaError | None, _: Message, of: ResentRecord = record) -> None:
                if error is None:
                    done.append(of)
                else:
                    failed[error.str()] += 1

            headers = [(HEADER, str(record.letter).encode())]
            producer.produce(topic, record.value, record.key, headers=headers, on_delivery=delivered)
        producer.flush()
        return done, failed

    def _letters(self, record: ResentRecord) -> list[Position]:
        return [record.letter, *self.doubles.get(record.letter, ())]

    def _offsets(self, records: list[ResentRecord], partition: int) -> set[int]:
        return {at.offset for s in records for at in self._letters(s) if at.partition == partition}
