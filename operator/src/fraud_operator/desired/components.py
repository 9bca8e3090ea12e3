"""The components that ``spec.components`` may name: label, service account, what of the Secrets each gets, and its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fraud_contracts.detector import Component
from fraud_operator.detector import Detector
from fraud_operator.objects import Json


@dataclass(frozen=True)
class Defaults:
    """``label`` is the value of a Pod's component label. ``account`` names its service account.

    ``secrets``: what its Pods get from Secrets, each by the key's own name: the stores' addresses (STORE_KEYS) as files, the others
    as environment variables; of a detector's own MLflow the login is the file. A component has those that its code reads, and no more: what it doesn't know can't leak from it.
    ``spared``: of these addresses, those that its Pods start without: what has come of it by then, they read when they need it.
    ``clients``: its Pods mount the hashes of the API's keys.
    ``storage``: its Pods read or write the detector's storage, so they mount its folder or get the object store's keys.
    ``kafka``: they speak to Kafka, so they get what its clients log in with.
    """

    label: str
    account: str
    replicas: int
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    secrets: tuple[str, ...]
    spared: tuple[str, ...]
    storage: bool
    clients: bool
    kafka: bool


def _defaults(
    label: str,
    replicas: int,
    cpu: str,
    memory: str,
    cpu_limit: str,
    memory_limit: str,
    secrets: tuple[str, ...] = (),
    *,
    spared: tuple[str, ...] = (),
    account: str = "",
    storage: bool = False,
    clients: bool = False,
    kafka: bool = True,
) -> Defaults:
    requests, limits = {"cpu": cpu, "memory": memory}, {"cpu": cpu_limit, "memory": memory_limit}
    return Defaults(
        label, account or label, replicas, requests, limits, secrets, spared, storage, clients, kafka
    )


# fmt: off
COMPONENTS: Final[dict[Component, Defaults]] = {
    # What a Pod asks for is its share where processors are short. First what a caller waits for: decision service and predictor, with brokers
    # and Redis; then the stream, which can catch up; then what nobody waits for.
    Component.DECISION_SERVICE: _defaults(
        "decision", 2, "150m", "192Mi", "2", "768Mi", ("TOKEN_KEY", "REDIS_URL", "POSTGRES_DSN"),
        spared=("POSTGRES_DSN",), clients=True),
    Component.WORKER: _defaults(
        "worker", 1, "50m", "192Mi", "2", "768Mi", ("TOKEN_KEY", "DEAD_LETTER_KEY", "REDIS_URL", "POSTGRES_DSN"),
        spared=("POSTGRES_DSN",)),
    Component.FEATURES: _defaults(
        "features", 1, "80m", "1Gi", "2", "2Gi", ("TOKEN_KEY", "DEAD_LETTER_KEY"), storage=True),
    Component.TRAINING: _defaults(
        "training", 1, "40m", "1536Mi", "2", "6Gi", ("TOKEN_KEY", "MLFLOW_TRACKING_URI"), storage=True),
    # The initializer alone mounts it, which KServe puts before the predictor.
    Component.PREDICTOR: _defaults("predictor", 1, "125m", "192Mi", "1", "1Gi", ("MLFLOW_READER_URI",), kafka=False),
    Component.PROFILE_SINK: _defaults(
        "profile-sink", 1, "25m", "96Mi", "1", "512Mi", ("REDIS_URL",), account="sinks"),
    Component.LEDGER_SINK: _defaults(
        "ledger-sink", 1, "15m", "128Mi", "1", "512Mi", ("POSTGRES_DSN",), account="sinks"),
    # An account of its own: the only sink that a role with the object store may be given to.
    Component.LAKE_SINK: _defaults("lake-sink", 1, "15m", "192Mi", "1", "1Gi", storage=True),
    Component.CONSOLE: _defaults(
        "console", 1, "15m", "128Mi", "1", "512Mi", ("POSTGRES_DSN",), clients=True, kafka=False),
}
# fmt: on


def replicas(detector: Detector, component: Component) -> int:
    return detector.replicas(component, COMPONENTS[component].replicas)


def resources(detector: Detector, component: Component) -> Json:
    """The component's defaults, overlaid by the spec's override key by key."""
    defaults = COMPONENTS[component]
    override = detector.override(component)
    requests: dict[str, Any] = dict(defaults.requests)
    limits: dict[str, Any] = dict(defaults.limits)
    if override is not None and override.resources is not None:
        requests.update(override.resources.requests)
        limits.update(override.resources.limits)
    return {
        "requests": {k: str(v) for k, v in requests.items()},
        "limits": {k: str(v) for k, v in limits.items()},
    }


def cores(quantity: str) -> float:
    """A CPU quantity of Kubernetes as a number of cores: 500m is 0.5."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
