"""What is the same in every Pod of ours: security, environment, volumes, probes, and where Prometheus finds metrics."""

from __future__ import annotations

from typing import Final

from fraud_contracts import config, names, object_store
from fraud_contracts.detector import Component
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.kafka_login import kafka_mounts, kafka_volumes, secret_source
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


def environment(detector: Detector, component: Component, **more: str) -> list[Json]:
    """Where the documents lie, and what the component gets of the Secrets, which are referred to and never copied."""
    defaults = COMPONENTS[component]
    env: list[Json] = [
        {"name": config.CONFIG_ENV, "value": config.CONFIG_PATH},
        {"name": config.RELEASE_ENV, "value": config.RELEASE_PATH},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the Pod's own emptyDir
    ]
    own = detector.spec.stores.mlflow
    if own is not None and config.MLFLOW_TRACKING_URI in defaults.secrets:
        env.append({"name": config.MLFLOW_TRACKING_URI, "value": own.uri})
    # Those of the stores are files.
    env += [
        _secret(key, names.keys(detector.name), key) for key in defaults.secrets if key in config.SECRET_KEYS
    ]
    env += [{"name": name, "value": value} for name, value in more.items()]
    return [*env, *(_storage_variables(detector) if defaults.storage else [])]


def store_files(detector: Detector, component: Component) -> Json | None:
    """A volume with the addresses that the component reads, each from the Secret that has it, and the certificate of the
    authority behind the server where that Secret has one; None where it reads none.

    Files and no variables: the kubelet renews them, so a login that changes restarts nothing, and one that comes later is there then.
    """
    stores, spared = detector.spec.stores, COMPONENTS[component].spared
    own = {config.REDIS_URL: stores.redis, config.POSTGRES_DSN: stores.postgres}
    sources = []
    for key in COMPONENTS[component].secrets:
        if key in own:
            store = own[key]
            secret = store.secret_ref.name if store is not None else names.stores(detector.name)
            file = config.ca_cert(key)
            authority = file if store is None else config.CA_CERT
            sources += [
                secret_source(secret, {key: key}, optional=key in spared),
                secret_source(secret, {file: authority}, optional=True),
            ]
        elif key in config.STORE_KEYS:
            sources += _mlflow_files(detector, key)
    return {"name": "stores", "projected": {"sources": sources}} if sources else None


def _mlflow_files(detector: Detector, key: str) -> list[Json]:
    """The address with the component's own login to the platform's; of a detector's own MLflow the keys of its login, if it asks for one."""
    own = detector.spec.stores.mlflow
    if own is None:
        return [secret_source(names.stores(detector.name), {config.MLFLOW_TRACKING_URI: key})]
    secret = own.secret_ref
    return [
        secret_source(secret.name, {one: one}, optional=True)
        for one in config.MLFLOW_LOGIN
        if secret is not None
    ]


def _storage_variables(detector: Detector) -> list[Json]:
    """The object store's keys; nothing where a service account's role opens it."""
    secret = detector.storage_secret
    if secret is None:
        return []
    return [
        _secret(key, secret, key, optional=key not in object_store.REQUIRED_KEYS) for key in object_store.KEYS
    ]


def volumes(
    detector: Detector, component: Component, *, release: bool = False, storage: bool = False
) -> list[Json]:
    out: list[Json] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "config", "configMap": {"name": detector.config_name}},
    ]
    if release:
        out.append(
            {"name": "release", "configMap": {"name": names.release_pointer(detector.name), "optional": True}}
        )
    stores = store_files(detector, component)
    if stores is not None:
        out.append(stores)
    if COMPONENTS[component].clients:
        out.append({"name": "clients", "secret": {"secretName": names.clients(detector.name)}})
    out += kafka_volumes(detector, component)
    if storage and detector.storage_path is not None:
        out.append(
            {"name": "storage", "hostPath": {"path": detector.storage_path, "type": "DirectoryOrCreate"}}
        )
    return out


def mounts(
    detector: Detector, component: Component, *, release: bool = False, storage: bool = False
) -> list[Json]:
    out: list[Json] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "config", "mountPath": "/etc/fraud/config", "readOnly": True},
    ]
    if release:
        out.append({"name": "release", "mountPath": "/etc/fraud/release", "readOnly": True})
    if store_files(detector, component) is not None:
        out.append({"name": "stores", "mountPath": config.STORES_PATH, "readOnly": True})
    if COMPONENTS[component].clients:
        out.append({"name": "clients", "mountPath": "/etc/fraud/clients", "readOnly": True})
    out += kafka_mounts(detector, component)
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
