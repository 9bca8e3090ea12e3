"""What the clients of a detector's Kafka log in with, as files in their Pods. The kubelet writes them anew when the Secret changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fraud_contracts import names
from fraud_contracts.config import KAFKA_LOGIN_PATH, KAFKA_MECHANISM_KEY
from fraud_contracts.detector import Component
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.detector import Detector
from fraud_operator.objects import Json
from fraud_process.kafka import AUTHORITY, MECHANISM, MECHANISMS, PASSWORD, USERNAME

VOLUME: Final = "kafka"
# The keys of the Secret that spec.kafka.external.secretRef names, by the file that each becomes.
SECRET_KEYS: Final = {
    USERNAME: "KAFKA_USERNAME",
    PASSWORD: "KAFKA_PASSWORD",
    MECHANISM: "KAFKA_SASL_MECHANISM",
}
AUTHORITY_KEY: Final = "KAFKA_CA_CERT"
MANAGED_MECHANISM: Final = MECHANISMS[0]


def user_key(label: str) -> str:
    return f"kafka-user-{label}"


def login_documents(detector: Detector) -> dict[str, str]:
    """Keys of the configuration's ConfigMap for a managed Kafka: its mechanism, and each component's user."""
    if not detector.managed_kafka:
        return {}
    labels = [defaults.label for defaults in COMPONENTS.values() if defaults.kafka]
    users = {user_key(label): names.kafka_user(detector.name, label) for label in labels}
    return {KAFKA_MECHANISM_KEY: MANAGED_MECHANISM, **users}


def secret_source(secret: str, files: Mapping[str, str], *, optional: bool = False) -> Json:
    """Of a projected volume: keys of a Secret, each by the file that it becomes."""
    return {"secret": {"name": secret, "items": _items(files), **({"optional": True} if optional else {})}}


def _items(files: Mapping[str, str]) -> list[Json]:
    return [{"key": key, "path": path} for path, key in files.items()]


def kafka_volumes(detector: Detector, component: Component) -> list[Json]:
    """Nothing for what speaks to no Kafka, or to one that asks for no login."""
    if not (COMPONENTS[component].kafka and detector.kafka_login):
        return []
    secret, label = detector.kafka_secret, COMPONENTS[component].label
    if secret is not None:
        sources = [
            secret_source(secret, SECRET_KEYS),
            secret_source(secret, {AUTHORITY: AUTHORITY_KEY}, optional=True),
        ]
    else:
        documents = {USERNAME: user_key(label), MECHANISM: KAFKA_MECHANISM_KEY}
        sources = [
            secret_source(names.kafka_user(detector.name, label), {PASSWORD: PASSWORD}),
            secret_source(names.kafka_authority(detector.name), {AUTHORITY: AUTHORITY}),
            {"configMap": {"name": names.config(detector.name), "items": _items(documents)}},
        ]
    return [{"name": VOLUME, "projected": {"sources": sources}}]


def kafka_mounts(detector: Detector, component: Component) -> list[Json]:
    if not (COMPONENTS[component].kafka and detector.kafka_login):
        return []
    return [{"name": VOLUME, "mountPath": KAFKA_LOGIN_PATH, "readOnly": True}]
