"""How errors and silence of the Kafka client are taken."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from fraud_contracts.names import Identity
from fraud_serving.worker import transactions
from fraud_serving.worker.batch import Outgoing
from fraud_serving.worker.client_errors import FatalError, StaleMembershipError, past_use


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (KafkaError(KafkaError._FATAL), True),
        (KafkaError(KafkaError.FENCED_INSTANCE_ID), True),
        (KafkaError(KafkaError._TRANSPORT), False),
        (KafkaError(KafkaError.NOT_COORDINATOR, retriable=True), False),
    ],
)
def test_each_error_of_a_client_past_use_is_recognised(error: KafkaError, end: bool) -> None:
    """A fenced consumer says _FATAL without the flag of a fatal error; what passes by itself is none."""
    assert past_use(error) is end


def _settings() -> dict[str, Any]:
    return {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


def test_a_call_that_does_not_come_back_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever limit the call was given, the loop goes on; and the next call doesn't wait behind it."""
    monkeypatch.setattr(transactions, "CALL_SECONDS", -0.9)
    client = transactions.Transactions(_settings, Identity("tests", "cards"), 1, lambda: None)
    back = threading.Event()
    with pytest.raises(KafkaException) as caught:
        client._call(lambda: back.wait(20))
    assert caught.value.args[0].code() == KafkaError._TIMED_OUT
    monkeypatch.setattr(transactions, "CALL_SECONDS", 10)
    assert client._call(lambda: "next") == "next"
    back.set()


@pytest.mark.parametrize("noun", ["decisions", "alerts"])
def test_bytes_on_another_topic_do_not_count_as_visible(noun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision and its alert are the same bytes: where readers have one of them only, the other is sent again."""
    of = Identity("tests", "cards")
    client = transactions.Transactions(_settings, of, 1, lambda: None)
    both = [Outgoing("decisions", 0, b"k", b"declined"), Outgoing("alerts", 0, b"k", b"declined")]
    monkeypatch.setattr(
        client.visible, "_newest", lambda topic, _: {b"declined"} if topic == of.topic(noun) else set()
    )
    assert client.visible.lacking(both) == [one for one in both if one.noun != noun]


@pytest.mark.parametrize(("calm", "sent_again"), [(1, True), (11, False)])
def test_what_was_reported_as_committed_is_doubted_for_a_while(
    calm: float, sent_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later its topic's end is others', so that readers would seem to lack what they have for long."""
    monkeypatch.setattr(transactions, "Producer", lambda _: SimpleNamespace(poll=lambda _: 0, close=bool))
    client = transactions.Transactions(_settings, Identity("tests", "cards"), 1, lambda: None)
    sent: list[list[Outgoing]] = []
    monkeypatch.setattr(client, "_transact", lambda out, *_: sent.append(out))
    monkeypatch.setattr(client, "_open", lambda: setattr(client, "_lost", None))
    monkeypatch.setattr(client.visible, "_newest", lambda *_: set())
    client.hold({0}, {0})
    letter = Outgoing("dead-letters", None, b"k", b"letter")
    client.publish([letter], [], None)
    client._committed_at = time.monotonic() - calm
    client.idle(None)
    client._lose(KafkaError(KafkaError._TRANSPORT))
    client.idle(None)
    assert sent == [[letter], [letter] if sent_again else []]


@pytest.mark.parametrize(
    ("held", "new", "opened", "used"),
    [
        ({1, 2}, {1, 2}, [2, 1], 1),
        ({1, 2, 3}, {3}, [3], 1),
        ({0, 1, 2}, {0}, [0], 0),
        ({2}, set(), [2], 2),
        ({1}, set(), [], 1),
        (set(), set(), [], None),
    ],
)
def test_each_partition_that_comes_is_begun_with_its_own_id(
    held: set[int], new: set[int], opened: list[int], used: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left open under any of them is ended; the lowest one's stays in use, and no id that isn't ours."""
    began: list[str] = []
    ended: list[str] = []

    def producer(settings: dict[str, Any]) -> Any:
        name = settings["transactional.id"]
        return SimpleNamespace(name=name, close=lambda: ended.append(name))

    of = Identity("tests", "cards")
    monkeypatch.setattr(transactions, "Producer", producer)
    client = transactions.Transactions(_settings, of, 4, lambda: None)
    monkeypatch.setattr(client, "_open", lambda: began.append(client.producers()[0].name))
    client.hold({1, 2}, {1, 2})
    if held != {1, 2}:
        began.clear()
        client.hold(held, new)
    assert began == [of.transactional_id(one) for one in opened]
    in_use = [of.transactional_id(used)] if used is not None else []
    assert [one.name for one in client.producers()] == in_use
    assert not set(in_use) & set(ended[-1:])


def test_a_transaction_of_an_earlier_membership_is_aborted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same producer goes on: nothing of it is broken."""
    aborted: list[float] = []
    producer = SimpleNamespace(poll=lambda _: 0, close=bool, abort_transaction=aborted.append)
    monkeypatch.setattr(transactions, "Producer", lambda _: producer)
    client = transactions.Transactions(_settings, Identity("tests", "cards"), 1, lambda: None)
    monkeypatch.setattr(client, "_open", lambda: None)
    client.hold({0}, {0})

    def refuse(*_: Any) -> None:
        raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION, "moved on", txn_requires_abort=True))

    monkeypatch.setattr(client, "_transact", refuse)
    with pytest.raises(StaleMembershipError, match="moved on"):
        client.publish([], [], None)
    assert aborted
    assert client.producers() == [producer]


@pytest.mark.parametrize(
    ("read", "sent", "end"),
    [
        ({0: 7, 1: 5}, ["a"], StaleMembershipError),
        ({0: 9, 1: 9}, ["a", "b", "c"], None),
        ({0: 9, 1: 5}, ["a", "b"], FatalError),
        ({0: 5, 1: 5}, [], FatalError),
    ],
)
def test_without_a_membership_only_what_nobody_decides_again_is_sent(
    read: dict[int, int], sent: list[str], end: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker was away for longer than the group waits: of two batches in doubt, those whose offsets the group has. Of a part, or of the
    first one that it hasn't, this process is past: a new one begins where the group is."""

    def letter(event_id: str, of: int) -> Outgoing:
        return Outgoing("dead-letters", None, b"k", b'{"id":"%s"}' % event_id.encode(), of)

    outcomes: list[list[str]] = []
    broken = [True]

    def transact(out: list[Outgoing], offsets: Any, _: Any) -> dict[int, int]:
        if offsets and broken and broken.pop():
            client._lost = KafkaError(KafkaError._TRANSPORT)
            raise KafkaException(client._lost)
        if offsets:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))
        outcomes.append([one.value.decode()[7] for one in out])
        return {}

    producer = SimpleNamespace(poll=lambda _: 0, close=bool, abort_transaction=lambda _: None)
    monkeypatch.setattr(transactions, "Producer", lambda _: producer)
    client = transactions.Transactions(_settings, Identity("tests", "cards"), 2, lambda: None)
    monkeypatch.setattr(client, "_open", lambda: setattr(client, "_lost", None))
    monkeypatch.setattr(client.visible, "_newest", lambda *_: {b'{"id":"v"}'})
    monkeypatch.setattr(client, "_transact", transact)
    topic = Identity("tests", "cards").topic("features")
    monkeypatch.setattr(
        transactions, "committed_offsets", lambda *_: {(topic, one): at for one, at in read.items()}
    )
    client.hold({0, 1}, {0, 1})
    before = [TopicPartition(topic, 0, 7)]
    client._last = transactions._Batch([letter("v", 0), letter("a", 0)], before)
    client._committed_at = time.monotonic()
    batch = [letter("b", 0), letter("c", 1)]
    places = [TopicPartition(topic, 0, 9), TopicPartition(topic, 1, 9)]
    if end is None:
        assert client.publish(batch, places, None) == {}
    else:
        with pytest.raises(end):
            client.publish(batch, places, None)
    assert outcomes == [sent]


def test_a_batch_of_long_ago_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without a partition has nothing to poll; when it gets one again, its last records lie far behind the others'."""
    monkeypatch.setattr(transactions, "Producer", lambda _: SimpleNamespace(poll=lambda _: 0, close=bool))
    client = transactions.Transactions(_settings, Identity("tests", "cards"), 1, lambda: None)
    monkeypatch.setattr(client, "_open", lambda: setattr(client, "_lost", None))
    monkeypatch.setattr(client.visible, "_newest", lambda *_: set())
    sent: list[list[Outgoing]] = []
    broken = [False, True, False]

    def transact(out: list[Outgoing], *_: Any) -> dict[int, int]:
        if broken.pop(0):
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        sent.append(out)
        return {}

    monkeypatch.setattr(client, "_transact", transact)
    client.hold({0}, {0})
    old, new = (Outgoing("dead-letters", None, b"k", value) for value in (b"old", b"new"))
    client.publish([old], [], None)
    client.hold(set(), set())
    client._committed_at = time.monotonic() - 3600
    client.hold({0}, {0})
    client.publish([new], [], None)
    assert sent == [[old], [new]]


def test_an_absence_noticed_while_partitions_move_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed just before is compared with what readers have."""
    monkeypatch.setattr(transactions, "Producer", lambda _: SimpleNamespace(poll=lambda _: 0, close=bool))
    client = transactions.Transactions(_settings, Identity("tests", "cards"), 2, lambda: None)
    away = [KafkaException(KafkaError(KafkaError._TRANSPORT))]

    def opened() -> None:
        if client._id_of == 0 and away:
            raise away.pop()
        client._lost = None

    monkeypatch.setattr(client, "_open", opened)
    client.hold({1}, {1})
    client.hold({0, 1}, {0})
    assert client._lost is not None
