"""What a hand may do to each kind of child, and what the operator then puts back."""

from __future__ import annotations

from typing import Any

from fraud_contracts import names
from fraud_contracts.clients import CLIENTS_KEY

LABEL = "app.kubernetes.io/part-of"
LABEL_ONLY = ("ServiceAccount", "RayJob")
# A merge patch of a field that is ours, by kind. A ConfigMap has its documents spoilt; of the others only the label can be changed.
EDITS: dict[str, dict[str, Any]] = {
    "Kafka": {"spec": {"kafka": {"config": {"auto.create.topics.enable": True}}}},
    "KafkaNodePool": {"spec": {"replicas": 3}},
    "KafkaUser": {"spec": {"authorization": {"type": "simple", "acls": []}}},
    "KafkaTopic": {"spec": {"config": {"retention.ms": "60000"}}},
    "Role": {"rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]},
    "RoleBinding": {"subjects": []},
    "NetworkPolicy": {"spec": {"ingress": []}},
    "Service": {"spec": {"selector": {names.DETECTOR_LABEL: "another"}}},
    "InferenceService": {"spec": {"predictor": {"minReplicas": 7}}},
    "Deployment": {"spec": {"replicas": 7}},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 7}},
    "FlinkDeployment": {"spec": {"job": {"parallelism": 7}}},
    "PodMonitor": {"spec": {"podMetricsEndpoints": []}},
    # Another login would be made in the place of an address that is gone.
    "Secret": {"data": {"MLFLOW_TRACKING_URI": "eA=="}},
}


def edit(child: dict[str, Any]) -> dict[str, Any]:
    """The merge patch by which a hand spoils a child of the detector ``payments``."""
    kind, name = child["kind"], child["metadata"]["name"]
    patch: dict[str, Any] = {"metadata": {"labels": {LABEL: "vandal"}}}
    if kind == "Secret" and name == names.keys("payments"):
        return patch | {"data": {"TOKEN_KEY": "eA=="}}
    if kind == "Secret" and name.startswith(names.client("payments", "")):
        return patch  # its keys are people's to change
    if kind == "Secret" and name == names.clients("payments"):
        return patch | {"data": {CLIENTS_KEY: "e30="}}
    if kind == "ConfigMap" and not child.get("immutable"):
        return patch | {"data": dict.fromkeys(child["data"], "{}")}
    return patch | EDITS.get(kind, {})
