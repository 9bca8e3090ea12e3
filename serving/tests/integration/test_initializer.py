"""The storage initializer against a real MLflow tracking server that keeps packages in an object store, as the chart's does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud_contracts import config
from fraud_contracts.names import Identity
from fraud_process.store_address import split_login
from fraud_serving.initializer import parse_model_uri
from fraud_serving.served_model import ServedModel
from fraud_testing import mlflow, objects, packages
from fraud_testing.required import require

pytestmark = pytest.mark.integration
DETECTOR = Identity("tests", "cards")


@pytest.fixture(scope="module")
def store() -> Iterator[objects.Server]:
    require(objects.missing())
    with objects.server() as running:
        yield running


@pytest.fixture(scope="module")
def tracking(store: objects.Server) -> Iterator[mlflow.Server]:
    """It asks for logins. The store's keys are in its environment alone."""
    require(mlflow.missing())
    with mlflow.server(users=True, artifacts=f"{store.uri}/mlflow", more=store.environment) as running:
        yield running


@pytest.fixture(scope="module")
def logins(tracking: mlflow.Server) -> tuple[str, str]:
    return tracking.detector(DETECTOR)


@pytest.fixture(scope="module")
def version(logins: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(version, hex digest) of a small package, registered as training registers, by training's login."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("package")
    digest = packages.make(folder, [f"f{i}" for i in range(6)], "a" * 64)
    address, user, password = split_login(logins[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", user)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        client = MlflowClient(address, address)
        experiment = client.get_experiment_by_name(DETECTOR.experiment)
        assert experiment is not None
        run = client.create_run(experiment.experiment_id)
        client.log_artifacts(run.info.run_id, str(folder), "package")
        source = f"{run.info.artifact_uri}/package"
        registered = client.create_model_version(
            DETECTOR.model, source, run.info.run_id, tags={"digest": digest}
        )
    return str(registered.version), digest.removeprefix("sha256:")


def run(uri: str, target: Path, address: str) -> tuple[int, str]:
    """With the address as the file that a Pod has."""
    stores = target.parent / "stores"
    stores.mkdir(exist_ok=True)
    (stores / config.MLFLOW_TRACKING_URI).write_text(address)
    done = subprocess.run(
        [sys.executable, "-m", "fraud_serving.initializer", uri, str(target)],
        env={**os.environ, config.STORES_ENV: str(stores), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode, (done.stdout.strip().splitlines() or [""])[-1]


def test_a_version_is_fetched_and_loads(
    logins: tuple[str, str], store: objects.Server, version: tuple[str, str], tmp_path: Path
) -> None:
    """The files arrive through the server from the store, are those of the digest, and the predictor states the registered version."""
    number, digest = version
    code, last = run(f"mlflow://models/tests.cards/{number}#sha256={digest}", tmp_path / "models", logins[1])
    assert code == 0, last
    assert any(name.endswith("/package/card.json") for name in store.objects("mlflow"))
    scorer = ServedModel(tmp_path / "models")
    assert (scorer.version, scorer.digest) == (number, f"sha256:{digest}")


def test_another_digest_is_refused(logins: tuple[str, str], version: tuple[str, str], tmp_path: Path) -> None:
    """What isn't what the release says never reaches the predictor: exit code 1, the reason last, nothing in place."""
    code, last = run(
        f"mlflow://models/tests.cards/{version[0]}#sha256={'0' * 64}", tmp_path / "models", logins[1]
    )
    assert code == 1
    assert "digest" in last
    assert not list((tmp_path / "models").iterdir())


def test_a_missing_version_is_named(
    logins: tuple[str, str], version: tuple[str, str], tmp_path: Path
) -> None:
    """A version that isn't registered gives a telling last line."""
    code, last = run(f"mlflow://models/tests.cards/99#sha256={'0' * 64}", tmp_path / "models", logins[1])
    assert code == 1
    assert "99" in last


def test_a_login_that_is_no_good_is_told(
    version: tuple[str, str], logins: tuple[str, str], tmp_path: Path
) -> None:
    """The last line says that MLflow didn't let it in, and not the password."""
    wrong = logins[1].replace(mlflow.PASSWORD, "another-password")
    code, last = run(
        f"mlflow://models/tests.cards/{version[0]}#sha256={version[1]}", tmp_path / "models", wrong
    )
    assert code == 1
    assert "401" in last and "another-password" not in last


@pytest.mark.parametrize(
    "uri", ["mlflow://models/a/champion#sha256=" + "0" * 64, "mlflow://models/a/1", "s3://x"]
)
def test_only_fixed_versions_are_fetched(uri: str) -> None:
    """Aliases, missing digests and other schemes are refused before anything is asked."""
    with pytest.raises(ValueError, match="mlflow://models"):
        parse_model_uri(uri)


def test_a_detectors_own_server_is_in_the_uri() -> None:
    """The server that a URI names is used; without one it is the platform's, from the environment."""
    digest = "a" * 64
    own = parse_model_uri(f"mlflow://models/n.d/3?server=http%3A%2F%2Fmine%3A5000%2Fml#sha256={digest}")
    assert own == ("n.d", "3", digest, "http://mine:5000/ml")
    assert parse_model_uri(f"mlflow://models/n.d/3#sha256={digest}").server is None
