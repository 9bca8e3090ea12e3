"""What the Flink stand-in does and says as its cluster changes, beside what the operator 1.15.0 said (``recorded/``)."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fraud_local import flink_objects as objects
from fraud_local.flink_rest import FlinkError, causes
from fraud_local.flink_standin import FINALIZER, UNANSWERED, Deployment
from fraud_testing.standin_cluster import Cluster

RECORDED = (Path(__file__).parent / "recorded" / "flink-1.15.0-statuses.txt").read_text()
ON_DELETION = "kubernetes.operator.job.savepoint-on-deletion"
SPEC = {
    "image": "fraud-platform/flink:dev",
    "flinkVersion": "v2_2",
    "serviceAccount": "flink",
    "flinkConfiguration": {
        "execution.checkpointing.dir": "file:///s/c",
        "execution.checkpointing.savepoint-dir": "file:///s/s",
        "high-availability.type": "kubernetes",
        ON_DELETION: "true",
    },
    "jobManager": {"replicas": 1, "resource": {"cpu": 0.1, "memory": "1024m"}},
    "taskManager": {"resource": {"cpu": 0.5, "memory": "2048m"}},
    "job": {"entryClass": "P", "parallelism": 2, "upgradeMode": "savepoint", "state": "running"},
}


def story(title: str) -> list[str]:
    """The recorded statuses of one part, a line each."""
    (part,) = [part for part in RECORDED.split("\n# ") if part.startswith(title)]
    return part.splitlines()[1:]


class JobManager:
    """A JobManager's answers: it is up or not, and has a job in some state or none."""

    def __init__(self) -> None:
        self.up = False
        self.state: str | None = None
        self.savepoints = 0
        self.refuses = ""
        self.trace = "boom"
        self.latest: str | None = "file:///s/c/chk-7"

    def answers(self) -> bool:
        return self.up

    def job(self, job_id: str) -> dict[str, Any] | None:
        return (
            {"jid": job_id, "name": "job", "start-time": 1, "state": self.state}
            if self.up and self.state
            else None
        )

    def cluster_info(self) -> dict[str, str]:
        return {"flink-version": "2.2.1", "flink-revision": "x"}

    def latest_state(self, job_id: str) -> str | None:
        return self.latest

    def failure(self, job_id: str) -> list[str]:
        return causes(self.trace)

    def stop_with_savepoint(self, job_id: str, folder: str, form: str, timeout: float) -> str:
        assert form == "CANONICAL"
        if self.refuses:
            raise FlinkError(self.refuses)
        self.savepoints += 1
        self.state = "FINISHED"
        return f"{folder}/1"


class FlinkWorld:
    """A FlinkDeployment ``n/f``, its JobManager, and every status that was written of it."""

    def __init__(self) -> None:
        meta = {"name": "f", "namespace": "n", "uid": "u", "generation": 1, "finalizers": []}
        fd = {"apiVersion": "flink.apache.org/v1beta1", "kind": "FlinkDeployment", "metadata": meta}
        self.cluster = Cluster({**fd, "spec": copy.deepcopy(SPEC)})
        self.rest = JobManager()
        self.unanswered: dict[str, float] = {}
        self.written: list[str] = []

    @property
    def fd(self) -> dict[str, Any]:
        return self.cluster.objects["FlinkDeployment", "n", "f"]

    @property
    def gone(self) -> bool:
        return ("FlinkDeployment", "n", "f") not in self.cluster.objects

    def turn(self) -> None:
        """One pass; raises what the stand-in would log and try again."""
        before = len(self.cluster.statuses)
        fd = copy.deepcopy(self.fd)
        try:
            Deployment(self.cluster, fd, self.rest, self.unanswered).reconcile()  # type: ignore[arg-type]  # fakes of ApiClient and JobManager
        finally:
            self.written += [
                self.line(fd["metadata"]["generation"], status) for status in self.cluster.statuses[before:]
            ]

    @staticmethod
    def line(generation: int, status: dict[str, Any]) -> str:
        error = status.get("error", "-")
        if error.startswith("{"):
            error = json.loads(error)["type"]
        job = status["jobStatus"].get("state")
        return " ".join(
            str(part)
            for part in (
                generation, status["observedGeneration"], status["lifecycleState"], status["jobManagerDeploymentStatus"],
                job, status["reconciliationStatus"]["state"], error,
            )
        )  # fmt: skip

    def now(self) -> str:
        """The status as a reader finds it."""
        return self.line(self.fd["metadata"]["generation"], self.fd["status"])

    def come_up(self, state: str | None) -> None:
        """The JobManager's Pod is ready, its job in this state; flink's own record of its leader is there."""
        self.cluster.objects["Deployment", "n", "f"]["status"] = {"availableReplicas": 1}
        meta = {"name": objects.leader_record("f"), "namespace": "n"}
        self.cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
        self.rest.up, self.rest.state = True, state

    def become(self, state: str) -> None:
        self.rest.state = state
        self.turn()

    def run(self) -> None:
        """Until its job runs."""
        self.turn()
        self.turn()
        self.come_up("RUNNING")
        self.turn()
        self.turn()

    def delete(self) -> None:
        self.fd["metadata"]["deletionTimestamp"] = "2026-11-28T23:20:44Z"
        self.fd["metadata"]["generation"] += 1

    def without_savepoint(self) -> None:
        """What may be merged into a FlinkDeployment that is being deleted."""
        self.fd["spec"]["flinkConfiguration"][ON_DELETION] = "false"
        self.fd["metadata"]["generation"] += 1


def in_order(expected: list[str], written: Iterator[str]) -> bool:
    """Whether all of one are in the other, in this order: the recording was polled and has missed some."""
    return all(any(line == one for one in written) for line in expected)


@pytest.fixture
def world() -> FlinkWorld:
    return FlinkWorld()


def test_a_first_deployment_passes_through_what_was_recorded(world: FlinkWorld) -> None:
    """UPGRADING and MISSING without a job's state comes first; while it waits for Kafka the job restarts."""
    world.turn()
    world.turn()
    world.come_up(None)
    world.turn()
    world.turn()
    for state in ("CREATED", "RESTARTING", "RUNNING"):
        world.become(state)
    expected = story("a first deployment")[:6]
    assert in_order(expected, iter(world.written)), world.written
    assert not any("Job Not Found" in line for line in world.written)


def test_nobody_is_told_of_a_deletion_that_is_stuck(world: FlinkWorld) -> None:
    """The status stays as it was, with the old generation, however often the savepoint fails; without one it ends."""
    world.run()
    world.delete()
    world.rest.refuses = "Savepoint Error"
    statuses = [world.now()]
    for _ in range(3):
        with pytest.raises(FlinkError, match="Savepoint Error"):
            world.turn()
    world.without_savepoint()
    statuses.append(world.now())
    assert statuses == story("a first deployment")[6:]
    assert world.fd["metadata"]["finalizers"] == [FINALIZER]
    assert world.cluster.names("Deployment") == {"f", "f-taskmanager"}
    world.turn()
    assert world.gone and world.cluster.names("Deployment") == set()
    assert world.rest.savepoints == 0


def test_losses_and_an_upgrade_pass_through_what_was_recorded(world: FlinkWorld) -> None:
    """STABLE and READY stay through a lost TaskManager and a lost JobManager; after an upgrade the job is not found at first."""
    world.run()
    world.become("CREATED")
    world.become("RUNNING")
    world.rest.up = False  # the JobManager's container is killed
    world.cluster.objects["Deployment", "n", "f"]["status"] = {"availableReplicas": 0}
    world.turn()
    world.come_up(None)
    world.turn()
    world.become("INITIALIZING")
    world.become("RUNNING")
    world.fd["spec"]["image"] = "other"
    world.fd["metadata"]["generation"] = 2
    world.turn()
    world.come_up(None)
    world.turn()
    world.turn()
    for state in ("CREATED", "RUNNING"):
        world.become(state)
    assert in_order(story("a TaskManager lost"), iter(world.written)), world.written
    assert not any(line.startswith("1 1 STABLE DEPLOYING") for line in world.written)


def test_a_namespace_that_ends_leaves_it_as_recorded(world: FlinkWorld) -> None:
    """The JobManager and its records go first; then it is FAILED and MISSING, and keeps its finalizer."""
    world.run()
    world.become("RESTARTING")
    for key in [key for key in world.cluster.objects if key[0] in ("Deployment", "ConfigMap")]:
        del world.cluster.objects[key]
    world.delete()
    with pytest.raises(FlinkError, match="Unexpected job status: RECONCILING"):
        world.turn()
    assert in_order(story("its namespace deleted"), iter(world.written)), world.written
    assert world.fd["metadata"]["finalizers"] == [FINALIZER]
    world.without_savepoint()
    world.turn()
    assert world.gone


@pytest.mark.parametrize("state", ["INITIALIZING", "CREATED", "RESTARTING", "FAILING"])
def test_a_job_that_does_not_run_keeps_the_finalizer(world: FlinkWorld, state: str) -> None:
    """The operator throws at each try, until it is told to ask for no savepoint."""
    world.run()
    world.become(state)
    world.delete()
    for _ in range(2):
        with pytest.raises(FlinkError, match=f"Unexpected job status: {state}"):
            world.turn()
    assert world.fd["metadata"]["finalizers"] == [FINALIZER]
    world.without_savepoint()
    world.turn()
    assert world.gone


def test_a_running_job_is_stopped_with_a_savepoint(world: FlinkWorld) -> None:
    """Where JobManager, account, rights and documents are there, deletion ends at once."""
    world.run()
    world.delete()
    world.turn()
    assert (world.gone, world.rest.savepoints) == (True, 1)


@pytest.mark.parametrize("state", ["FINISHED", "FAILED", "CANCELED"])
def test_a_job_that_has_ended_needs_no_savepoint(world: FlinkWorld, state: str) -> None:
    """Its deletion ends at once."""
    world.run()
    world.become(state)
    world.delete()
    world.turn()
    assert (world.gone, world.rest.savepoints) == (True, 0)


def test_what_was_never_deployed_is_deleted_at_once(world: FlinkWorld) -> None:
    """There is no job to stop."""
    world.turn()
    world.delete()
    world.turn()
    assert world.gone


# Of Flink 2.2.1, from a path with a cut ``_metadata``.
CUT = """org.apache.flink.runtime.client.JobInitializationException: Could not start the JobMaster.
\tat org.apache.flink.runtime.jobmaster.DefaultJobMasterServiceProcess.lambda$new$0(DefaultJobMasterServiceProcess.java:97)
Caused by: java.util.concurrent.CompletionException: java.lang.RuntimeException: java.io.EOFException
\tat java.base/java.util.concurrent.CompletableFuture.encodeThrowable(CompletableFuture.java:314)
\t... 3 more
Caused by: java.lang.RuntimeException: java.io.EOFException
\t... 3 more
Caused by: java.io.EOFException
"""


def test_a_job_that_cannot_read_what_it_is_made_from_fails_again_and_again(world: FlinkWorld) -> None:
    """It stands FAILED with the causes in its status, then is made again from the same path."""
    world.fd["spec"]["job"]["initialSavepointPath"] = "file:///s/s/cut"
    world.fd["spec"]["flinkConfiguration"]["kubernetes.operator.job.restart.failed"] = "true"
    world.rest.trace, world.rest.latest = CUT, None
    world.turn()
    for _ in range(2):
        world.turn()
        arguments = world.cluster.objects["Deployment", "n", "f"]["spec"]["template"]["spec"]["containers"][
            0
        ]["args"]
        assert arguments[arguments.index("--fromSavepoint") + 1] == "file:///s/s/cut"
        world.come_up("FAILED")
        world.turn()
        world.turn()
        status = world.fd["status"]
        assert (status["lifecycleState"], status["jobStatus"]["state"]) == ("FAILED", "FAILED")
        assert [cause["message"] for cause in json.loads(status["error"])["throwableList"]] == [
            "java.util.concurrent.CompletionException: java.lang.RuntimeException: java.io.EOFException",
            "java.lang.RuntimeException: java.io.EOFException",
        ]
        assert "lastStableSpec" not in status["reconciliationStatus"]


def test_a_pod_that_may_not_be_made_is_an_error_with_its_message(world: FlinkWorld) -> None:
    """The Deployment says why, and the operator says it after it; it is not FAILED."""
    world.turn()
    world.turn()
    message = 'pods "f-1" is forbidden: violates PodSecurity "restricted:latest"'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    world.cluster.objects["Deployment", "n", "f"]["status"] = {"conditions": [failure]}
    world.turn()
    status = world.fd["status"]
    assert (status["jobManagerDeploymentStatus"], status["lifecycleState"]) == ("ERROR", "DEPLOYED")
    assert json.loads(status["error"])["message"] == message


def test_a_jobmanager_that_stays_away_is_told(world: FlinkWorld) -> None:
    """After a minute it is DEPLOYING again."""
    world.run()
    world.rest.up = False
    world.turn()
    world.unanswered["u"] = time.monotonic() - UNANSWERED - 1
    world.turn()
    assert world.now() == "1 1 STABLE DEPLOYING RECONCILING DEPLOYED -"


def test_a_lost_deployment_is_made_again_from_its_records(world: FlinkWorld) -> None:
    """As long as Flink's own records are there; what else somebody deletes is not."""
    world.run()
    del world.cluster.objects["ConfigMap", "n", "flink-config-f"]
    world.turn()
    assert "flink-config-f" not in world.cluster.names("ConfigMap")
    del world.cluster.objects["Deployment", "n", "f"]
    world.turn()
    assert {"flink-config-f"} < world.cluster.names("ConfigMap")
    assert world.cluster.names("Deployment") == {"f", "f-taskmanager"}


def test_the_jobmanager_is_the_operators(world: FlinkWorld) -> None:
    """Labels, selector and owner are those that were recorded of native mode."""
    world.turn()
    world.turn()
    deployment = world.cluster.objects["Deployment", "n", "f"]
    labels = {"app": "f", "component": "jobmanager", "type": "flink-native-kubernetes"}
    assert deployment["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert deployment["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "flink.apache.org/v1beta1", "kind": "FlinkDeployment", "name": "f", "uid": "u",
            "controller": False, "blockOwnerDeletion": True,
        }
    ]  # fmt: skip
    assert "strategy" not in deployment["spec"]


def test_cluster_info_counts_cores_and_bytes(world: FlinkWorld) -> None:
    """One JobManager and two TaskManagers."""
    world.run()
    info = world.fd["status"]["clusterInfo"]
    assert (info["total-cpu"], info["total-memory"]) == ("1.1", str(5120 * 2**20))
