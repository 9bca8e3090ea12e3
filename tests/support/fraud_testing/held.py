"""What a Pod holds of Secrets and tokens, read out of its spec, so that another Pod can hold the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_operator.desired.child import Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.detector import Detector
from fraud_operator.objects import Json
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_testing.rollout_states import package

# Variables that say where the stores are which a login in another variable is for.
_ADDRESSES: Final = ("AWS_", "MLFLOW_")
# The volume with the account's token, which the API server adds by itself.
_TOKEN_VOLUME: Final = "kube-api-access-"
_TEMPLATES: Final = {
    "Deployment": ("template",),
    "FlinkDeployment": ("podTemplate",),
    "RayJob": ("rayClusterSpec", "headGroupSpec", "template"),
    "InferenceService": (),
}


@dataclass(frozen=True)
class Held:
    """Parts of a Pod's spec and of its one container's. ``token`` is None where the account decides."""

    account: str = "default"
    token: bool | None = False
    variables: tuple[Json, ...] = ()
    whole_secrets: tuple[Json, ...] = ()
    volumes: tuple[Json, ...] = ()
    mounts: tuple[Json, ...] = ()


def held(pod: Json) -> Held:
    """Of a Pod's spec, by all its containers together; what isn't there doesn't keep the other Pod from starting."""
    containers = list(_containers(pod))
    volumes = [volume for volume in pod.get("volumes") or [] if _holds_secrets(volume)]
    mounted = {volume["name"] for volume in volumes}
    mounts = [mount for one in containers for mount in one.get("volumeMounts") or []]
    variables = [variable for one in containers for variable in one.get("env") or []]
    return Held(
        pod.get("serviceAccountName", "default"),
        pod.get("automountServiceAccountToken"),
        tuple({one["name"]: _optional(one) for one in variables if _is_credential(one)}.values()),
        tuple(_optional(source) for one in containers for source in one.get("envFrom") or []),
        tuple(_optional(volume) for volume in volumes),
        tuple({one["mountPath"]: one for one in mounts if one["name"] in mounted}.values()),
    )


def secret_items(pod: Json) -> set[str]:
    """All that a Pod's spec takes of Secrets, each as <Secret>/<key>, or <Secret>/* where it is a whole one."""
    return {item for source in _sources(pod) for item in _items(source)}


def _containers(pod: Json) -> Iterator[Json]:
    yield from pod.get("initContainers") or []
    yield from pod["containers"]


def _is_credential(variable: Json) -> bool:
    return "secretKeyRef" in (variable.get("valueFrom") or {}) or (
        "value" in variable and variable["name"].startswith(_ADDRESSES)
    )


def _holds_secrets(volume: Json) -> bool:
    if volume["name"].startswith(_TOKEN_VOLUME):
        return False
    sources = (volume.get("projected") or {}).get("sources") or []
    return "secret" in volume or any("secret" in one or "serviceAccountToken" in one for one in sources)


def _sources(value: Any) -> Iterator[Json]:
    """Every reference to a Secret within, whichever form it has."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ("secretKeyRef", "secretRef", "secret") and isinstance(part, dict):
                yield part
            else:
                yield from _sources(part)
    elif isinstance(value, list):
        for part in value:
            yield from _sources(part)


def _items(source: Json) -> list[str]:
    name = source.get("name") or source["secretName"]
    keys = [source["key"]] if "key" in source else [item["key"] for item in source.get("items") or []]
    return [f"{name}/{key}" for key in keys] or [f"{name}/*"]


def _optional(part: Json) -> Json:
    changed = copy.deepcopy(part)
    for source in _sources(changed):
        source["optional"] = True
    return changed


def built_pods(detector: Detector, storage_container: Json) -> dict[Component, Json]:
    """The spec of a Pod of each component as the operator makes it; KServe adds the predictor's ``storage_container``."""
    state = RolloutState(stable=package("1"))
    release = make_release(detector, state, None, detector.spec.policy)
    pods = {}
    for child in build_children(detector, Wanted(release, state, "probe")):
        if child.kind in _TEMPLATES:
            label = child.body["metadata"]["labels"][names.COMPONENT_LABEL]
            component = next(one for one in Component if COMPONENTS[one].label == label)
            pods[component] = _pod(child.kind, child.body["spec"], storage_container)
    return pods


def _pod(kind: str, spec: Json, storage_container: Json) -> Json:
    template = spec
    for part in _TEMPLATES[kind]:
        template = template[part]
    if kind == "InferenceService":
        return {**spec["predictor"], "containers": [storage_container]}
    account = {"serviceAccountName": spec["serviceAccount"]} if kind == "FlinkDeployment" else {}
    return {**template["spec"], **account}
