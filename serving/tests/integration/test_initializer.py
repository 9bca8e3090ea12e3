"""The storage initializer against a real MLflow tracking server that keeps packages in an object store, as the chart's does."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud_serving.initializer import parse_model_uri
from fraud_serving.served_model import ServedModel
from fraud_testing import objects, packages
from fraud_testing.kafka import CACHE, free_port, wait_for
from fraud_testing.required import require

pytestmark = pytest.mark.integration
MLFLOW = CACHE / "envs" / "mlflow" / "bin" / "mlflow"


@pytest.fixture(scope="module")
def store() -> Iterator[objects.Server]:
    require(objects.missing())
    with objects.server() as running:
        yield running


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory, store: objects.Server) -> Iterator[str]:
    """Its address. The store's keys are in its environment alone."""
    require(None if MLFLOW.exists() else f"no MLflow in {MLFLOW}: make env-mlflow")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    environ = {
        **os.environ,
        **store.environment,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONPATH": "",
    }
    environ["PATH"] = f"{MLFLOW.parent}:{environ['PATH']}"
    command = [str(MLFLOW), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{store.uri}/mlflow",
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environ, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(url + "/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_for(answers, 120, "MLflow")
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


@pytest.fixture(scope="module")
def version(tracking: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(version, hex digest) of a small package, registered as training registers."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("package")
    digest = packages.make(folder, [f"f{i}" for i in range(6)], "a" * 64)
    client = MlflowClient(tracking_uri=tracking)
    run = client.create_run(client.create_experiment("tests.cards.training"))
    client.log_artifacts(run.info.run_id, str(folder), "package")
    client.create_registered_model("tests.cards")
    source = f"{run.info.artifact_uri}/package"
    registered = client.create_model_version("tests.cards", source, run.info.run_id, tags={"digest": digest})
    return str(registered.version), digest.removeprefix("sha256:")


def run(uri: str, target: Path, tracking: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "fraud_serving.initializer", uri, str(target)],
        env={**os.environ, "MLFLOW_TRACKING_URI": tracking, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode, (done.stdout.strip().splitlines() or [""])[-1]


def test_a_version_is_fetched_and_loads(
    tracking: str, store: objects.Server, version: tuple[str, str], tmp_path: Path
) -> None:
    """The files arrive through the server from the store, are those of the digest, and the predictor states the registered version."""
    number, digest = version
    code, last = run(f"mlflow://models/tests.cards/{number}#sha256={digest}", tmp_path / "models", tracking)
    assert code == 0, last
    assert any(name.endswith("/package/card.json") for name in store.objects("mlflow"))
    scorer = ServedModel(tmp_path / "models")
    assert (scorer.version, scorer.digest) == (number, f"sha256:{digest}")


def test_another_digest_is_refused(tracking: str, version: tuple[str, str], tmp_path: Path) -> None:
    """What isn't what the release says never reaches the predictor: exit code 1, the reason last, nothing in place."""
    code, last = run(
        f"mlflow://models/tests.cards/{version[0]}#sha256={'0' * 64}", tmp_path / "models", tracking
    )
    assert code == 1
    assert "digest" in last
    assert not list((tmp_path / "models").iterdir())


def test_a_missing_version_is_named(tracking: str, version: tuple[str, str], tmp_path: Path) -> None:
    """A version that isn't registered gives a telling last line."""
    code, last = run(f"mlflow://models/tests.cards/99#sha256={'0' * 64}", tmp_path / "models", tracking)
    assert code == 1
    assert "99" in last


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
