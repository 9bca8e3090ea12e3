"""The Flink stand-in: what it makes of a FlinkDeployment, and what it says about it."""

import copy
import json

import pytest

from fraud_local import flink_objects as objects
from fraud_local import flink_status as statuses

SPEC = {
    "image": "fraud-platform/flink:dev",
    "flinkVersion": "v2_2",
    "serviceAccount": "flink",
    "flinkConfiguration": {
        "taskmanager.numberOfTaskSlots": "2",
        "execution.checkpointing": {"dir": "file:///s/c", "savepoint-dir": "file:///s/s"},
        "high-availability.type": "kubernetes",
        "kubernetes.operator.job.restart.failed": "true",
        "kubernetes.taskmanager.cpu.limit-factor": "10",
    },
    "podTemplate": {
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "containers": [
                {
                    "name": "flink-main-container",
                    "env": [{"name": "X", "value": "1"}],
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    },
    "jobManager": {"replicas": 1, "resource": {"cpu": 0.1, "memory": "1024m"}},
    "taskManager": {"resource": {"cpu": 0.5, "memory": "2Gi"}},
    "job": {
        "entryClass": "P",
        "args": ["-py", "job.py"],
        "parallelism": 3,
        "upgradeMode": "savepoint",
        "state": "running",
    },
}
FD = {
    "apiVersion": "flink.apache.org/v1beta1",
    "kind": "FlinkDeployment",
    "metadata": {"name": "f", "namespace": "n", "uid": "u", "generation": 4},
}


def _built(spec=SPEC, savepoint=None):
    return {
        (thing["kind"], thing["metadata"]["name"]): thing
        for thing in objects.build(FD, spec, "ab12", savepoint)
    }


def _pod(built, name):
    return built["Deployment", name]["spec"]["template"]


def test_objects_have_the_operators_names():
    """A JobManager, its TaskManagers, the REST Service and the configuration."""
    assert set(_built()) == {
        ("ConfigMap", "flink-config-f"),
        ("Service", "f-rest"),
        ("Deployment", "f"),
        ("Deployment", "f-taskmanager"),
    }


def test_task_managers_are_as_many_as_the_parallelism_needs():
    """Three tasks on two slots each need two."""
    assert _built()["Deployment", "f-taskmanager"]["spec"]["replicas"] == 2


def test_the_pod_template_is_merged_by_name():
    """The user's variables and mounts stand beside the operator's, in one container."""
    pod = _pod(_built(), "f")
    (container,) = pod["spec"]["containers"]
    assert {"X", "POD_IP", "FLINK_CONF_DIR"} <= {one["name"] for one in container["env"]}
    assert {one["name"] for one in container["volumeMounts"]} == {"tmp", "flink-config-volume"}
    assert pod["metadata"]["labels"] == {"a": "b", **objects.labels("f", "jobmanager")}


def test_the_job_starts_from_its_savepoint():
    """Flink's own options come before the program's."""
    arguments = objects.job_arguments(SPEC, "ab12", "file:///s/s/1")
    assert arguments.index("--fromSavepoint") < arguments.index("-py")
    assert arguments[-2:] == ["-py", "job.py"]
    assert "--allowNonRestoredState" not in arguments


def test_high_availability_needs_the_pods_address():
    """TaskManagers find the leader's own address in its record, so it must be the Pod's."""
    assert "-Djobmanager.rpc.address=$(POD_IP)" in objects.job_arguments(SPEC, "a", None)
    plain = copy.deepcopy(SPEC)
    plain["flinkConfiguration"].pop("high-availability.type")
    assert objects.configuration("f", "n", plain)["jobmanager.rpc.address"] == "f.n"
    assert ("Service", "f") in _built(plain)


def test_configuration_is_flat_and_without_the_operators_keys():
    """Nested keys become dotted ones; what only the operator reads is left out."""
    config = objects.configuration("f", "n", SPEC)
    assert config["execution.checkpointing.dir"] == "file:///s/c"
    assert not any(key.startswith("kubernetes.operator.") for key in config)
    assert config["taskmanager.memory.process.size"] == "2048m"


def test_limits_follow_the_factor():
    """A limit is the request times the configured factor."""
    resources = _pod(_built(), "f-taskmanager")["spec"]["containers"][0]["resources"]
    assert resources["requests"]["cpu"] == "500m"
    assert resources["limits"]["cpu"] == "5000m"


@pytest.mark.parametrize(
    ("text", "size"), [("1024m", 1024), ("2Gi", 2048), ("1.5g", 1536), ("512Mi", 512), ("2gb", 2048)]
)
def test_sizes(text, size):
    """Flink's and Kubernetes' spellings of a size."""
    assert objects.megabytes(text) == size


def test_what_restarts_a_job():
    """An image does; the upgrade mode and the operator's own settings don't."""
    changed = copy.deepcopy(SPEC)
    changed["job"]["upgradeMode"] = "stateless"
    changed["flinkConfiguration"]["kubernetes.operator.job.restart.failed"] = "false"
    assert objects.comparable(changed) == objects.comparable(SPEC)
    changed["image"] = "other"
    assert objects.comparable(changed) != objects.comparable(SPEC)


def test_refused_specs():
    """What the operator's validator refuses is refused, with a reason."""
    assert objects.validate("f", SPEC) is None
    assert "invalid" in objects.validate("F_", SPEC)
    without = copy.deepcopy(SPEC)
    without["flinkConfiguration"].pop("execution.checkpointing")
    assert "savepoint" in objects.validate("f", without)
    forbidden = copy.deepcopy(SPEC)
    forbidden["flinkConfiguration"]["kubernetes.cluster-id"] = "x"
    assert "Forbidden" in objects.validate("f", forbidden)


def test_lifecycle_follows_the_job():
    """CREATED, DEPLOYED, STABLE, UPGRADING, in this order, and FAILED when the job is."""
    status = statuses.initial()
    assert statuses.lifecycle(status) == "CREATED"
    assert statuses.with_error(status, "X", "refused")["lifecycleState"] == "FAILED"
    status = statuses.with_spec(status, FD, SPEC, "DEPLOYED", 1, first=True)
    assert (status["lifecycleState"], status["observedGeneration"]) == ("DEPLOYED", 4)
    status = statuses.with_job(status, 2, state="RUNNING")
    assert status["lifecycleState"] == "STABLE"
    assert statuses.with_job(status, 3, state="FAILED")["lifecycleState"] == "FAILED"
    assert statuses.with_job(status, 3, state="RESTARTING")["lifecycleState"] == "STABLE"
    changed = {**SPEC, "image": "other"}
    assert (
        statuses.with_spec(status, FD, changed, "UPGRADING", 4, first=False)["lifecycleState"] == "UPGRADING"
    )
    restarting = statuses.with_job(status, 5, state="RECONCILING")
    assert (
        statuses.with_spec(restarting, FD, changed, "DEPLOYED", 6, first=False)["lifecycleState"]
        == "DEPLOYED"
    )


def test_suspended_is_told():
    """A suspended job has no state to be judged by."""
    spec = {**SPEC, "job": {**SPEC["job"], "state": "suspended"}}
    status = statuses.with_spec(statuses.initial(), FD, spec, "DEPLOYED", 1, first=True)
    assert status["lifecycleState"] == "SUSPENDED"


def test_error_is_json_and_goes_when_the_job_runs():
    """As the operator writes it: JSON in a string, cleared once the spec is stable."""
    status = statuses.with_spec(statuses.initial(), FD, SPEC, "DEPLOYED", 1, first=True)
    status = statuses.with_error(status, "DeploymentFailedException", "no image")
    assert json.loads(status["error"])["message"] == "no image"
    assert "error" not in statuses.with_job(status, 2, state="RUNNING")


def test_running_condition():
    """One condition, True while the job runs; its reason is the job's state."""
    status = statuses.with_job(
        statuses.with_spec(statuses.initial(), FD, SPEC, "DEPLOYED", 1, first=True), 5000, state="RUNNING"
    )
    (condition,) = status["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Running", "True", "Running")
    assert condition["lastTransitionTime"] == "1970-01-01T00:00:05.000000000Z"


def test_an_unchanged_job_changes_nothing():
    """The update time moves with the state only, so a settled pass writes nothing."""
    status = statuses.with_job(
        statuses.with_spec(statuses.initial(), FD, SPEC, "DEPLOYED", 1, first=True), 5000, state="RUNNING"
    )
    assert statuses.with_job(status, 9000, state="RUNNING") == status
