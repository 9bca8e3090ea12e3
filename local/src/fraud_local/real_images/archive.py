"""What lies in an image, read from its docker-archive, and what is wrong with it. Pure but for reading the file. Standard library only."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fraud_local.real_images.recipes import Recipe

# A key is a small file. Packages of others bring keys for their own tests, which are no secrets of ours.
_KEY_BYTES = 256 * 1024
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_CREDENTIAL_FILES = re.compile(
    r"(.*/)?(\.netrc|\.npmrc|\.pypirc|\.git-credentials|pip\.conf|uv\.toml|settings\.xml|id_(rsa|ed25519)|\.docker/config\.json|\.env)"
)
_SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|CREDENTIAL|API_?KEY)", re.I)
_LOGIN = re.compile(r"://[^/@\s]+:[^/@\s]+@")
_DISTRIBUTION = re.compile(r"opt/[a-z]+-env/lib/python3\.\d+/site-packages/([^/]+)-[^-/]+\.dist-info")


@dataclass
class ImageContent:
    """``config`` as the image's own document has it; ``files`` of the last layer's view with their sizes, without folders.

    ``keys``: files of any layer that hold a private key. ``layers``: bytes of each layer, unpacked.
    """

    config: Mapping[str, Any]
    files: dict[str, int] = field(default_factory=dict)
    every_file: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)

    @property
    def settings(self) -> Mapping[str, Any]:
        return dict(self.config.get("config") or {})

    @property
    def environ(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.settings.get("Env") or [])

    @property
    def commands(self) -> list[str]:
        """What built each layer."""
        return [str(step.get("created_by", "")) for step in self.config.get("history") or []]

    @property
    def distributions(self) -> set[str]:
        """The Python packages of its environment."""
        matches = (_DISTRIBUTION.match(path) for path in self.files)
        return {normal(match[1]) for match in matches if match}


def normal(name: str) -> str:
    """A Python package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(path: Path) -> ImageContent:
    """The image of an archive that holds one, as `buildah push` and `docker save` write it."""
    with tarfile.open(path) as archive:
        manifest = json.load(_member(archive, "manifest.json"))[0]
        content = ImageContent(json.load(_member(archive, manifest["Config"])))
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=_member(archive, layer)) as tar:
                _add_layer(content, tar)
    return content


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    # A layer that two images share is a link to the first.
    member = archive.extractfile(name)
    assert member is not None, name
    return member


def _add_layer(content: ImageContent, tar: tarfile.TarFile) -> None:
    files: dict[str, int] = {}
    for entry in tar:
        path = PurePosixPath("/", entry.name).relative_to("/")
        if path.name.startswith(".wh."):
            _remove(content, path)
        elif not entry.isdir():
            files[str(path)] = entry.size
            if _holds_key(tar, entry, path):
                content.keys.append(str(path))
    content.files |= files
    content.every_file |= files.keys()
    content.layers.append(sum(files.values()))


def _holds_key(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: PurePosixPath) -> bool:
    if not entry.isreg() or entry.size > _KEY_BYTES or _brought_by_others(path):
        return False
    stream = tar.extractfile(entry)
    return stream is not None and _PRIVATE_KEY.search(stream.read()) is not None


def _brought_by_others(path: PurePosixPath) -> bool:
    """Whether it lies in a Python package that isn't ours."""
    folder, _, package = str(path).partition("site-packages/")
    return folder != str(path) and not package.startswith("fraud_")


def _remove(content: ImageContent, marker: PurePosixPath) -> None:
    """A layer takes away a file of lower layers, or all that they have in a folder."""
    opaque = marker.name == ".wh..wh..opq"
    gone = str(marker.parent if opaque else marker.with_name(marker.name.removeprefix(".wh.")))
    for path in [path for path in content.files if path == gone or path.startswith(f"{gone}/")]:
        del content.files[path]


def locked(text: str) -> set[str]:
    """The packages that a lock names."""
    return {normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", text, re.M)}


def problems(recipe: Recipe, content: ImageContent, lock: str, environ: Mapping[str, str]) -> list[str]:
    """What is wrong with an image, a sentence each. ``environ``: this machine's, whose secrets the image may not have."""
    return [f"{recipe.name}: {text}" for text in _problems(recipe, content, lock, environ)]


def _problems(recipe: Recipe, content: ImageContent, lock: str, environ: Mapping[str, str]) -> Iterator[str]:
    user = str(content.settings.get("User", ""))
    if not user.partition(":")[0].isdecimal() or user.partition(":")[0] == "0":
        yield f"its user is {user or 'root'}, not a number of one that isn't root"
    wanted = locked(lock) | {f"fraud-{source}" for source in recipe.sources}
    if surplus := sorted(content.distributions - wanted):
        yield f"it holds packages that its lock doesn't name: {', '.join(surplus)}"
    if absent := sorted(wanted - content.distributions):
        yield f"it lacks packages of its lock: {', '.join(absent)}"
    for pattern in recipe.holds:
        if not any(PurePosixPath(path).match(pattern) for path in content.files):
            yield f"it has no {pattern}"
    for path in sorted(content.every_file):
        if _CREDENTIAL_FILES.fullmatch(path) and not _brought_by_others(PurePosixPath(path)):
            yield f"/{path} may hold credentials"
    for path in content.keys:
        yield f"/{path} holds a private key"
    for name, value in content.environ.items():
        if _SECRET_NAME.search(name) and value:
            yield f"its environment sets {name}"
    text = json.dumps(content.config)
    if _LOGIN.search(text):
        yield "an address in its configuration or history has a login"
    for name, value in environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 8 and value in text:
            yield f"its configuration or history has this machine's {name}"
