"""Who may open a connection to whom, and at which port: the one table.

From it are made the detectors' NetworkPolicies (``network``), the chart's (``fraud_operator.reach_files``), the listener's peers of a
managed Kafka, the table in docs/security.md, and the test that tries every way. What no line allows is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fraud_contracts.config import FLINK_METRICS_PORT, HTTP_PORT, METRICS_PORT
from fraud_contracts.detector import Component
from fraud_operator.addresses import POSTGRES_PORT, REDIS_PORT
from fraud_operator.desired.components import COMPONENTS


class Part(StrEnum):
    """The platform's own Pods; the value is their component label."""

    OPERATOR = "operator"
    TEST = "test"
    UNINSTALL = "uninstall"
    REDIS = "redis"
    POSTGRES = "postgres"
    MLFLOW = "mlflow"
    OBJECTS = "objects"
    PROMETHEUS = "prometheus"


class Outside(StrEnum):
    """What is neither a component nor the platform's; the value is what docs/security.md calls it.

    ``CLIENTS`` may be anybody until the chart's network.clients names some, ``NAMED_CLIENTS`` only whom it names.
    """

    CLIENTS = "clients"
    NAMED_CLIENTS = "clients that are named"
    MONITORING = "your Prometheus"
    UPLOAD = "upload of history"
    KAFKA = "Kafka"
    FLINK_OPERATOR = "Flink's operator"
    RAY_OPERATOR = "KubeRay's operator"
    API_SERVER = "API server"
    DNS = "DNS"


Party = Component | Part | Outside

# Pods that hold nothing of a detector's but its object store's keys, under a label that no policy of ours selects.
UPLOAD_LABEL: Final = "upload"
MLFLOW_PORT: Final = 5000
OBJECTS_PORT: Final = 9000
PROMETHEUS_PORT: Final = 9090
FLINK_REST_PORT: Final = 8081
RAY_DASHBOARD_PORT: Final = 8265
DNS_PORT: Final = 53
_PROMETHEUS: Final = (Part.PROMETHEUS, Outside.MONITORING)
_SINKS: Final = (Component.PROFILE_SINK, Component.LEDGER_SINK, Component.LAKE_SINK)


@dataclass(frozen=True)
class Way:
    """``sources`` may reach ``target`` at ``port``: None is every port, or, of what the platform doesn't run, the one it listens at."""

    target: Party
    port: int | None
    sources: tuple[Party, ...]
    why: str


WAYS: Final = (
    Way(Component.DECISION_SERVICE, HTTP_PORT, (Outside.CLIENTS, Part.TEST), "decisions and labels, with an API key"),
    Way(Component.DECISION_SERVICE, HTTP_PORT, (Part.OPERATOR, *_PROMETHEUS), "metrics, the release in use among them"),
    Way(Component.CONSOLE, HTTP_PORT, (Outside.CLIENTS,), "the ledger for analysts, with an API key"),
    Way(Component.CONSOLE, HTTP_PORT, _PROMETHEUS, "metrics"),
    Way(Component.PREDICTOR, HTTP_PORT, (Component.DECISION_SERVICE, Component.WORKER), "scores"),
    Way(Component.PREDICTOR, HTTP_PORT, _PROMETHEUS, "metrics"),
    Way(Component.WORKER, METRICS_PORT, (Part.OPERATOR, *_PROMETHEUS), "metrics, the release in use among them"),
    *(Way(component, METRICS_PORT, _PROMETHEUS, "metrics") for component in _SINKS),
    Way(Component.FEATURES, FLINK_REST_PORT, (Outside.FLINK_OPERATOR,), "Flink's REST: state of the job, savepoints"),
    Way(Component.FEATURES, FLINK_METRICS_PORT, _PROMETHEUS, "metrics"),
    Way(Component.FEATURES, None, (Component.FEATURES,), "JobManager and TaskManagers"),
    Way(Component.TRAINING, RAY_DASHBOARD_PORT, (Outside.RAY_OPERATOR,), "state of the training job"),
    Way(Component.TRAINING, None, (Component.TRAINING,), "the submitter and Ray's own processes"),
    Way(
        Outside.KAFKA,
        None,
        (
            Component.DECISION_SERVICE, Component.WORKER, Component.FEATURES, Component.TRAINING, *_SINKS, Part.OPERATOR,
            Outside.NAMED_CLIENTS,
        ),
        "topics",
    ),
    Way(
        Part.REDIS,
        REDIS_PORT,
        (Component.DECISION_SERVICE, Component.WORKER, Component.PROFILE_SINK, Part.OPERATOR),
        "claims, profiles, pending events",
    ),
    Way(
        Part.POSTGRES,
        POSTGRES_PORT,
        (Component.LEDGER_SINK, Component.CONSOLE, Component.DECISION_SERVICE, Component.WORKER, Part.OPERATOR),
        "the ledger",
    ),
    Way(Part.MLFLOW, MLFLOW_PORT, (Component.TRAINING, Component.PREDICTOR, Part.OPERATOR), "models"),
    Way(
        Part.OBJECTS,
        OBJECTS_PORT,
        (Component.FEATURES, Component.TRAINING, Component.LAKE_SINK, Part.MLFLOW, Part.OPERATOR, Outside.UPLOAD),
        "checkpoints, history, lake, models' files",
    ),
    Way(Part.PROMETHEUS, PROMETHEUS_PORT, (Part.OPERATOR,), "health of a new model"),
    Way(Part.OPERATOR, METRICS_PORT, _PROMETHEUS, "metrics, and where the detectors' are"),
    Way(
        Outside.API_SERVER,
        None,
        (
            Component.DECISION_SERVICE, Component.WORKER, Component.FEATURES, Part.OPERATOR, Part.TEST, Part.UNINSTALL,
        ),
        "the release; Flink's TaskManagers and its records; the operator's work",
    ),
    Way(Outside.DNS, DNS_PORT, (*Component, Part.OPERATOR, Part.TEST, Part.UNINSTALL, Part.MLFLOW, Part.PROMETHEUS), "names"),
)  # fmt: skip


def ways_to(target: Party) -> list[Way]:
    return [way for way in WAYS if way.target is target]


def ways_from(source: Party) -> list[Way]:
    return [way for way in WAYS if source in way.sources]


def title(party: Party) -> str:
    """What the documentation calls it."""
    return COMPONENTS[party].label if isinstance(party, Component) else party.value
