"""The stores' images for a node that mounts nothing into its Pods: what a development image would be given is in layers of its own.

Kafka and the trial stores are other projects' programs. On the native node they come from Debian packages, jars and Go modules, since
no image registry is reached; everywhere else from their projects' images. Standard library only.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud_local import build, images, paths
from fraud_local.real_images import roots

PACKAGES = ("redis-server", "postgresql-15", "prometheus", "openjdk-17-jre-headless")
ARCHIVE = paths.BUILT_IMAGES / "stores.tar"
# The trial store makes its own cluster, where its volume is.
NO_CLUSTER = 'mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"'


@dataclass(frozen=True)
class Layer:
    """A tar file and its digest."""

    path: Path
    digest: str

    @classmethod
    def of(cls, path: Path) -> Layer:
        with path.open("rb") as stream:
            return cls(path, hashlib.file_digest(stream, "sha256").hexdigest())


def store_images() -> list[images.Image]:
    """The development images that run none of our code."""
    return [image for image in images.development_images() if image.env is None]


def ensure() -> Path:
    """The stores' images in one archive, whose layers they share; made again only where something of theirs has changed."""
    paths.BUILT_IMAGES.mkdir(parents=True, exist_ok=True)
    stores = store_images()
    pom = paths.LOCAL / "maven" / "kafka" / "pom.xml"
    key = build.digest(
        repr((PACKAGES, NO_CLUSTER, stores)),
        pom,
        build.objects_key(),
        inspect.getsource(images),
        inspect.getsource(_make),
    )
    build.step("image-stores", "images of the stores", key, ARCHIVE, lambda: _make(stores, ARCHIVE))
    return ARCHIVE


def _make(stores: list[images.Image], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        roots.mmdebstrap(PACKAGES, [f"--essential-hook={NO_CLUSTER}"], folder / "debian.tar")
        shared = [Layer.of(folder / "debian.tar")]
        parts: list[tuple[str, dict[str, Any], list[Layer]]] = []
        for image in stores:
            layers = [*shared]
            for number, path in enumerate(image.brings):
                own = folder / f"{image.name}-{number}.tar"
                with tarfile.open(own, "w") as tar:
                    tar.add(path, str(path))
                layers.append(Layer.of(own))
            # Last, as it opens the way to what this machine keeps below /root.
            links = folder / f"{image.name}.tar"
            links.write_bytes(images.layer(image.files))
            parts.append((image.reference, images.configuration(image), [*layers, Layer.of(links)]))
        fresh = folder / "stores.tar"
        write(fresh, parts)
        fresh.rename(target)


def write(target: Path, parts: list[tuple[str, dict[str, Any], list[Layer]]]) -> None:
    """A docker-archive of several images: (reference, configuration, layers from below)."""
    manifest = []
    with tarfile.open(target, "w") as archive:
        kept: set[str] = set()
        for reference, configuration, layers in parts:
            text = json.dumps(images.document(configuration, [layer.digest for layer in layers])).encode()
            name = f"{hashlib.sha256(text).hexdigest()}.json"
            members = [f"{layer.digest}.tar" for layer in layers]
            manifest.append({"Config": name, "RepoTags": [reference], "Layers": members})
            for layer, member in zip(layers, members, strict=True):
                if member not in kept:
                    archive.add(layer.path, member)
            if name not in kept:
                _add(archive, name, text)
            kept |= {*members, name}
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
