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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud_contracts import log
from fraud_contracts.config import DetectorConfig, load_config
from fraud_pipelines import model_package
from fraud_pipelines.events import Tokeniser
from fraud_ray import fit, train
from fraud_ray.errors import TrainingError
from fraud_ray.lake import ReadTo


@dataclass(frozen=True)
class Recorded:
    """All that a model is made of, beside the code and the data."""

    digest: str
    data: str
    params: fit.Params
    rounds: int
    seed: int
    as_of: int
    read_to: ReadTo

    @classmethod
    def of(cls, manifest: Mapping[str, Any], tags: Mapping[str, str]) -> Recorded:
        """From a package's manifest and its version's tags; TrainingError where one is missing."""
        try:
            return cls(
                digest=tags["digest"],
                data=str(manifest["data"]),
                params=dict(manifest["params"]),
                rounds=int(manifest["rounds"]),
                seed=int(manifest["seed"]),
                as_of=int(tags["as_of"]),
                read_to=json.loads(tags["lake"]),
            )
        except (KeyError, ValueError) as error:
            raise TrainingError("NotRecorded", f"the version lacks what a refit needs: {error}") from error


def refit(config: DetectorConfig, tokeniser: Tokeniser, recorded: Recorded) -> train.Result:
    """The same steps with the recorded parameters in the search's place; the result's digest is to be compared."""

    def found(*_: Any) -> tuple[fit.Params, int, list[dict[str, Any]]]:
        return recorded.params, recorded.rounds, []

    def count(profiles: Any) -> int:
        return sum(1 for _ in profiles)

    return train.run(
        config,
        tokeniser,
        recorded.as_of,
        count,
        found,
        lambda *_: "none",
        seed=recorded.seed,
        upto=recorded.read_to,
    )


def registered(tracking_uri: str, model: str, version: str) -> Recorded:
    """What the registry holds about a version."""
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        found = client.get_model_version(model, version)
        with tempfile.TemporaryDirectory(prefix="fraud-refit-") as scratch:
            path = download_artifacts(
                artifact_uri=f"{found.source}/{model_package.MANIFEST}",
                dst_path=scratch,
                tracking_uri=tracking_uri,
            )
            manifest = json.loads(Path(path).read_bytes())
    except MlflowException as error:
        raise TrainingError("NotFound", f"{model} version {version} at {tracking_uri}: {error}") from error
    return Recorded.of(manifest, found.tags)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fraud_ray.refit", description=__doc__)
    parser.add_argument("version", help="of the detector's model in MLflow")
    version = parser.parse_args(argv).version
    log.setup()
    try:
        config = load_config()
        tokeniser = Tokeniser.from_hex(train.need(os.environ, "TOKEN_KEY"))
        recorded = registered(train.need(os.environ, "MLFLOW_TRACKING_URI"), config.identity.model, version)
        made = refit(config, tokeniser, recorded)
    except TrainingError as error:
        sys.stdout.write(f"no refit: {error.reason}: {error}\n")
        return train.EXIT_REASON
    same = made.digest == recorded.digest
    sys.stdout.write(f"recorded {recorded.digest}\nmade     {made.digest}\n")
    if not same:
        data = made.card["data"]["digest"]
        told = "the data differ" if data != recorded.data else "the data are the same; was it other code?"
        sys.stdout.write(f"FAILED: {told}\n")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
