"""``python -m fraud_ray.evaluate``: a detector's model and its card from one file of history, on this machine, without a cluster.

The steps are training's own; nothing is registered and no seeds are written. The labels are judged as of the newest
payment of the file. It ends with 0 where the model's interval lies above each baseline's, else with 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from fraud_contracts import log, model_package, outputs
from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector import parse_spec
from fraud_contracts.feature_set import feature_set_hash
from fraud_contracts.model_version import VersionTags
from fraud_contracts.training_end import EndReason, ExitCode
from fraud_pipelines.events import Tokeniser
from fraud_ray import card, dataset, fit, history, plots, search, train
from fraud_ray.dataset import Dataset, TimeSplit
from fraud_ray.errors import TrainingError

# The key needs no secrecy: tokens only have to be equal for equal values, and no file of this run holds one.
_TOKENS: Final = Tokeniser(bytes(range(32)))
_FAR: Final = 4_102_444_800_000  # 2100: no row of a file is in the future of it


def document(resource: Mapping[str, Any], folder: Path) -> DetectorConfig:
    """What the operator would write for this FraudDetector, with its history in ``folder``."""
    spec = parse_spec(dict(resource["spec"]))
    return DetectorConfig.model_validate(
        {
            "namespace": resource["metadata"].get("namespace", "default"),
            "name": resource["metadata"]["name"],
            "uid": "none",
            "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
            "feature_set": feature_set_hash(spec),
            "kafka": {"bootstrap_servers": "none:0", "partitions": 1},
            "storage_uri": f"file://{folder.resolve()}",
        }
    )


def first_parameters(
    data: Dataset, split: TimeSplit, trials: int, seed: int
) -> tuple[fit.Params, int, list[dict[str, Any]]]:
    """Instead of a search: the parameters that a search begins with, rounds by the valid part."""
    rounds, value = fit.search_fit(
        fit.DEFAULTS,
        seed,
        data.names,
        (dataset.rows_of(data.x, split.train), data.y[split.train]),
        (dataset.rows_of(data.x, split.valid), data.y[split.valid]),
    )
    return dict(fit.DEFAULTS), rounds, [{search.METRIC: value, "rounds": rounds}]


def foreign_files(out: Path) -> list[str]:
    """What lies below ``out`` and isn't a file that this command writes, by name.

    A link is foreign, and so is a file with several hard links: writing to it would change a file elsewhere.
    """
    own = {f"package/{name}" for name in model_package.FILES} | {f"plots/{name}" for name in plots.FILES}
    names = []
    for path in out.rglob("*"):
        name, status = str(path.relative_to(out)), path.lstat()
        folder, file = stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode)
        written = name in own and file and status.st_nlink == 1
        if not written and (name in own or not folder):
            names.append(name)
    return sorted(names)


def check_out(out: Path) -> None:
    """TrainingError where writing below ``out`` could cost somebody a file, or can't be."""
    if out.is_dir():
        others = foreign_files(out)
        if others:
            raise TrainingError(
                EndReason.OUT_REFUSED,
                f"{out} holds {', '.join(others[:3])}{' and more' if len(others) > 3 else ''}, which this command didn't write; "
                "give a new or an empty folder",
            )
        return
    file = out if out.exists() or out.is_symlink() else outputs.in_the_way(out)
    if file is not None:
        raise TrainingError(EndReason.OUT_REFUSED, f"{file} is no folder")


def evaluate(resource: Mapping[str, Any], source: Path, out: Path, trials: int = 0) -> dict[str, Any]:
    """Writes package and plots below ``out``, over those of an earlier run only; -> the card."""
    check_out(out)
    if not source.is_file():
        raise TrainingError(EndReason.HISTORY_UNREADABLE, f"{source} is no file")
    with tempfile.TemporaryDirectory(prefix="fraud-evaluate-") as storage:
        return _evaluate(document(resource, Path(storage)), source, out, trials)


def _evaluate(config: DetectorConfig, source: Path, out: Path, trials: int) -> dict[str, Any]:
    assert config.spec.model.train is not None, "spec.model.train is not set"
    place = Path(config.storage_uri.removeprefix("file://")) / config.spec.model.train.history.path
    place.mkdir(parents=True)
    (place / source.name).symlink_to(source.resolve())
    newest = int(history.load(config.spec, config.storage_uri, _TOKENS, _FAR).events.time[-1])

    def keep(
        folder: Path, model_card: dict[str, Any], tags: VersionTags, extra: Mapping[str, Path], trials: Any
    ) -> str:
        for name, source_folder in {model_package.PACKAGE_FOLDER: folder, **extra}.items():
            shutil.copytree(source_folder, out / name, dirs_exist_ok=True)
        return "none"

    def count(profiles: Any) -> int:
        return sum(1 for _ in profiles)

    if trials:
        config = config.model_copy(
            update={
                "spec": config.spec.model_copy(
                    update={
                        "model": config.spec.model.model_copy(
                            update={"train": config.spec.model.train.model_copy(update={"trials": trials})}
                        )
                    }
                )
            }
        )
    find_params = search.search if trials else first_parameters
    return train.run(config, _TOKENS, newest, count, find_params, keep).card


def _interval(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.3f}  {figure['low']:.3f} to {figure['high']:.3f}"


def table(model_card: Mapping[str, Any]) -> str:
    """The card's headline as text."""
    test, base, part = model_card["test"], model_card["baselines"], model_card["data"]["parts"]["test"]
    rule, order = base[card.ONE_RULE]["rule"], base[card.ONE_VALUE]["order"]
    lines = [
        f"test part: {part['rows']:,} payments, {part['frauds']} frauds, {part['from']} to {part['to']}",
        f"average precision ({base['intervals']})",
        f"  model                            {_interval(test['average_precision'])}",
        f"  logistic regression, raw fields  {_interval(base[card.LOGISTIC]['average_precision'])}",
        f"  one rule                         {_interval(base[card.ONE_RULE]['average_precision'])}"
        f"   ({rule['column']} {rule['alert_when']} {rule['threshold']:g})",
        f"  sorted by one value              {_interval(base[card.ONE_VALUE]['average_precision'])}"
        f"   ({order['riskiest']} {order['column']} first)",
        f"  chance                           {base['chance']:.3f}",
        "alerts a day   " + "  ".join(f"{one['alerts_per_day']:>5}" for one in test["alerts_per_day"]),
        "recall         " + "  ".join(f"{one['recall']:5.2f}" for one in test["alerts_per_day"]),
        "precision      " + "  ".join(f"{one['precision']:5.2f}" for one in test["alerts_per_day"]),
        f"calibration: mean gap {test['calibration']['expected_error']:.4f}, Brier {test['calibration']['brier']:.4f}",
    ]
    for one in model_card["patterns"]:
        lines.append(
            f"  {one['pattern']:<22} {one['frauds']:>4} frauds, recall at score 700 {one['recall']['700']:.2f}, "
            f"average precision {one['average_precision']:.2f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fraud_ray.evaluate", description=__doc__)
    parser.add_argument("--cr", type=Path, required=True, help="file with the FraudDetector")
    parser.add_argument("--history", type=Path, required=True, help="CSV, CSV.gz or Parquet with labels")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for package, card and plots; new, empty or an earlier run's",
    )
    parser.add_argument("--trials", type=int, default=0, help="search on Ray with as many trials; 0: none")
    args = parser.parse_args(argv)
    log.setup()
    logging.getLogger().setLevel(logging.WARNING)
    try:
        evaluate(yaml.safe_load(args.cr.read_text()), args.history, args.out, args.trials)
    except TrainingError as error:
        sys.stdout.write(f"no card: {error.reason}: {error}\n")
        return ExitCode.REASON_GIVEN
    model_card = json.loads((args.out / "package" / model_package.CARD).read_bytes())
    ahead = card.beats(model_card)
    sys.stdout.write(f"{args.history.name}: {args.out}/package/{model_package.CARD}\n{table(model_card)}\n")
    for name, beaten in ahead.items():
        sys.stdout.write(
            f"{'ok    ' if beaten else 'FAILED'} the model's interval lies above that of {name}\n"
        )
    return 0 if all(ahead.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
