"""The registry client against a real MLflow server with proxied artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
import requests

from fraud_contracts.errors import StoreError
from fraud_contracts.model_package import PackageError, ServingDocument, canonical_json, package_digest
from fraud_contracts.training_end import TrainingFailure
from fraud_operator.lineage import SeedsOffer
from fraud_operator.registry import ModelNotFoundError, Registry
from fraud_testing import mlflow as mlflow_server
from fraud_testing.required import require

pytestmark = pytest.mark.integration
MODEL = "payments.cards"


@pytest.fixture(scope="module")
def mlflow() -> Iterator[str]:
    require(mlflow_server.missing())
    with mlflow_server.server() as running:
        yield running.url


def _post(url: str, path: str, **body: object) -> dict[str, object]:
    answer = requests.post(f"{url}/api/2.0/mlflow/{path}", json=body, timeout=20)
    assert answer.ok, answer.text
    content: dict[str, object] = answer.json()
    return content


def publish(url: str, revision: str, *, tamper: bool = False) -> str:
    """Registers a version as training does: a package logged through the proxy, tags, the alias challenger."""
    serving = ServingDocument("ab" * 32, ["amount"], [(0.0, 0.0), (0.5, 700.0), (1.0, 1000.0)], 0.0).to_json()
    manifest = canonical_json({"files": {"serving.json": hashlib.sha256(serving).hexdigest()}})
    digest = package_digest(manifest)
    name = f"e-{revision}"
    experiment = str(_post(url, "experiments/create", name=name)["experiment_id"])
    run = _post(url, "runs/create", experiment_id=experiment, start_time=0)["run"]
    info = run["info"]  # type: ignore[index]  # JSON of the server
    root = str(info["artifact_uri"]).partition("mlflow-artifacts:/")[2].lstrip("/")
    for file, data in (("manifest.json", manifest), ("serving.json", serving + (b" " if tamper else b""))):
        path = f"{url}/api/2.0/mlflow-artifacts/artifacts/{root}/package/{file}"
        assert requests.put(path, data=data, timeout=20).ok
    requests.post(f"{url}/api/2.0/mlflow/registered-models/create", json={"name": MODEL}, timeout=20)
    tags = {"digest": digest, "feature_set": "ab" * 32, "training_revision": revision, "seeds": "12"}
    created = _post(
        url,
        "model-versions/create",
        name=MODEL,
        source=f"{info['artifact_uri']}/package",
        run_id=info["run_id"],
        tags=[{"key": key, "value": value} for key, value in tags.items()],
    )
    version = str(created["model_version"]["version"])  # type: ignore[index]  # JSON of the server
    _post(url, "registered-models/alias", name=MODEL, alias="challenger", version=version)
    return version


def test_an_alias_becomes_a_checked_version(mlflow: str) -> None:
    """An alias resolves to a number, the package is checked, and champion is what we set."""
    registry = Registry(mlflow)
    assert registry.alias(MODEL, "challenger") is None
    assert registry.trained(MODEL, "r1") is None
    version = publish(mlflow, "r1")
    assert registry.alias(MODEL, "challenger") == version
    assert registry.trained(MODEL, "r1") == (version, SeedsOffer("r1", None))
    assert registry.trained(MODEL, "r2") is None
    checked = registry.version(MODEL, version)
    assert checked.score_map == [(0.0, 0.0), (0.5, 700.0), (1.0, 1000.0)]
    assert (checked.feature_set, checked.training_revision) == ("ab" * 32, "r1")
    assert registry.alias(MODEL, "champion") is None
    registry.set_champion(MODEL, version)
    assert registry.alias(MODEL, "champion") == version
    with pytest.raises(ModelNotFoundError):
        registry.version(MODEL, "99")


def test_a_changed_package_is_refused(mlflow: str) -> None:
    """A file that isn't what the manifest lists never reaches a release."""
    version = publish(mlflow, "bad", tamper=True)
    with pytest.raises(PackageError, match=r"serving\.json"):
        Registry(mlflow).version(MODEL, version)


def test_a_failed_run_says_why(mlflow: str) -> None:
    """The newest run of the revision is read; one of another revision or from before the wanted time says nothing."""
    registry = Registry(mlflow)
    assert registry.failure("payments.training", "r9", 0) is None
    experiment = str(_post(mlflow, "experiments/create", name="payments.training")["experiment_id"])
    for start, revision, message in ((1, "r9", "first"), (2, "r9", "second"), (3, "r8", "another")):
        failure = TrainingFailure(reason="NoHistory", message=message, ended=100 * start)
        tags = [{"key": key, "value": value} for key, value in failure.to_tags(revision).items()]
        _post(mlflow, "runs/create", experiment_id=experiment, start_time=start, tags=tags)
    failure = registry.failure("payments.training", "r9", 200)
    assert failure == TrainingFailure(reason="NoHistory", message="second", ended=200)
    assert registry.failure("payments.training", "r9", 201) is None
    assert registry.failure("payments.training", "r7", 0) is None


def test_no_server_is_a_store_error() -> None:
    """A registry that gives no answer is a StoreError, which a pass survives."""
    with pytest.raises(StoreError, match="no answer"):
        Registry("http://127.0.0.1:9").alias(MODEL, "challenger")
