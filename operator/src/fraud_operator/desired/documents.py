"""The documents that Pods mount: configuration, release, and the secrets."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final

from fraud_contracts import names
from fraud_contracts.config import (
    CONFIG_KEY,
    MLFLOW_READER_URI,
    MLFLOW_TRACKING_URI,
    POSTGRES_DSN,
    REDIS_URL,
    RELEASE_KEY,
    SECRET_KEYS,
    ca_cert,
)
from fraud_contracts.lineage import LINEAGES_KEY
from fraud_operator.desired.child import Child, Wanted, child, metadata
from fraud_operator.desired.kafka_login import login_documents
from fraud_operator.detector import Detector
from fraud_operator.detector_keys import TOKEN_KEY_DIGEST
from fraud_operator.objects import Json
from fraud_operator.rollout_state import ROLLOUT_KEY

# The one key of a Secret from which Kubernetes pulls images.
DOCKER_CONFIG: Final = ".dockerconfigjson"


def secret_data(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


def decoded(data: Mapping[str, str]) -> dict[str, str]:
    """A Secret's data in plain."""
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}


def build_config(detector: Detector, wanted: Wanted) -> list[Child]:
    """That of the data path, and that of a streaming job beside the one that answers."""
    views = [detector] if wanted.beside is None else [detector, wanted.beside]
    return [_config(view, wanted) for view in views]


def _config(detector: Detector, wanted: Wanted) -> Child:
    config = detector.config.model_copy(update={"token_key": wanted.token_key})
    document = {CONFIG_KEY: config.to_json(), **login_documents(detector)}
    first = wanted.kafka_authority.first
    annotations = {names.FIRST_AUTHORITY_ANNOTATION: first} if first else None
    meta = metadata(detector, detector.config_name, "config", annotations=annotations)
    return child("v1", "ConfigMap", meta, data=document)


def another_lineage(document: Child, live: Json | None) -> bool:
    """Whether what lies in the cluster under this document's name is of another lineage."""
    texts = [(body.get("data") or {}).get(CONFIG_KEY) for body in (document.body, live or {})]
    wanted, found = (json.loads(text) if text else {} for text in texts)
    return any(wanted.get(key) != found.get(key) for key in ("feature_set", "epoch"))


def build_release(detector: Detector, wanted: Wanted) -> list[Child]:
    """One release, for ever the same: what an audit of a decision finds under the decision's release name."""
    by = wanted.state.by
    release = child(
        "v1",
        "ConfigMap",
        metadata(
            detector,
            wanted.release.name,
            "release",
            owned=not detector.retained,
            annotations={names.ORDERED_ANNOTATION: by} if by else None,
        ),
        once=True,
        immutable=True,
        data={RELEASE_KEY: wanted.release.to_json()},
    )
    return [release]


def build_release_pointer(detector: Detector, wanted: Wanted) -> list[Child]:
    """What the data path watches, with the operator's own memory of rollout and lineages beside it."""
    data = {
        RELEASE_KEY: wanted.release.to_json(),
        ROLLOUT_KEY: wanted.state.model_dump_json(exclude_none=True),
        LINEAGES_KEY: wanted.lineages.model_dump_json(exclude_none=True),
    }
    if wanted.token_key is not None:
        data[TOKEN_KEY_DIGEST] = wanted.token_key
    meta = metadata(detector, names.release_pointer(detector.name), "release", owned=not detector.retained)
    return [child("v1", "ConfigMap", meta, data=data)]


def build_keys(detector: Detector, wanted: Wanted) -> list[Child]:
    """Made once and never rewritten: tokens of every stored profile and decision depend on TOKEN_KEY. Nothing where they are lost."""
    values = wanted.keys
    if values is None:
        return []
    missing = [key for key in SECRET_KEYS if key not in values]
    if missing:
        raise ValueError(f"no value for {', '.join(missing)}")
    secret = child(
        "v1",
        "Secret",
        metadata(detector, names.keys(detector.name), "keys", owned=not detector.retained),
        once=True,
        type="Opaque",
        data=secret_data({key: values[key] for key in SECRET_KEYS}),
    )
    return [secret]


def build_stores(detector: Detector, wanted: Wanted) -> list[Child]:
    """What the platform gives for the stores and the storage that the spec leaves out; nothing where it leaves none out.

    Of Redis, PostgreSQL and an MLflow with logins the detector's own, never the platform's: a key whose login isn't made yet isn't
    there, and Pods that can't do without wait for it.
    """
    platform = detector.platform.stores
    data = dict(wanted.stores)
    for key, authority in ((REDIS_URL, platform.redis_ca), (POSTGRES_DSN, platform.postgres_ca)):
        if key in data and authority:
            data[ca_cert(key)] = authority
    if detector.spec.stores.mlflow is None and not platform.mlflow_admin:
        data |= dict.fromkeys((MLFLOW_TRACKING_URI, MLFLOW_READER_URI), platform.mlflow_tracking_uri)
    if detector.storage_secret == names.stores(detector.name):
        data |= detector.platform.storage.credentials
    if not data:
        return []
    meta = metadata(detector, names.stores(detector.name), "stores")
    return [child("v1", "Secret", meta, type="Opaque", data=secret_data(data))]


def build_pull_secret(detector: Detector, wanted: Wanted) -> list[Child]:
    """The platform's logins to image registries, which a Pod needs in its own namespace; nothing where there are none.

    Where Kafka outlives the detector, so do they: a broker that moves to another node is pulled anew.
    """
    if wanted.logins is None:
        return []
    meta = metadata(detector, names.pull_secret(detector.name), "pull", owned=not detector.retained)
    data = secret_data({DOCKER_CONFIG: wanted.logins})
    return [child("v1", "Secret", meta, type="kubernetes.io/dockerconfigjson", data=data)]
