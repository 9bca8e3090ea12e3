"""The documents that Pods mount: configuration, release, and the secrets."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from fraud_contracts import names
from fraud_contracts.config import CONFIG_KEY, RELEASE_KEY, SECRET_KEYS
from fraud_contracts.release import Release
from fraud_operator.desired.common import Child, child, metadata
from fraud_operator.detector import Detector
from fraud_operator.rollout_state import ROLLOUT_KEY, State


def _encoded(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


def build_config(detector: Detector) -> Child:
    return child(
        "v1",
        "ConfigMap",
        metadata(detector, names.config(detector.name), "config"),
        data={CONFIG_KEY: detector.config.to_json()},
    )


def build_release(detector: Detector, release: Release) -> Child:
    """One release, for ever the same: what an audit of a decision finds under the decision's release name."""
    return child(
        "v1",
        "ConfigMap",
        metadata(detector, release.name, "release", owned=not detector.retained),
        once=True,
        immutable=True,
        data={RELEASE_KEY: release.to_json()},
    )


def build_release_pointer(detector: Detector, release: Release, state: State) -> Child:
    """What the data path watches, with the operator's own memory of the rollout beside it."""
    return child(
        "v1",
        "ConfigMap",
        metadata(detector, names.release_pointer(detector.name), "release", owned=not detector.retained),
        data={RELEASE_KEY: release.to_json(), ROLLOUT_KEY: state.model_dump_json(exclude_none=True)},
    )


def build_keys(detector: Detector, values: Mapping[str, str]) -> Child:
    """Made once and never rewritten: tokens of every stored profile and decision depend on TOKEN_KEY."""
    missing = [key for key in SECRET_KEYS if key not in values]
    if missing:
        raise ValueError(f"no value for {', '.join(missing)}")
    return child(
        "v1",
        "Secret",
        metadata(detector, names.keys(detector.name), "keys", owned=not detector.retained),
        once=True,
        type="Opaque",
        data=_encoded({key: values[key] for key in SECRET_KEYS}),
    )


def build_stores(detector: Detector) -> Child | None:
    """The platform's addresses of the stores that the spec leaves out; None where it gives all three."""
    stores, platform = detector.spec.stores, detector.platform.stores
    data = {}
    if stores.redis is None:
        data["REDIS_URL"] = platform.redis_url
    if stores.postgres is None:
        data["POSTGRES_DSN"] = platform.postgres_dsn
    if stores.mlflow is None:
        data["MLFLOW_TRACKING_URI"] = platform.mlflow_tracking_uri
    if not data:
        return None
    return child(
        "v1",
        "Secret",
        metadata(detector, names.stores(detector.name), "stores"),
        type="Opaque",
        data=_encoded(data),
    )
