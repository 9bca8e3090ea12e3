"""From history to package without a cluster: the split, the fit, the export, the digest."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fraud_contracts import model_package
from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector import parse_spec
from fraud_contracts.feature_set import feature_set_hash
from fraud_pipelines.evaluation import average_precision
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector, read_header
from fraud_pipelines.leaf_table import LeafTable
from fraud_pipelines.simulator import FRAUDS, simulate, write_csv
from fraud_ray import baselines, dataset, export, fit, plots, train
from fraud_ray.card import BASELINES, beats
from fraud_ray.dataset import Dataset, TimeSplit
from fraud_ray.errors import TrainingError
from fraud_testing import detectors

START = 1_780_000_000_000
DAY = 86_400_000
AS_OF = START + 70 * DAY
SPEC: dict[str, Any] = {
    **detectors.SIMULATED,
    "labels": {"sources": [{"name": "chargeback", "maturity": "10d"}]},
    "model": {"train": {"trials": 2, "minLabels": 50}},
}


def config(folder: Path, **changes: Any) -> DetectorConfig:
    return detectors.document({**SPEC, **changes}, storage_uri=f"file://{folder}", epoch=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("storage")
    write_csv(simulate(15_000, 5, 60, START, fraud_rate=0.03), path / "history" / "h.csv.gz")
    return path


def no_search(
    data: Dataset, split: TimeSplit, trials: int, seed: int
) -> tuple[fit.Params, int, list[dict[str, Any]]]:
    return dict(fit.DEFAULTS), 30, [{"trials": trials}]


class Kept:
    """Takes the place of Kafka and the registry: keeps seeds, tags and package."""

    def __init__(self, to: Path) -> None:
        self.to, self.seeds = to, {}
        self.tags: dict[str, str] = {}

    def write(self, profiles: Any) -> int:
        self.seeds = dict(profiles)
        return len(self.seeds)

    def register(self, package: Path, card: Any, tags: Any, extra: Any, trials: Any) -> str:
        self.tags = tags.to_tags()
        for file in package.iterdir():
            (self.to / file.name).write_bytes(file.read_bytes())
        for name, other in extra.items():
            (self.to / name).mkdir()
            for file in other.iterdir():
                (self.to / name / file.name).write_bytes(file.read_bytes())
        return "1"


def run(config: DetectorConfig, to: Path, as_of: int = AS_OF) -> tuple[train.TrainingResult, Kept]:
    to.mkdir(parents=True, exist_ok=True)
    kept = Kept(to)
    result = train.run(config, Tokeniser(bytes(32)), as_of, kept.write, no_search, kept.register, "r")
    return result, kept


@pytest.fixture(scope="module")
def first(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[train.TrainingResult, Kept]:
    return run(config(folder), tmp_path_factory.mktemp("first"))


def test_the_package_is_whole_and_verifies(first: tuple[train.TrainingResult, Kept]) -> None:
    """Manifest, model in both forms, leaf table, serving data and card; the tags name digest, set, epoch and seeds."""
    result, kept = first
    files = model_package.verify(kept.to, result.digest)["files"]
    assert sorted(files) == ["card.json", "leaf_table.npz", "model.lgb.txt", "model.onnx", "serving.json"]
    serving = json.loads((kept.to / "serving.json").read_bytes())
    assert len(serving["feature_names"]) == 25
    assert serving["score_map"][0] == [0.0, 0.0]
    assert kept.tags["digest"] == result.digest
    assert kept.tags["feature_set"] == serving["feature_set"] == feature_set_hash(parse_spec(SPEC))
    assert (kept.tags["epoch"], kept.tags["seeds"], kept.tags["training_revision"]) == (
        "4",
        str(len(kept.seeds)),
        "r",
    )


def test_every_key_has_a_seed_of_the_epoch(first: tuple[train.TrainingResult, Kept]) -> None:
    """Each customer's and merchant's last profile is written once, under the configured epoch and set."""
    _, kept = first
    hash6 = feature_set_hash(parse_spec(SPEC))[:6]
    entities = {key.split(":")[1] for key in kept.seeds}
    assert entities == {"customer", "counterparty"}
    assert all(key.startswith(hash6) for key in kept.seeds)
    assert {read_header(profile).epoch for profile in kept.seeds.values()} == {4}


def test_the_same_data_and_parameters_give_the_same_digest(
    folder: Path, first: tuple[train.TrainingResult, Kept], tmp_path: Path
) -> None:
    """A second run elsewhere and later gives the digest again: what was registered can be made again from its record."""
    again, _ = run(config(folder), tmp_path / "again", AS_OF + 3 * DAY // 24)
    assert again.digest == first[0].digest


def test_windows_beat_raw_fields(first: tuple[train.TrainingResult, Kept]) -> None:
    """The simulated frauds are seen through the past: the model is far above what a transaction alone tells."""
    card = first[0].card
    ap = card["test"]["average_precision"]["value"]
    for name in beats(card):
        other = card["baselines"][name]
        assert ap > other["average_precision"]["value"]
        assert other["model_ahead_by"]["value"] == pytest.approx(ap - other["average_precision"]["value"])
    assert card["test"]["average_precision"]["low"] > card["baselines"]["chance"]


def test_a_model_beats_only_what_its_interval_does_not_touch() -> None:
    """Touching intervals, or none at all, are no win."""

    def judged(low: float | None, high: float | None) -> bool:
        other = {"average_precision": {"high": high}}
        judged = {"test": {"average_precision": {"low": low}}, "baselines": dict.fromkeys(BASELINES, other)}
        return all(beats(judged).values())

    assert judged(0.3, 0.2)
    assert not judged(0.2, 0.2)
    assert not judged(None, 0.2)


def test_the_one_rule_is_the_best_threshold_of_all_columns() -> None:
    """It finds a planted rule below a threshold, on the rows that it may see only, and nulls never alert."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4_000, 3))
    x[::7, 1] = np.nan
    y = ((x[:, 1] < -1.0) & (rng.random(4_000) < 0.8)).astype(np.int8)
    y[2_000:] = 0
    columns = baselines.matrix_columns(["a", "b", "c"], x)
    rule = baselines.one_rule(columns, y, np.arange(2_000))
    assert (rule.column, rule.above) == ("b", False)
    assert rule.threshold == pytest.approx(-1.0, abs=0.05)
    assert not rule.alerts(x[:, 1])[np.isnan(x[:, 1])].any()
    assert rule.alerts(x[:, 1]).sum() == (x[:, 1] <= rule.threshold).sum()
    order = baselines.one_order(columns, y, np.arange(2_000))
    assert (order.column, order.descending) == ("b", False)
    assert rule.train_average_precision == pytest.approx(
        average_precision(y[:2_000], rule.alerts(x[:2_000, 1]))
    )


def test_the_kind_of_a_fraud_is_judged_by_and_never_learned_from(tmp_path: Path) -> None:
    """A history that names the kinds gives recall per kind, and the very same model as without them."""
    rows = simulate(12_000, 5, 60, START, fraud_rate=0.05)
    cards = []
    for name in (False, True):
        at = tmp_path / str(name)
        write_csv(rows, at / "history" / "h.csv", patterns=name)
        cards.append(run(config(at), at / "package")[0].card)
    plain, card = cards
    assert plain["patterns"] == []
    assert 4 <= len({one["pattern"] for one in card["patterns"]} & set(FRAUDS)) == len(card["patterns"])
    assert sum(one["frauds"] for one in card["patterns"]) == card["data"]["parts"]["test"]["frauds"]
    assert {**card, "patterns": [], "history": {}} == {**plain, "history": {}}


def test_the_card_tells_what_a_team_would_find(first: tuple[train.TrainingResult, Kept]) -> None:
    """Recall grows with the alerts of a day, the scores' bins hold every row, and the weeks every test fraud."""
    test, part = first[0].card["test"], first[0].card["data"]["parts"]["test"]
    recall = [one["recall"] for one in test["alerts_per_day"]]
    assert recall == sorted(recall)
    assert recall[-1] > 0.5
    assert sum(one["honest"] + one["fraud"] for one in test["distribution"]) == part["rows"]
    assert sum(one["frauds"] for one in test["weeks"]) == part["frauds"]


def test_the_leaf_table_and_the_graph_are_one_model(first: tuple[train.TrainingResult, Kept]) -> None:
    """Base plus contributions is the served log-odds, with and without nulls."""
    _, kept = first
    table = LeafTable.load(kept.to / "leaf_table.npz")
    served = export.Served(kept.to / "model.onnx")
    rows = np.random.default_rng(3).lognormal(3, 3, (500, 25)).astype(np.float32)
    rows[np.random.default_rng(4).random(rows.shape) < 0.2] = np.nan
    margin = table.base + table.explain(rows).sum(axis=1)
    assert served.probability(rows) == pytest.approx(1 / (1 + np.exp(-margin)), abs=1e-5)


def test_the_card_is_of_the_mature_rows_only(first: tuple[train.TrainingResult, Kept]) -> None:
    """Rows younger than the maturity are in no part; between the parts lies the label delay."""
    data = first[0].card["data"]
    assert data["mature"] == data["rows"]  # the history ended ten days before
    assert data["gap_ms"] == 3 * DAY
    parts = data["parts"]
    assert parts["train"]["to"] < parts["valid"]["from"] <= parts["valid"]["to"] < parts["test"]["from"]
    assert sum(part["rows"] for part in parts.values()) < data["mature"]


def test_immature_history_waits(folder: Path, tmp_path: Path) -> None:
    """While too few fraud labels are mature there is no training, and the message counts them."""
    with pytest.raises(TrainingError, match="minLabels asks for 50") as caught:
        run(config(folder), tmp_path / "x", START + 64 * DAY - 50 * DAY)
    assert caught.value.reason in ("TooFewLabels", "NoHistory")


def test_another_feature_set_is_refused(folder: Path, tmp_path: Path) -> None:
    """A configuration made by another version of the engine is refused before anything is written."""
    other = config(folder).model_copy(update={"feature_set": "0" * 64})
    with pytest.raises(TrainingError) as caught:
        run(other, tmp_path / "x")
    assert caught.value.reason == "FeatureSetMismatch"


def test_plots_are_pictures(first: tuple[train.TrainingResult, Kept]) -> None:
    """Each plot is well-formed SVG."""
    files = sorted((first[1].to / "plots").iterdir())
    assert [file.name for file in files] == [
        f"{name}.svg"
        for name in ("calibration", "importance", "precision_recall", "recall_by_alerts", "scores")
    ]
    for file in files:
        assert ElementTree.parse(file).getroot().tag.endswith("svg")
    assert "&lt;" in plots.bars("a < b", [("x", 0.0)])


def test_thresholds_round_down() -> None:
    """A float64 threshold between two neighbouring float32 values still parts them."""
    low = np.float32(16_777_217.0 * 3)
    high = np.nextafter(low, np.float32(np.inf))
    between = (float(low) + float(high)) / 2
    assert export.floor32(between) == low
    assert export.floor32(float(low)) == low
    assert export.floor32(-between) == -high


def test_nulls_unseen_in_the_fit_go_where_the_native_model_sends_them(tmp_path: Path) -> None:
    """A feature without nulls in training is read as zero when it is null, in all three forms of the model."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3000, 4)).astype(np.float32)
    x[:, 3][rng.random(3000) < 0.3] = np.nan
    y = ((x[:, 0] > 0.5) & (np.nan_to_num(x[:, 3]) > -0.2)).astype(np.int8)
    booster = fit.final_fit({"num_leaves": 15, "max_depth": 5}, 40, 1, ("a", "b", "c", "d"), x, y)
    calibration = fit.calibrate(fit.margins(booster, x), y)
    nodes = export.flatten(booster)
    path = tmp_path / "m.onnx"
    path.write_bytes(export.onnx_model(nodes, calibration, 4))
    rows = x.copy()
    rows[rng.random(rows.shape) < 0.3] = np.nan
    native = calibration.probability(fit.margins(booster, rows))
    differences = export.check_parity(
        export.Served(path), export.leaf_table(nodes, calibration, 4), native, rows
    )
    assert max(differences.values()) < 1e-5


def test_calibration_keeps_the_order() -> None:
    """Slope and offset are recovered from drawn labels; margins worse than chance don't turn the order around."""
    rng = np.random.default_rng(2)
    margin = rng.normal(size=40_000) * 2
    y = (rng.random(40_000) < 1 / (1 + np.exp(-(0.7 * margin - 1.5)))).astype(np.int8)
    calibration = fit.calibrate(margin, y)
    assert (calibration.slope, calibration.offset) == pytest.approx((0.7, -1.5), abs=0.05)
    assert fit.calibrate(-margin, y).slope == 1.0


def test_a_part_without_frauds_can_not_judge() -> None:
    """A history whose newest part has no fraud is refused, not scored as perfect."""
    count = 1000
    data = Dataset(
        names=("a",),
        x=np.zeros((count, 1), np.float32),
        y=(np.arange(count) < 300).astype(np.int8),
        time=START + np.arange(count, dtype=np.int64) * 3_600_000,
        amount=np.ones(count, np.int64),
        entity=np.zeros(count, np.int32),
        fields={},
        mature=np.ones(count, bool),
        early_frauds=0,
    )
    with pytest.raises(TrainingError, match="valid part has 0 frauds"):
        dataset.split(parse_spec(SPEC), data)


def test_the_engine_and_contracts_name_the_set_alike() -> None:
    """The hash in the configuration is the one that the compiled set carries."""
    spec = parse_spec(SPEC)
    assert compile_detector(spec).hash == feature_set_hash(spec)


@pytest.mark.parametrize("lacking", ["FRAUD_CONFIG", "TOKEN_KEY", "MLFLOW_TRACKING_URI"])
def test_what_is_not_configured_is_named(
    folder: Path,
    tmp_path: Path,
    lacking: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last line of a failed run is its reason, and its code is not 0; that MLflow is away changes neither."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    path = tmp_path / "detector.json"
    path.write_text(config(folder).to_json())
    environ = {"FRAUD_CONFIG": str(path), "TOKEN_KEY": "00" * 32, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    environ[lacking] = str(tmp_path / "missing") if lacking == "FRAUD_CONFIG" else ""
    assert train.main(environ) != 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("training failed: ")
    assert (lacking if lacking != "FRAUD_CONFIG" else "missing") in last
