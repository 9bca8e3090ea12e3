"""MLflow's registry over REST: an alias becomes a fixed version with its digest, checked against the package itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import requests

from fraud_contracts.errors import FraudError, StoreError
from fraud_contracts.release import ModelPackage, ScoreMap

TIMEOUT: Final = (3.0, 10.0)
CHAMPION: Final = "champion"


class ModelNotFoundError(FraudError):
    def __init__(self, name: str, wanted: str) -> None:
        super().__init__(f"the registry has no model {name!r} {wanted}")
        self.name, self.wanted = name, wanted


class PackageError(FraudError):
    """A version that must not be served: its files aren't what its digest says, or it lacks one."""


@dataclass(frozen=True)
class Version:
    """A registered version with its tags, and the score map read from its package."""

    name: str
    version: str
    digest: str
    feature_set: str
    training_revision: str
    run_id: str
    seeds: int
    score_map: ScoreMap

    def package(self) -> ModelPackage:
        """Slot and url are the rollout's to fill in."""
        return ModelPackage(
            name=self.name,
            version=self.version,
            digest=self.digest,
            feature_set=self.feature_set,
            slot="a",
            url="",
            score_map=self.score_map,
        )


@dataclass
class Registry:
    """One MLflow server. A version never changes once its package is checked, so it is fetched once."""

    uri: str
    session: requests.Session = field(default_factory=requests.Session)
    _checked: dict[tuple[str, str], Version] = field(default_factory=dict)

    def _get(self, endpoint: str, query: Mapping[str, Any]) -> requests.Response:
        try:
            answer = self.session.get(self.uri.rstrip("/") + endpoint, params=dict(query), timeout=TIMEOUT)
        except requests.RequestException as error:
            raise StoreError("mlflow", f"no answer from {self.uri}: {type(error).__name__}") from error
        if answer.status_code >= 500:
            raise StoreError("mlflow", f"HTTP {answer.status_code} from {endpoint}")
        return answer

    def _json(self, path: str, **query: Any) -> dict[str, Any] | None:
        """None where the registry says that there is no such thing."""
        answer = self._get(f"/api/2.0/mlflow/{path}", query)
        body: Any
        try:
            body = answer.json()
        except ValueError as error:
            raise StoreError("mlflow", f"{path} answered no JSON (HTTP {answer.status_code})") from error
        if answer.status_code == 200 and isinstance(body, dict):
            return body
        code = body.get("error_code") if isinstance(body, dict) else None
        # An alias that isn't set is reported as an invalid parameter.
        if code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise StoreError("mlflow", f"{path}: HTTP {answer.status_code} {code or ''}".strip())

    def alias(self, name: str, alias: str) -> str | None:
        """Version number that an alias points to."""
        body = self._json("registered-models/alias", name=name, alias=alias)
        return None if body is None else str(body["model_version"]["version"])

    def version(self, name: str, version: str) -> Version:
        """A version whose package was checked; ModelNotFoundError or PackageError say why it can't be served."""
        known = self._checked.get((name, version))
        if known is not None:
            return known
        body = self._json("model-versions/get", name=name, version=version)
        if body is None:
            raise ModelNotFoundError(name, f"version {version}")
        found = body["model_version"]
        if found.get("status", "READY") != "READY":
            raise PackageError(f"version {version} of {name} is {found['status']}")
        tags = {tag["key"]: tag["value"] for tag in found.get("tags") or []}
        missing = [tag for tag in ("digest", "feature_set") if not tags.get(tag)]
        if missing:
            raise PackageError(
                f"version {version} of {name} has no tag {', '.join(missing)}: it wasn't made by our training"
            )
        run_id = found.get("run_id") or ""
        score_map = self._score_map(run_id, str(found.get("source", "")), tags["digest"], version)
        made = Version(
            name=name,
            version=version,
            digest=tags["digest"],
            feature_set=tags["feature_set"],
            training_revision=tags.get("training_revision", ""),
            run_id=run_id,
            seeds=int(tags.get("seeds", "0") or 0),
            score_map=score_map,
        )
        self._checked[name, version] = made
        return made

    def _artifact(self, run_id: str, folder: str, name: str) -> bytes:
        answer = self._get("/get-artifact", {"run_id": run_id, "path": f"{folder}/{name}"})
        if answer.status_code != 200:
            raise PackageError(f"{folder}/{name} of run {run_id} can't be read: HTTP {answer.status_code}")
        return answer.content

    def _score_map(self, run_id: str, source: str, digest: str, version: str) -> ScoreMap:
        """The score map of a package, once its manifest gives the digest and serving.json is what the manifest says."""
        folder = source.rstrip("/").rsplit("/", 1)[-1] if source else "package"
        manifest_bytes = self._artifact(run_id, folder, "manifest.json")
        manifest = json.loads(manifest_bytes)
        canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        if digest not in {
            "sha256:" + hashlib.sha256(data).hexdigest() for data in (canonical, manifest_bytes)
        }:
            raise PackageError(f"version {version}: its manifest doesn't give the digest {digest}")
        serving_bytes = self._artifact(run_id, folder, "serving.json")
        if manifest.get("files", {}).get("serving.json") != hashlib.sha256(serving_bytes).hexdigest():
            raise PackageError(f"version {version}: serving.json isn't the file that its manifest lists")
        knots = json.loads(serving_bytes).get("score_map")
        if not knots:
            raise PackageError(f"version {version}: serving.json holds no score_map")
        return [(float(probability), float(score)) for probability, score in knots]

    def trained(self, name: str, revision: str) -> str | None:
        """The newest version that a training revision registered."""
        body = self._json(
            "model-versions/search", filter=f"name='{name}'", max_results=100, order_by="version_number DESC"
        )
        for found in (body or {}).get("model_versions", []):
            tags = {tag["key"]: tag["value"] for tag in found.get("tags") or []}
            if tags.get("training_revision") == revision:
                return str(found["version"])
        return None

    def set_champion(self, name: str, version: str) -> None:
        """The alias is ours alone: it says what is live, and nothing reads it to decide what goes live."""
        try:
            answer = self.session.post(
                f"{self.uri.rstrip('/')}/api/2.0/mlflow/registered-models/alias",
                json={"name": name, "alias": CHAMPION, "version": version},
                timeout=TIMEOUT,
            )
        except requests.RequestException as error:
            raise StoreError("mlflow", f"no answer from {self.uri}: {type(error).__name__}") from error
        if answer.status_code != 200:
            raise StoreError("mlflow", f"setting {CHAMPION} gave HTTP {answer.status_code}")
