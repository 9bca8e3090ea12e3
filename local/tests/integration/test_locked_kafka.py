"""A broker with the settings that the Strimzi stand-in writes: inner listeners for bearers of its certificates, users for all others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from fraud_local import strimzi_brokers as brokers
from fraud_local import strimzi_entity as entity
from fraud_local.strimzi_secrets import SecretMaker, client_certificates, cluster_authority, decoded, encoded
from fraud_local.user_operator import UserOperator
from fraud_local.users import Users
from fraud_process.kafka import KafkaLogin, client_settings
from fraud_testing import kafka_tls
from fraud_testing.kafka import Broker, free_port
from fraud_testing.required import require
from fraud_testing.standin_cluster import Cluster

pytestmark = pytest.mark.integration
PORTS = {9090: free_port(), 9091: free_port(), 9093: free_port()}
LISTENER = {
    "name": "tls", "port": 9093, "type": "internal", "tls": True, "authentication": {"type": "scram-sha-512"},
}  # fmt: skip
META = {"namespace": "n", "uid": "u", "generation": 1}
KAFKA: dict[str, Any] = {
    "apiVersion": "kafka.strimzi.io/v1",
    "kind": "Kafka",
    "metadata": {"name": "pay", **META},
    "spec": {"kafka": {"listeners": [LISTENER], "authorization": {"type": "simple"}}},
}
POOL: dict[str, Any] = {
    "apiVersion": "kafka.strimzi.io/v1",
    "kind": "KafkaNodePool",
    "metadata": {"name": "nodes", **META},
    "spec": {"replicas": 1, "roles": ["broker", "controller"]},
}
ACL = {
    "resource": {"type": "topic", "name": "n.pay.", "patternType": "prefix"},
    "operations": ["Write", "Describe"],
}
USER: dict[str, Any] = {
    "apiVersion": "kafka.strimzi.io/v1",
    "kind": "KafkaUser",
    "metadata": {"name": "writer", "labels": {"strimzi.io/cluster": "pay"}, **META},
    "spec": {"authentication": {"type": "scram-sha-512"}, "authorization": {"type": "simple", "acls": [ACL]}},
}


class LocalBroker(Broker):
    """One with the stand-in's settings, on free ports of this machine. ``admin`` is what an inner listener's client shows."""

    admin: dict[str, Any]

    def format(self) -> None:
        text = brokers.server_properties(KAFKA, POOL, 0, [])
        text = text.replace(brokers.host(KAFKA, POOL, 0), "localhost").replace("0.0.0.0", "localhost")
        for port, free in PORTS.items():
            text = re.sub(rf":{port}\b", f":{free}", text)
        text = text.replace("/tmp/keystore.pem", str(self.folder / "keystore.pem"))
        text = text.replace(f"{brokers.CONFIG}/0/ca.crt", str(self.folder / "ca.crt"))
        # What is one node's own there, and this broker's here.
        text = re.sub(r"(?m)^(node.id|controller.quorum.voters|log.dirs)=.*\n", "", text)
        self.properties = f"{text}controller.quorum.bootstrap.servers=localhost:{PORTS[9090]}\n"
        super().format()

    def _answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"Kafka ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
        admin = AdminClient({**self.admin, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


@dataclass
class Locked:
    """A broker, and the objects of its Kafka."""

    cluster: Cluster
    broker: LocalBroker
    users: UserOperator
    now: float = 0.0

    def secret(self, name: str) -> dict[str, str]:
        return decoded(self.cluster.get("v1", "Secret", "n", name))

    def turn(self) -> None:
        self.now += 2.0
        self.users.once(self.now)

    def client(self, password: str | None = None) -> dict[str, Any]:
        login = KafkaLogin(
            "writer",
            password or self.secret("writer")["password"],
            "SCRAM-SHA-512",
            self.secret(cluster_authority("pay"))["ca.crt"],
        )
        return {**client_settings(f"localhost:{PORTS[9093]}", login), "log_level": 0}

    def refused(self, settings: dict[str, Any]) -> bool:
        """Whether a client is turned away at the door, and says so."""
        errors: list[KafkaError] = []
        admin = AdminClient({**settings, "log_level": 0, "error_cb": errors.append})
        for _ in range(30):
            try:
                admin.list_topics(timeout=1)
                return False
            except KafkaException:
                admin.poll(0)
                if errors:
                    return True
        raise TimeoutError("neither let in nor turned away")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    require(kafka_tls.missing())
    cluster = Cluster(KAFKA, USER)
    hosts = {"pay-nodes-0": ["localhost"]}
    SecretMaker(cluster, KAFKA).make(hosts)  # type: ignore[arg-type]  # a fake of ApiClient
    for thing in entity.build({**KAFKA, "spec": {**KAFKA["spec"], "entityOperator": {"userOperator": {}}}}):
        cluster.put(thing)
    cluster.objects["Deployment", "n", "pay-entity-operator"]["status"] = {"availableReplicas": 1}
    own = decoded(cluster.get("v1", "Secret", "n", "pay-nodes-0"))
    authority = decoded(cluster.get("v1", "Secret", "n", cluster_authority("pay")))
    admin = client_certificates(cluster, "n", "pay", "entity-user-operator")  # type: ignore[arg-type]  # as above
    admin = {**client_settings(f"localhost:{PORTS[9091]}"), **admin}
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keystore.pem").write_text(own["pay-nodes-0.key"] + own["pay-nodes-0.crt"])
    (folder / "ca.crt").write_text(authority["ca.crt"])
    broker = LocalBroker(folder)
    broker.admin = admin
    users = UserOperator(cluster, lambda _: Users(admin))  # type: ignore[arg-type]  # as above
    try:
        broker.format()
        broker.start()
        yield Locked(cluster, broker, users)
    finally:
        broker.stop()


def test_a_user_gets_a_password_and_its_rights(locked: Locked) -> None:
    """Secret and status are Strimzi's; what the rules don't name is refused."""
    locked.turn()
    user = locked.cluster.objects["KafkaUser", "n", "writer"]
    assert user["status"]["conditions"][0]["type"] == "Ready"
    assert (user["status"]["username"], user["status"]["secret"]) == ("writer", "writer")
    secret = locked.secret("writer")
    assert f'username="writer" password="{secret["password"]}"' in secret["sasl.jaas.config"]
    admin = AdminClient(locked.broker.admin)
    for future in admin.create_topics([NewTopic("n.pay.one", 1, 1), NewTopic("n.other.one", 1, 1)]).values():
        future.result(30)
    producer, outcomes = Producer(locked.client()), dict[str, Any]()
    for topic in ("n.pay.one", "n.other.one"):
        producer.produce(
            topic, b"v", on_delivery=lambda error, message: outcomes.update({message.topic(): error})
        )
    producer.flush(60)
    assert outcomes["n.pay.one"] is None
    assert outcomes["n.other.one"].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_nobody_comes_in_without_password_or_certificate(locked: Locked) -> None:
    """Not by another password, not in plain text, not to an inner listener by the outer one's trust alone."""
    locked.turn()
    assert not locked.refused(locked.client())
    assert locked.refused(locked.client("another password"))
    for port in PORTS.values():
        assert locked.refused(client_settings(f"localhost:{port}"))
    trust = {"ssl.ca.pem": locked.secret(cluster_authority("pay"))["ca.crt"], "security.protocol": "SSL"}
    for port in (9090, 9091):
        assert locked.refused({**client_settings(f"localhost:{PORTS[port]}"), **trust})


def test_a_secret_that_is_deleted_or_changed_is_another_password(locked: Locked) -> None:
    """The one before is refused from then on; so is a user's whose KafkaUser is gone."""
    locked.turn()
    before = locked.secret("writer")["password"]
    locked.cluster.delete("v1", "Secret", "n", "writer")
    locked.turn()
    after = locked.secret("writer")["password"]
    assert after != before
    assert locked.refused(locked.client(before)) and not locked.refused(locked.client(after))
    locked.cluster.objects["Secret", "n", "writer"]["data"] = encoded({"password": "chosen by a person"})
    locked.turn()
    assert locked.refused(locked.client(after)) and not locked.refused(locked.client("chosen by a person"))
    assert "chosen by a person" in locked.secret("writer")["sasl.jaas.config"]
    locked.cluster.delete("kafka.strimzi.io/v1", "KafkaUser", "n", "writer")
    locked.turn()
    assert locked.refused(locked.client("chosen by a person"))
    locked.cluster.put(USER)
