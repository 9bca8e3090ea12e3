"""Tries on a cluster who reaches what, and what each component, a stranger and a second detector may there; tells what differs from the tables."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fraud_contracts import names, object_store
from fraud_contracts.clients import ClientAccess, hash_key
from fraud_contracts.config import HTTP_PORT, STORE_KEYS
from fraud_contracts.detector import Component
from fraud_contracts.detector_clients import Scope
from fraud_contracts.names import Identity
from fraud_operator.desired import reach
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.documents import decoded
from fraud_operator.detector import Detector
from fraud_operator.objects import Json
from fraud_operator.settings import Platform
from fraud_testing import deeds_in_pod, probes
from fraud_testing.deeds import (
    CALLS,
    MLFLOW,
    MLFLOW_LOGIN,
    Setting,
    countable_items,
    expected_deeds,
    expected_items,
    is_expected_answer,
    kafka_rights,
)
from fraud_testing.held import built_pods, held, secret_items
from fraud_testing.kafka import wait_for
from fraud_testing.probe_pods import LABEL, PLATFORM, Probe, object_list, run, running
from fraud_testing.second_detector import NAME, NAMESPACE, bucket_secret, second_detector

if TYPE_CHECKING:  # the operator's tests have no fraud_local
    from fraud_local.demo.kubectl import Kubectl

PROGRAM: Final = Path(deeds_in_pod.__file__).read_text()
OBJECTS: Final = f"http://{PLATFORM}-objects.{PLATFORM}.svc:{reach.OBJECTS_PORT}"

# Of a second detector's coming and going.
SECONDS: Final = 120


@dataclass
class Findings:
    """``tried``: ways between Pods. Each of the others lists what differs from the tables."""

    tried: int = 0
    ways: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    deeds: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tenant:
    """A detector of the cluster, and the spec of a Pod of each of its components."""

    detector: Detector
    pods: Mapping[Component, Json]
    setting: Setting

    @property
    def identity(self) -> Identity:
        return self.detector.identity

    def probes(self) -> list[Probe]:
        return probes.component_probes(self.identity, {one: held(pod) for one, pod in self.pods.items()})


def find(kube: Kubectl) -> Findings:
    """Of every detector on the cluster, each beside a second one that is made for it."""
    findings = Findings()
    for body in kube.get(names.PLURAL, "-A").get("items") or []:
        if body["metadata"]["namespace"] == NAMESPACE:
            continue  # left from a test that was killed; it is made use of
        with _two(kube, body) as (one, two):
            made = [*one.probes(), *two.probes(), *probes.other_probes(one.identity)]
            with running(kube, made, probes.PORTS) as addresses:
                _find(kube, one, two, addresses, findings)
    return findings


def _find(
    kube: Kubectl, one: Tenant, two: Tenant, addresses: Mapping[Probe, str], findings: Findings
) -> None:
    tried, ways = probes.differing(kube, one.identity, addresses)
    findings.tried += tried
    findings.ways += ways
    for tenant, other in ((one, two), (two, one)):
        findings.items += _items(kube, tenant)
        findings.deeds += _deeds(kube, tenant, other, list(addresses))
    (stranger,) = [probe for probe in addresses if probe.name == "stranger"]
    findings.answers += _answers(kube, one, two, stranger)


@contextmanager
def _two(kube: Kubectl, body: Json) -> Iterator[tuple[Tenant, Tenant]]:
    """The detector and a second one, which has its logins. That goes at the end, with its namespace; its empty schema stays."""
    place = object_store.place(_platform(kube).storage.uri)
    other = second_detector(place.bucket if place is not None else PLATFORM)
    namespace: Json = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    gone = ("--ignore-not-found", f"--timeout={SECONDS}s")
    try:
        kube.kubectl("apply", "-f", "-", stdin=object_list([namespace]))
        kube.kubectl("apply", "-f", "-", stdin=object_list([bucket_secret(OBJECTS), other]))
        wait_for(lambda: _has_logins(kube), SECONDS, f"{NAMESPACE}/{NAME} has its logins")
        one, two = _tenant(kube, body), _tenant(kube, kube.get("-n", NAMESPACE, names.PLURAL, NAME))
        yield _beside(one, two), _beside(two, one)
    finally:
        kube.kubectl("-n", NAMESPACE, "delete", names.PLURAL, NAME, *gone, timeout=SECONDS + 10)
        kube.kubectl("delete", "namespace", NAMESPACE, *gone, timeout=SECONDS + 10)


def _has_logins(kube: Kubectl) -> bool:
    """The operator makes accounts and clients' Secrets before that of the stores."""
    stores = _secret(kube, NAMESPACE, names.stores(NAME))
    return all(stores.get(key) for key in STORE_KEYS)


def _beside(one: Tenant, other: Tenant) -> Tenant:
    return replace(one, setting=replace(one.setting, other_model=other.setting.model))


def _platform(kube: Kubectl) -> Platform:
    text = kube.get("-n", PLATFORM, "configmap", f"{PLATFORM}-operator")["data"]["platform.json"]
    return Platform.model_validate_json(text)


def _tenant(kube: Kubectl, body: Json) -> Tenant:
    """Pods are taken as they run, or else as the operator would make them."""
    meta, platform = body["metadata"], _platform(kube)
    here = ("-n", meta["namespace"])
    keys = _secret(kube, meta["namespace"], names.stores(meta["name"]))
    # The platform's own copy of the keys is named in Pods where the operator has them, which the ConfigMap doesn't say.
    credentials = {key: keys[key] for key in object_store.KEYS if key in keys}
    storage = platform.storage.model_copy(update={"credentials": credentials})
    detector = Detector.parse(body, platform.model_copy(update={"storage": storage}))
    container = kube.get("clusterstoragecontainer", platform.storage_container)["spec"]["container"]
    pods = built_pods(detector, container)
    live = kube.get(*here, "pods", "-l", f"{names.DETECTOR_LABEL}={detector.name}").get("items") or []
    for component in Component:
        found = [pod["spec"] for pod in live if _is_of(pod, component)]
        pods |= {component: found[0]} if found else {}
    predictors = kube.get(*here, "inferenceservices", "-l", f"{names.DETECTOR_LABEL}={detector.name}")
    users = {user["metadata"]["name"]: user for user in _users(kube, detector)}
    locked = _users_of(detector, users)
    mlflow_locked = _has_login(kube, detector, pods[Component.TRAINING])
    return Tenant(
        detector,
        pods,
        Setting(
            detector,
            locked,
            kafka_open=detector.managed_kafka and not locked,
            mlflow_locked=mlflow_locked,
            objects=bool(credentials) and detector.storage_reference is None,
            flink=bool(_flink(kube, detector)),
            # Whoever makes logins makes the model that they are for.
            model=mlflow_locked or bool(predictors.get("items")),
        ),
    )


def _is_of(pod: Json, component: Component) -> bool:
    labels = pod["metadata"]["labels"]
    runs = pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp")
    return runs and LABEL not in labels and labels.get(names.COMPONENT_LABEL) == COMPONENTS[component].label


def _users(kube: Kubectl, detector: Detector) -> list[Json]:
    """KafkaUsers of a managed Kafka whose listener asks for a login; none where it asks for none."""
    if not detector.managed_kafka:
        return []
    kafka = kube.get("-n", detector.namespace, "kafkas.kafka.strimzi.io", names.kafka(detector.name))
    if not any("authentication" in one for one in kafka["spec"]["kafka"]["listeners"]):
        return []
    users: list[Json] = kube.get("-n", detector.namespace, "kafkausers.kafka.strimzi.io")["items"]
    return users


def _users_of(detector: Detector, users: Mapping[str, Json]) -> dict[Component, set[str]]:
    """What each component's user may; its name is also that of the Secret with its password."""
    own = {one: users.get(f"{detector.name}-kafka-{COMPONENTS[one].label}") for one in Component}
    topics = _topics(detector)
    return {one: kafka_rights(user, topics) for one, user in own.items() if user is not None}


def _topics(detector: Detector) -> list[str]:
    return [detector.identity.topic(noun) for noun in names.TOPICS]


def _has_login(kube: Kubectl, detector: Detector, training: Json) -> bool:
    """Whether training holds a login of MLflow's: in the address, or beside it."""
    for item in secret_items(training):
        secret, _, key = item.rpartition("/")
        value = _secret(kube, detector.namespace, secret).get(key, "") if key.startswith(MLFLOW) else ""
        if "@" in value or (value and key in MLFLOW_LOGIN):
            return True
    return False


def _secret(kube: Kubectl, namespace: str, name: str) -> dict[str, str]:
    return decoded(kube.get("-n", namespace, "secret", name).get("data") or {})


def _flink(kube: Kubectl, detector: Detector) -> str | None:
    """Address of its REST; None where there is none."""
    name = names.flink_deployment(detector.name, detector.hash6)
    service = kube.get("-n", detector.namespace, "service", f"{name}-rest")
    return f"http://{service['spec']['clusterIP']}:{reach.FLINK_REST_PORT}" if service else None


def _ray(kube: Kubectl, detector: Detector) -> str | None:
    """Address of the head of a training that runs now; None where none does."""
    for pod in kube.get("-n", detector.namespace, "pods", "-l", "ray.io/node-type=head").get("items") or []:
        if _is_of(pod, Component.TRAINING):
            return f"http://{pod['status']['podIP']}:{reach.RAY_DASHBOARD_PORT}"
    return None


def _items(kube: Kubectl, tenant: Tenant) -> list[str]:
    users = bool(tenant.setting.kafka)
    differing = []
    for component, pod in tenant.pods.items():
        has = countable_items(component, secret_items(pod))
        due = expected_items(component, tenant.detector, users)
        differing += _lines(f"{tenant.identity} {COMPONENTS[component].label}", has, due, "holds")
    return differing


def _lines(who: str, actual: set[str], due: set[str], verb: str) -> list[str]:
    more = [f"{who} {verb} more: {one}" for one in sorted(actual - due)]
    return more + [f"{who} {verb} less: {one}" for one in sorted(due - actual)]


def _deeds(kube: Kubectl, tenant: Tenant, other: Tenant, made: list[Probe]) -> list[str]:
    order = json.dumps(_order(kube, tenant, other))
    own = [probe for probe in made if probe.detector == str(tenant.identity)]

    def differing(probe: Probe) -> list[str]:
        assert isinstance(probe.party, Component)
        done = set(run(kube, probe, PROGRAM, stdin=order))
        due = expected_deeds(probe.party, tenant.setting)
        return _lines(f"{tenant.identity} {probe.name}", done, due, "may")

    with ThreadPoolExecutor(2) as pool:
        return [line for lines in pool.map(differing, own) for line in lines]


def _order(kube: Kubectl, tenant: Tenant, other: Tenant) -> dict[str, Any]:
    """What ``deeds_in_pod`` is told."""
    detector = tenant.detector
    bucket = object_store.place(detector.platform.storage.uri)
    return {
        "own": str(tenant.identity),
        "other": str(other.identity),
        "redis": [f"{PLATFORM}-redis.{PLATFORM}.svc", 6379],
        "postgres": [f"{PLATFORM}-postgres.{PLATFORM}.svc", 5432],
        "mlflow": f"http://{PLATFORM}-mlflow.{PLATFORM}.svc:{reach.MLFLOW_PORT}",
        "model": detector.model if tenant.setting.model else None,
        "other_model": other.detector.model if other.setting.model else None,
        "objects": OBJECTS,
        "folder": detector.storage_uri,
        "other_folder": f"s3://{bucket.bucket if bucket is not None else PLATFORM}/{other.identity}",
        "kafka": detector.bootstrap if detector.managed_kafka else None,
        "topics": _topics(detector),
        "flink": _flink(kube, detector),
        "ray": _ray(kube, detector),
        "namespaces": [detector.namespace, other.detector.namespace, PLATFORM, "kube-system"],
    }


def _keys(kube: Kubectl, tenant: Tenant) -> dict[str, str]:
    """Every key of its clients, by whose it is and its entry."""
    detector = tenant.detector
    return {
        f"{tenant.identity}/{client.name}/{entry}": key
        for client in detector.spec.clients
        for entry, key in _secret(kube, detector.namespace, detector.client_secret(client)).items()
    }


def _scopes(kube: Kubectl, tenant: Tenant) -> dict[str, set[Scope]]:
    """By key: one that is several clients', as the key of before there were clients, opens what any of them may."""
    scopes: dict[str, set[Scope]] = defaultdict(set)
    owners = {client.name: client.scopes for client in tenant.detector.spec.clients}
    for name, key in _keys(kube, tenant).items():
        scopes[key] |= set(owners[name.split("/")[1]])
    return scopes


def _answers(kube: Kubectl, one: Tenant, two: Tenant, stranger: Probe) -> list[str]:
    """Of the first detector's doors, asked with every key of either, with none, and with what is no key."""
    scopes = _scopes(kube, one)
    keys: dict[str, tuple[str, ClientAccess | None]] = {"nobody": ("", None)}
    for name, key in _keys(kube, one).items():
        keys[name] = key, ClientAccess(name=name, scopes=tuple(scopes[key]), hashes=())
        keys[f"{name} by its hash"] = hash_key(key.encode()), None
        keys[f"{name} in other letters"] = key.swapcase(), None
    keys |= {name: (key, None) for name, key in _keys(kube, two).items()}
    doors = {
        "decision": names.decision_service(one.detector.name),
        "console": names.console(one.detector.name),
    }
    where = one.detector.namespace
    order = {
        "doors": {door: f"http://{service}.{where}.svc:{HTTP_PORT}" for door, service in doors.items()},
        "keys": {name: key for name, (key, _) in keys.items()},
        "calls": list(CALLS),
    }
    statuses = run(kube, stranger, PROGRAM, stdin=json.dumps(order))
    return [
        f"{name} {method} {door}{path}: {statuses[f'{name} {method} {door}{path}']}"
        for name, (_, client) in keys.items()
        for (method, door, path), scope in CALLS.items()
        if not is_expected_answer(client, scope, statuses[f"{name} {method} {door}{path}"])
    ]
