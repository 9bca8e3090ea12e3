"""Every client of the data path logs in over TLS, with its component's rights in a managed Kafka, and goes on with a changed password without being made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from fraud_contracts.errors import StoreError
from fraud_process.kafka import KafkaAccess
from fraud_serving.clients.kafka_log import KafkaLog
from fraud_serving.worker.batch import Outgoing
from fraud_serving.worker.transactions import Transactions
from fraud_sinks.ledger_labels import LabelProducer
from fraud_sinks.loop import Loop, Reading
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record
from fraud_testing import kafka_tls, sinks
from fraud_testing.kafka import wait_for
from fraud_testing.kafka_tls import LockedBroker
from fraud_testing.required import require

pytestmark = [pytest.mark.integration, pytest.mark.accept]
FIRST, SECOND = "the first password", "the second password"
OF = kafka_tls.REVIEWED


@pytest.fixture(scope="module")
def broker() -> Iterator[LockedBroker]:
    require(kafka_tls.missing())
    with kafka_tls.locked_broker() as running:
        running.plain.create_detector_topics(str(OF), 1)
        yield running


@pytest.fixture
def user(broker: LockedBroker, request: pytest.FixtureRequest) -> str:
    """A user of the test's own, with the first password and the rights of a component."""
    name = request.node.name.split("[")[0]
    broker.set_password(name, FIRST)
    part = request.node.get_closest_marker("acts_as")
    broker.allow_as(name, part.args[0] if part is not None else "decision")
    return str(name)


class Rows:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def start(self, _: Sequence[Place]) -> Mapping[Place, int]:
        return {}

    def write(self, records: Sequence[Record]) -> int:
        self.values += [record.value or b"" for record in records]
        return len(records)

    def caught_up(self, _: Place, __: int) -> None: ...

    def tick(self) -> None: ...

    def close(self) -> None: ...


def drop_connections(broker: LockedBroker) -> None:
    """Ends every connection that stands, as a broker that is restarted does."""
    broker.plain.stop()
    broker.plain.start()


@pytest.mark.acts_as("profile-sink")
def test_a_sink_reads_on_with_another_password(broker: LockedBroker, user: str, tmp_path: Path) -> None:
    """Its consumer is the same; the connection that it makes after the restart uses the file's password."""
    access = broker.login(tmp_path / "login", user, FIRST)
    topic, rows = OF.topic("profiles"), Rows()
    reading = Reading(access, (topic,), f"{OF}.profile-sink", tick=0.2)
    loop = Loop(reading, rows, Meters("d", "s"))  # type: ignore[arg-type]  # it writes as the real ones do
    with sinks.running(loop, 30) as failures:
        broker.plain.produce(topic, [("k", "before")])
        wait_for(lambda: b"before" in rows.values or failures, 60, "the first record")
        broker.set_password(user, SECOND)
        broker.login(tmp_path / "login", user, SECOND)
        drop_connections(broker)
        broker.plain.produce(topic, [("k", "after")])
        wait_for(lambda: b"after" in rows.values or failures, 60, "the second record")


def test_the_service_appends_on_with_another_password(
    broker: LockedBroker, user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revoked user's append fails in time, which is what the door's declared answer rests on."""
    monkeypatch.setattr("fraud_serving.clients.kafka_log.RENEW_SECONDS", 0.2)
    access = broker.login(tmp_path / "login", user, FIRST)

    async def appends() -> None:
        log = KafkaLog(access, 10.0)
        await log.append(OF.topic("accepted"), b"k", b"before")
        broker.set_password(user, SECOND)
        broker.login(tmp_path / "login", user, SECOND)
        await asyncio.to_thread(drop_connections, broker)
        await log.append(OF.topic("accepted"), b"k", b"after")
        broker.revoke(user)
        await asyncio.to_thread(drop_connections, broker)
        with pytest.raises(StoreError):
            await log.append(OF.topic("accepted"), b"k", b"revoked")
        await log.stop(0.1)

    asyncio.run(appends())
    assert [m.value() for m in broker.plain.read(OF.topic("accepted"))] == [b"before", b"after"]


@pytest.mark.acts_as("worker")
def test_the_worker_commits_on_with_another_password(broker: LockedBroker, user: str, tmp_path: Path) -> None:
    """A producer that it has, and those that it makes, log in with what the files hold."""
    access = broker.login(tmp_path / "login", user, FIRST)
    transactions = Transactions(lambda: {**access.settings(), "log_level": 0}, OF, 0, 1, lambda: None)
    transactions.start()
    group = transactions._outsider
    place = [TopicPartition(OF.topic("features"), 0, 1)]
    transactions.publish([Outgoing("decisions", 0, b"k", b"before")], place, group)
    broker.set_password(user, SECOND)
    broker.login(tmp_path / "login", user, SECOND)
    access.renew(transactions.producer)
    drop_connections(broker)
    transactions.publish([Outgoing("decisions", 0, b"k", b"after")], place, group)
    values = {m.value() for m in broker.plain.read(OF.topic("decisions"), committed=True)}
    assert values == {b"before", b"after"}


@pytest.mark.acts_as("ledger-sink")
def test_labels_are_published_and_read_over_tls(broker: LockedBroker, user: str, tmp_path: Path) -> None:
    """Its producer and the reader that looks for what is there."""
    access = broker.login(tmp_path / "login", user, FIRST)
    labels = LabelProducer(access, OF.topic("labels"), "counterparty")
    labels.send([])
    assert labels.last() == ({}, 0)


@pytest.mark.parametrize("absent", ["username", "password", "mechanism"])
def test_a_file_that_is_not_there_is_an_error(
    broker: LockedBroker, user: str, tmp_path: Path, absent: str
) -> None:
    """Its name is in the message; clients that run keep what they have."""
    access = broker.login(tmp_path / "login", user, FIRST)
    producer = Producer(access.settings())
    (tmp_path / "login" / absent).unlink()
    with pytest.raises(OSError, match=absent):
        access.settings()
    access.renew(producer)
    assert producer.list_topics(timeout=10).topics


def test_no_access_without_a_login_changes_nothing() -> None:
    """A listener that asks for none gets none."""

    class Nobody:
        def set_sasl_credentials(self, *_: Any) -> None:
            raise AssertionError("nothing to renew")

    access = KafkaAccess("b:9092")
    assert access.settings() == {"bootstrap.servers": "b:9092"}
    access.renew(Nobody())
