"""How every client of Kafka is set up: where it is, what it logs in with, what all producers share. Imports no client.

What a client logs in with are files of a mounted Secret, which change while the process runs: the kubelet writes them anew. A client
made afterwards reads them anew, too; one that is there is handed them by ``renew`` and uses them at its next connection. A
connection that stands outlives its password.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from fraud_contracts.config import KafkaAddress

# As the Java clients' default: an entity's records meet on one partition, whoever writes them.
PARTITIONER: Final = "murmur2_random"
# What a producer sends lies compressed in the topic: records are JSON of names that repeat, and disks fill by their bytes.
COMPRESSION: Final = "lz4"
# The files in the folder of a login. The last is there where others than this machine's authorities vouch for the brokers.
USERNAME: Final = "username"
PASSWORD: Final = "password"  # noqa: S105 - the name of a file
MECHANISM: Final = "mechanism"
AUTHORITY: Final = "ca.crt"
# Never without TLS: PLAIN shows the password to whoever listens, and SCRAM what a list of passwords can be tried on.
PROTOCOL: Final = "SASL_SSL"
PLAIN: Final = "PLAIN"
MECHANISMS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", PLAIN)
# For whoever is in a group. Else a client that has lost its last broker forgets it, and with it where the group's coordinator is, to which
# it then never connects (https://github.com/confluentinc/librdkafka/issues/5511).
KEEPS_BROKERS: Final = {"metadata.recovery.strategy": "none"}
# So often a process hands its clients what the files hold.
RENEW_SECONDS: Final = 5.0
log = logging.getLogger(__name__)


class LoggedIn(Protocol):
    """Any client of confluent_kafka."""

    def set_sasl_credentials(self, username: str, password: str) -> None: ...


@dataclass(frozen=True)
class KafkaLogin:
    """``authority``: certificates (PEM) of those who vouch for the brokers; empty where this machine's own do."""

    username: str
    password: str = field(repr=False)
    mechanism: str
    authority: str = ""

    @classmethod
    def read(cls, folder: Path) -> KafkaLogin:
        """From mounted files; OSError names the one that can't be read."""
        authority = folder / AUTHORITY
        return cls(
            (folder / USERNAME).read_text(),
            (folder / PASSWORD).read_text(),
            (folder / MECHANISM).read_text(),
            authority.read_text() if authority.exists() else "",
        )

    def settings(self) -> dict[str, Any]:
        """For librdkafka, which checks that a broker's certificate bears the name that was connected to."""
        settings = {
            "security.protocol": PROTOCOL,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.username,
            "sasl.password": self.password,
        }
        return {**settings, "ssl.ca.pem": self.authority} if self.authority else settings


def client_settings(bootstrap: str, login: KafkaLogin | None = None) -> dict[str, Any]:
    """What each client of librdkafka needs to reach a Kafka."""
    return {"bootstrap.servers": bootstrap, **(login.settings() if login is not None else {})}


@dataclass(frozen=True)
class KafkaAccess:
    """One Kafka as a process reaches it. ``folder`` holds the files of its login; None where a listener asks for none."""

    bootstrap: str
    folder: Path | None = None

    @classmethod
    def of(cls, address: KafkaAddress) -> KafkaAccess:
        return cls(address.bootstrap_servers, Path(address.login) if address.login else None)

    def settings(self) -> dict[str, Any]:
        """For librdkafka: the address, and what the files hold now. OSError where they can't be read."""
        return client_settings(self.bootstrap, None if self.folder is None else KafkaLogin.read(self.folder))

    def producer_settings(self, **more: Any) -> dict[str, Any]:
        """For librdkafka: a record counts as written when all in-sync replicas have it, once and in order.

        ``more`` are further settings, with ``_`` for each dot.
        """
        return {
            **self.settings(),
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
            "compression.type": COMPRESSION,
            **{name.replace("_", "."): value for name, value in more.items()},
        }

    def renew(self, *clients: LoggedIn) -> None:
        """Hands clients that run what the files hold now; files that can't be read leave them what they have."""
        if self.folder is None:
            return
        try:
            login = KafkaLogin.read(self.folder)
        except OSError as error:
            log.warning("no new login", extra={"data": {"error": str(error)}})
            return
        for client in clients:
            client.set_sasl_credentials(login.username, login.password)
