"""Every credential is changed under load as the pages say it, and no client sees an error: `make demo`, then `make test-rotation`.

On the cluster of a demo that is up. The tests build on one another: the load of all is one, and what a later one finds was changed by an
earlier one.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud_contracts import names
from fraud_contracts.config import (
    CA_CERT,
    KAFKA_LOGIN_PATH,
    POSTGRES_DSN,
    REDIS_URL,
    STORE_KEYS,
    STORES_PATH,
    ca_cert,
)
from fraud_local import paths
from fraud_local.demo.kubectl import Kubectl, KubectlError
from fraud_local.demo.summary import ANSWERED, agrees, unguarded
from fraud_operator.certificates import CA_KEY
from fraud_process.kafka import PASSWORD
from fraud_testing import in_pods, trial_accounts, wrapping
from fraud_testing.client_pod import ClientPod
from fraud_testing.live import OPERATOR, PLATFORM, SOON, STORES, Live, within
from fraud_testing.required import require
from fraud_testing.rotation import RATE, SCOPES, Stand, client_secrets, who_may

# The operator's Pod, which reads the platform's own logins when it starts; no decision waits for it.
OPERATORS = (f"{PLATFORM}/{OPERATOR}-",)
# Of an earlier login to a store: ten minutes, five until the operator looks again, and some for a busy machine.
CUT_OFF = 1200.0
# A savepoint and a start of the streaming job, beside all else.
LONG = 420.0
# Whether a trial store lets its own user in by a password.
LETS_IN = {
    "redis": "REDISCLI_AUTH=$(cat) redis-cli -p 6379 --tls --insecure ping 2> /dev/null | grep -qx PONG && echo in || echo refused",
    "postgres": 'PGPASSWORD=$(cat) psql "host=127.0.0.1 user=fraud dbname=postgres sslmode=require" -Atc "SELECT 1" > /dev/null 2>&1'
    " && echo in || echo refused",
    "mlflow": f"python -c '{in_pods.MLFLOW}'",
}
KAFKA_PASSWORD = f"{KAFKA_LOGIN_PATH}/{PASSWORD}"
READERS = {
    REDIS_URL: ("decision", "worker", "profile-sink"),
    POSTGRES_DSN: ("ledger-sink", "console", "decision", "worker"),
}
PORTS = {"redis": 6379, "postgres": 5432}
ADDRESSES = {"redis": REDIS_URL, "postgres": POSTGRES_DSN}


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    kube = Kubectl(Path(os.environ.get("KUBECONFIG", paths.KUBECONFIG)), paths.NODE_BIN)
    try:
        bodies = kube.get("frauddetectors", "-A")["items"]
    except KubectlError as error:
        bodies = []
        require(f"no cluster with a detector: make demo ({error})")
    require(None if bodies else "no detector on this cluster: make demo")
    meta, spec = bodies[0]["metadata"], bodies[0]["spec"]
    live = Live(kube, meta["name"], meta["namespace"])
    keys = {
        scope: next(iter(live.secret(client_secrets(live.name, spec)[who_may(spec, scope)]).values()))
        for scope in SCOPES
    }
    client = ClientPod(kube, live.name, live.namespace, f"rotation-{int(time.time()):x}-", keys)
    try:
        client.start(spec, RATE)
        yield Stand(live, client, spec)
    finally:
        client.remove()


def workload(stand: Stand, store: str) -> str:
    """Which of the detector's Pods has a login to the store."""
    name = stand.live.name
    return f"deployment/{names.decision_service(name) if store == 'redis' else names.sink(name, 'ledger')}"


def trial_passwords(stand: Stand) -> dict[str, str]:
    """What the trial's stores ask their own user for, by store; skips where there are none."""
    held = stand.live.secret(STORES, PLATFORM)
    passwords = {store: held.get(f"{store.upper()}_PASSWORD", "") for store in LETS_IN}
    if not all(passwords.values()):
        pytest.skip("the stores are the installation's own, not the trial's: their owner changes that login")
    return passwords


def test_the_trial_stores_own_passwords(stand: Stand) -> None:
    """The operator makes other ones, the stores take them without a restart, and the former ones are refused."""
    live, before = stand.live, trial_passwords(stand)
    entries = {store: f"{store.upper()}_PASSWORD" for store in before}
    with stand.unnoticed("the trial stores' own passwords", new=OPERATORS):
        held = live.secret(STORES, PLATFORM)
        live.take(STORES, entries.values(), PLATFORM)
        live.restart_operator()
        now = live.replaced(STORES, held, entries.values(), PLATFORM)
        for store, script in LETS_IN.items():
            own = now[entries[store]]
            within(SOON, f"the trial's {store} to take its password", lambda s=store, p=own, c=script: live.in_store(s, c, p) == "in")  # fmt: skip
            assert live.in_store(store, script, before[store]) == "refused"
        within(SOON, "the operator to log in again", lambda: live.conditions()["StoresReady"][0] == "True")


def test_the_trial_stores_authority(stand: Stand) -> None:
    """Another one comes beside the former, and every Pod knows both before any server shows a certificate by it."""
    live = stand.live
    trial_passwords(stand)
    with stand.unnoticed("the trial stores' authority", new=OPERATORS):
        held = live.secret(STORES, PLATFORM)
        live.take(STORES, [CA_KEY], PLATFORM)
        live.restart_operator()
        both = live.replaced(STORES, held, [CA_CERT], PLATFORM)[CA_CERT]
        assert both.count("BEGIN CERTIFICATE") > 1
        for key, components in READERS.items():
            for component in components:
                file = f"{STORES_PATH}/{ca_cert(key)}"
                within(
                    SOON,
                    f"both authorities in {component}",
                    lambda c=component, f=file: live.holds(c, f, both),
                )


def test_the_trial_stores_certificates(stand: Stand) -> None:
    """Both servers show another one, by the new authority, without a restart."""
    live = stand.live
    trial_passwords(stand)

    def shown(store: str) -> str:
        host = f"{PLATFORM}-{store}.{PLATFORM}.svc"
        authority = f"{STORES_PATH}/{ca_cert(ADDRESSES[store])}"
        return live.run_in(
            workload(stand, store), in_pods.CERTIFICATE, host, str(PORTS[store]), store, authority
        )

    before = {store: shown(store) for store in PORTS}
    with stand.unnoticed("the trial stores' certificates", new=OPERATORS):
        entries = [f"{store.upper()}_TLS_{part}" for store in PORTS for part in ("CERT", "KEY")]
        live.take(STORES, entries, PLATFORM)
        live.restart_operator()
        for store in PORTS:
            within(SOON, f"{store}'s other certificate", lambda s=store: shown(s) != before[s])


def test_the_detectors_logins_to_the_stores(stand: Stand) -> None:
    """Taken out of their Secret, they are followed by others, which every Pod that needs them reads without a restart."""
    live, secret = stand.live, names.stores(stand.live.name)
    before = live.secret(secret)
    entries = [key for key in STORE_KEYS if key in before]
    if not entries:
        pytest.skip("the detector has stores of its own: their logins are in Secrets of its owner's")
    # MLflow's are read by Pods when they begin, or are about to register a model.
    with stand.unnoticed("the detector's logins to the stores"):
        live.take(secret, entries)
        now = live.replaced(secret, before, entries)
        for key in entries:
            for component in READERS.get(key, ()):
                file, value = f"{STORES_PATH}/{key}", now[key]
                within(
                    SOON, f"{key} in {component}", lambda c=component, f=file, v=value: live.holds(c, f, v)
                )
    stand.old = {key: before[key] for key in entries if key in READERS}


def test_the_clients_keys(stand: Stand) -> None:
    """Of every client: another key beside the former, then the clients move, then the former is taken out and refused."""
    live, client, spec = stand.live, stand.client, stand.spec
    held = client_secrets(live.name, spec)
    former = {name: live.secret(secret) for name, secret in held.items()}
    entry = f"KEY_{int(time.time())}"
    made = {name: secrets.token_hex(24) for name in held}
    doors = {
        names.decision_service(live.name): "/v1/release",
        names.console(live.name): "/api/alerts?limit=1",
    }

    def answers(key: str, *, known: bool) -> bool:
        """Whether every Pod of both doors knows the key, or none does."""
        statuses = [status for host, path in doors.items() for status in client.statuses(host, path, key)]
        return all((status != 401) is known for status in statuses)

    with stand.unnoticed("the keys of every client of the API, the console's among them"):
        for name, secret in held.items():
            live.put(secret, {entry: made[name]})
        for name, key in made.items():
            within(SOON, f"the doors to know {name}'s other key", lambda k=key: answers(k, known=True))
        client.move({scope: made[who_may(spec, scope)] for scope in SCOPES})
        for name, secret in held.items():
            live.take(secret, former[name])
        for name, entries in former.items():
            for key in entries.values():
                within(SOON, f"{name}'s former key to be refused", lambda k=key: answers(k, known=False))


def test_the_users_of_managed_kafka(stand: Stand) -> None:
    """A deleted password is made anew by Strimzi; every Pod of that user reads it, and the former one is refused."""
    live = stand.live
    selector = f"{names.DETECTOR_LABEL}={live.name}"
    try:
        found = live.kube.get("-n", live.namespace, "kafkausers.kafka.strimzi.io", "-l", selector)
    except KubectlError:
        found = {}
    users = [item["metadata"]["name"] for item in found.get("items", [])]
    if not users:
        pytest.skip("the detector has no KafkaUsers: its Kafka asks for no login, or is its owner's")
    former = {user: live.secret(user)["password"] for user in users}
    with stand.unnoticed("the passwords of the users of managed Kafka"):
        for user in users:
            live.kube.kubectl("-n", live.namespace, "delete", "secret", user)
        for user in users:
            now = live.replaced(user, {"password": former[user]}, ["password"])["password"]
            component = user.removeprefix(f"{live.name}-kafka-")
            if live.pods(component):
                within(
                    SOON,
                    f"{user}'s password in its Pods",
                    lambda c=component, v=now: live.holds(c, KAFKA_PASSWORD, v),
                )
        sink = names.sink(live.name, "ledger")
        own = former[f"{live.name}-kafka-ledger-sink"]
        within(SOON, "the former password to be refused", lambda: live.run_in(f"deployment/{sink}", in_pods.KAFKA, stdin=own) == "refused")  # fmt: skip


def test_the_key_that_wraps_secrets(stand: Stand) -> None:
    """The API server wraps every Secret, the token key's too, by another key, and every Secret stays as it was."""
    live, kube = stand.live, stand.live.kube
    keys = live.secret(names.keys(live.name))
    # A node with one API server has none while that starts anew, which may end a JobManager's turn as the leader.
    with stand.unnoticed("the key that wraps the token key", new=(f"{live.namespace}/{live.name}-f-",)):
        if wrapping.is_ours(kube):
            wrapping.rotate(kube)
        else:
            wrapping.rewrite(kube)
    assert live.secret(names.keys(live.name)) == keys


def test_another_token_key_is_put_back(stand: Stand) -> None:
    """Whoever changes it by mistake changes nothing: a new one takes a new detector."""
    live, secret = stand.live, names.keys(stand.live.name)
    before = live.secret(secret)
    with stand.unnoticed("the token key, which is put back"):
        live.put(secret, {"TOKEN_KEY": secrets.token_hex(32)})
        within(SOON, "the former token key", lambda: live.secret(secret) == before)


def test_the_key_of_dead_letters(stand: Stand) -> None:
    """Worker and streaming job are started anew with another one, as the page says; the doors go on."""
    live = stand.live
    fd = live.kube.get("-n", live.namespace, "flinkdeployments.flink.apache.org")
    (job,) = [i["metadata"] for i in fd["items"] if i["metadata"]["name"].startswith(f"{live.name}-f-")]
    before = live.pods("features")
    new = tuple(f"{live.namespace}/{name}-" for name in (names.worker(live.name), job["name"]))
    with stand.unnoticed("the key of dead letters", new=new):
        key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        live.put(names.keys(live.name), {"DEAD_LETTER_KEY": key})
        live.kube.kubectl("-n", live.namespace, "rollout", "restart", "statefulset", names.worker(live.name))
        nonce = json.dumps({"spec": {"restartNonce": int(time.time())}})
        live.kube.kubectl("-n", live.namespace, "patch", "flinkdeployment", job["name"], "--type=merge", "-p", nonce)  # fmt: skip
        within(LONG, "other Pods of the streaming job", lambda: live.pods("features") and not set(before) & set(live.pods("features")))  # fmt: skip


def own_storage(stand: Stand, account: dict[str, str]) -> str:
    """Gives the detector a Secret with keys of its own for the folder that it has, which starts all of it anew; -> the bucket's name."""
    live, secret = stand.live, f"{stand.live.name}-storage"
    uri = json.loads(live.kube.get("-n", live.namespace, "configmap", names.config(live.name))["data"]["detector.json"])["storage_uri"]  # fmt: skip
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret, "namespace": live.namespace},
    }
    live.kube.kubectl("apply", "-f", "-", stdin=json.dumps({**manifest, "stringData": account}))
    storage = json.dumps({"spec": {"storage": {"uri": uri, "secretRef": {"name": secret}}}})
    before = set(live.pods("features"))
    live.kube.kubectl("-n", live.namespace, "patch", "fd", live.name, "--type=merge", "-p", storage)
    within(LONG, "the streaming job by keys of its own", lambda: live.pods("features") and not before & set(live.pods("features")))  # fmt: skip
    live.settle()
    return str(uri).removeprefix("s3://").partition("/")[0]


def test_the_keys_of_the_object_store(stand: Stand) -> None:
    """New ones while the former open it: streaming job and lake sink are started anew with them, and the former are taken away."""
    live = stand.live
    if not live.kube.get("-n", PLATFORM, "deployment", f"{PLATFORM}-objects") or "storage" in stand.spec:
        pytest.skip("the object store is the installation's own: its owner makes keys")
    first, second = (trial_accounts.new_account(f"{live.name}-{number}") for number in (1, 2))
    trial_accounts.put(live, first)
    failures = len(stand.client.failures())
    bucket = own_storage(stand, first)
    print(
        f"\nall started anew for storage of its own: {len(stand.client.failures()) - failures} attempts failed"
    )
    sink = f"deployment/{names.sink(live.name, 'lake')}"
    new = tuple(f"{live.namespace}/{live.name}-{part}-" for part in ("f", "lake-sink"))
    with stand.unnoticed("the keys of the object store", new=new):
        before = {component: set(live.pods(component)) for component in ("features", "lake-sink")}
        trial_accounts.put(live, first, second)
        live.put(f"{live.name}-storage", second)
        for component, pods in before.items():
            within(LONG, f"{component} with other keys", lambda c=component, p=pods: live.pods(c) and not p & set(live.pods(c)))  # fmt: skip
        live.settle()
        trial_accounts.put(live, second)
        within(SOON, "the former key to be refused", lambda: trial_accounts.asked(live, sink, bucket, first) == "refused")  # fmt: skip
        assert trial_accounts.asked(live, sink, bucket, second) == "in"


def test_former_logins_to_the_stores_are_refused(stand: Stand) -> None:
    """Within a quarter of an hour they are gone, and whoever had one is cut off: nobody of ours has."""
    if not stand.old:
        pytest.skip("no login to a store was changed")
    programs = {key: workload(stand, store) for store, key in ADDRESSES.items()}
    with stand.unnoticed("the end of the former logins to the stores"):
        for key, address in stand.old.items():
            within(CUT_OFF, f"the former {key} to be refused", lambda k=key, a=address: stand.live.run_in(programs[k], in_pods.STORE, k, stdin=a) == "refused")  # fmt: skip


def test_every_secret_has_its_way(stand: Stand) -> None:
    """No Secret of platform and detector is left that nobody has thought of changing."""
    live = stand.live
    name, kafka = re.escape(live.name), re.escape(names.kafka(live.name))
    ways = {
        rf"{name}-keys": "another_token_key, key_of_dead_letters, key_that_wraps_secrets",
        rf"{name}-stores": "detectors_logins_to_the_stores",
        rf"{name}-clients|{'|'.join(map(re.escape, client_secrets(live.name, stand.spec).values()))}": "clients_keys",
        rf"{name}-kafka-.+": "users_of_managed_kafka",
        rf"{name}-storage": "keys_of_the_object_store",
        rf"{re.escape(STORES)}": "trial_stores_own_passwords, authority, certificates",
        # Strimzi's own certificates, which it renews by itself; Ray's token of a run, which goes with it; helm's notes; the demo's copies.
        rf"{kafka}-(cluster|clients)-ca(-cert)?|{kafka}-.+-certs|{kafka}-cluster-ca-.*|{re.escape(names.kafka_node_pool(live.name))}.*": "Strimzi",
        rf"{kafka}-{re.escape(names.kafka_node_pool(live.name))}-\d+": "Strimzi",
        rf"{re.escape(names.ray_job_prefix(live.name))}.+": "KubeRay",
        r"sh\.helm\.release\.v1\..+|demo-traffic.*": "no credential",
    }
    found = [
        item["metadata"]["name"]
        for namespace in {live.namespace, PLATFORM}
        for item in live.kube.get("-n", namespace, "secrets").get("items", [])
    ]
    assert [one for one in found if not any(re.fullmatch(way, one) for way in ways)] == []


def test_every_accepted_payment_is_in_ledger_and_lake_once(stand: Stand) -> None:
    """None is lost, none is there twice, and each caller was told what the ledger has."""
    live, run = stand.live, stand.client.run
    sinks = {store: f"deployment/{names.sink(live.name, store)}" for store in ("ledger", "lake")}
    answers = stand.client.finish()
    ids = {answer["id"] for answer in answers}
    assert len(ids) == len(answers) > 0

    def counted(store: str, program: str) -> list[int]:
        counts: list[int] = json.loads(live.run_in(sinks[store], program, run))
        return counts

    within(SOON, "the ledger", lambda: counted("ledger", in_pods.COUNT)[0] >= len(ids))
    within(SOON, "the lake", lambda: counted("lake", in_pods.LAKE)[1] >= len(ids))
    assert counted("ledger", in_pods.COUNT) == [len(ids), 0]
    assert counted("lake", in_pods.LAKE) == [len(ids), len(ids)]
    packed = base64.b64decode(live.run_in(sinks["ledger"], in_pods.LEDGER, run, *ANSWERED))
    rows = {row["id"]: row for row in map(json.loads, gzip.decompress(packed).splitlines())}
    assert rows.keys() == ids
    assert [
        a["id"] for a in answers if not agrees(a, rows[a["id"]]) and not unguarded(a, rows[a["id"]])
    ] == []
    assert stand.client.failures() == []
