"""What the clients of a detector's Kafka log in with, as files in their Pods. The kubelet writes them anew when the Secret changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fraud_contracts.config import KAFKA_LOGIN_PATH
from fraud_contracts.detector import Component
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.detector import Detector
from fraud_operator.objects import Json
from fraud_process.kafka import AUTHORITY, MECHANISM, PASSWORD, USERNAME

VOLUME: Final = "kafka"
# The keys of the Secret that spec.kafka.external.secretRef names, by the file that each becomes.
SECRET_KEYS: Final = {
    USERNAME: "KAFKA_USERNAME",
    PASSWORD: "KAFKA_PASSWORD",
    MECHANISM: "KAFKA_SASL_MECHANISM",
}
AUTHORITY_KEY: Final = "KAFKA_CA_CERT"


def secret_source(secret: str, files: Mapping[str, str], *, optional: bool = False) -> Json:
    """Of a projected volume: keys of a Secret, each by the file that it becomes."""
    items = [{"key": key, "path": path} for path, key in files.items()]
    return {"secret": {"name": secret, "items": items, **({"optional": True} if optional else {})}}


def kafka_volumes(detector: Detector, component: Component) -> list[Json]:
    """Nothing for what speaks to no Kafka, or to one that asks for no login."""
    secret = detector.kafka_secret
    if secret is None or not COMPONENTS[component].kafka:
        return []
    sources = [
        secret_source(secret, SECRET_KEYS),
        secret_source(secret, {AUTHORITY: AUTHORITY_KEY}, optional=True),
    ]
    return [{"name": VOLUME, "projected": {"sources": sources}}]


def kafka_mounts(detector: Detector, component: Component) -> list[Json]:
    if detector.kafka_secret is None or not COMPONENTS[component].kafka:
        return []
    return [{"name": VOLUME, "mountPath": KAFKA_LOGIN_PATH, "readOnly": True}]
