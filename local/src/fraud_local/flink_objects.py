"""What the Flink stand-in makes of a FlinkDeployment. Pure: spec, job id and savepoint in, objects out.

Flink's own standalone application mode: a JobManager Deployment of one replica that runs the job, a Deployment of
TaskManagers, a ConfigMap with Flink's configuration and the REST Service, all named as the Flink operator names them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from fraud_local import paths
from fraud_local.api_client import Json, owner

MAIN = "flink-main-container"
REST_PORT, RPC_PORT, BLOB_PORT, TASK_RPC_PORT = 8081, 6123, 6124, 6122
CONF = f"{paths.POD_FLINK}/conf"
NAME = re.compile(r"[a-z]([-a-z\d]{0,43}[a-z\d])?")
# The Java modules that Flink 2 needs open on Java 17, as its own distribution sets them.
_EXPORTS = (
    "java.rmi/sun.rmi.registry", "jdk.compiler/com.sun.tools.javac.api", "jdk.compiler/com.sun.tools.javac.file",
    "jdk.compiler/com.sun.tools.javac.parser", "jdk.compiler/com.sun.tools.javac.tree", "jdk.compiler/com.sun.tools.javac.util",
    "java.security.jgss/sun.security.krb5",
)  # fmt: skip
_OPENS = (
    "java.lang", "java.net", "java.io", "java.nio", "java.lang.reflect", "java.text", "java.time", "java.util",
    "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks",
)  # fmt: skip
JAVA_OPTIONS = " ".join(
    [
        *(f"--add-exports={name}=ALL-UNNAMED" for name in _EXPORTS),
        "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    ]
    + [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENS]
)
LOGGING = """rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %-60c %x - %m%n
logger.netty.name = org.jboss.netty.channel.DefaultChannelPipeline
logger.netty.level = OFF
"""
# What may change without a restart of the job, as the operator's own comparison has it.
IGNORED_IN_JOB = (
    "upgradeMode",
    "initialSavepointPath",
    "allowNonRestoredState",
    "savepointTriggerNonce",
    "checkpointTriggerNonce",
    "savepointRedeployNonce",
    "autoscalerResetNonce",
)
OPERATOR_PREFIX = "kubernetes.operator."


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """flinkConfiguration may be flat or nested; Flink's keys are the dotted ones."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return flat


def user_config(spec: Json) -> dict[str, str]:
    return flatten(spec.get("flinkConfiguration") or {})


def highly_available(spec: Json) -> bool:
    return user_config(spec).get("high-availability.type", "NONE").upper() not in ("NONE", "")


def savepoint_folder(spec: Json) -> str | None:
    config = user_config(spec)
    return config.get("execution.checkpointing.savepoint-dir") or config.get("state.savepoints.dir")


def savepoint_form(spec: Json) -> str:
    return user_config(spec).get(f"{OPERATOR_PREFIX}savepoint.format.type", "CANONICAL")


def checkpoint_folder(spec: Json) -> str | None:
    config = user_config(spec)
    return config.get("execution.checkpointing.dir") or config.get("state.checkpoints.dir")


def validate(name: str, spec: Json) -> str | None:
    """Why the operator would refuse this spec; None if it wouldn't."""
    if not NAME.fullmatch(name):
        return f"The FlinkDeployment name: {name} is invalid, must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character"
    job = spec.get("job")
    if not job:
        return "The local stand-in runs application clusters only: spec.job must be set"
    config = user_config(spec)
    for key in ("kubernetes.namespace", "kubernetes.cluster-id", "high-availability.cluster-id"):
        if key in config:
            return f"Forbidden Flink config key: {key}"
    if job.get("parallelism", 0) < 1 and "parallelism.default" not in config:
        return "Job parallelism must be larger than 0"
    if (spec.get("jobManager") or {}).get("replicas", 1) != 1:
        return "The local stand-in runs one JobManager"
    mode = job.get("upgradeMode", "stateless")
    if mode == "savepoint" and not savepoint_folder(spec):
        return "Job could not be upgraded with savepoint while config key[execution.checkpointing.savepoint-dir] is not set"
    if mode != "stateless" and not checkpoint_folder(spec):
        return "Checkpoint directory[execution.checkpointing.dir] must be defined for last-state and savepoint upgrade modes"
    return None


def comparable(spec: Json) -> Json:
    """The part of a spec whose change restarts the job."""
    reduced = copy.deepcopy(spec)
    for key in IGNORED_IN_JOB:
        (reduced.get("job") or {}).pop(key, None)
    (reduced.get("job") or {}).setdefault("state", "running")
    reduced["flinkConfiguration"] = {
        key: value for key, value in user_config(spec).items() if not key.startswith(OPERATOR_PREFIX)
    }
    return reduced


def parallelism(spec: Json) -> int:
    return int(spec["job"].get("parallelism") or user_config(spec).get("parallelism.default", 1))


def task_managers(spec: Json) -> int:
    """As many as the parallelism needs, unless the spec says."""
    explicit = (spec.get("taskManager") or {}).get("replicas")
    slots = int(user_config(spec).get("taskmanager.numberOfTaskSlots", 1))
    return int(explicit or math.ceil(parallelism(spec) / slots))


def megabytes(memory: str) -> int:
    """Flink's sizes (1024m, 2g, 2gb) and Kubernetes' (1Gi, 512Mi) in MiB."""
    size = re.fullmatch(r"([\d.]+)\s*([a-zA-Z]*)", memory.strip())
    if not size:
        raise ValueError(f"{memory!r} is no size")
    unit = size[2].lower().removesuffix("b").removesuffix("i")
    return int(float(size[1]) * {"": 1 / 2**20, "k": 1 / 1024, "m": 1, "g": 1024, "t": 2**20}[unit])


def configuration(name: str, namespace: str, spec: Json) -> dict[str, str]:
    """Flink's effective configuration: defaults of the operator, then the user's, then what the operator decides."""
    job_manager, task_manager = spec.get("jobManager") or {}, spec.get("taskManager") or {}
    available = highly_available(spec)
    # Their defaults suit a large cluster: a lost TaskManager would be noticed after 50 s.
    defaults = {"env.java.opts.all": JAVA_OPTIONS, "taskmanager.numberOfTaskSlots": "1"}
    decided = {
        "kubernetes.cluster-id": name,
        "kubernetes.namespace": namespace,
        "rest.port": str(REST_PORT),
        "rest.bind-address": "0.0.0.0",
        "jobmanager.rpc.port": str(RPC_PORT),
        "jobmanager.bind-host": "0.0.0.0",
        "taskmanager.bind-host": "0.0.0.0",
        "taskmanager.rpc.port": str(TASK_RPC_PORT),
        "blob.server.port": str(BLOB_PORT),
        "jobmanager.memory.process.size": f"{megabytes(_resource(job_manager)['memory'])}m",
        "taskmanager.memory.process.size": f"{megabytes(_resource(task_manager)['memory'])}m",
        "parallelism.default": str(parallelism(spec)),
        "web.cancel.enable": "false",
        # The JobManager outlives its job, so that what became of it can be read.
        "execution.shutdown-on-application-finish": "false",
    }
    if available:
        decided |= {
            "high-availability.cluster-id": name,
            "execution.submit-failed-job-on-application-error": "true",
        }
    else:
        decided["jobmanager.rpc.address"] = f"{name}.{namespace}"
    user = {key: value for key, value in user_config(spec).items() if not key.startswith(OPERATOR_PREFIX)}
    return {**defaults, **user, **decided}


def _resource(part: Json) -> Json:
    return {"memory": "2048m", "cpu": 1, **(part.get("resource") or {})}


def job_arguments(spec: Json, job_id: str, savepoint: str | None) -> list[str]:
    """Arguments of the JobManager: where it listens, which job, what state it starts from."""
    job = spec["job"]
    arguments = ["standalone-job"]
    if highly_available(spec):
        arguments.append("-Djobmanager.rpc.address=$(POD_IP)")
    if job.get("entryClass"):
        arguments += ["--job-classname", job["entryClass"]]
    arguments += ["--job-id", job_id]
    if savepoint:
        arguments += ["--fromSavepoint", savepoint]
        if job.get("allowNonRestoredState"):
            arguments.append("--allowNonRestoredState")
    return [*arguments, *job.get("args", [])]


def labels(name: str, component: str | None = None) -> dict[str, str]:
    base = {"app": name, "type": "flink-native-kubernetes"}
    return {**base, "component": component} if component else base


def build(fd: Json, spec: Json, job_id: str, savepoint: str | None) -> list[Json]:
    """Every object of a running deployment."""
    name, namespace = fd["metadata"]["name"], fd["metadata"]["namespace"]
    config = configuration(name, namespace, spec)
    data = {
        "config.yaml": yaml.safe_dump(config),
        "log4j-console.properties": LOGGING,
        **(spec.get("logConfiguration") or {}),
    }
    config_map = {
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {**_meta(fd, f"flink-config-{name}"), "labels": labels(name)},
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
    objects = [config_map, _service(fd, f"{name}-rest", {"rest": REST_PORT}, headless=False)]
    if not highly_available(spec):
        objects.append(
            _service(fd, name, {"jobmanager-rpc": RPC_PORT, "blobserver": BLOB_PORT}, headless=True)
        )
    task_arguments = ["taskmanager", "-Dtaskmanager.host=$(POD_IP)", "-Dtaskmanager.resource-id=$(POD_NAME)"]
    objects.append(_deployment(fd, spec, "jobmanager", 1, job_arguments(spec, job_id, savepoint), digest))
    objects.append(_deployment(fd, spec, "taskmanager", task_managers(spec), task_arguments, digest))
    return objects


def leader_record(name: str) -> str:
    """The ConfigMap in which Flink keeps who leads and where its newest checkpoints are."""
    return f"{name}-cluster-config-map"


def cluster_resources(spec: Json) -> dict[str, str]:
    """Cores and bytes of JobManager and TaskManagers together, as ``clusterInfo`` tells them."""
    parts = [(spec.get("jobManager") or {}, 1), (spec.get("taskManager") or {}, task_managers(spec))]
    cores = sum(float(_resource(part)["cpu"]) * count for part, count in parts)
    size = sum(megabytes(_resource(part)["memory"]) * count for part, count in parts)
    return {"total-cpu": str(cores), "total-memory": str(size * 2**20)}


def deployment_name(name: str, component: str) -> str:
    return name if component == "jobmanager" else f"{name}-taskmanager"


def _meta(fd: Json, name: str) -> Json:
    return {"name": name, "namespace": fd["metadata"]["namespace"], "ownerReferences": [owner(fd)]}


def _service(fd: Json, name: str, ports: Mapping[str, int], headless: bool) -> Json:
    spec: Json = {
        "selector": {"app": fd["metadata"]["name"], "component": "jobmanager"},
        "ports": [
            {"name": key, "port": port, "targetPort": port, "protocol": "TCP"} for key, port in ports.items()
        ],
    }
    if headless:
        spec["clusterIP"] = "None"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**_meta(fd, name), "labels": labels(fd["metadata"]["name"])},
        "spec": spec,
    }


def merge(base: Any, over: Any) -> Any:
    """``over`` laid on ``base``: mappings by key, lists of named things by name, other lists after each other."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {
            key: merge(base[key], over[key]) if key in base and key in over else over.get(key, base.get(key))
            for key in {**base, **over}
        }
    if isinstance(base, list) and isinstance(over, list):
        if all(isinstance(one, dict) and "name" in one for one in [*base, *over]):
            merged = {one["name"]: one for one in base}
            for one in over:
                merged[one["name"]] = merge(merged[one["name"]], one) if one["name"] in merged else one
            return list(merged.values())
        return [*base, *(one for one in over if one not in base)]
    return over


def _deployment(
    fd: Json, spec: Json, component: str, replicas: int, arguments: list[str], digest: str
) -> Json:
    name = fd["metadata"]["name"]
    part = spec.get("jobManager" if component == "jobmanager" else "taskManager") or {}
    template = merge(copy.deepcopy(spec.get("podTemplate") or {}), part.get("podTemplate") or {})
    own = {
        "metadata": {
            "labels": labels(name, component),
            "annotations": {"fraudplatform.dev/flink-config": digest},
        },
        "spec": {
            "serviceAccountName": spec.get("serviceAccount", "default"),
            "containers": [_container(spec, component, part, arguments)],
            "volumes": [{"name": "flink-config-volume", "configMap": {"name": f"flink-config-{name}"}}],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**_meta(fd, deployment_name(name, component)), "labels": labels(name, component)},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels(name, component)},
            "template": merge(template, own),
        },
    }


def _container(spec: Json, component: str, part: Json, arguments: list[str]) -> Json:
    config = user_config(spec)
    resource = _resource(part)

    def factor(kind: str) -> float:
        return float(config.get(f"kubernetes.{component}.{kind}.limit-factor", 1))

    memory, cores = megabytes(resource["memory"]), float(resource["cpu"])
    ports = (
        {"rest": REST_PORT, "jobmanager-rpc": RPC_PORT, "blobserver": BLOB_PORT}
        if component == "jobmanager"
        else {"taskmanager-rpc": TASK_RPC_PORT}
    )
    return {
        "name": MAIN,
        "image": spec.get("image"),
        "imagePullPolicy": spec.get("imagePullPolicy", "IfNotPresent"),
        "args": arguments,
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "FLINK_CONF_DIR", "value": CONF},
        ],
        "ports": [{"name": key, "containerPort": port, "protocol": "TCP"} for key, port in ports.items()],
        "resources": {
            "requests": {"cpu": f"{int(cores * 1000)}m", "memory": f"{memory}Mi"},
            "limits": {
                "cpu": f"{int(cores * factor('cpu') * 1000)}m",
                "memory": f"{int(memory * factor('memory'))}Mi",
            },
        },
        "volumeMounts": [{"name": "flink-config-volume", "mountPath": CONF}],
    }
