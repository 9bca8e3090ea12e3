"""A RayJob's entrypoint: ``python -m fraud_ray.train``. History in, seeds and one registered version out.

The steps are functions of their arguments; this file alone reads the environment and the clock. It ends with 0 and the
version, or with another code and the reason: in MLflow as a document (``training_end.TrainingFailure``), which the operator
reads, and as the last line, which KubeRay shows to people in the RayJob's status.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from fraud_contracts import log, names
from fraud_contracts.config import MLFLOW_TRACKING_URI, DetectorConfig, load_config
from fraud_contracts.errors import StoreError
from fraud_contracts.feature_set import feature_set_hash
from fraud_contracts.model_version import VersionTags
from fraud_contracts.names import Identity
from fraud_contracts.training_end import SEEDS_ENV, EndReason, ExitCode, TrainingFailure
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_process.kafka import KafkaAccess
from fraud_process.registry_access import log_in
from fraud_ray import dataset, fit, history, lake, package, plots, search
from fraud_ray.cut import Cut
from fraud_ray.dataset import Dataset, SeedWriter, TimeSplit
from fraud_ray.errors import TrainingError
from fraud_ray.room import Room, check_after, check_before

LOG = logging.getLogger("fraud_ray.train")
SEED: Final = 20_261
REVISION_ENV: Final = "FRAUD_TRAINING_REVISION"
CODE_ENV: Final = "FRAUD_CODE_VERSION"

Search = Callable[[Dataset, TimeSplit, int, int], tuple[fit.Params, int, list[dict[str, Any]]]]
# (package folder, card, tags, further folders by name, trials) -> version
Register = Callable[[Path, dict[str, Any], VersionTags, Mapping[str, Path], Any], str]


@dataclass(frozen=True)
class TrainingResult:
    version: str
    digest: str
    card: dict[str, Any]
    seeds: int
    seconds: dict[str, float]


class _Clock:
    """Seconds per step, logged as they end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def __call__(self, step: str, **log_fields: Any) -> None:
        now = time.monotonic()
        self.seconds[step], self._last = round(now - self._last, 1), now
        LOG.info(step, extra={"data": {**log_fields, "seconds": self.seconds[step]}})


def run(
    config: DetectorConfig,
    tokeniser: Tokeniser,
    as_of: int,
    write_seeds: SeedWriter,
    find_params: Search,
    register: Register,
    revision: str = "",
    code: str = "",
    seed: int = SEED,
    upto: lake.ReadTo | None = None,
    cut: Cut | None = None,
    room: Room | None = None,
) -> TrainingResult:
    """The whole run. ``as_of`` is the time that labels are judged from (UTC ms); ``upto`` a recorded snapshot of the lake.

    ``cut``: where a stream with these seeds goes on; None where none will, and then all that the lake holds is learned from.
    ``room``: the memory that there is, if it is to be looked at before it is short.
    """
    spec = config.spec
    if spec.model.train is None:
        raise TrainingError(EndReason.NOTHING_TO_TRAIN, "spec.model.train is not set")
    features = compile_detector(spec)
    if config.feature_set not in (features.hash, feature_set_hash(spec)):
        raise TrainingError(
            EndReason.FEATURE_SET_MISMATCH,
            "this code computes another feature set than the operator; use one version",
        )
    clock = _Clock()
    if room is not None:
        check_before(config, len(features.names), room, upto)
    snapshot = lake.read(config, as_of, upto, cut)
    past = history.load(spec, config.storage_uri, tokeniser, as_of, required=not len(snapshot.events))
    past.add_lake(snapshot)
    clock("history imported", rows=len(past.events), refused=dict(past.refused), lake=past.lake)
    frauds = dataset.check_labels(spec, past, as_of)
    if room is not None:
        check_after(config, len(features.names), room, past)
    about = {
        "history": {
            "files": past.files,
            "refused": dict(sorted(past.refused.items())),
            "examples": past.examples,
        },
        "lake": past.lake,
    }
    read_to = snapshot.read_to
    data, seeds = dataset.build(spec, features, past, as_of, config.epoch, write_seeds)
    del past, snapshot  # ids and tokens are done with, and the search starts processes
    split = dataset.split(spec, data)
    clock("features and seeds ready", rows=len(data.y), mature_frauds=frauds, seeds=seeds)
    params, rounds, trials = find_params(data, split, spec.model.train.trials, seed)
    clock("search done", trials=len(trials), params=params, rounds=rounds)
    with tempfile.TemporaryDirectory(prefix="fraud-package-") as scratch:
        folder = Path(scratch) / "package"
        summary = package.make(folder, data, split, features.hash, params, rounds, seed, about)
        pictures = Path(scratch) / "plots"
        plots.draw(summary.card, pictures)
        average_precision = summary.card["test"]["average_precision"]
        clock("model made", digest=summary.digest, test_average_precision=average_precision)
        tags = VersionTags(
            digest=summary.digest,
            feature_set=features.hash,
            training_revision=revision,
            code=code,
            epoch=config.epoch,
            seeds=seeds,
            data=data.digest,
            as_of=as_of,
            lake=read_to,
            starts_at=None if cut is None else cut.starts_at,
            since=None if cut is None else cut.since,
            topics=None if cut is None else cut.topics,
        )
        version = register(folder, summary.card, tags, {"plots": pictures}, trials)
    clock("model registered", version=version)
    return TrainingResult(version, summary.digest, summary.card, seeds, clock.seconds)


def _no_seeds(_: Iterable[tuple[str, bytes]]) -> int:
    """For a stream that has its seeds already."""
    return 0


def need(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise TrainingError(EndReason.NOT_CONFIGURED, f"the environment variable {name} is missing")
    return value


def registry_address(environ: Mapping[str, str]) -> str:
    """MLflow's, with which MLflow's client is logged in from now on; TrainingError where there is none."""
    try:
        address = log_in(environ=environ)
    except KeyError:
        address = ""
    except StoreError as error:
        raise TrainingError(EndReason.NOT_CONFIGURED, str(error)) from error
    return address or need(environ, MLFLOW_TRACKING_URI)


def _register(environ: Mapping[str, str], identity: Identity, *model: Any) -> str:
    """Logs in anew: hours may have passed since the start."""
    from fraud_ray import registration

    registration.await_login(lambda: registry_address(environ), identity)
    return registration.register(registry_address(environ), identity, *model)


def _fail(environ: Mapping[str, str], config: DetectorConfig | None, reason: str, message: str) -> None:
    """Tells the operator by way of MLflow, and people by the last line of the output."""
    from fraud_ray import registration

    failure = TrainingFailure(reason=reason, message=message, ended=int(time.time() * 1000))
    if config is not None:
        try:
            address, revision = registry_address(environ), environ.get(REVISION_ENV, "")
            registration.record_failure(address, config.identity, revision, failure)
        except TrainingError as error:
            LOG.warning("the failure isn't recorded", extra={"data": {"error": str(error)}})
    sys.stdout.write(f"training failed: {reason}: {message}\n")


def main(environ: Mapping[str, str] = os.environ) -> int:
    log.setup()
    # An edge is imported here: the steps above need no broker.
    from fraud_ray.seeds import KafkaSeeds
    from fraud_ray.stream_ends import StreamEnds

    config: DetectorConfig | None = None
    try:
        config = load_config(environ)
        tokeniser = Tokeniser.from_hex(need(environ, "TOKEN_KEY"), config.token_key)
        registry_address(environ)
        as_of, revision = int(time.time() * 1000), environ.get(REVISION_ENV, "")
        write_seeds: SeedWriter = _no_seeds
        cut: Cut | None = None
        if environ.get(SEEDS_ENV) == "1":
            topic, run_name = config.identity.topic("seeds"), names.training_run(revision, as_of)
            write_seeds = KafkaSeeds(KafkaAccess.of(config.kafka), topic, run_name)
            ends = StreamEnds(config)
            cut = ends.cut(as_of)
            ends.wait(cut)
            LOG.info("lake is there", extra={"data": {"starts_at": cut.starts_at}})
        result = run(
            config,
            tokeniser,
            as_of,
            write_seeds,
            search.search,
            partial(_register, environ, config.identity),
            revision,
            environ.get(CODE_ENV, "unknown"),
            cut=cut,
            room=Room.here(),
        )
    except TrainingError as error:
        LOG.error("training failed", extra={"data": {"reason": error.reason, "error": str(error)}})
        _fail(environ, config, error.reason, str(error))
        return ExitCode.REASON_GIVEN
    except Exception as error:  # whatever it was, the operator and the job's last line must say what happened
        LOG.exception("training failed")
        _fail(environ, config, type(error).__name__, " ".join(str(error).split())[:500])
        return ExitCode.UNEXPECTED
    ap = result.card["test"]["average_precision"]
    sys.stdout.write(
        f"registered {config.identity.model} version {result.version} ({result.digest}), average precision "
        f"{ap['value']:.3f} ({ap['low']:.3f}-{ap['high']:.3f}) on the test part, {result.seeds} seeds\n"
    )
    return ExitCode.REGISTERED


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not through the interpreter's end: clients of Kafka that an error has left were seen to crash there, and with them the last line.
    os._exit(code)
