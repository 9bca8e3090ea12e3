"""Our own processes: a table of what they are, and one builder for a workload with its Service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from fraud_contracts import names
from fraud_contracts.config import HTTP_PORT, METRICS_PORT
from fraud_contracts.detector import Component
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
from fraud_operator.desired.components import COMPONENTS, replicas, resources
from fraud_operator.desired.placement import placement
from fraud_operator.desired.pod import (
    container_security,
    environment,
    mounts,
    pod_security,
    probe,
    scrape,
    volumes,
)
from fraud_operator.detector import Detector
from fraud_operator.objects import Json
from fraud_operator.settings import Images


@dataclass(frozen=True)
class Port:
    """The one port of a process: its API with /metrics, or /metrics alone."""

    name: str
    number: int


HTTP: Final = Port("http", HTTP_PORT)
METRICS: Final = Port("metrics", METRICS_PORT)
# A new Pod is ready before an old one goes.
_NEVER_FEWER: Final = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
# A surging Pod would take partitions from the one that is about to end anyway.
_ONE_AFTER_THE_OTHER: Final = {"type": "Recreate"}


@dataclass(frozen=True)
class Workload:
    """A process of ours, of which each detector has one Deployment.

    ``title`` is what people read in conditions; ``module`` is started with ``python -m``. ``data_path``: it decides, so
    it watches the release, ServingReady waits for it, and each replica is asked which release it uses.
    """

    component: Component
    title: str
    name: Callable[[str], str]
    image: Callable[[Images], str]
    module: str
    port: Port
    strategy: Mapping[str, object] | None = None
    data_path: bool = False
    service: bool = False

    @property
    def label(self) -> str:
        return COMPONENTS[self.component].label

    @property
    def storage(self) -> bool:
        return COMPONENTS[self.component].storage


DECISION_SERVICE: Final = Workload(
    Component.DECISION_SERVICE,
    "the decision service",
    names.decision_service,
    lambda images: images.serving,
    "fraud_serving.decision",
    HTTP,
    strategy=_NEVER_FEWER,
    data_path=True,
    service=True,
)
WORKER: Final = Workload(
    Component.WORKER,
    "the decision worker",
    names.worker,
    lambda images: images.serving,
    "fraud_serving.worker",
    METRICS,
    strategy=_NEVER_FEWER,
    data_path=True,
)


def _sink(component: Component, store: str) -> Workload:
    """``store`` is what it writes to, after which its name, title and module are called."""
    return Workload(
        component,
        f"the {store} sink",
        partial(names.sink, store=store),
        lambda images: images.sinks,
        f"fraud_sinks.{store}",
        METRICS,
        strategy=_ONE_AFTER_THE_OTHER,
    )


PROFILE_SINK: Final = _sink(Component.PROFILE_SINK, "profile")
LEDGER_SINK: Final = _sink(Component.LEDGER_SINK, "ledger")
LAKE_SINK: Final = _sink(Component.LAKE_SINK, "lake")
CONSOLE: Final = Workload(
    Component.CONSOLE,
    "the console",
    names.console,
    lambda images: images.console,
    "fraud_console",
    HTTP,
    service=True,
)
WORKLOADS: Final = (DECISION_SERVICE, WORKER, PROFILE_SINK, LEDGER_SINK, LAKE_SINK, CONSOLE)


def build_workload(detector: Detector, workload: Workload, wanted: Wanted) -> list[Child]:
    """The Deployment; then, where it has one, its Service."""
    name, label = workload.name(detector.name), workload.label
    spec: Json = {
        "replicas": replicas(detector, workload.component),
        "revisionHistoryLimit": 3,
    }
    spec["selector"] = {"matchLabels": selector(detector, label)}
    if workload.strategy is not None:
        spec["strategy"] = dict(workload.strategy)
    spec["template"] = pod_template(detector, workload, wanted)
    meta = metadata(detector, name, label)
    # Without Pods it needs none, so it may always be stopped.
    needs_storage = workload.storage and spec["replicas"] > 0
    children = [child("apps/v1", "Deployment", meta, needs_storage=needs_storage, spec=spec)]
    if workload.service:
        children.append(_service(detector, workload))
    return children


def _service(detector: Detector, workload: Workload) -> Child:
    port = workload.port
    return child(
        "v1",
        "Service",
        metadata(detector, workload.name(detector.name), workload.label),
        spec={
            "selector": selector(detector, workload.label),
            "ports": [{"name": port.name, "port": port.number, "targetPort": port.name, "protocol": "TCP"}],
        },
    )


def pod_template(detector: Detector, workload: Workload, wanted: Wanted) -> Json:
    """A Pod with one container. Only what watches the release has a token of the API server."""
    label, port, storage = workload.label, workload.port, workload.storage
    account = names.service_account(detector.name, COMPONENTS[workload.component].account)
    pod: Json = {
        "serviceAccountName": account,
        "automountServiceAccountToken": workload.data_path,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": 30,
        **placement(detector, workload.component),
        "containers": [
            {
                "name": label,
                "image": workload.image(detector.platform.images),
                "imagePullPolicy": detector.platform.image_pull_policy,
                "command": ["python", "-m", workload.module],
                "env": environment(detector, workload.component),
                "ports": [{"name": port.name, "containerPort": port.number, "protocol": "TCP"}],
                "startupProbe": probe("/healthz", port.name, period=2, failures=60),
                "readinessProbe": probe("/readyz", port.name),
                # One that is slow because it is busy answers in the end; a restart would only take more time from the others.
                "livenessProbe": probe("/healthz", port.name, period=10, failures=6, timeout=10),
                "resources": resources(detector, workload.component),
                "securityContext": container_security(),
                "volumeMounts": mounts(
                    detector, workload.component, release=workload.data_path, storage=storage
                ),
            }
        ],
        "volumes": volumes(detector, workload.component, release=workload.data_path, storage=storage),
    }
    annotations = {
        names.CONFIG_HASH_ANNOTATION: detector.config_hash,
        **(storage_annotations(wanted) if storage else {}),
        **kafka_annotations(wanted, workload.component),
        **scrape(port.number),
    }
    return {"metadata": {"labels": labels(detector, label), "annotations": annotations}, "spec": pod}
