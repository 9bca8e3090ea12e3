"""Registration in MLflow: one run with the package, one version that points to it, and the alias ``challenger``.

A training that made no model leaves a failed run that says why.

Only the alias ``challenger`` is ours; ``champion`` says what is live and is the operator's.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fraud_contracts.model_package import PACKAGE_FOLDER
from fraud_contracts.model_version import CHALLENGER, VersionTags
from fraud_contracts.names import Identity
from fraud_contracts.training_end import EndReason, TrainingFailure
from fraud_ray.card import BASELINES
from fraud_ray.errors import TrainingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE: Final = 300.0
_PAUSE: Final = 5.0
# What MLflow says to who isn't known, or hasn't got its rights yet.
_STRANGER: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED")


def _baselines(figures: dict[str, Any]) -> dict[str, float | None]:
    """Each baseline's average precision with its interval, named like the model's."""
    return {
        f"baseline_{name}_average_precision{end}": figures[name]["average_precision"][part]
        for name in BASELINES
        for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def _flat(card: dict[str, Any]) -> dict[str, float]:
    """The card's headline figures as metrics."""
    test = card["test"]
    metrics: dict[str, float | None] = {
        "test_average_precision": test["average_precision"]["value"],
        "test_average_precision_low": test["average_precision"]["low"],
        "test_average_precision_high": test["average_precision"]["high"],
        "test_roc_auc": test["roc_auc"]["value"],
        "test_calibration_error": test["calibration"]["expected_error"],
        "valid_average_precision": card["valid"]["average_precision"],
        **_baselines(card["baselines"]),
        **{f"test_card_precision_{k}": v for k, v in test["card_precision_per_day"].items()},
    }
    for daily in test["alerts_per_day"]:
        metrics[f"test_recall_at_{daily['alerts_per_day']}_alerts_per_day"] = daily["recall"]
    for budget in test["budgets"]:
        name = f"{budget['alert_rate'] * 1000:g}_per_mille"
        metrics[f"test_recall_at_{name}"] = budget["recall"]
        metrics[f"test_precision_at_{name}"] = budget["precision"]
    return {name: float(value) for name, value in metrics.items() if value is not None}


def _experiment(client: MlflowClient, identity: Identity) -> str:
    """The id of the detector's experiment, made where it is missing."""
    experiment = client.get_experiment_by_name(identity.experiment)
    return str(
        client.create_experiment(identity.experiment) if experiment is None else experiment.experiment_id
    )


def _ensure_model(client: MlflowClient, identity: Identity) -> None:
    """Makes the detector's registered model where it is missing. Where logins are asked for it is there: ours may make none."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(identity.model)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED"):
            raise
        client.create_registered_model(identity.model)


def _client(tracking_uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def await_login(log_in: Callable[[], str], identity: Identity) -> None:
    """Until MLflow lets us in, or not for ``PATIENCE``, or for another reason than the login.

    One that started anew has forgotten its users, and is told them again within about a minute; a login may just have been
    replaced. The work of hours isn't thrown away for either. ``log_in`` gives the address.
    """
    from mlflow.exceptions import MlflowException

    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            _client(log_in()).get_experiment_by_name(identity.experiment)
            return
        except MlflowException as error:
            if error.error_code not in _STRANGER:
                return
            time.sleep(_PAUSE)


def record_failure(tracking_uri: str, identity: Identity, revision: str, failure: TrainingFailure) -> None:
    """Leaves a failed run that says why there is no model; TrainingError where MLflow doesn't take it."""
    # Where MLflow is away the job shall end within seconds: its own output says the same.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    from mlflow.exceptions import MlflowException

    client = _client(tracking_uri)
    try:
        run = client.create_run(
            _experiment(client, identity), run_name=revision or None, tags=failure.to_tags(revision)
        )
        client.set_terminated(run.info.run_id, "FAILED")
    except MlflowException as error:
        raise TrainingError(EndReason.NOT_REGISTERED, f"MLflow at {tracking_uri}: {error}") from error


def register(
    tracking_uri: str,
    identity: Identity,
    package: Path,
    card: dict[str, Any],
    version_tags: VersionTags,
    extra: Mapping[str, Path],
    search: Any,
) -> str:
    """-> the new version. The tags go to the version and the run; ``extra`` are folders logged beside the package."""
    from mlflow.exceptions import MlflowException

    client, tags = _client(tracking_uri), version_tags.to_tags()
    try:
        run = client.create_run(
            _experiment(client, identity), run_name=version_tags.training_revision or None, tags=tags
        )
        run_id, ended = run.info.run_id, "FAILED"
        try:
            for name, value in {
                **card["model"]["params"],
                "rounds": card["model"]["rounds"],
                "seed": card["model"]["seed"],
            }.items():
                client.log_param(run_id, name, value)
            for name, figure in _flat(card).items():
                client.log_metric(run_id, name, figure)
            client.log_artifacts(run_id, str(package), PACKAGE_FOLDER)
            for name, folder in extra.items():
                client.log_artifacts(run_id, str(folder), name)
            client.log_dict(run_id, {"trials": search}, "search.json")
            ended = "FINISHED"
        finally:
            client.set_terminated(run_id, ended)
        _ensure_model(client, identity)
        source = f"{run.info.artifact_uri}/{PACKAGE_FOLDER}"
        version = client.create_model_version(identity.model, source, run_id, tags=tags)
        client.set_registered_model_alias(identity.model, CHALLENGER, version.version)
        return str(version.version)
    except MlflowException as error:
        raise TrainingError(EndReason.NOT_REGISTERED, f"MLflow at {tracking_uri}: {error}") from error
