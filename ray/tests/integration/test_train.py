"""A whole run with its real edges: Ray, a tracking server, and a broker where there is one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fraud_contracts import model_package
from fraud_contracts.config import DetectorConfig
from fraud_pipelines.features import compile_detector, read_header
from fraud_ray.card import BASELINES, beats
from fraud_testing import detectors, kafka

pytestmark = [pytest.mark.integration, pytest.mark.slow]
CACHE = Path(os.environ.get("FRAUD_CACHE", Path.home() / ".cache" / "fraud-platform"))
REPO = Path(__file__).resolve().parents[3]
MLFLOW = CACHE / "envs" / "mlflow" / "bin" / "mlflow"
SPEC: dict[str, Any] = {
    "event": {
        "id": {"field": "trans_num"},
        "time": {"field": "unix_time", "unit": "s"},
        "amount": {"field": "amt", "currency": "USD"},
        "fields": [{"name": "category"}],
        "sensitive": ["cc_num", "acct_num"],
    },
    "entities": [
        {"name": "customer", "field": "cc_num"},
        {"name": "counterparty", "field": "merchant", "labelDelay": "7d"},
    ],
    "model": {"train": {"trials": 2, "minLabels": 300}},
    "storage": {"uri": "file:///replaced"},
}


def _need(what: str | None) -> None:
    if what and os.environ.get("FRAUD_REQUIRE") == "all":
        pytest.fail(what)
    if what:
        pytest.skip(what)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server as the chart runs it, on a port of its own."""
    _need(None if MLFLOW.exists() else "no tracking server: make env-mlflow")
    folder, port = tmp_path_factory.mktemp("mlflow"), kafka.free_port()
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ.update(PATH=f"{MLFLOW.parent}:{os.environ['PATH']}", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    arguments = ["server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination"]
    arguments += [f"{folder}/artifacts", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(MLFLOW), *arguments], cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < deadline, "MLflow didn't start in time"
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _config(folder: Path, bootstrap: str) -> DetectorConfig:
    return detectors.document(SPEC, bootstrap, 2, f"file://{folder}", epoch=2)


def test_a_job_leaves_seeds_and_one_registered_version(tracking: str, tmp_path: Path) -> None:
    """The entrypoint reads real files, searches on Ray, writes seeds to Kafka and registers what the operator resolves."""
    _need(kafka.missing())
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "sparkov.csv.gz").symlink_to(REPO / "tests" / "data" / "sparkov.csv.gz")
    with kafka.broker() as broker:
        config = _config(tmp_path, broker.bootstrap)
        topic = config.identity.topic("seeds")
        broker.create([topic], partitions=2)
        path = tmp_path / "detector.json"
        path.write_text(config.to_json())
        environ = {
            **os.environ,
            "FRAUD_CONFIG": str(path),
            "TOKEN_KEY": "11" * 32,
            "MLFLOW_TRACKING_URI": tracking,
            "FRAUD_TRAINING_REVISION": "0123456789abcdef",
        }
        environ.pop("RAY_ADDRESS", None)
        done = subprocess.run(
            [sys.executable, "-m", "fraud_ray.train"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert done.stdout.strip().splitlines()[-1].startswith("registered payments.cards version 1 (sha256:")
        seeds = broker.read(topic)
    again = subprocess.run(
        [sys.executable, "-m", "fraud_ray.refit", "1"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    client = MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    version = client.get_model_version_by_alias("payments.cards", "challenger")
    assert str(version.version) == "1"
    assert version.tags["training_revision"] == "0123456789abcdef"
    assert version.tags["feature_set"] == config.feature_set
    assert int(version.tags["seeds"]) == len({message.key() for message in seeds}) == len(seeds) > 500
    assert client.get_run(version.run_id).info.status == "FINISHED"
    folder = Path(
        download_artifacts(artifact_uri=version.source, dst_path=str(tmp_path), tracking_uri=tracking)
    )
    model_package.verify(folder, version.tags["digest"])
    # As the operator reads it, without a client library.
    url = f"{tracking}/get-artifact?run_id={version.run_id}&path=package/manifest.json"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert "sha256:" + hashlib.sha256(answer.read()).hexdigest() == version.tags["digest"]
    card = json.loads((folder / "card.json").read_bytes())
    assert beats(card) == dict.fromkeys(BASELINES, True)
    run = client.get_run(version.run_id)
    for name in BASELINES:
        high = card["baselines"][name]["average_precision"]["high"]
        assert run.data.metrics[f"baseline_{name}_average_precision_high"] == pytest.approx(high)
    plots = {file.path for file in client.list_artifacts(version.run_id, "plots")}
    assert {f"plots/{name}.svg" for name in ("precision_recall", "scores", "calibration")} <= plots
    assert card["history"] == {"examples": [], "files": {"sparkov.csv.gz": 32_759}, "refused": {}}

    features = compile_detector(config.spec)
    message = seeds[0]
    _, entity, _ = message.key().decode().split(":")
    live = features.stage(entity).open(message.value())
    assert read_header(message.value()).epoch == 2
    assert live.seq > 0
