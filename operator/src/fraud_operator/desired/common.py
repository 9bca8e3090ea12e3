"""What all children have in common: metadata, Pods as the platform runs them, and the defaults of each component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fraud_contracts import config, names
from fraud_contracts.detector import Component
from fraud_operator.detector import Detector, Json

PART_OF: Final = "fraud-platform"
CONFIG_HASH: Final = f"{names.GROUP}/config-hash"
MODEL_VERSION: Final = f"{names.GROUP}/model-version"
USER: Final = 1000


@dataclass(frozen=True)
class Child:
    """A desired object. ``once`` is written only where it isn't there: it holds what must never change again."""

    body: Json
    once: bool = False

    @property
    def kind(self) -> str:
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])


@dataclass(frozen=True)
class Defaults:
    label: str
    replicas: int
    requests: Mapping[str, str]
    limits: Mapping[str, str]


def _defaults(
    label: str, replicas: int, cpu: str, memory: str, cpu_limit: str, memory_limit: str
) -> Defaults:
    return Defaults(
        label, replicas, {"cpu": cpu, "memory": memory}, {"cpu": cpu_limit, "memory": memory_limit}
    )


COMPONENTS: Final[dict[Component, Defaults]] = {
    Component.DECISION_SERVICE: _defaults("decision", 2, "50m", "192Mi", "2", "768Mi"),
    Component.WORKER: _defaults("worker", 1, "50m", "192Mi", "2", "768Mi"),
    Component.FEATURES: _defaults("features", 1, "200m", "1Gi", "2", "2Gi"),
    Component.PREDICTOR: _defaults("predictor", 1, "50m", "192Mi", "1", "1Gi"),
    Component.TRAINING: _defaults("training", 1, "200m", "1536Mi", "2", "6Gi"),
    Component.PROFILE_SINK: _defaults("profile-sink", 1, "25m", "96Mi", "1", "512Mi"),
    Component.LEDGER_SINK: _defaults("ledger-sink", 1, "25m", "128Mi", "1", "512Mi"),
    Component.LAKE_SINK: _defaults("lake-sink", 1, "25m", "192Mi", "1", "1Gi"),
    Component.CONSOLE: _defaults("console", 1, "25m", "128Mi", "1", "512Mi"),
}


def labels(detector: Detector, component: str) -> dict[str, str]:
    """Of a Pod; a subset of them selects it."""
    return {
        "app.kubernetes.io/name": "fraud-detector",
        "app.kubernetes.io/instance": detector.name,
        "app.kubernetes.io/part-of": PART_OF,
        "app.kubernetes.io/managed-by": names.FIELD_MANAGER,
        names.COMPONENT_LABEL: component,
        names.DETECTOR_LABEL: detector.name,
    }


def selector(detector: Detector, component: str) -> dict[str, str]:
    return {names.DETECTOR_LABEL: detector.name, names.COMPONENT_LABEL: component}


def any_pod(detector: Detector) -> Json:
    """Selects the Pods of all components. The detector's label alone would select Strimzi's Pods, which bear a copy of it."""
    return {
        "matchLabels": {names.DETECTOR_LABEL: detector.name},
        "matchExpressions": [
            {
                "key": names.COMPONENT_LABEL,
                "operator": "In",
                "values": sorted(defaults.label for defaults in COMPONENTS.values()),
            }
        ],
    }


def metadata(
    detector: Detector,
    name: str,
    component: str,
    *,
    owned: bool = True,
    more_labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """``owned`` children go with the detector; the others are kept or deleted by its deletionPolicy."""
    meta: Json = {
        "name": name,
        "namespace": detector.namespace,
        "labels": {**labels(detector, component), names.UID_LABEL: detector.uid, **(more_labels or {})},
    }
    if annotations:
        meta["annotations"] = dict(annotations)
    if owned:
        meta["ownerReferences"] = [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": detector.name,
                "uid": detector.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    return meta


def child(api_version: str, kind: str, meta: Json, *, once: bool = False, **rest: Any) -> Child:
    return Child({"apiVersion": api_version, "kind": kind, "metadata": meta, **rest}, once)


def disruption_budget(detector: Detector, name: str, label: str) -> Child:
    """One Pod of the component at a time, where a person or the cluster moves Pods."""
    return child(
        "policy/v1",
        "PodDisruptionBudget",
        metadata(detector, name, label),
        spec={"maxUnavailable": 1, "selector": {"matchLabels": selector(detector, label)}},
    )


def resources(detector: Detector, component: Component) -> Json:
    """The component's defaults, overlaid by the spec's override key by key."""
    defaults = COMPONENTS[component]
    override = detector.override(component)
    requests: dict[str, Any] = dict(defaults.requests)
    limits: dict[str, Any] = dict(defaults.limits)
    if override is not None and override.resources is not None:
        requests.update(override.resources.requests)
        limits.update(override.resources.limits)
    return {
        "requests": {k: str(v) for k, v in requests.items()},
        "limits": {k: str(v) for k, v in limits.items()},
    }


def node_selector(detector: Detector, component: Component) -> Json:
    override = detector.override(component)
    return (
        {"nodeSelector": dict(override.node_selector)}
        if override is not None and override.node_selector
        else {}
    )


def container_security(*, read_only: bool = True) -> Json:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_security() -> Json:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _secret(name: str, secret: str, key: str, *, optional: bool = False) -> Json:
    ref: Json = {"name": secret, "key": key}
    if optional:
        ref["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": ref}}


def environment(detector: Detector, **more: str) -> list[Json]:
    """Where the documents lie, the detector's keys and its stores. Secrets are referred to, never copied."""
    stores = detector.spec.stores
    own = names.stores(detector.name)
    env: list[Json] = [
        {"name": config.CONFIG_ENV, "value": config.CONFIG_PATH},
        {"name": config.RELEASE_ENV, "value": config.RELEASE_PATH},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the Pod's own emptyDir
    ]
    env += [_secret(key, names.keys(detector.name), key) for key in config.SECRET_KEYS]
    redis = stores.redis.secret_ref.name if stores.redis else own
    postgres = stores.postgres.secret_ref.name if stores.postgres else own
    env += [_secret("REDIS_URL", redis, "REDIS_URL"), _secret("POSTGRES_DSN", postgres, "POSTGRES_DSN")]
    if stores.mlflow is None:
        env.append(_secret("MLFLOW_TRACKING_URI", own, "MLFLOW_TRACKING_URI"))
    else:
        env.append({"name": "MLFLOW_TRACKING_URI", "value": stores.mlflow.uri})
        if stores.mlflow.secret_ref is not None:
            for key in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
                env.append(_secret(key, stores.mlflow.secret_ref.name, key, optional=True))
    env += [{"name": name, "value": value} for name, value in more.items()]
    return env


def storage_env(detector: Detector) -> Json:
    """Credentials of the object store, for the components that use it."""
    storage = detector.spec.storage
    if storage is None or storage.secret_ref is None:
        return {}
    return {"envFrom": [{"secretRef": {"name": storage.secret_ref.name}}]}


def volumes(detector: Detector, *, release: bool = False, storage: bool = False) -> list[Json]:
    out: list[Json] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "config", "configMap": {"name": names.config(detector.name)}},
    ]
    if release:
        out.append(
            {"name": "release", "configMap": {"name": names.release_pointer(detector.name), "optional": True}}
        )
    if storage and detector.storage_path is not None:
        out.append(
            {"name": "storage", "hostPath": {"path": detector.storage_path, "type": "DirectoryOrCreate"}}
        )
    return out


def mounts(detector: Detector, *, release: bool = False, storage: bool = False) -> list[Json]:
    out: list[Json] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "config", "mountPath": "/etc/fraud/config", "readOnly": True},
    ]
    if release:
        out.append({"name": "release", "mountPath": "/etc/fraud/release", "readOnly": True})
    if storage and detector.storage_path is not None:
        out.append({"name": "storage", "mountPath": detector.storage_path})
    return out


def probe(path: str, port: int | str, *, period: int = 5, failures: int = 3, timeout: int = 3) -> Json:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": timeout,
    }


def scrape(port: int, path: str = "/metrics") -> dict[str, str]:
    """Annotations that the trial Prometheus reads; the PodMonitor says the same to a Prometheus operator."""
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(port), "prometheus.io/path": path}


def pod_template(
    detector: Detector,
    component: Component,
    *,
    image: str,
    command: list[str],
    port_name: str,
    port: int,
    service_account: str,
    token: bool = False,
    release: bool = False,
    storage: bool = False,
    grace: int = 30,
    env: Mapping[str, str] | None = None,
    startup_failures: int = 60,
) -> Json:
    """A Pod with one container, as all our own processes run."""
    label = COMPONENTS[component].label
    return {
        "metadata": {
            "labels": labels(detector, label),
            "annotations": {CONFIG_HASH: detector.config_hash, **scrape(port)},
        },
        "spec": {
            "serviceAccountName": service_account,
            "automountServiceAccountToken": token,
            "enableServiceLinks": False,
            "securityContext": pod_security(),
            "terminationGracePeriodSeconds": grace,
            **node_selector(detector, component),
            "containers": [
                {
                    "name": label,
                    "image": image,
                    "imagePullPolicy": detector.platform.image_pull_policy,
                    "command": command,
                    "env": environment(detector, **(env or {})),
                    **(storage_env(detector) if storage else {}),
                    "ports": [{"name": port_name, "containerPort": port, "protocol": "TCP"}],
                    "startupProbe": probe("/healthz", port_name, period=2, failures=startup_failures),
                    "readinessProbe": probe("/readyz", port_name),
                    "livenessProbe": probe("/healthz", port_name, period=10, failures=6),
                    "resources": resources(detector, component),
                    "securityContext": container_security(),
                    "volumeMounts": mounts(detector, release=release, storage=storage),
                }
            ],
            "volumes": volumes(detector, release=release, storage=storage),
        },
    }
