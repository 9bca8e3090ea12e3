"""One training run. A RayJob runs once: a changed spec is another revision and so another object, never a patched one.

Whoever may submit to a Ray head runs code beside the token key. So each run has a token of its own: KubeRay makes it, in a Secret
that goes with the cluster, gives it to head and submitter, and uses it itself.
"""

from __future__ import annotations

import math
from typing import Final

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_contracts.training_end import SEEDS_ENV
from fraud_operator.desired.child import Child, Wanted, child, labels, metadata
from fraud_operator.desired.components import COMPONENTS, cores, resources
from fraud_operator.desired.placement import node_settings
from fraud_operator.desired.pod import (
    container_security,
    environment,
    mounts,
    pod_security,
    volumes,
)
from fraud_operator.detector import Detector
from fraud_operator.objects import Json

API: Final = "ray.io/v1"
LABEL: Final = COMPONENTS[Component.TRAINING].label


def _pod(detector: Detector, container: Json) -> Json:
    return {
        "metadata": {"labels": labels(detector, LABEL)},
        "spec": {
            "serviceAccountName": names.service_account(detector.name, LABEL),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_security(),
            **node_settings(detector, Component.TRAINING),
            "containers": [container],
            "volumes": volumes(detector, Component.TRAINING, storage=True),
        },
    }


def _seeds(detector: Detector) -> dict[str, str]:
    """Whether the run writes seeds: a streaming job takes them once, so a later training's would be for nobody."""
    seeded = detector.lineage is not None and detector.lineage.seeded
    return {} if seeded else {SEEDS_ENV: "1"}


def build_ray_job(detector: Detector, wanted: Wanted) -> list[Child]:
    """Nothing where no run is wanted now."""
    revision = wanted.training_revision
    if revision is None:
        return []
    detector = wanted.trains or detector
    platform = detector.platform
    sizes = resources(detector, Component.TRAINING)
    train_env = environment(
        detector,
        Component.TRAINING,
        FRAUD_TRAINING_REVISION=revision,
        **_seeds(detector),
        RAY_USAGE_STATS_ENABLED="0",
        # KubeRay sets it as well. One before 1.5.1 knows no authOptions, and then a head without a token ends instead of being open.
        RAY_AUTH_MODE="token",
        PYTHONUNBUFFERED="1",
    )
    head = {
        "name": "ray-head",
        "image": platform.images.ray,
        "imagePullPolicy": platform.image_pull_policy,
        # KubeRay's Service has these: nobody but KubeRay and the submitter comes, and both come here.
        "ports": [{"containerPort": 8265, "name": "dashboard"}],
        "env": train_env,
        "resources": sizes,
        "securityContext": container_security(),
        "volumeMounts": mounts(detector, Component.TRAINING, storage=True),
    }
    submitter = {
        "name": "ray-job-submitter",
        "image": platform.images.ray,
        "imagePullPolicy": platform.image_pull_policy,
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108
        "resources": {
            "requests": {"cpu": "25m", "memory": "192Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "securityContext": container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    submitter_pod = _pod(detector, submitter)
    submitter_pod["spec"]["restartPolicy"] = "Never"
    submitter_pod["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    job = child(
        API,
        "RayJob",
        metadata(
            detector,
            names.ray_job(detector.name, revision),
            LABEL,
            more_labels={names.TRAINING_REVISION_LABEL: revision},
        ),
        once=True,
        needs_storage=True,
        spec={
            "entrypoint": "python -m fraud_ray.train",
            "submissionMode": "K8sJobMode",
            "backoffLimit": 0,
            "activeDeadlineSeconds": platform.ray.deadline_seconds,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 60,
            "submitterConfig": {"backoffLimit": 2},
            "submitterPodTemplate": submitter_pod,
            "rayClusterSpec": {
                "rayVersion": platform.ray.version,
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    # No worker group: what a search needs fits one Pod, and the head may then do the work itself.
                    "rayStartParams": {
                        "dashboard-host": "0.0.0.0",  # noqa: S104
                        "num-cpus": str(max(1, math.floor(cores(sizes["limits"]["cpu"])))),
                    },
                    "template": _pod(detector, head),
                },
            },
        },
    )
    return [job]
