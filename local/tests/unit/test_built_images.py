"""A node whose Pods run the shipped images: what it imports, and that nothing is mounted."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from fraud_local import images, paths
from fraud_local.real_images import on_debian, stores


def _tar(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    return out.getvalue()


def test_stores_share_their_layers(tmp_path: Path) -> None:
    """One archive holds several images, a layer that they share once, and each image's document names its layers."""
    for name in ("low", "high"):
        (tmp_path / name).write_bytes(_tar(name))
    low, high = (stores.Layer.of(tmp_path / name) for name in ("low", "high"))
    parts = [
        ("a:1", {"User": "1"}, [low]),
        ("b:1", {"User": "2"}, [low, high]),
        ("c:1", {"User": "1"}, [low]),
    ]
    stores.write(tmp_path / "all.tar", parts)
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert len(tar.getnames()) == len(set(tar.getnames())) == 5
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]  # it is a file
        second = json.loads(tar.extractfile(manifest[1]["Config"]).read())  # type: ignore[union-attr]  # it is a file
    assert [entry["RepoTags"] for entry in manifest] == [["a:1"], ["b:1"], ["c:1"]]
    assert second["rootfs"]["diff_ids"] == [f"sha256:{layer.digest}" for layer in (low, high)]


def test_a_node_without_mounts_has_an_image_for_each_store() -> None:
    """The images that run none of our code are those that values for built images leave as on any native node."""
    names = {image.name for image in stores.store_images()}
    assert names == {"kafka", "redis", "postgres", "prometheus", "objects"}
    values = (paths.LOCAL / "node" / "built-values.yaml").read_text()
    assert all(f"docker.io/fraud-platform/{name}:dev" in values for name in names - {"kafka"})
    assert f"registry: {on_debian.REGISTRY}\n" in values


def test_built_images_have_no_mounts() -> None:
    """A node for built images gives its Pods the default runtime's mounts alone."""
    default = {"process": {"rlimits": [1]}, "mounts": [{"destination": "/proc"}]}
    assert images.runtime_spec(default, {})["mounts"] == default["mounts"]
