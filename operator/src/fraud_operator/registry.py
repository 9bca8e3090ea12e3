"""MLflow's registry over REST: an alias becomes a fixed version with its digest, checked against the package itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import requests
from requests.adapters import HTTPAdapter

from fraud_contracts.errors import FraudError, StoreError
from fraud_contracts.model_package import (
    MANIFEST,
    PACKAGE_FOLDER,
    SERVING,
    PackageError,
    ScoreKnots,
    ServingDocument,
    check_listed,
    read_manifest,
)
from fraud_contracts.model_version import CHAMPION, VersionTags
from fraud_contracts.names import training_run
from fraud_contracts.release import ModelPackage
from fraud_contracts.training_end import REVISION_TAG, TrainingFailure
from fraud_operator.lineage import SeedsOffer
from fraud_operator.registry_login import RegistryLogin

TIMEOUT: Final = (3.0, 10.0)
# A server that gave no answer is left alone for so long: else each detector's pass would wait for it in its turn.
SILENCE: Final = 5.0
# Connections that are kept: as many as passes that may run at once.
CONNECTIONS: Final = 16
# A revision that fails is tried again each half hour: the newest runs are enough to find its last failure.
_NEWEST_RUNS: Final = 10


class ModelNotFoundError(FraudError):
    def __init__(self, name: str, wanted: str) -> None:
        super().__init__(f"the registry has no model {name!r} {wanted}")
        self.name, self.wanted = name, wanted


class RegistryLoginError(StoreError):
    """MLflow answers, and not to this login: 401 where it doesn't know it, 403 where it may not do what was asked."""

    def __init__(self, uri: str, login: RegistryLogin, status: int) -> None:
        super().__init__("mlflow", f"{login.place}: {uri} refuses the login (HTTP {status}): {login.remedy}")
        self.uri, self.login, self.status = uri, login, status


@dataclass(frozen=True)
class Version:
    """A registered version with its tags, and the score map read from its package."""

    name: str
    version: str
    digest: str
    feature_set: str
    training_revision: str
    score_map: ScoreKnots

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


class TrainedVersion(NamedTuple):
    """``seeds``: those that its training wrote; None where it wrote none."""

    version: str
    seeds: SeedsOffer | None


def _session() -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return session


@dataclass
class Registry:
    """One MLflow server, for all detectors that use it. A version never changes once its package is checked, so it is fetched once."""

    uri: str
    session: requests.Session = field(default_factory=_session)
    clock: Callable[[], float] = time.monotonic
    login: RegistryLogin = field(default_factory=RegistryLogin)
    _checked: dict[tuple[str, str], Version] = field(default_factory=dict)
    # Until when it is left alone, and why.
    _silent: tuple[float, str] = (0.0, "")

    def __post_init__(self) -> None:
        self.login.use(self.session)

    def _ask(self, method: str, endpoint: str, **content: Any) -> requests.Response:
        until, why = self._silent
        if self.clock() < until:
            raise StoreError("mlflow", why)
        url = self.uri.rstrip("/") + endpoint
        try:
            # Whoever names a registry must not send the operator, which reaches more than they do, on to elsewhere.
            answer = self.session.request(method, url, timeout=TIMEOUT, allow_redirects=False, **content)
        except requests.RequestException as error:
            why = f"no answer from {self.uri}: {type(error).__name__}"
            self._silent = self.clock() + SILENCE, why
            raise StoreError("mlflow", why) from error
        if answer.is_redirect:
            remedy = "redirects aren't followed: name the address that it sends to as the registry's"
            raise StoreError("mlflow", f"HTTP {answer.status_code} from {endpoint}: {remedy}")
        # Who came without a login and gets 403 may be at fault in something else, such as the server's name.
        if answer.status_code == 401 or (answer.status_code == 403 and self.login.known):
            raise RegistryLoginError(self.uri, self.login, answer.status_code)
        if answer.status_code >= 500:
            raise StoreError("mlflow", f"HTTP {answer.status_code} from {endpoint}")
        return answer

    def _json(self, path: str, **query: Any) -> dict[str, Any] | None:
        """None where the registry says that there is no such thing."""
        return _body(path, self._ask("GET", f"/api/2.0/mlflow/{path}", params=query))

    def alias(self, name: str, alias: str) -> str | None:
        """Version number that an alias points to."""
        body = self._json("registered-models/alias", name=name, alias=alias)
        return None if body is None else str(body["model_version"]["version"])

    def version(self, name: str, version: str) -> Version:
        """A version whose package was checked; ModelNotFoundError or PackageError say why it can't be served."""
        checked = self._checked.get((name, version))
        if checked is not None:
            return checked
        body = self._json("model-versions/get", name=name, version=version)
        if body is None:
            raise ModelNotFoundError(name, f"version {version}")
        registered = body["model_version"]
        if registered.get("status", "READY") != "READY":
            raise PackageError(f"version {version} of {name} is {registered['status']}")
        try:
            tags = VersionTags.parse(_tags(registered))
            run_id = registered.get("run_id") or ""
            score_map = self._score_map(run_id, str(registered.get("source", "")), tags.digest)
        except PackageError as error:
            raise PackageError(f"version {version} of {name}: {error}") from error
        result = Version(
            name=name,
            version=version,
            digest=tags.digest,
            feature_set=tags.feature_set,
            training_revision=tags.training_revision,
            score_map=score_map,
        )
        self._checked[name, version] = result
        return result

    def _artifact(self, run_id: str, folder: str, name: str) -> bytes:
        answer = self._ask("GET", "/get-artifact", params={"run_id": run_id, "path": f"{folder}/{name}"})
        if answer.status_code != 200:
            raise PackageError(f"{folder}/{name} of run {run_id} can't be read: HTTP {answer.status_code}")
        return answer.content

    def _score_map(self, run_id: str, source: str, digest: str) -> ScoreKnots:
        """The score map of a package, once its manifest gives the digest and serving.json is what the manifest says."""
        folder = source.rstrip("/").rsplit("/", 1)[-1] if source else PACKAGE_FOLDER
        manifest = read_manifest(self._artifact(run_id, folder, MANIFEST), digest)
        serving = self._artifact(run_id, folder, SERVING)
        check_listed(manifest, SERVING, serving)
        score_map = ServingDocument.parse(serving).score_map
        if not score_map:
            raise PackageError(f"{SERVING} holds no score_map")
        return score_map

    def trained(self, name: str, revision: str) -> TrainedVersion | None:
        """The newest version that a training revision registered."""
        body = self._json(
            "model-versions/search", filter=f"name='{name}'", max_results=100, order_by="version_number DESC"
        )
        for version in (body or {}).get("model_versions", []):
            tags = _tags(version)
            if tags.get(REVISION_TAG) == revision:
                return TrainedVersion(str(version["version"]), _seeds(revision, tags))
        return None

    def failure(self, experiment: str, revision: str, since: int) -> TrainingFailure | None:
        """Why the newest run of a training revision made no model, if it ended at or after ``since`` (UTC ms)."""
        body = self._json("experiments/get-by-name", experiment_name=experiment)
        if body is None:
            return None
        query = {
            "experiment_ids": [body["experiment"]["experiment_id"]],
            "filter": f"tags.{REVISION_TAG} = '{revision}'",
            "order_by": ["attributes.start_time DESC"],
            "max_results": _NEWEST_RUNS,
        }
        path = "runs/search"
        answer = _body(path, self._ask("POST", f"/api/2.0/mlflow/{path}", json=query))
        for run in (answer or {}).get("runs", []):
            failure = TrainingFailure.parse(_tags(run["data"]))
            if failure is not None:
                return failure if failure.ended >= since else None
        return None

    def set_champion(self, name: str, version: str) -> None:
        """The alias is ours alone: it says what is live, and nothing reads it to decide what goes live."""
        answer = self._ask(
            "POST",
            "/api/2.0/mlflow/registered-models/alias",
            json={"name": name, "alias": CHAMPION, "version": version},
        )
        if answer.status_code != 200:
            raise StoreError("mlflow", f"setting {CHAMPION} gave HTTP {answer.status_code}")


def _seeds(revision: str, tags: Mapping[str, str]) -> SeedsOffer | None:
    """What a version's training wrote for a streaming job to begin with; None where that was nothing, or can't be read."""
    try:
        version = VersionTags.parse(tags)
    except PackageError:
        return None
    if not version.seeds:
        return None
    if version.starts_at is None or version.as_of is None:  # of before a training's end was fixed
        return SeedsOffer(revision[:8], None)
    return SeedsOffer(training_run(revision, version.as_of), version.starts_at, version.topics or {})


def _tags(holder: Mapping[str, Any]) -> dict[str, str]:
    """Of a version, or of a run's data, as the REST API lists them."""
    return {tag["key"]: tag["value"] for tag in holder.get("tags") or []}


def _body(path: str, answer: requests.Response) -> dict[str, Any] | None:
    """The answer's JSON object; None where the registry says that there is no such thing."""
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
