"""What TLS and logins cost an inline decision: one door by open servers, one by locked ones, measured in turns in one sitting.

One broker has a plain and a locked listener; Redis is there twice, open and by TLS with the detector's own user. Predictors are the same.

python -m fraud_bench.locks
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

import redis as redis_client

from fraud_bench import load, measure, stack
from fraud_bench.live import SECONDS, latencies, send
from fraud_contracts.config import REDIS_URL, STORES_ENV, ca_cert
from fraud_testing import certificates, kafka_tls, redis, serving

RATE: Final = 300.0
# Each door's turn twice, in the order that a machine which gets slower or faster favours none by.
TURNS: Final = ("open", "locked", "locked", "open")
WARM: Final = 5.0
USER, PASSWORD = "decision", "a password of the bench"


@dataclass
class Door:
    """``parts`` are the processes that it takes, by name: what their processor time is spent for is no other door's."""

    service: serving.Process
    parts: dict[str, int]
    answers: load.Answers = field(default_factory=load.Answers)
    cpu: dict[str, float] = field(default_factory=dict)
    sent: int = 0

    def turn(self, name: str, number: int) -> None:
        measure.note(f"{name} door, {RATE:.0f}/s")
        before = {part: measure.cpu_seconds(pid) for part, pid in self.parts.items()}
        answers = send(self.service.url, f"{name}-{number}", RATE, SECONDS / 2, 1.0)
        for part, pid in self.parts.items():
            self.cpu[part] = self.cpu.get(part, 0.0) + measure.cpu_seconds(pid) - before[part]
        self.answers.seconds += answers.seconds
        self.answers.outcomes += answers.outcomes
        self.answers.elapsed += answers.elapsed
        self.answers.lost += answers.lost
        self.sent += round(len(answers.seconds) * (SECONDS / 2 + 1) / (SECONDS / 2))

    def report(self, name: str) -> None:
        each = {part: round(1e6 * spent / self.sent) for part, spent in self.cpu.items()}
        measure.report(f"door_{name}", **latencies(self.answers), offered=RATE, cpu_us=each)


def pid_of(server: redis.Server | serving.Process) -> int:
    assert server.process is not None
    return server.process.pid


@contextmanager
def locked(path: stack.Stack, broker: kafka_tls.LockedBroker) -> Iterator[Door]:
    """A decision service that logs in to Kafka and Redis over TLS, as its Pod does."""
    folder, identity = path.folder / "locked", path.config.identity
    folder.mkdir()
    broker.set_password(USER, PASSWORD)
    broker.allow(USER, f"{identity}.")
    access = broker.login(folder / "kafka", USER, PASSWORD)
    kafka = path.config.kafka.model_copy(
        update={"bootstrap_servers": access.bootstrap, "login": str(access.folder)}
    )
    config = path.config.model_copy(update={"kafka": kafka})
    made = certificates.make(folder / "certificates")
    with redis.server(append_only=True, certificates=made) as store:
        address = store.login(identity)
        with redis_client.Redis.from_url(store.url, ssl_ca_certs=str(made.authority)) as client:
            client.set(identity.redis_complete(config.hash6), config.epoch)
        redis.claims_whole(store, identity)
        (folder / REDIS_URL).write_text(address)
        (folder / ca_cert(REDIS_URL)).write_text(made.authority.read_text())
        serving.write_release(folder, path.releases["shadowed"])
        with serving.decision_service(config, folder, address, **{STORES_ENV: str(folder)}) as service:
            yield Door(service, parts(path, service, store))


def parts(path: stack.Stack, service: serving.Process, store: redis.Server) -> dict[str, int]:
    return {"service": pid_of(service), "redis": pid_of(store), "broker": path.processes["broker"]}


def main() -> None:
    measure.begin()
    if shutil.which("redis-server") is None:
        sys.exit("redis-server is not installed")
    with ExitStack() as opened:
        broker = opened.enter_context(kafka_tls.locked_broker())
        path = opened.enter_context(stack.data_path(broker.plain))
        service = opened.enter_context(path.service())
        doors = {
            "open": Door(service, parts(path, service, path.store)),
            "locked": opened.enter_context(locked(path, broker)),
        }
        for name, door in doors.items():
            send(door.service.url, f"warm-{name}", RATE, 1.0, WARM)
        for number, name in enumerate(TURNS):
            doors[name].turn(name, number)
        for name, door in doors.items():
            door.report(name)


if __name__ == "__main__":
    main()
