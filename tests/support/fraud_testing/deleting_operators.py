"""Other projects' operators as they were recorded at a deletion: they hold on, throw, and need what they need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fraud_contracts.child_kinds import BY_KIND
from fraud_operator.deletion import TOPIC_FINALIZER
from fraud_operator.kube import Kube

FLINK, TOPIC = BY_KIND["FlinkDeployment"], BY_KIND["KafkaTopic"]
FLINK_FINALIZER = "flinkdeployments.flink.apache.org/finalizer"
SETTING = "kubernetes.operator.job.savepoint-on-deletion"
# What a savepoint was seen to need: the job's account and rights, what its Pods mount, and its Kafka with its user there.
NEEDED = (
    ("ServiceAccount", "payments-features"),
    ("RoleBinding", "payments-features"),
    ("ConfigMap", "payments-config"),
    ("Secret", "payments-keys"),
    ("Kafka", "payments"),
    ("KafkaUser", "payments-kafka-features"),
)


def set_finalizers(kube: Kube, body: dict[str, Any], wanted: list[str]) -> None:
    meta = body["metadata"]
    kube.merge(BY_KIND[body["kind"]], meta["namespace"], meta["name"], {"metadata": {"finalizers": wanted}})


@dataclass
class DeletingFlinkOperator:
    """Keeps a deleted FlinkDeployment until its savepoint is there; throws, and tries again, of a job that isn't RUNNING."""

    kube: Kube
    namespace: str
    state: str | None = "RUNNING"
    works: bool = True
    savepoints: list[str] = field(default_factory=list)

    def act(self) -> None:
        for job in self.kube.list(FLINK, self.namespace):
            if not job["metadata"].get("deletionTimestamp"):
                if FLINK_FINALIZER not in job["metadata"].get("finalizers", []):
                    set_finalizers(self.kube, job, [FLINK_FINALIZER])
                status = {
                    "jobStatus": {"state": self.state} if self.state else {},
                    "lifecycleState": "STABLE",
                }
                self.kube.merge(FLINK, self.namespace, job["metadata"]["name"], {"status": status}, "status")
            elif self.works:
                self._end(job)

    def _end(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        if job["spec"]["flinkConfiguration"][SETTING] == "false":
            set_finalizers(self.kube, job, [])
            return
        if self.state != "RUNNING":
            error = f"Unexpected job status: {self.state}"
        elif not all(self.kube.get(BY_KIND[kind], self.namespace, one) for kind, one in NEEDED):
            error = "UpgradeFailureException: Savepoint Error"
        else:
            self.savepoints.append(name)
            set_finalizers(self.kube, job, [])
            return
        self.kube.merge(FLINK, self.namespace, name, {"status": {"error": error}}, "status")


@dataclass
class DeletingTopicOperator:
    """Lives as long as Kafka does, and lets go of a deleted topic; with finalizers, as under an earlier Kafka of ours."""

    kube: Kube
    namespace: str
    works: bool = True

    def act(self) -> None:
        alive = self.works and self.kube.get(BY_KIND["Kafka"], self.namespace, "payments") is not None
        for topic in self.kube.list(TOPIC, self.namespace):
            gone = topic["metadata"].get("deletionTimestamp") is not None
            if not gone and not topic["metadata"].get("finalizers"):
                set_finalizers(self.kube, topic, [TOPIC_FINALIZER])
            if gone and alive:
                set_finalizers(self.kube, topic, [])
