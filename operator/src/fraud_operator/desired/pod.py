"""What is the same in every Pod of ours: security, environment, volumes, probes, and where Prometheus finds metrics."""

from __future__ import annotations

from typing import Final

from fraud_contracts import config, names, object_store
from fraud_operator.detector import Detector
from fraud_operator.objects import Json

USER: Final = 1000


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


def storage_environment(detector: Detector) -> list[Json]:
    """The object store's keys, for the components that use it; nothing where a service account's role opens it."""
    secret = detector.storage_secret
    if secret is None:
        return []
    return [
        _secret(key, secret, key, optional=key not in object_store.REQUIRED_KEYS) for key in object_store.KEYS
    ]


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
    return {
        names.SCRAPE_ANNOTATION: "true",
        names.SCRAPE_PORT_ANNOTATION: str(port),
        names.SCRAPE_PATH_ANNOTATION: path,
    }
