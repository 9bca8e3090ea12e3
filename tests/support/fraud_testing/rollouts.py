"""A rollout without engines: a fake registry, replicas that follow the pointer, predictors that come up at once."""

from __future__ import annotations

from typing import Any

from fraud_contracts.child_kinds import BY_KIND
from fraud_contracts.names import MODEL_VERSION_ANNOTATION
from fraud_contracts.training_end import TrainingFailure
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts, KafkaFact, Lags, Replica
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.kube import Kube
from fraud_operator.observe import Observer
from fraud_operator.registry import Version


class FakeRegistry:
    """The registry's answers: two versions, an alias that a person moves, the champion that the operator sets."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {"challenger": "1"}

    def alias(self, name: str, alias: str) -> str | None:
        return self.aliases.get(alias)

    def version(self, name: str, version: str) -> Version:
        return Version(
            name, version, "sha256:" + version * 64, self.feature_set, "", [(0.0, 0.0), (1.0, 1e3)]
        )

    def failure(self, experiment: str, revision: str, since: int) -> TrainingFailure | None:
        return None

    def set_champion(self, name: str, version: str) -> None:
        self.aliases["champion"] = version

    feature_set = ""


class FakeObserver(Observer):
    """Observes the real cluster, with ``models`` as its registry: Kafka is well, replicas follow the pointer, features are warm."""

    models: FakeRegistry

    def registry(self, detector: Detector) -> Any:
        self.models.feature_set = detector.feature_set
        return self.models

    def kafka(self, detector: Detector) -> tuple[KafkaTarget | None, KafkaFact]:
        return None, KafkaFact(True, "External", "nobody is asked")

    def _lags(self, detector: Detector, facts: Facts, target: KafkaTarget | None) -> Lags:
        return Lags(0, 0, 1)

    def _lags_beside(self, detector: Detector, facts: Facts, target: KafkaTarget | None) -> Lags:
        return Lags(0, 0, 1)

    def _replicas(self, detector: Detector, children: Any) -> tuple[Replica, ...]:
        release, *_ = self._pointer(detector)
        return (Replica("one", release.name if release else None),)


def nodes(kube: Kube, namespace: str) -> None:
    """What the engines' operators and Kubernetes would do: streaming jobs run or stand still, each predictor runs its version."""
    for job in kube.list(BY_KIND["FlinkDeployment"], namespace):
        runs = job["spec"]["job"]["state"] == "running"
        status = {
            "lifecycleState": "STABLE" if runs else "SUSPENDED", "jobStatus": {"state": "RUNNING" if runs else "FINISHED"},
            "observedGeneration": job["metadata"]["generation"], "reconciliationStatus": {"state": "DEPLOYED"},
        }  # fmt: skip
        if (job.get("status") or {}).get("observedGeneration") != status["observedGeneration"]:
            kube.merge(
                BY_KIND["FlinkDeployment"], namespace, job["metadata"]["name"], {"status": status}, "status"
            )
    for service in kube.list(BY_KIND["InferenceService"], namespace):
        name = service["metadata"]["name"]
        version = service["spec"]["predictor"]["annotations"][MODEL_VERSION_ANNOTATION]
        at = BY_KIND["Deployment"]
        old = kube.get(at, namespace, f"{name}-predictor")
        if (
            old is not None
            and old["spec"]["template"]["metadata"]["annotations"][MODEL_VERSION_ANNOTATION] == version
        ):
            continue
        if old is not None:
            kube.delete(at, namespace, f"{name}-predictor")
        labels = {"app": name}
        template = {
            "metadata": {"labels": labels, "annotations": {MODEL_VERSION_ANNOTATION: version}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        owner = {
            "apiVersion": service["apiVersion"], "kind": "InferenceService", "name": name,
            "uid": service["metadata"]["uid"], "controller": True,
        }  # fmt: skip
        meta = {"name": f"{name}-predictor", "namespace": namespace, "ownerReferences": [owner]}
        kube.create(at, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
        ready = {
            "observedGeneration": 1,
            "replicas": 1,
            "updatedReplicas": 1,
            "readyReplicas": 1,
            "availableReplicas": 1,
        }
        kube.merge(at, namespace, f"{name}-predictor", {"status": ready}, "status")
        conditions = [{"type": kind, "status": "True"} for kind in ("Ready", "PredictorReady")]
        kube.merge(
            BY_KIND["InferenceService"], namespace, name, {"status": {"conditions": conditions}}, "status"
        )
