"""A detector and the facts of it with all children healthy, of which a test changes one thing."""

from __future__ import annotations

from typing import Any

from fraud_contracts import names
from fraud_contracts.detector import parse_spec
from fraud_contracts.names import MODEL_VERSION_ANNOTATION
from fraud_contracts.release import ModelPackage
from fraud_operator import status, training
from fraud_operator.capacity import KAFKA, CapacityFact, Room
from fraud_operator.conditions import Trouble
from fraud_operator.desired.kafka_users import kafka_parts
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts, Lags, Models, Replica, StorageFact, StoresFact
from fraud_operator.registry import Version
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses

NOW = 1_764_014_500_000
SPEC: dict[str, Any] = {
    "event": {"id": {"field": "i"}, "time": {"field": "t"}, "amount": {"field": "a"}},
    "entities": [{"name": "customer", "field": "c"}],
    "kafka": {"managed": {"replicas": 1}, "partitions": 1},
}
STORES = StoreAddresses(redis_url="redis://r", postgres_dsn="postgresql://p", mlflow_tracking_uri="http://m")


def make_detector(**spec: Any) -> Detector:
    platform = Platform(storage=StorageSettings(uri="file:///s", node_folder="/s"), stores=STORES)
    return Detector("n", "d", "u", 3, 0, {}, parse_spec({**SPEC, **spec}), platform)


def conditions_of(
    detector: Detector, facts: Facts, trouble: Trouble | None = None
) -> dict[str, dict[str, Any]]:
    """The conditions of the detector's status, by type."""
    computed = status.compute(detector, facts, trouble or Trouble(), {})
    return {c["type"]: c for c in computed["conditions"]}


def workload(kind: str, **annotations: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {"generation": 1},
        "spec": {"replicas": 1, "template": {"metadata": {"annotations": annotations}}},
        "status": {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1},
    }


def healthy_facts(detector: Detector) -> Facts:
    """All children ready, one version live everywhere."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "observedGeneration": 1}
    strimzi = {"metadata": {"generation": 1}, "status": ready}
    package = ModelPackage(
        name="n.d",
        version="7",
        digest="sha256:" + "1" * 64,
        feature_set=detector.feature_set,
        slot="a",
        url="u",
        score_map=[(0, 0)],
    )
    state = RolloutState(phase=RolloutPhase.PROMOTED, stable=package)
    release = make_release(detector, state, None, detector.spec.policy)
    children: dict[tuple[str, str], Any] = {
        ("Kafka", "d"): strimzi,
        **{("KafkaTopic", names.kafka_topic("d", noun)): strimzi for noun in names.TOPICS},
        **{("KafkaUser", names.kafka_user("d", part)): strimzi for part in kafka_parts()},
        ("FlinkDeployment", names.flink_deployment("d", detector.hash6)): {
            "metadata": {"generation": 1},
            "status": {
                "lifecycleState": "STABLE",
                "jobStatus": {"state": "RUNNING"},
                "observedGeneration": 1,
            },
        },
        ("InferenceService", "d-a"): {"metadata": {}, "status": ready},
        ("Deployment", "d-a-predictor"): workload("Deployment", **{MODEL_VERSION_ANNOTATION: "7"}),
        ("Deployment", "d-worker"): workload("Deployment"),
    }
    for name in ("d-decision", "d-console", "d-profile-sink", "d-ledger-sink", "d-lake-sink"):
        children["Deployment", name] = workload("Deployment")
    resolved = Version("n.d", "7", package.digest, detector.feature_set, "r", [(0.0, 0.0)])
    return Facts(
        now=NOW,
        children=children,
        release=release,
        state=state,
        revision=training.wanted_revision(detector.spec, detector.feature_set, None, 0, NOW),
        storage=StorageFact(True, "NodeFolder", "a folder of one node"),
        stores=StoresFact({"REDIS_URL": "redis://own@r", "POSTGRES_DSN": "postgresql://own@p"}, ready=True),
        models=Models(resolved, champion="7", trained="7"),
        lags=Lags(0, 0, 5),
        capacity=CapacityFact((Room(KAFKA, "broker 0", 40, None, 2**31, False, True),), asking=False),
        replicas=(Replica("p0", release.name), Replica("p1", release.name)),
    )
