"""What each component may take of Secrets and do with it: expected by the tables of components, ways, rights and Kafka's users.

``deeds_in_pod`` tries it; whatever comes off that isn't expected here, or the other way round, is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from fraud_contracts import names, object_store
from fraud_contracts.clients import ClientAccess
from fraud_contracts.config import CA_CERT, POSTGRES_DSN, REDIS_URL, SECRET_KEYS, ca_cert
from fraud_contracts.detector import Component
from fraud_contracts.detector_clients import Scope
from fraud_operator.desired import reach
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.kafka_login import AUTHORITY_KEY
from fraud_operator.desired.kafka_login import SECRET_KEYS as KAFKA_KEYS
from fraud_operator.desired.reach import Outside, Part, Party
from fraud_operator.detector import Detector
from fraud_operator.objects import Json
from fraud_process.kafka import AUTHORITY, PASSWORD
from fraud_testing import deeds_in_pod as deed
from fraud_testing.rights import rights_of

MLFLOW: Final = "MLFLOW_"
MLFLOW_URI: Final = "MLFLOW_TRACKING_URI"
MLFLOW_LOGIN: Final = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
# Of a run's own Secret, which KubeRay makes.
RAY_TOKEN: Final = "auth_token"
_IMPLIED: Final = {"READ": "DESCRIBE", "WRITE": "DESCRIBE", "DELETE": "DESCRIBE", "ALTER": "DESCRIBE"}
# What is asked of the two doors, and the scope that opens it.
CALLS: Final = {
    ("POST", "decision", "/v1/decisions"): Scope.DECIDE,
    ("GET", "decision", "/v1/decisions/probe"): Scope.READ,
    ("GET", "decision", "/v1/release"): Scope.READ,
    ("POST", "decision", "/v1/labels"): Scope.LABEL,
    ("GET", "console", "/api/alerts?limit=1"): Scope.READ,
    ("GET", "console", "/api/transactions/probe"): Scope.READ,
}
UNKNOWN, LACKING = 401, 403


@dataclass(frozen=True)
class Setting:
    """What beside the component decides which deeds come off.

    ``kafka``: what each component's user may at the brokers; empty where nobody has one. ``kafka_open``: they ask for no login.
    ``mlflow_locked``: MLflow asks for one. ``objects``: the platform's keys open the storage. ``flink``: its REST answers.
    ``model`` and ``other_model``: this and the other detector have one in MLflow.
    """

    detector: Detector
    kafka: Mapping[Component, Collection[str]]
    kafka_open: bool = False
    mlflow_locked: bool = False
    objects: bool = False
    flink: bool = False
    model: bool = False
    other_model: bool = False


def reaches(component: Component, target: Party) -> bool:
    return any(component in way.sources for way in reach.ways_to(target))


def expected_deeds(component: Component, setting: Setting) -> set[str]:
    held = COMPONENTS[component]
    logins = ((deed.REDIS_OWN, REDIS_URL), (deed.POSTGRES_OWN, POSTGRES_DSN))
    deeds = {name for name, key in logins if key in held.secrets}
    # On the platform's storage all detectors have one key, which opens every folder.
    if held.storage and setting.objects:
        deeds |= {deed.OBJECTS_OWN, deed.OBJECTS_OTHER}
    if reaches(component, Component.FEATURES) and setting.flink:
        deeds.add(deed.FLINK_READ)
    if reaches(component, Outside.KAFKA) and setting.kafka_open:
        deeds.add(deed.KAFKA_OPEN)
    deeds |= set(setting.kafka.get(component, ()))
    return deeds | _at_mlflow(component, setting) | _at_the_api_server(component, setting.detector)


def _at_mlflow(component: Component, setting: Setting) -> set[str]:
    """Without a login whoever reaches it may all; with one training writes its detector's model, and its predictor reads it."""
    if not reaches(component, Part.MLFLOW):
        return set()
    own = {deed.MLFLOW_READ, deed.MLFLOW_WRITE} if setting.model else set()
    if setting.mlflow_locked:
        return own if MLFLOW_URI in COMPONENTS[component].secrets else own - {deed.MLFLOW_WRITE}
    others = {deed.MLFLOW_READ_OTHER, deed.MLFLOW_WRITE_OTHER} if setting.other_model else set()
    return {deed.MLFLOW_OPEN, *own, *others}


def _at_the_api_server(component: Component, detector: Detector) -> set[str]:
    if not reaches(component, Outside.API_SERVER):
        return set()
    rights = rights_of(detector.name)[component]
    return {deed.API_TOKEN} | {
        deed.right(detector.namespace, verb, resource, name)
        for resource, (verbs, only) in rights.items()
        for verb in verbs
        for name in only or ("",)
    }


def kafka_rights(user: Json, topics: Collection[str]) -> set[str]:
    """What a KafkaUser may by its ACLs, as deeds: on these topics, and on the brokers, which say so to who may describe them.

    Groups and transactions are no deeds.
    """
    deeds = set()
    for acl in user["spec"]["authorization"]["acls"]:
        resource, name = acl["resource"], acl["resource"].get("name", "")
        prefix = resource.get("patternType", "literal") == "prefix"
        operations = {re.sub("(?<=[a-z])(?=[A-Z])", "_", one).upper() for one in acl["operations"]}
        operations |= {_IMPLIED[one] for one in operations & _IMPLIED.keys()}
        places = [topic for topic in topics if topic == name or (prefix and topic.startswith(name))]
        if resource["type"] == "cluster":
            places = ["the brokers"] if "DESCRIBE" in operations else []
        elif resource["type"] != "topic":
            continue
        deeds |= {f"Kafka: {operation} {place}" for operation in operations for place in places}
    return deeds


def expected_items(component: Component, detector: Detector, kafka_users: bool) -> set[str]:
    """What its Pods take of Secrets, as <Secret>/<key>; ``kafka_users``: a managed Kafka has a user for each component."""
    held, name, stores = COMPONENTS[component], detector.name, detector.spec.stores
    own = {REDIS_URL: stores.redis, POSTGRES_DSN: stores.postgres}
    items = {f"{names.keys(name)}/{key}" for key in held.secrets if key in SECRET_KEYS}
    for key in held.secrets:
        if key in own:
            store = own[key]
            secret = names.stores(name) if store is None else store.secret_ref.name
            items |= {f"{secret}/{key}", f"{secret}/{ca_cert(key) if store is None else CA_CERT}"}
    if stores.mlflow is None:
        items |= {f"{names.stores(name)}/{key}" for key in held.secrets if key.startswith(MLFLOW)}
    if held.clients:
        items.add(f"{names.clients(name)}/*")
    if held.storage and detector.storage_secret is not None:
        items |= {f"{detector.storage_secret}/{key}" for key in object_store.KEYS}
    if held.kafka and detector.kafka_secret is not None:
        items |= {f"{detector.kafka_secret}/{key}" for key in (*KAFKA_KEYS.values(), AUTHORITY_KEY)}
    if held.kafka and kafka_users:
        items |= {f"{name}-kafka-{held.label}/{PASSWORD}", f"{name}-cluster-ca-cert/{AUTHORITY}"}
    return items


def countable_items(component: Component, items: Collection[str]) -> set[str]:
    """Without MLflow's login where the component reaches MLflow, and without Ray's token of one run where it is a training."""
    free = set(MLFLOW_LOGIN) if reaches(component, Part.MLFLOW) else set()
    if component is Component.TRAINING:
        free.add(RAY_TOKEN)
    return {item for item in items if item.rpartition("/")[2] not in free}


def is_expected_answer(client: ClientAccess | None, scope: Scope, status: int) -> bool:
    """``client`` is whose key asked; None where the key is nobody's, or no key."""
    if client is None:
        return status == UNKNOWN
    return status not in (0, UNKNOWN, LACKING) if client.opens(scope) else status == LACKING
