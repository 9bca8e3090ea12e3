"""A real broker whose clients log in: TLS with certificates of an authority made here, SCRAM users, ACLs.

The plain listener stays, for the test's own hand, which may do everything. ``openssl`` makes the certificates; where it is missing
``missing()`` says so.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from fraud_contracts.names import Identity, kafka_user
from fraud_process.kafka import AUTHORITY, MECHANISM, PASSWORD, USERNAME, KafkaAccess
from fraud_testing import kafka
from fraud_testing.detectors import replace_whole
from fraud_testing.kafka import Broker, free_port

SCRAM = "SCRAM-SHA-512"
_ITERATIONS = 4096
# The second listener is as the first, with a certificate that has expired.
_PROPERTIES = """\
listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},LOCKED://127.0.0.1:{locked},EXPIRED://127.0.0.1:{expired}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},LOCKED://127.0.0.1:{locked},EXPIRED://127.0.0.1:{expired}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOCKED:SASL_SSL,EXPIRED:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.locked.ssl.keystore.type=PEM
listener.name.locked.ssl.keystore.location={folder}/good.pem
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location={folder}/expired.pem
listener.name.locked.scram-sha-512.sasl.jaas.config={module} required;
listener.name.expired.scram-sha-512.sasl.jaas.config={module} required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


# The detector whose children are reviewed as a golden file.
REVIEWED = Identity("payments", "payments")
_GOLDEN = Path(__file__).parents[2] / "golden" / "payments" / "expected.yaml"
_KINDS = {
    "topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactionalId": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,
}  # fmt: skip
_PATTERNS = {"literal": ResourcePatternType.LITERAL, "prefix": ResourcePatternType.PREFIXED}
_OPERATIONS = {
    "Read": AclOperation.READ, "Write": AclOperation.WRITE, "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}  # fmt: skip


def reviewed_rules(part: str) -> list[dict[str, Any]]:
    """Of the golden KafkaUser of one component."""
    name = kafka_user(REVIEWED.name, part)
    for document in yaml.safe_load_all(_GOLDEN.read_text()):
        if document["kind"] == "KafkaUser" and document["metadata"]["name"] == name:
            rules: list[dict[str, Any]] = document["spec"]["authorization"]["acls"]
            return rules
    raise LookupError(f"{_GOLDEN} has no KafkaUser {name}")


def missing() -> str | None:
    return kafka.missing() or (None if shutil.which("openssl") else "openssl is not installed")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr}")


@dataclass(frozen=True)
class Authority:
    """One that vouches for certificates; ``certificate`` is its own, PEM."""

    folder: Path
    name: str = "ca"

    @property
    def certificate(self) -> str:
        return (self.folder / f"{self.name}.crt").read_text()

    def make(self) -> Authority:
        self.folder.mkdir(parents=True, exist_ok=True)
        base = self.folder / self.name
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={self.name}",
            "-days", "30", "-keyout", f"{base}.key", "-out", f"{base}.crt",
        )  # fmt: skip
        return self

    def vouch(self, name: str, days: int = 30) -> Path:
        """Key and certificate of 127.0.0.1 in one file; with no days it has expired at once."""
        base, extensions = self.folder / name, self.folder / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=broker",
            "-keyout", f"{base}.key", "-out", f"{base}.csr",
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", f"{base}.csr", "-CA", self.folder / f"{self.name}.crt", "-CAkey",
            self.folder / f"{self.name}.key", "-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out", f"{base}.crt",
        )  # fmt: skip
        whole = base.with_suffix(".pem")
        whole.write_text(base.with_suffix(".key").read_text() + base.with_suffix(".crt").read_text())
        return whole


@dataclass
class LockedBroker:
    """``plain`` is the same broker by its plain listener. ``login`` folders are what a Pod mounts."""

    plain: Broker
    authority: Authority
    locked_port: int = field(default_factory=free_port)
    expired_port: int = field(default_factory=free_port)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.locked_port}"

    @property
    def expired(self) -> str:
        return f"127.0.0.1:{self.expired_port}"

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.plain.bootstrap})

    def start(self) -> None:
        self.authority.make()
        for name, days in (("good", 30), ("expired", 0)):
            self.authority.vouch(name, days)
        self.plain.properties = _PROPERTIES.format(
            plain=self.plain.port,
            controller=self.plain.controller,
            locked=self.locked_port,
            expired=self.expired_port,
            folder=self.authority.folder,
            module="org.apache.kafka.common.security.scram.ScramLoginModule",
        )
        self.plain.format()
        self.plain.start()

    def _change(self, change: UserScramCredentialUpsertion | UserScramCredentialDeletion) -> None:
        admin = self._admin()
        for future in admin.alter_user_scram_credentials([change]).values():
            future.result(30)

    def set_password(self, user: str, password: str) -> None:
        """Makes the user, or changes its password."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
        change = UserScramCredentialUpsertion(user, info, password.encode())
        self._change(change)

    def revoke(self, user: str) -> None:
        change = UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512)
        self._change(change)

    def allow(
        self, user: str, prefix: str, operations: Iterable[AclOperation] = (AclOperation.ALL,), **more: Any
    ) -> None:
        """On topics, groups and transactional ids whose names begin with the prefix; ``kinds`` chooses among them."""
        kinds = more.get("kinds", (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID))
        bindings = [
            AclBinding(
                kind,
                prefix,
                ResourcePatternType.PREFIXED,
                f"User:{user}",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for kind in kinds
            for operation in operations
        ]
        self._add(bindings)

    def _add(self, bindings: list[AclBinding]) -> None:
        admin = self._admin()  # kept by a name until the answers are there
        for future in admin.create_acls(bindings).values():
            future.result(30)

    def allow_as(self, user: str, part: str) -> None:
        """What the operator's KafkaUser of a component lets it do, of the detector ``REVIEWED``."""
        bindings = {
            AclBinding(
                _KINDS[rule["resource"]["type"]],
                rule["resource"].get("name", "kafka-cluster"),
                _PATTERNS[rule["resource"].get("patternType", "literal")],
                f"User:{user}",
                "*",
                _OPERATIONS[operation],
                AclPermissionType.ALLOW,
            )
            for rule in reviewed_rules(part)
            for operation in rule["operations"]
        }  # A topic that is read and written is described by two rules.
        self._add(list(bindings))

    def login(
        self, folder: Path, user: str, password: str, mechanism: str = SCRAM, authority: str | None = None
    ) -> KafkaAccess:
        """The files as the kubelet writes them, and what a process makes of them."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {USERNAME: user, PASSWORD: password, MECHANISM: mechanism}
        for name, text in (files | {AUTHORITY: authority or self.authority.certificate}).items():
            replace_whole(folder / name, text)
        return KafkaAccess(self.bootstrap, folder)


@contextmanager
def locked_broker() -> Iterator[LockedBroker]:
    """A fresh one for the block."""
    folder = Path(tempfile.mkdtemp(prefix="fraud-kafka-tls-"))
    broker = LockedBroker(Broker(folder), Authority(folder / "pki"))
    try:
        broker.start()
        yield broker
    finally:
        broker.plain.stop()
        shutil.rmtree(folder, ignore_errors=True)
