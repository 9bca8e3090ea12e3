"""``python -m fraud_ray.refit VERSION``: makes a registered model again from what was recorded with it, and compares digests.

Parameters, rounds and seed are in the package's manifest; the moment that labels were judged from and the rows of the lake
are tags of the version. Nothing is registered and no seeds are written. It ends with 0 where the digest is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fraud_contracts import log, model_package
from fraud_contracts.config import DetectorConfig, load_config
from fraud_contracts.model_package import PackageError
from fraud_contracts.model_version import VersionTags
from fraud_contracts.training_end import EndReason, ExitCode
from fraud_pipelines.events import Tokeniser
from fraud_ray import fit, train
from fraud_ray.cut import Cut
from fraud_ray.errors import TrainingError
from fraud_ray.lake import ReadTo
from fraud_ray.room import Room


@dataclass(frozen=True)
class TrainingRecord:
    """Everything that a model was made from, except the code and the data."""

    digest: str
    data_digest: str
    params: fit.Params
    rounds: int
    seed: int
    as_of: int
    read_to: ReadTo
    cut: Cut | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, Any], tags: Mapping[str, str]) -> TrainingRecord:
        """From a package's manifest and its version's tags; TrainingError where one is missing."""
        try:
            version = VersionTags.parse(tags)
            if version.as_of is None or version.lake is None:
                raise PackageError("no tag as_of or lake")
            return cls(
                digest=version.digest,
                data_digest=str(manifest["data"]),
                params=dict(manifest["params"]),
                rounds=int(manifest["rounds"]),
                seed=int(manifest["seed"]),
                as_of=version.as_of,
                read_to=version.lake,
                cut=None if version.starts_at is None else Cut(version.starts_at, version.since or {}),
            )
        except (KeyError, ValueError, PackageError) as error:
            raise TrainingError(
                EndReason.NOT_RECORDED, f"the version lacks what a refit needs: {error}"
            ) from error


def refit(
    config: DetectorConfig, tokeniser: Tokeniser, record: TrainingRecord, room: Room | None = None
) -> train.TrainingResult:
    """The training run again, with the recorded parameters instead of a search."""

    def recorded_params(*_: Any) -> tuple[fit.Params, int, list[dict[str, Any]]]:
        return record.params, record.rounds, []

    def count(profiles: Any) -> int:
        return sum(1 for _ in profiles)

    return train.run(
        config,
        tokeniser,
        record.as_of,
        count,
        recorded_params,
        lambda *_: "none",
        seed=record.seed,
        upto=record.read_to,
        cut=record.cut,
        room=room,
    )


def load_record(tracking_uri: str, model: str, version: str) -> TrainingRecord:
    """A version's record in the registry; TrainingError where it or a part of it is missing."""
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        registered_version = client.get_model_version(model, version)
        with tempfile.TemporaryDirectory(prefix="fraud-refit-") as scratch:
            path = download_artifacts(
                artifact_uri=f"{registered_version.source}/{model_package.MANIFEST}",
                dst_path=scratch,
                tracking_uri=tracking_uri,
            )
            manifest = json.loads(Path(path).read_bytes())
    except MlflowException as error:
        raise TrainingError(
            EndReason.NOT_FOUND, f"{model} version {version} at {tracking_uri}: {error}"
        ) from error
    return TrainingRecord.of(manifest, registered_version.tags)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fraud_ray.refit", description=__doc__)
    parser.add_argument("version", help="of the detector's model in MLflow")
    version = parser.parse_args(argv).version
    log.setup()
    try:
        config = load_config()
        tokeniser = Tokeniser.from_hex(train.need(os.environ, "TOKEN_KEY"), config.token_key)
        record = load_record(train.registry_address(os.environ), config.identity.model, version)
        result = refit(config, tokeniser, record, replace(Room.here(), trials=0))
    except TrainingError as error:
        sys.stdout.write(f"no refit: {error.reason}: {error}\n")
        return ExitCode.REASON_GIVEN
    same = result.digest == record.digest
    sys.stdout.write(f"recorded {record.digest}\nmade     {result.digest}\n")
    if not same:
        same_data = result.card["data"]["digest"] == record.data_digest
        cause = "the data are the same; was it other code?" if same_data else "the data differ"
        sys.stdout.write(f"FAILED: {cause}\n")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
