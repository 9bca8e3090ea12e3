"""All children of a detector, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fraud_contracts.release import Release
from fraud_operator.desired import access, documents, kafka
from fraud_operator.desired.common import Child
from fraud_operator.desired.console import build_console
from fraud_operator.desired.decision_service import build_decision_service
from fraud_operator.desired.flink_deployment import build_flink_deployment
from fraud_operator.desired.inference_service import build_inference_service
from fraud_operator.desired.pod_monitor import build_pod_monitor
from fraud_operator.desired.ray_job import build_ray_job
from fraud_operator.desired.sinks import STORES, build_sink
from fraud_operator.desired.worker import build_worker
from fraud_operator.detector import Detector
from fraud_operator.rollout_state import State


@dataclass(frozen=True)
class Wanted:
    """What beside the spec decides the children. ``keys`` are those of the detector; None where they are lost.

    ``copies`` is how many of each record its Kafka was made for; None where there is none yet.
    """

    release: Release
    state: State
    training_revision: str | None
    keys: Mapping[str, str] | None = None
    copies: int | None = None


def build(detector: Detector, wanted: Wanted) -> list[Child]:
    children: list[Child] = []
    if detector.managed_kafka:
        copies = wanted.copies or kafka.wanted_copies(detector)
        children += [kafka.build_kafka(detector, copies), kafka.build_kafka_node_pool(detector)]
        children += kafka.build_kafka_topics(detector, copies)
    children += access.build_service_accounts(detector)
    children += access.build_release_access(detector)
    children.append(access.build_flink_access(detector))
    children += access.build_network_policies(detector)
    if wanted.keys is not None:
        children.append(documents.build_keys(detector, wanted.keys))
    stores = documents.build_stores(detector)
    if stores is not None:
        children.append(stores)
    children.append(documents.build_config(detector))
    children.append(documents.build_release(detector, wanted.release))
    children.append(documents.build_release_pointer(detector, wanted.release, wanted.state))
    children += [build_inference_service(detector, package) for package in wanted.state.packages()]
    children += build_decision_service(detector)
    children += build_worker(detector)
    children.append(build_flink_deployment(detector))
    children += [build_sink(detector, store) for store in STORES]
    children += build_console(detector)
    if wanted.training_revision is not None:
        children.append(build_ray_job(detector, wanted.training_revision))
    children.append(build_pod_monitor(detector))
    return children
