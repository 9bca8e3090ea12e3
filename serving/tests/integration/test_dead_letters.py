"""The command over dead letters as a process of its own, on a real broker, on letters as stream and worker make them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from fraud_contracts.config import DetectorConfig
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_serving.worker import worker_letters
from fraud_testing import detectors, kafka, serving
from fraud_testing.required import require

pytestmark = pytest.mark.integration
CIPHER = DeadLetterCipher(serving.DEAD_LETTER_KEY)
TOKENISER = Tokeniser.from_hex(serving.TOKEN_KEY)
NOW = int(time.time() * 1000)
EARLY = NOW - 3_600_000  # appended an hour ago, so a time of now lay in the future then
FLINK = Path(__file__).parents[3] / "flink" / "src"


def raw(event_id: str, card: str = "4111-card", **changes: Any) -> bytes:
    event = {
        "id": event_id,
        "time": NOW,
        "amount": 12.34,
        "card": card,
        "merchant": "m1",
        "category": "travel",
    }
    return orjson.dumps({**event, **changes})


@dataclass
class DeadLetterTopics:
    config: DetectorConfig
    broker: kafka.Broker
    folder: Path
    intake: Any

    def topic(self, noun: str) -> str:
        return self.config.identity.topic(noun)

    def source(self, offset: int, noun: str = "transactions", partition: int = 0) -> Any:
        return {"topic": self.topic(noun), "partition": partition, "offset": offset}

    def refuse(self, value: bytes, offset: int, noun: str = "transactions", appended: int = EARLY) -> bytes:
        """The letter that the stream makes of a record."""
        letter = self.intake.take(noun, None, value, self.source(offset, noun), appended)
        return bytes(letter.value)

    def put(self, partition: int, *values: bytes) -> None:
        """Appends letters in a Kafka transaction, as the worker does: its markers take offsets too."""
        producer = Producer({"bootstrap.servers": self.broker.bootstrap, "transactional.id": "test"})
        producer.init_transactions(30)
        producer.begin_transaction()
        for value in values:
            producer.produce(self.topic("dead-letters"), value, b"", partition=partition)
        producer.commit_transaction(30)

    def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """-> exit code, standard output, standard error."""
        done = subprocess.run(
            [sys.executable, "-m", "fraud_serving.dead_letters", *arguments],
            env={
                **os.environ,
                "FRAUD_CONFIG": str(self.folder / "detector.json"),
                "DEAD_LETTER_KEY": serving.DEAD_LETTER_KEY,
                **environ,
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout, done.stderr

    def sent(self) -> list[tuple[str, bytes | None, bytes]]:
        """What came to transactions by redrives: position of the letter, key, value."""
        records = []
        for message in self.broker.read(self.topic("transactions")):
            headers = dict(message.headers() or [])
            if "redriven-from" in headers:
                records.append((headers["redriven-from"].decode(), message.key(), message.value()))
        return records


@pytest.fixture(scope="module")
def broker() -> Iterator[kafka.Broker]:
    require(kafka.missing())
    with kafka.broker() as running:
        yield running


def topics_of(broker: kafka.Broker, folder: Path, name: str, **topic: str) -> DeadLetterTopics:
    config = detectors.detector(broker.bootstrap, partitions=2, name=name)
    names = [config.identity.topic(noun) for noun in ("dead-letters", "accepted", "features", "labels")]
    broker.create(names, 2)
    broker.create([config.identity.topic("transactions")], 2, topic)
    detectors.write(config, folder)
    with pytest.MonkeyPatch.context() as patch:
        # The stream's first step imports nothing of Flink, so its real code makes the letters here.
        patch.syspath_prepend(str(FLINK))
        from fraud_flink.intake import Intake
    return DeadLetterTopics(config, broker, folder, Intake(config, TOKENISER, CIPHER))


def filled(broker: kafka.Broker, folder: Path, name: str) -> DeadLetterTopics:
    """Letters of every kind: 0:0 to 0:5 and 1:0 to 1:4."""
    topics = topics_of(broker, folder, name)
    reused = raw("again", card="4222", amount=99)
    broker.produce(topics.topic("transactions"), [("4222", reused)])
    where = next(m for m in broker.read(topics.topic("transactions")))
    schema = EventSchema(topics.config.spec.event, topics.config.spec.entities)
    event, body = schema.parse(reused, TOKENISER, NOW)
    record: Any = {"event": event, "hash": body, "appended": NOW}
    record["source"] = topics.source(where.offset(), partition=where.partition())
    late = topics.refuse(raw("late"), 20)
    topics.put(
        0,
        late,
        topics.refuse(b'{"id": "broken', 11),
        topics.refuse(raw("huge", category="x" * 70_000), 12),
        topics.refuse(b'{"event": {}}', 3, "accepted"),
        late,  # the stream said it again after a restore
        b"no letter at all",
    )
    topics.put(
        1,
        topics.refuse(raw("early"), 10),
        topics.refuse(raw("short", time=EARLY, amount=None), 13),
        worker_letters.conflict(CIPHER, record),
        worker_letters.unreadable(CIPHER, None, b"?", topics.source(4, "features"), NOW, ValueError()),
        topics.refuse(b"[]", 5, "labels", appended=NOW),
    )
    return topics


def test_letters_are_listed_explained_and_sent_again_once(broker: kafka.Broker, tmp_path: Path) -> None:
    """All of a topic's letters are shown; only what the stream takes now is sent, in its first order, and only once."""
    topics = filled(broker, tmp_path, "flow")

    code, out, err = topics.run("list")
    assert (code, err) == (0, "")
    rows = [row.split("\t") for row in out.splitlines() if "\t" in row]
    assert {row[0] for row in rows} == {f"0:{o}" for o in range(5)} | {f"1:{o}" for o in range(5)}
    assert [rows[0][i] for i in (0, 2, 3, 4)] == ["0:0", "late", "time_in_future", "stream"]
    assert rows[0][5] == f"{topics.topic('transactions')} 0:20"
    counts = {words[1]: int(words[0]) for line in out.splitlines() if len(words := line.split()) == 2}
    assert counts["time_in_future"] == 3
    assert counts["id_reused"] == 1
    assert "4111-card" not in out
    assert "no dead letter" in out

    code, out, _ = topics.run("list", "--reason", "time_in_future", "--since", "2h", "--limit", "1")
    assert [line.split("\t")[0] for line in out.splitlines() if "\t" in line] == ["1:0"]
    assert "2 older ones are not shown" in out
    assert "\t" not in topics.run("list", "--reason", "time_in_future", "--since", "30m")[1]

    code, out, _ = topics.run("explain", "0:0")
    assert code == 0
    assert "4111-card" not in out
    assert "--show-payload" in out
    code, out, _ = topics.run("explain", "0:0", "--show-payload")
    assert "SENSITIVE" in out
    assert raw("late").decode() in out

    code, out, _ = topics.run("redrive", "--dry-run")
    assert code == 0
    assert "would be sent: 2" in out
    assert topics.sent() == []

    code, out, err = topics.run("redrive")
    assert (code, err) == (0, "")
    assert "sent: 2" in out
    assert "skipped: 9" in out
    for why in ("id_reused: another", "accepted", "too_large", "again: invalid_json", "again: missing_field"):
        assert why in out
    # "early" was appended before "late", whatever partitions their letters are on.
    assert topics.sent() == [("1:0", b"4111-card", raw("early")), ("0:0", b"4111-card", raw("late"))]

    code, out, _ = topics.run("redrive")
    assert code == 0
    assert "sent: 0" in out
    assert "3  redriven before" in out
    assert "redriven    yes" in topics.run("explain", "0:0")[1]
    assert len(topics.sent()) == 2


def test_letters_of_a_recreated_topic_are_sent(broker: kafka.Broker, tmp_path: Path) -> None:
    """What the group remembers is of the topic's id: where the commit outlived the topic, as in a mirrored cluster, the
    letters at the same offsets are others. A commit of before ids were kept is of the topic as it is now."""
    at = topics_of(broker, tmp_path, "anew")
    topic, group = at.topic("dead-letters"), at.config.identity.group("redrive")
    at.put(0, at.refuse(raw("first", amount="x"), 0))
    assert at.run("redrive", "--only", "0:0")[0] == 0

    def asked() -> Any:
        return broker.consumer(group).committed([TopicPartition(topic, 0)], 30)[0]

    kept = asked()
    broker.remake(topic, 2)
    at.put(0, at.refuse(raw("second", amount="x"), 0))
    broker.consumer(group).commit(offsets=[kept], asynchronous=False)
    assert "no, as far as is remembered" in at.run("explain", "0:0")[1]
    before = TopicPartition(topic, 0, kept.offset, kept.metadata.rpartition(":")[2])
    broker.consumer(group).commit(offsets=[before], asynchronous=False)
    assert "no, as far as is remembered" not in at.run("explain", "0:0")[1]


def test_by_name_a_reused_id_and_broken_bytes_are_sent(broker: kafka.Broker, tmp_path: Path) -> None:
    """``--only`` sends the client's bytes and not the tokenised event, and bytes that can't be read without a key."""
    topics = filled(broker, tmp_path, "named")
    assert "sent: 0" in topics.run("redrive", "--reason", "id_reused")[1]
    code, out, _ = topics.run("redrive", "--only", "1:2", "0:1")
    assert code == 0
    assert "sent: 2" in out
    assert sorted(topics.sent()) == [
        ("0:1", None, b'{"id": "broken'),
        ("1:2", b"4222", raw("again", card="4222", amount=99)),
    ]
    code, out, _ = topics.run("redrive", "--only", "0:3", "0:2", "1:3", "1:4")
    assert "sent: 0" in out
    assert "skipped: 4" in out
    # A letter named is remembered as well; the rest is still there to be sent.
    code, out, _ = topics.run("redrive")
    assert "sent: 2" in out


def test_a_place_without_a_letter_is_an_error(broker: kafka.Broker, tmp_path: Path) -> None:
    """A wrong position, a marker's offset and bytes that are no letter end with 1, and nothing is sent."""
    topics = filled(broker, tmp_path, "places")
    for position in ("0:6", "0:99", "7:0", "0:5"):
        code, _, err = topics.run("redrive", "--only", "0:0", position)
        assert code == 1, position
        assert position in err
    assert topics.run("explain", "0:99")[0] == 1
    assert topics.sent() == []


def test_what_the_broker_refuses_is_reported_and_not_remembered(broker: kafka.Broker, tmp_path: Path) -> None:
    """A failed delivery ends with 1; once the cause is gone, the same letter is sent."""
    topics = topics_of(broker, tmp_path, "failing", **{"max.message.bytes": "100"})
    topics.put(0, topics.refuse(raw("late", category="x" * 300), 1))
    code, out, _ = topics.run("redrive")
    assert code == 1
    assert "not sent: 1" in out
    assert "sent: 0" in out
    resource = ConfigResource(ConfigResource.Type.TOPIC, topics.topic("transactions"))
    entry = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
    resource.add_incremental_config(entry)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(30)
    code, out, _ = topics.run("redrive")
    assert code == 0
    assert [position for position, _, _ in topics.sent()] == ["0:0"]


def test_another_key_opens_nothing(broker: kafka.Broker, tmp_path: Path) -> None:
    """Under a wrong or missing DEAD_LETTER_KEY nothing is shown or sent, and the error says why."""
    topics = topics_of(broker, tmp_path, "sealed")
    topics.put(0, topics.refuse(raw("late"), 1))
    other = DeadLetterCipher.new_key()
    assert "not sealed with this key" in topics.run("redrive", DEAD_LETTER_KEY=other)[2]
    code, _, err = topics.run("explain", "0:0", "--show-payload", DEAD_LETTER_KEY=other)
    assert code == 1
    assert "not sealed" in err
    assert topics.run("redrive", DEAD_LETTER_KEY="")[0] == 1
    assert topics.sent() == []


def test_a_letter_of_another_key_keeps_no_other_from_being_sent(broker: kafka.Broker, tmp_path: Path) -> None:
    """It is skipped with the reason, the others are sent, and the exit code is 1."""
    topics = topics_of(broker, tmp_path, "mixed")
    foreign = orjson.loads(topics.refuse(raw("foreign"), 1))
    foreign["payload"] = DeadLetterCipher(DeadLetterCipher.new_key()).encrypt(raw("foreign"))
    topics.put(0, orjson.dumps(foreign), topics.refuse(raw("late"), 2))
    code, out, err = topics.run("redrive")
    assert (code, "sent: 1" in out, "skipped: 1" in out) == (1, True, True)
    assert "not sealed with this key" in err
    assert [position for position, _, _ in topics.sent()] == ["0:1"]


def test_unreadable_records_hide_no_others_ends(broker: kafka.Broker, tmp_path: Path) -> None:
    """Bytes in accepted, decisions and headers that nobody can read are counted; every other id has its end."""
    topics = topics_of(broker, tmp_path, "ends")
    broker.create([topics.topic("decisions")], 2)
    event = orjson.dumps({"event": {"id": "under"}})
    broker.produce(topics.topic("accepted"), [("k", b"{"), ("k", None), ("k", b'{"event":[]}'), ("k", event)])
    broker.produce(topics.topic("decisions"), [("k", b"\xff"), ("k", None), ("k", b'{"id":"decided"}')])
    producer = broker.producer()
    producer.produce(topics.topic("transactions"), raw("odd"), headers=[("redriven-from", b"\xff")])
    producer.produce(topics.topic("transactions"), raw("odder"), headers=[("redriven-from", None)])
    producer.flush(30)
    code, out, err = topics.run("states")
    assert (code, err) == (0, "")
    ends = {words[1]: int(words[0]) for line in out.splitlines() if len(words := line.split()) > 1}
    assert (ends["decided"], ends["under_way"]) == (1, 3)
    assert f"3  without a readable id: (unreadable in {topics.topic('accepted')})" in out
    assert f"2  without a readable id: (unreadable in {topics.topic('decisions')})" in out
