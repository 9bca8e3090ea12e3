"""Which image each Pod of the chart and of a detector asks for, as helm renders it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from fraud_testing.operator_process import find, render

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
VERSION = yaml.safe_load((ROOT / "charts/fraud-platform/Chart.yaml").read_text())["appVersion"]
DIGEST = f"sha256:{'a' * 64}"
RELEASED = (
    "images.registry=registry.example.com/pay",
    f"images.digests.operator={DIGEST}",
    f"images.digests.flink={DIGEST}",
)


def images(*settings: str) -> tuple[str, str]:
    """The operator's own image, and the one that it gives to streaming jobs."""
    documents = render(*settings)
    pod = find(documents, "Deployment", "fraud-platform-operator")["spec"]["template"]["spec"]
    platform = find(documents, "ConfigMap", "fraud-platform-operator")["data"]["platform.json"]
    return pod["containers"][0]["image"], json.loads(platform)["images"]["flink"]


def test_without_a_release_the_tag_is_the_charts_version() -> None:
    """A clone's images are those that `make images` has just built."""
    operator, flink = images()
    assert (operator, flink) == tuple(
        f"docker.io/fraud-platform/{name}:{VERSION}" for name in ("operator", "flink")
    )


def test_a_released_chart_asks_for_digests_wherever_its_images_are() -> None:
    """Who copied them names the other registry, and nothing else."""
    assert images(*RELEASED) == tuple(
        f"registry.example.com/pay/{name}@{DIGEST}" for name in ("operator", "flink")
    )
    mirrored = images(*RELEASED, "images.registry=mirror.example.com/x")
    assert mirrored[0] == f"mirror.example.com/x/operator@{DIGEST}"


def test_a_tag_that_somebody_gives_is_used() -> None:
    """It would otherwise be passed over without a word; a full reference is more than both."""
    assert images(*RELEASED, "images.tag=mine")[0] == "registry.example.com/pay/operator:mine"
    own = "images.overrides.operator=example.com/own:1"
    assert images(*RELEASED, "images.tag=mine", own)[0] == "example.com/own:1"


@pytest.mark.parametrize(
    "setting", ["images.digests.operator=latest", f"images.digests.nobody={DIGEST}", "images.overrides.x=a:1"]
)
def test_what_is_no_image_or_digest_is_refused(setting: str) -> None:
    """By the chart's schema, before anything is installed."""
    with pytest.raises(AssertionError, match="schema"):
        render(setting)


def test_the_page_on_models_finds_the_training_image() -> None:
    """Its command reads the image that this cluster trains with out of the operator's own file."""
    page = (ROOT / "docs/models.md").read_text()
    (script,) = re.findall(r"sed -n '([^']+)'", page)
    platform = find(render(*RELEASED), "ConfigMap", "fraud-platform-operator")["data"]["platform.json"]
    printed = subprocess.run(
        ["sed", "-n", script], input=platform, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == f"registry.example.com/pay/ray:{VERSION}"
