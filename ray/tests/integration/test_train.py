"""A whole run with its real edges: Ray, a tracking server, and a broker where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fraud_contracts import model_package
from fraud_contracts.config import MLFLOW_TRACKING_URI, STORES_ENV, DetectorConfig
from fraud_contracts.lineage import HISTORY
from fraud_contracts.names import parse_seed_key, training_run
from fraud_contracts.training_end import SEEDS_ENV
from fraud_pipelines.features import compile_detector, read_header
from fraud_ray.card import BASELINES, beats
from fraud_testing import detectors, kafka
from fraud_testing import mlflow as mlflow_server
from fraud_testing.required import require

pytestmark = [pytest.mark.integration, pytest.mark.slow]
REPO = Path(__file__).resolve().parents[3]
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


@pytest.fixture(scope="module")
def tracking() -> Iterator[mlflow_server.Server]:
    """An MLflow server as the chart runs it, which asks for logins."""
    require(mlflow_server.missing())
    with mlflow_server.server(users=True) as running:
        yield running


def _config(folder: Path, bootstrap: str) -> DetectorConfig:
    return detectors.document(SPEC, bootstrap, 2, f"file://{folder}", epoch=2)


def test_a_job_leaves_seeds_and_one_registered_version(
    tracking: mlflow_server.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entrypoint reads real files, searches on Ray, writes seeds to Kafka and registers what the operator resolves."""
    require(kafka.missing())
    stores = tmp_path / "stores"
    stores.mkdir()
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "sparkov.csv.gz").symlink_to(REPO / "tests" / "data" / "sparkov.csv.gz")
    with kafka.broker() as broker:
        config = _config(tmp_path, broker.bootstrap)
        (stores / MLFLOW_TRACKING_URI).write_text(tracking.detector(config.identity)[0])
        topic = config.identity.topic("seeds")
        broker.create_detector_topics(str(config.identity), partitions=2)
        path = tmp_path / "detector.json"
        path.write_text(config.to_json())
        environ = {
            **os.environ,
            "FRAUD_CONFIG": str(path),
            "TOKEN_KEY": "11" * 32,
            STORES_ENV: str(stores),
            "FRAUD_TRAINING_REVISION": "0123456789abcdef",
            SEEDS_ENV: "1",
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

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", mlflow_server.ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", mlflow_server.PASSWORD)
    client = MlflowClient(tracking_uri=tracking.url, registry_uri=tracking.url)
    version = client.get_model_version_by_alias("payments.cards", "challenger")
    assert str(version.version) == "1"
    assert version.tags["training_revision"] == "0123456789abcdef"
    assert version.tags["feature_set"] == config.feature_set
    assert int(version.tags["seeds"]) == len({message.key() for message in seeds}) == len(seeds) > 500
    assert json.loads(version.tags["starts_at"]) == {noun: {"0": 0, "1": 0} for noun in HISTORY}
    assert client.get_run(version.run_id).info.status == "FINISHED"
    folder = Path(
        download_artifacts(artifact_uri=version.source, dst_path=str(tmp_path), tracking_uri=tracking.url)
    )
    model_package.verify(folder, version.tags["digest"])
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
    key = parse_seed_key(message.key().decode())
    assert (key.hash6, key.run) == (
        config.hash6,
        training_run("0123456789abcdef", int(version.tags["as_of"])),
    )
    live = features.stage(key.entity).open(message.value())
    assert read_header(message.value()).epoch == 2
    assert live.seq > 0
