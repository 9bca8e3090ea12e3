"""What real stores say of their room, and to whom they don't."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from confluent_kafka.admin import AclOperation

from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_operator import kafka_log_dirs
from fraud_operator.capacities import Capacities, Question, postgres_volumes, redis_volumes
from fraud_operator.capacity import REDIS, CapacityFact
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.store_login import LoginRefusedError, StoreAdmin
from fraud_process.kafka import KafkaLogin
from fraud_testing import kafka_tls, postgres, redis
from fraud_testing.kafka import free_port, wait_for
from fraud_testing.kafka_tls import SCRAM, LockedBroker
from fraud_testing.required import require

pytestmark = pytest.mark.integration
PASSWORD = "one of sixteen or more"
MIB = 2**20


@pytest.fixture(scope="module")
def store() -> Iterator[redis.Server]:
    require(redis.missing())
    with redis.server() as running:
        yield running


@pytest.fixture(scope="module")
def broker() -> Iterator[LockedBroker]:
    require(kafka_tls.missing())
    with kafka_tls.locked_broker() as running:
        running.set_password("operator", PASSWORD)
        running.allow_as("operator", "operator")
        running.set_password("reader", PASSWORD)
        running.allow("reader", "n.", [AclOperation.DESCRIBE])
        yield running


def target(broker: LockedBroker, user: str = "operator", **other: str) -> KafkaTarget:
    login = KafkaLogin(user, PASSWORD, SCRAM, broker.authority.certificate)
    return KafkaTarget(broker.bootstrap, replace(login, **other))


def question(server: redis.Server) -> Question:
    admin = StoreAdmin(server.url)
    return Question(REDIS, admin, lambda: redis_volumes(admin))


def answered(capacities: Capacities, asked: Question, holds: Callable[[CapacityFact], bool]) -> CapacityFact:
    def look() -> CapacityFact | None:
        fact = capacities.answers([asked])
        return fact if holds(fact) else None

    return wait_for(look, 30, "the store's answer")


def test_redis_says_how_much_of_its_maxmemory_is_used(store: redis.Server) -> None:
    """By what it holds; a server without a limit says nothing."""
    admin = StoreAdmin(store.url)
    store.command("CONFIG", "SET", "maxmemory", "0")
    assert redis_volumes(admin) == {}
    store.command("CONFIG", "SET", "maxmemory", str(64 * MIB))
    before = redis_volumes(admin)[""]
    assert before.capacity == 64 * MIB
    store.command("SETRANGE", "large", str(8 * MIB), "x")
    assert redis_volumes(admin)[""].used - before.used == pytest.approx(8 * MIB, rel=0.3)
    store.command("DEL", "large")


def test_a_full_redis_is_warned_of_and_an_emptied_one_no_more(store: redis.Server) -> None:
    """From the server itself to what the condition says."""
    now = [1_000.0]
    capacities = Capacities(clock=lambda: now[0])
    asked = question(store)
    store.command("CONFIG", "SET", "maxmemory", str(40 * MIB))
    assert answered(capacities, asked, lambda fact: bool(fact.rooms)).rooms[0].warned is False
    store.command("SETRANGE", "large", str(33 * MIB), "x")
    now[0] += 60
    fact = answered(capacities, asked, lambda fact: fact.rooms[0].warned)
    assert fact.rooms[0].percent >= 80
    store.command("DEL", "large")
    now[0] += 60
    answered(capacities, asked, lambda fact: not fact.rooms[0].warned)


def test_a_login_without_the_right_to_ask_is_told_from_a_redis_that_is_away(store: redis.Server) -> None:
    """A detector's own login may not send INFO."""
    with pytest.raises(LoginRefusedError):
        redis_volumes(StoreAdmin(store.login(Identity("n", "d"))))
    with pytest.raises(StoreError) as away:
        redis_volumes(StoreAdmin(f"redis://127.0.0.1:{free_port()}/0"))
    assert not isinstance(away.value, LoginRefusedError)


def test_postgresql_says_how_large_its_databases_are() -> None:
    """All that the login may connect to."""
    require(postgres.missing())
    with postgres.server() as database:
        [(name, volume)] = postgres_volumes(StoreAdmin(database.dsn), 10**9).items()
    assert (name, volume.capacity) == ("", 10**9)
    assert 5 * MIB < volume.used < 100 * MIB


def test_a_postgresql_that_is_away_is_no_answer() -> None:
    """Within seconds."""
    with pytest.raises(StoreError):
        postgres_volumes(StoreAdmin(f"postgresql://fraud@127.0.0.1:{free_port()}/postgres"), 10**9)


def test_brokers_say_how_large_their_disks_are(broker: LockedBroker) -> None:
    """By the operator's own login, which may describe the cluster; as the broker's file system has it."""
    [(name, volume)] = kafka_log_dirs.volumes(target(broker)).items()
    assert name.startswith("broker 1, /")
    disk = shutil.disk_usage(broker.plain.folder)
    assert volume.capacity == disk.total
    assert volume.used == pytest.approx(disk.total - disk.free, rel=0.02)


def test_a_kafka_without_logins_is_asked_too(broker: LockedBroker) -> None:
    """As a Kafka of one's own may be."""
    assert len(kafka_log_dirs.volumes(KafkaTarget(broker.plain.bootstrap))) == 1


def test_a_login_that_may_not_describe_the_cluster_is_told_so(broker: LockedBroker) -> None:
    """It sees its topics, and no disk."""
    with pytest.raises(LoginRefusedError, match="disks"):
        kafka_log_dirs.volumes(target(broker, "reader"))


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"password": "another one entirely"}, LoginRefusedError),
        ({"mechanism": "PLAIN"}, LoginRefusedError),
        ({"authority": ""}, StoreError),
    ],
)
def test_a_login_that_is_wrong_is_no_answer(
    broker: LockedBroker, changes: dict[str, str], kind: type[StoreError]
) -> None:
    """Nor does a broker get a password whom nobody vouches for."""
    with pytest.raises(kind):
        kafka_log_dirs.volumes(target(broker, **changes))
