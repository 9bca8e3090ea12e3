"""What a training leaves in MLflow, and how it gets in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass
class Client:
    """Answers each question with the next of ``answers``, of which an error is raised."""

    answers: list[Any]
    made: list[str] = field(default_factory=list)

    def _answer(self, *_: Any) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    get_experiment_by_name = get_registered_model = _answer

    def create_registered_model(self, name: str) -> None:
        self.made.append(name)


def test_a_login_that_is_not_known_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read anew for each try; any other answer than that it isn't let in ends the waiting."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, PERMISSION_DENIED, UNAUTHENTICATED

    refusals = [MlflowException("no", error_code=code) for code in (UNAUTHENTICATED, PERMISSION_DENIED)]
    addresses: list[str] = []

    def log_in() -> str:
        addresses.append("http://m")
        return addresses[-1]

    monkeypatch.setattr(registration, "_PAUSE", 0.0)
    for last in (None, MlflowException("broken", error_code=INTERNAL_ERROR)):
        client = Client([*refusals, last])
        monkeypatch.setattr(registration, "_client", lambda _, client=client: client)
        registration.await_login(log_in, Identity("payments", "cards"))
        assert client.answers == []
    assert len(addresses) == 6


def test_the_model_that_is_there_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that the operator made may not make one; where it is missing, whoever may makes it."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

    identity = Identity("payments", "cards")
    there, missing = Client([object()]), Client([MlflowException("no", error_code=RESOURCE_DOES_NOT_EXIST)])
    for client in (there, missing):
        registration._ensure_model(client, identity)  # type: ignore[arg-type]  # all that it uses of a client
    assert (there.made, missing.made) == ([], [identity.model])
