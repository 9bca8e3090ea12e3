"""Many detectors under one operator, and several operators over them: ``make test-scale``.

Engines' operators are absent: no Pods, and no status ever.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts.child_kinds import BY_KIND, DETECTOR, LEASE
from fraud_contracts.config import POSTGRES_DSN, REDIS_URL
from fraud_operator.desired.documents import DOCKER_CONFIG, secret_data
from fraud_operator.kube import Kube
from fraud_testing import postgres, redis
from fraud_testing.api_server import WRITES, Server, serve
from fraud_testing.kafka import wait_for
from fraud_testing.operator_process import OperatorProcess, install, render
from fraud_testing.required import require

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
DETECTORS = int(os.environ.get("FRAUD_DETECTORS") or 200)
IDLE_SECONDS = int(os.environ.get("FRAUD_IDLE_SECONDS") or 300)
IN_ONE_NAMESPACE = 20
# A detector's last status comes a minute after its making, when no operator of an engine has come; passes are a minute apart.
SETTLED_SECONDS = 75
# A new leader looks at every detector at once.
LOOKED_AT_SECONDS = 20
MOST_REQUESTS = 5.0
# From the leader's death until its successor has repaired what was changed meanwhile.
REPLACED_SECONDS = 15.0
SECRET = BY_KIND["Secret"]
# The logins of one registry, which each detector gets a copy of.
PULL_SECRET = ("images.pullSecrets[0].name=registry",)
LOGINS = {"auths": {"registry.example": {"auth": "eDp5"}}}
# What differs between the detectors, in turns: two Pods of a component, stores of their own, and a bucket that is waited for.
VARIANTS: tuple[dict[str, Any], ...] = (
    {"components": [{"name": "DecisionService", "replicas": 2}]},
    {"stores": {"redis": {"secretRef": {"name": "stores"}}, "postgres": {"secretRef": {"name": "stores"}}}},
    {"storage": {"uri": "s3://bucket/folder", "secretRef": {"name": "nobody-made-it"}}},
    {},
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("scale-api"), reads=True) as server:
        kube = server.kube()
        for name in ("fraud-platform", *spaces()):
            server.namespace(name)
            make_secret(kube, name, "stores", REDIS_URL="redis://x", POSTGRES_DSN="postgresql://x")
        make_secret(kube, "fraud-platform", "registry", **{DOCKER_CONFIG: json.dumps(LOGINS)})
        install(kube, render(*PULL_SECRET))
        yield server


def make_secret(kube: Kube, namespace: str, name: str, **data: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": secret_data(data)}
    kube._call("POST", SECRET.path(namespace), {"fieldManager": "a-person"}, body)


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, str]]:
    """A Redis and a PostgreSQL in which every detector gets its logins."""
    require(redis.missing())
    require(postgres.missing())
    with redis.server() as cache, postgres.server() as database:
        yield {REDIS_URL: cache.url, POSTGRES_DSN: database.dsn}


def operator(server: Server, folder: Path, stores: dict[str, str]) -> OperatorProcess:
    return OperatorProcess(server.api, folder, settings=PULL_SECRET, **stores)


def spaces() -> list[str]:
    return [f"many-{number}" for number in range(-(-DETECTORS // IN_ONE_NAMESPACE))]


def detectors() -> list[tuple[str, str]]:
    return [(f"many-{n // IN_ONE_NAMESPACE}", f"d{n % IN_ONE_NAMESPACE}") for n in range(DETECTORS)]


@pytest.fixture(scope="module")
def first(
    server: Server, stores: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """The operator that made all the detectors' children, once nothing moves any more."""
    running, kube = operator(server, tmp_path_factory.mktemp("first"), stores), server.kube()
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["spec"]["kafka"] = {"external": {"bootstrapServers": "127.0.0.1:9"}, "partitions": 2}
    try:
        running.start()
        started = time.monotonic()
        for (namespace, name), variant in zip(detectors(), cycle(VARIANTS), strict=False):
            meta = {"namespace": namespace, "name": name}
            kube.create(DETECTOR, {**body, "metadata": meta, "spec": {**body["spec"], **variant}})
        wait_for(lambda: all(statuses(kube)), 600, "a status of each detector")
        print(f"{DETECTORS} detectors after {time.monotonic() - started:.0f} s: {running.usage()}")
        comes_to_rest(server, SETTLED_SECONDS)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def second(
    server: Server, first: OperatorProcess, stores: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    running = operator(server, tmp_path_factory.mktemp("second"), stores)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def statuses(kube: Kube) -> list[bool]:
    return [bool(body.get("status")) for name in spaces() for body in kube.list(DETECTOR, name)]


def comes_to_rest(server: Server, seconds: float) -> None:
    end, count, since = time.monotonic() + 600, -1, time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < end, f"they never come to rest: {shown(server.api.writes()[-5:])}"
        time.sleep(5)
        now = len(server.api.writes())
        count, since = (count, since) if now == count else (now, time.monotonic())


def shown(requests: list[dict[str, Any]]) -> list[str]:
    return [f"{one['verb']} {one['requestURI']}" for one in requests]


def holder(kube: Kube) -> str:
    lease = kube.get(LEASE, "fraud-platform", "fraud-operator") or {}
    return str((lease.get("spec") or {}).get("holderIdentity", ""))


def test_idle_detectors_cost_little(server: Server, first: OperatorProcess) -> None:
    """Not one write but the Lease's, and at most five requests a second, whatever the number of detectors."""
    before, since, moment = first.usage(), time.time(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    after, took = first.usage(), time.monotonic() - moment
    asked = server.api.requests(since)
    kinds = Counter(f"{one['verb']} {(one.get('objectRef') or {}).get('resource', '')}" for one in asked)
    print(
        f"{DETECTORS} detectors idle for {took:.0f} s: {len(asked) / took:.2f} requests/s, {after.mebibytes} MiB, "
        f"{after.threads} threads, {100 * (after.cpu_seconds - before.cpu_seconds) / took:.1f} % of a core; {dict(kinds)}"
    )
    lease = [one for one in asked if (one.get("objectRef") or {}).get("resource") == "leases"]
    writes = [one for one in asked if one["verb"] in WRITES and one not in lease]
    assert shown(writes) == []
    assert len(asked) / took <= MOST_REQUESTS
    assert len(lease) / took <= 1


def test_a_second_operator_stands_by(server: Server, first: OperatorProcess, second: OperatorProcess) -> None:
    """It is ready, knows who leads, watches, writes nothing and asks for nothing but the Lease."""
    kube = server.kube()
    assert holder(kube) == first.identity
    before, since = len(server.api.writes()), time.time()
    time.sleep(IDLE_SECONDS / 2)
    assert first.alive and second.alive and second.get("/readyz")
    assert shown(server.api.writes()[before:]) == []
    looks = [
        one for one in server.api.requests(since) if one["verb"] == "get" and "/leases/" in one["requestURI"]
    ]
    assert len(looks) >= IDLE_SECONDS / 2 / 2
    assert holder(kube) == first.identity
    print(f"standing by: {second.usage()}")


def replaced(server: Server, old: OperatorProcess, new: OperatorProcess) -> None:
    """``old`` has just gone: what is deleted now comes back, and nothing else is written."""
    kube, started, before = server.kube(), time.monotonic(), len(server.api.writes())
    namespace, name = detectors()[-1]
    kube.delete(BY_KIND["Service"], namespace, f"{name}-decision")
    wait_for(lambda: holder(kube) == new.identity, REPLACED_SECONDS, "another holder of the Lease")
    held = time.monotonic() - started
    service = (BY_KIND["Service"], namespace, f"{name}-decision")
    wait_for(lambda: kube.get(*service), REPLACED_SECONDS - held, "the deleted Service")
    print(f"the Lease after {held:.1f} s, the repair after {time.monotonic() - started:.1f} s: {new.usage()}")
    comes_to_rest(server, LOOKED_AT_SECONDS)
    writes = shown(server.api.writes()[before:])
    assert len(writes) == 1 and f"/{name}-decision?" in writes[0], writes


def test_a_killed_leader_is_replaced(server: Server, first: OperatorProcess, second: OperatorProcess) -> None:
    """Within 15 seconds the other has the Lease and has repaired a child, and it writes nothing that was right already."""
    first.kill()
    replaced(server, first, second)
    first.start()
    assert holder(server.kube()) == second.identity


def test_a_leader_that_was_frozen_writes_no_more(
    server: Server, first: OperatorProcess, second: OperatorProcess
) -> None:
    """A leader that stood still is replaced as well; it ends once it goes on, without a write, and would stand by if started anew."""
    second.send(signal.SIGSTOP)
    try:
        replaced(server, second, first)
        before = len(server.api.writes())
    finally:
        second.send(signal.SIGCONT)
    wait_for(lambda: not second.alive, 15, "the end of the one that was frozen")
    assert second.exit_code == 1
    assert holder(server.kube()) == first.identity and shown(server.api.writes()[before:]) == []


def test_a_leader_that_ends_makes_room(
    server: Server, first: OperatorProcess, second: OperatorProcess
) -> None:
    """Ended in order, it gives the Lease back: the other needn't wait until it is old."""
    second.start()
    assert holder(server.kube()) == first.identity
    assert first.terminate(20) == 0
    wait_for(lambda: holder(server.kube()) == second.identity, 4, "another holder of the Lease")
