"""All children of a detector, in the order in which they are applied. To add one: docs/add-a-child.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from fraud_operator.desired.access import (
    build_flink_access,
    build_release_access,
    build_service_accounts,
)
from fraud_operator.desired.child import Child, Wanted
from fraud_operator.desired.clients import build_client_secrets, build_clients
from fraud_operator.desired.disruption import build_disruption_budgets
from fraud_operator.desired.documents import (
    build_config,
    build_keys,
    build_pull_secret,
    build_release,
    build_release_pointer,
    build_stores,
)
from fraud_operator.desired.flink_deployment import build_flink_deployment
from fraud_operator.desired.inference_service import build_inference_services, build_predictor_services
from fraud_operator.desired.kafka import build_kafka, build_kafka_node_pool
from fraud_operator.desired.kafka_topics import build_kafka_topics
from fraud_operator.desired.kafka_users import build_kafka_users
from fraud_operator.desired.network import build_network_policies
from fraud_operator.desired.pod_monitor import build_pod_monitors
from fraud_operator.desired.ray_job import build_ray_job
from fraud_operator.desired.workloads import (
    CONSOLE,
    DECISION_SERVICE,
    LAKE_SINK,
    LEDGER_SINK,
    PROFILE_SINK,
    WORKER,
    Workload,
    build_workload,
)
from fraud_operator.detector import Detector

Builder = Callable[[Detector, Wanted], Iterable[Child]]


def _workload(workload: Workload) -> Builder:
    return lambda detector, wanted: build_workload(detector, workload, wanted)


BUILDERS: Final[tuple[Builder, ...]] = (
    build_pull_secret,
    build_kafka,
    build_kafka_node_pool,
    build_kafka_topics,
    build_kafka_users,
    build_service_accounts,
    build_release_access,
    build_flink_access,
    build_network_policies,
    build_keys,
    build_client_secrets,
    build_clients,
    build_stores,
    build_config,
    # Before the release that names them: a name server remembers for seconds that a name isn't there.
    build_predictor_services,
    build_release,
    build_release_pointer,
    build_inference_services,
    _workload(DECISION_SERVICE),
    _workload(WORKER),
    build_flink_deployment,
    _workload(PROFILE_SINK),
    _workload(LEDGER_SINK),
    _workload(LAKE_SINK),
    _workload(CONSOLE),
    build_disruption_budgets,
    build_ray_job,
    build_pod_monitors,
)


def build_children(detector: Detector, wanted: Wanted) -> list[Child]:
    return [child for build in BUILDERS for child in build(detector, wanted)]
