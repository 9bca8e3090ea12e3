"""The predictors of one slot: always a fixed version with its digest, never an alias; and the Service that tells where each of them is."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from fraud_contracts import names
from fraud_contracts.config import HTTP_PORT
from fraud_contracts.detector import Component
from fraud_contracts.release import ModelPackage
from fraud_operator.desired.child import Child, Wanted, child, labels, metadata, selector
from fraud_operator.desired.components import COMPONENTS, replicas, resources
from fraud_operator.desired.placement import placement
from fraud_operator.desired.pod import pod_security, scrape, store_files
from fraud_operator.detector import Detector

API: Final = "serving.kserve.io/v1beta1"
LABEL: Final = COMPONENTS[Component.PREDICTOR].label


def storage_uri(package: ModelPackage, server: str | None = None) -> str:
    """``server``: the detector's own MLflow, where it has one; the platform's initializer knows the platform's only."""
    where = f"?server={quote(server, safe='')}" if server else ""
    digest = package.digest.removeprefix("sha256:")
    return f"mlflow://models/{package.name}/{package.version}{where}#sha256={digest}"


def kserve_url(detector: Detector, slot: str) -> str:
    """By KServe's own Service, as versions of the platform before ours ask."""
    return (
        f"http://{names.predictor(names.inference_service(detector.name, slot))}.{detector.namespace}.svc:80"
    )


def predictors_url(detector: Detector, slot: str) -> str:
    """By the headless Service, of which a client learns each predictor's address."""
    name = names.predictors(names.inference_service(detector.name, slot))
    return f"http://{name}.{detector.namespace}.svc:{HTTP_PORT}"


def build_predictor_services(detector: Detector, wanted: Wanted) -> list[Child]:
    """One for each version that must be served now.

    Of KServe's own the cluster's configuration says whether it is headless, and where it isn't a kept connection stays at one Pod.
    """
    port = {"name": "http", "port": HTTP_PORT, "targetPort": HTTP_PORT, "protocol": "TCP"}
    return [
        child(
            "v1",
            "Service",
            metadata(detector, names.predictors(names.inference_service(detector.name, package.slot)), LABEL),
            spec={
                "clusterIP": "None",
                "selector": {**selector(detector, LABEL), names.SLOT_LABEL: package.slot},
                "ports": [port],
            },
        )
        for package in wanted.state.packages()
    ]


def build_inference_services(detector: Detector, wanted: Wanted) -> list[Child]:
    """One for each version that must be served now."""
    return [_inference_service(detector, package) for package in wanted.state.packages()]


def _inference_service(detector: Detector, package: ModelPackage) -> Child:
    platform = detector.platform
    return child(
        API,
        "InferenceService",
        metadata(
            detector,
            names.inference_service(detector.name, package.slot),
            LABEL,
            # KServe then makes no route of its own, and Ready needs no gateway.
            more_labels={"networking.kserve.io/visibility": "cluster-local", names.SLOT_LABEL: package.slot},
            annotations={
                "serving.kserve.io/deploymentMode": "Standard",
                "serving.kserve.io/autoscalerClass": "none",
            },
        ),
        spec={
            "predictor": {
                # Ready stays True while a new ReplicaSet rolls, so readiness reads this from the Pod template.
                "annotations": {names.MODEL_VERSION_ANNOTATION: package.version, **scrape(HTTP_PORT)},
                "labels": {**labels(detector, LABEL), names.SLOT_LABEL: package.slot},
                "serviceAccountName": names.service_account(detector.name, LABEL),
                "automountServiceAccountToken": False,
                "storageContainerName": platform.storage_container,
                "minReplicas": replicas(detector, Component.PREDICTOR),
                "securityContext": pod_security(),
                # The platform's storage container mounts it, so it must be there.
                "volumes": [store_files(detector, Component.PREDICTOR) or {"name": "stores", "emptyDir": {}}],
                "deploymentStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
                },
                **placement(detector, Component.PREDICTOR, {names.SLOT_LABEL: package.slot}),
                "model": {
                    "modelFormat": {"name": "fraud-package"},
                    "protocolVersion": "v2",
                    "runtime": platform.serving_runtime,
                    "storageUri": storage_uri(
                        package, detector.spec.stores.mlflow.uri if detector.spec.stores.mlflow else None
                    ),
                    "resources": resources(detector, Component.PREDICTOR),
                },
            }
        },
    )
