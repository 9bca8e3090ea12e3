"""The streaming job of one feature set. Another set is another object, so it starts beside the old one, and is silent until that gives way."""

from __future__ import annotations

from typing import Final

from fraud_contracts import names, object_store
from fraud_contracts.config import FLINK_METRICS_PORT
from fraud_contracts.detector import Component
from fraud_contracts.lineage import NO_STATE
from fraud_operator.desired.child import (
    Child,
    Wanted,
    child,
    kafka_annotations,
    labels,
    metadata,
    selector,
    storage_annotations,
)
from fraud_operator.desired.components import COMPONENTS, cores, replicas, resources
from fraud_operator.desired.placement import node_settings, spread
from fraud_operator.desired.pod import (
    container_security,
    environment,
    mounts,
    pod_security,
    scrape,
    volumes,
)
from fraud_operator.detector import Detector
from fraud_operator.objects import Json
from fraud_operator.stream_jobs import BEGINNING

API: Final = "flink.apache.org/v1beta1"
LABEL: Final = COMPONENTS[Component.FEATURES].label
# Fixed: state is split into as many key groups, so a changed number can't read an old checkpoint.
MAX_PARALLELISM: Final = 120
# What Flink itself tells its TaskManagers by; the JobManager's Pod has the component's label, too.
TASK_MANAGER: Final = {"component": "taskmanager"}
# Flink's own word for any number. A job that is restarted while its storage is away can't read its state and is down until the storage is
# back; one that goes on without checkpoints writes all records meanwhile, and what it then writes again after a kill the claims know.
ANY_NUMBER_OF_FAILURES: Final = 2**31 - 1
SAVEPOINT_ON_DELETION: Final = "kubernetes.operator.job.savepoint-on-deletion"
# What Flink's own configuration opens of the JDK; a configuration of one's own must say it again, or PyFlink fails.
JAVA_OPTIONS: Final = (
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    *(
        f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
        for package in (
            "lang", "net", "io", "nio", "lang.reflect", "text", "time", "util",
            "util.concurrent", "util.concurrent.atomic", "util.concurrent.locks",
        )
    ),
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
)  # fmt: skip


# Flink hands these to Hadoop's client, which puts in the Pods' own environment: nothing of a Secret is written here. A bucket in
# the path, not in the host's name, is what every object store takes. Folders' own objects stay: to delete them after each
# write is a request more, and a store on top of a file system refuses it while there is something in them.
# A request is given up within seconds, or some minutes where the store is silent: no next checkpoint begins before, and one is due in five
# seconds anyway. Hadoop's own patience is a quarter of an hour, and its pauses for a store that answers 503 grow to hours.
OBJECT_STORE: Final = {
    "s3.endpoint": f"${{env.{object_store.ENDPOINT}:-}}",
    "s3.endpoint.region": f"${{env.{object_store.REGION}:-{object_store.DEFAULT_REGION}}}",
    "s3.path.style.access": "true",
    "s3.directory.marker.retention": "keep",
    "s3.connection.timeout": "30000",
    "s3.attempts.maximum": "2",
    "s3.retry.limit": "2",
    "s3.retry.throttle.limit": "7",
}
# Where no Secret gives keys: the role of the Pods' service account, then the container's or the node's. Without being told
# Hadoop's client asks for the latter only.
ROLE_PROVIDERS: Final = ("WebIdentityTokenCredentialsProvider", "EC2ContainerCredentialsProviderWrapper")


def _configuration(detector: Detector) -> dict[str, str]:
    base = names.stream_folder(detector.storage_uri, detector.stream)
    return {
        "taskmanager.numberOfTaskSlots": "1",
        "pipeline.max-parallelism": str(MAX_PARALLELISM),
        "python.execution-mode": "thread",
        "python.executable": detector.platform.flink.python,
        "python.client.executable": detector.platform.flink.python,
        "env.java.opts.all": " ".join(JAVA_OPTIONS),
        # State may outgrow the memory, and each checkpoint writes what has changed since the one before.
        "state.backend.type": "rocksdb",
        "execution.checkpointing.incremental": "true",
        "state.backend.rocksdb.localdir": "/tmp/rocksdb",  # noqa: S108 - the Pod's own emptyDir
        # Of 2Gi: 512 MiB for Python, which runs inside the TaskManager beside the heap, 317 for RocksDB's cache and what it hasn't
        # written yet, 470 of heap, most of it for Kafka's clients.
        "taskmanager.memory.task.off-heap.size": "512m",
        "taskmanager.memory.managed.fraction": "0.2",
        "execution.checkpointing.interval": detector.platform.flink.checkpoint_interval,
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.dir": f"{base}/checkpoints",
        "execution.checkpointing.savepoint-dir": f"{base}/savepoints",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.tolerable-failed-checkpoints": str(ANY_NUMBER_OF_FAILURES),
        "high-availability.type": "kubernetes",
        "high-availability.storageDir": f"{base}/ha",
        **_object_store(detector),
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "1 s",
        "restart-strategy.exponential-delay.max-backoff": "30 s",
        # A dead TaskManager is noticed within seconds: decisions by the stream wait for its successor.
        "heartbeat.interval": "2 s",
        "heartbeat.timeout": "10 s",
        "metrics.reporter.prom.factory.class": "org.apache.flink.metrics.prometheus.PrometheusReporterFactory",
        "metrics.reporter.prom.port": str(FLINK_METRICS_PORT),
        # Its REST has no login: no JAR may be sent there to be run beside the keys. The Flink operator sends none to a job of its own.
        "web.submit.enable": "false",
        # The Pods' own limits are a multiple of what they ask for, by default one core and two; a job that idles shouldn't hold whole cores.
        "kubernetes.jobmanager.cpu.limit-factor": "10",
        "kubernetes.taskmanager.cpu.limit-factor": "25",
        "kubernetes.operator.job.restart.failed": "true",
        SAVEPOINT_ON_DELETION: "true",
        # A savepoint of this form can be read with any state backend, a checkpoint only with its own.
        "kubernetes.operator.savepoint.format.type": "CANONICAL",
        "kubernetes.operator.pod-template.merge-arrays-by-name": "true",
    }


def _object_store(detector: Detector) -> dict[str, str]:
    if detector.storage_path is not None:
        return {}
    if detector.storage_secret is not None:
        return OBJECT_STORE
    providers = ",".join(f"com.amazonaws.auth.{name}" for name in ROLE_PROVIDERS)
    return {**OBJECT_STORE, "s3.aws.credentials.provider": providers}


def _memory(quantity: str) -> str:
    """Flink's own spelling of a Kubernetes quantity: 2Gi is 2048m."""
    for suffix, factor in (("Gi", 1024), ("Mi", 1)):
        if quantity.endswith(suffix):
            return f"{int(float(quantity.removesuffix(suffix)) * factor)}m"
    return quantity


def _pod_template(detector: Detector, wanted: Wanted) -> Json:
    return {
        "metadata": {
            "labels": labels(detector, LABEL),
            "annotations": {
                names.CONFIG_HASH_ANNOTATION: detector.config_hash,
                **storage_annotations(wanted),
                **kafka_annotations(wanted, Component.FEATURES),
                **scrape(FLINK_METRICS_PORT, "/"),
            },
        },
        "spec": {
            "securityContext": pod_security(),
            "enableServiceLinks": False,
            **node_settings(detector, Component.FEATURES),
            "containers": [
                {
                    "name": "flink-main-container",
                    "imagePullPolicy": detector.platform.image_pull_policy,
                    "ports": [{"name": "metrics", "containerPort": FLINK_METRICS_PORT, "protocol": "TCP"}],
                    "env": environment(detector, Component.FEATURES),
                    # Flink's scripts write their configuration and logs below FLINK_HOME.
                    "securityContext": container_security(read_only=False),
                    "volumeMounts": mounts(detector, Component.FEATURES, storage=True),
                }
            ],
            "volumes": volumes(detector, Component.FEATURES, storage=True),
        },
    }


def parallelism(detector: Detector) -> int:
    """How many TaskManagers with one slot each share the partitions."""
    return max(1, min(replicas(detector, Component.FEATURES), detector.spec.kafka.partitions))


def _task_managers_apart(detector: Detector) -> Json:
    if parallelism(detector) < 2:
        return {}
    return {"podTemplate": {"spec": spread({**selector(detector, LABEL), **TASK_MANAGER})}}


def _beginning(detector: Detector) -> list[str]:
    """Arguments of the job that say what it begins with."""
    lineage = detector.lineage
    if lineage is None or lineage.beginning == NO_STATE:
        return []
    return [BEGINNING, lineage.beginning.model_dump_json(exclude_defaults=True)]


def _first_state(detector: Detector) -> Json:
    """What the job's first start is from; the Flink operator looks at it only then."""
    restored = detector.lineage.restored if detector.lineage is not None else None
    return {} if restored is None else {"initialSavepointPath": restored}


def build_flink_deployment(detector: Detector, wanted: Wanted) -> list[Child]:
    """The job that answers, and one beside it."""
    views = [detector] if wanted.beside is None else [detector, wanted.beside]
    return [_job(view, wanted) for view in views]


def _state(detector: Detector, wanted: Wanted) -> str:
    """A job that is suspended stops with a savepoint, and goes on from it."""
    hand_over = wanted.lineages.hand_over
    return "suspended" if hand_over is not None and detector.epoch in hand_over.stopped else "running"


def _job(detector: Detector, wanted: Wanted) -> Child:
    flink = detector.platform.flink
    sizes = resources(detector, Component.FEATURES)
    return child(
        API,
        "FlinkDeployment",
        metadata(detector, detector.streaming_job, LABEL),
        needs_storage=True,
        spec={
            "image": detector.platform.images.flink,
            "imagePullPolicy": detector.platform.image_pull_policy,
            "flinkVersion": flink.version,
            "serviceAccount": names.service_account(detector.name, LABEL),
            "mode": "native",
            "flinkConfiguration": _configuration(detector),
            "podTemplate": _pod_template(detector, wanted),
            "jobManager": {"replicas": 1, "resource": {"cpu": 0.1, "memory": "1600m"}},
            "taskManager": {
                "resource": {
                    "cpu": cores(sizes["requests"]["cpu"]),
                    "memory": _memory(sizes["limits"]["memory"]),
                },
                **_task_managers_apart(detector),
            },
            "job": {
                "jarURI": flink.jar,
                "entryClass": "org.apache.flink.client.python.PythonDriver",
                "args": [
                    "-pyclientexec",
                    flink.python,
                    "-pyexec",
                    flink.python,
                    "-py",
                    flink.job,
                    *_beginning(detector),
                ],
                "parallelism": parallelism(detector),
                "upgradeMode": "savepoint",
                "state": _state(detector, wanted),
                **_first_state(detector),
            },
        },
    )
