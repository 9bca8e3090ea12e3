"""A model package: the files of one model version, how its digest is made, and what a reader checks.

A package is a folder of plain files that training makes, MLflow keeps, the operator judges and the predictor serves.
``manifest.json`` names each file with its SHA-256, and the digest is taken over the manifest's bytes. Nothing in it is a
pickle: readers get JSON, ONNX and arrays. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fraud_contracts.errors import FraudError

# Folder of a run's artifacts that holds the package.
PACKAGE_FOLDER: Final = "package"
MANIFEST: Final = "manifest.json"
ONNX: Final = "model.onnx"
NATIVE: Final = "model.lgb.txt"
SERVING: Final = "serving.json"
LEAF_TABLE: Final = "leaf_table.npz"
CARD: Final = "card.json"
FILES: Final = (MANIFEST, ONNX, NATIVE, SERVING, LEAF_TABLE, CARD)
# Left beside a package by whoever fetched it: which version it is. No part of the package.
SOURCE: Final = "source.json"


ScoreKnots = list[tuple[float, float]]
"""Knots (probability, score 0-1000), both ascending; between knots the score is linear in the probability."""


class PackageError(FraudError):
    """A package that must not be served: it is not what its digest or manifest says, or it can't be read."""


@dataclass(frozen=True)
class ServingDocument:
    """``serving.json``: the features that the model takes, and how its probability becomes a score.

    ``base`` is the margin of the leaf table before any split.
    """

    feature_set: str
    feature_names: list[str]
    score_map: ScoreKnots
    base: float
    calibration: dict[str, float] | None = None

    def to_json(self) -> bytes:
        return canonical_json({name: value for name, value in asdict(self).items() if value is not None})

    @classmethod
    def parse(cls, data: bytes) -> ServingDocument:
        """PackageError where a part is missing or of another form."""
        try:
            document = json.loads(data)
            return cls(
                feature_set=str(document["feature_set"]),
                feature_names=[str(name) for name in document["feature_names"]],
                score_map=[
                    (float(probability), float(score)) for probability, score in document["score_map"]
                ],
                base=float(document["base"]),
                calibration=document.get("calibration"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PackageError(f"{SERVING} is not of its form: {type(error).__name__} {error}") from error


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces: equal values give equal bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hex, as the manifest lists it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_digest(manifest: bytes) -> str:
    """The digest of the package whose ``manifest.json`` has these bytes: ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


def write_manifest(folder: Path, about: dict[str, Any]) -> str:
    """Writes ``manifest.json`` over all other files of ``folder`` and gives the package's digest.

    ``about`` joins the manifest, so it decides the digest too: no times, hosts or versions of registries in it.
    """
    files = {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = canonical_json({**about, "files": files})
    (folder / MANIFEST).write_bytes(manifest)
    return package_digest(manifest)


def read_manifest(data: bytes, digest: str | None = None) -> dict[str, Any]:
    """The manifest with these bytes, whose package's digest is ``digest`` where that is given; else PackageError."""
    if digest is not None and package_digest(data) != digest:
        raise PackageError(f"the package's digest is {package_digest(data)}, not {digest}")
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise PackageError(f"{MANIFEST} is no JSON") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise PackageError(f"{MANIFEST} lists no files")
    return manifest


def listed(manifest: dict[str, Any]) -> dict[str, str]:
    """The files of a package with their digests; PackageError where one would lie outside of its folder."""
    files: dict[str, str] = manifest["files"]
    for name in files:
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise PackageError(f"the manifest names a file outside the package: {name}")
    return files


def check_listed(manifest: dict[str, Any], name: str, data: bytes) -> None:
    """PackageError where ``data`` is not what the manifest says of the file ``name``."""
    if manifest["files"].get(name) != hashlib.sha256(data).hexdigest():
        raise PackageError(f"{name} isn't the file that the manifest lists")


def verify(folder: Path, digest: str | None = None) -> dict[str, Any]:
    """The manifest, after each file and (where given) the digest were checked; PackageError says what differs."""
    path = folder / MANIFEST
    if not path.is_file():
        raise PackageError(f"the package has no {MANIFEST}")
    manifest = read_manifest(path.read_bytes(), digest)
    for name, expected in listed(manifest).items():
        file = folder / name
        if not file.is_file():
            raise PackageError(f"the package lacks {name}")
        if file_digest(file) != expected:
            raise PackageError(f"{name} was changed after the package was made")
    return manifest
