"""What a training without a model leaves in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud_contracts.names import Identity
from fraud_contracts.training_end import EndReason, TrainingFailure
from fraud_ray import registration


def test_a_failure_is_a_failed_run_with_its_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is in the detector's experiment, ended as FAILED, and its tags give revision, reason and message."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri, identity = f"file://{tmp_path}", Identity("payments", "cards")
    failure = TrainingFailure(reason=EndReason.NO_HISTORY, message="no history", ended=5)
    registration.record_failure(uri, identity, "r", failure)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(identity.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.training_revision = 'r'")
    assert run.info.status == "FAILED"
    assert TrainingFailure.parse(run.data.tags) == failure
