"""The example that brings a history to training, as a Job of the user's own."""

from __future__ import annotations

from typing import Any

import yaml

from fraud_contracts import names, object_store
from fraud_local import paths
from fraud_local.real_images.recipes import RECIPES

JOB = yaml.safe_load((paths.CLONE / "manifests/examples/upload-history.yaml").read_text())
POD: dict[str, Any] = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
DETECTOR = "payments"


def test_its_image_is_this_versions() -> None:
    """The training image that `make images` builds: a tag that every cluster with this version of the chart can have."""
    (ray,) = (recipe for recipe in RECIPES if recipe.name == "ray")
    assert CONTAINER["image"] == ray.reference()
    assert POD["imagePullSecrets"] == [{"name": names.pull_secret(DETECTOR)}]


def test_it_has_the_object_stores_keys_and_no_others() -> None:
    """It fetches an address that somebody gives, so no password of another store is in it; each key may be absent, as with a role."""
    assert "envFrom" not in CONTAINER
    references = {
        one["name"]: one["valueFrom"]["secretKeyRef"] for one in CONTAINER["env"] if "valueFrom" in one
    }
    assert references == {
        key: {"name": names.stores(DETECTOR), "key": key, "optional": True} for key in object_store.KEYS
    }


def test_the_trials_object_store_lets_it_in() -> None:
    """By its labels; it is no component of the detector, so it may fetch from anywhere."""
    labels = JOB["spec"]["template"]["metadata"]["labels"]
    assert labels == {names.DETECTOR_LABEL: DETECTOR, names.COMPONENT_LABEL: "upload"}
