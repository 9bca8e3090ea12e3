"""The earlier version that LIVES=1 puts the platform back to."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fraud_local import earlier, images, paths
from fraud_local.shell import LocalError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(earlier, "FOLDER", paths.CLONE / "build" / f"test-{tmp_path.name}")
    return earlier.FOLDER


def test_its_commit_is_one_of_this_clones_history(folder: Path) -> None:
    """Its chart and its sources lie below build/ then."""
    try:
        chart = earlier.unpack()
        assert (chart / "Chart.yaml").is_file()
        for image in images.development_images():
            assert all((folder / source / "src").is_dir() for source in image.sources)
        settings = (folder / "operator/src/fraud_operator/settings.py").read_text()
        assert f'"{paths.POD_CLONE}/build/{folder.name}/{earlier.SOURCE}"' in settings
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


def test_a_clone_without_it_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of the newest commit alone."""
    monkeypatch.setattr(earlier, "COMMIT", "0" * 40)
    with pytest.raises(LocalError, match="git fetch --unshallow"):
        earlier.unpack()


def test_only_what_runs_our_code_is_put_back() -> None:
    """Stores keep their images, since a trial's object store lives and dies with its Pod."""
    registry = "docker.io/fraud-platform"
    assert earlier.repositories() == {f"{registry}/{one}" for one in ("operator", "ray", "serving", "flink")}
    values = earlier.values()
    assert f"images.overrides.objects={registry}/objects:dev" in values
    assert f"images.tag={earlier.TAG}" in values
    assert not any("kafka" in value for value in values), "Strimzi's, which the chart doesn't name"
