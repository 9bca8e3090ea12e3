"""The model against its baselines, on the same unseen rows of both data sets, as ``make card`` shows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_pipelines import simulator
from fraud_ray import card, evaluate

pytestmark = [pytest.mark.integration, pytest.mark.slow]
REPO = Path(__file__).resolve().parents[3]
EXAMPLES = REPO / "manifests" / "examples"


def simulated(folder: Path) -> tuple[Path, Path]:
    """What `make card` simulates: labels as they are known at the end of the file."""
    out = folder / "simulated.csv.gz"
    arguments = ["--rows", "160000", "--seed", "7", "--fraud-rate", "0.02", "--end-ms", "1780000000000"]
    assert simulator.main([*arguments, "--as-known", "--patterns", "--out", str(out)]) == 0
    return EXAMPLES / "payments.yaml", out


def sparkov(folder: Path) -> tuple[Path, Path]:
    return EXAMPLES / "sparkov.yaml", REPO / "tests" / "data" / "sparkov.csv.gz"


@pytest.mark.parametrize("source", [simulated, sparkov])
def test_the_model_beats_the_baselines(
    source: Callable[[Path], tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its interval lies above theirs; the card holds every figure that is printed, of weeks that no fit has seen."""
    cr, history = source(tmp_path)
    out = tmp_path / "out"
    code = evaluate.main(["--cr", str(cr), "--history", str(history), "--out", str(out)])
    printed = capsys.readouterr().out
    assert code == 0, printed
    figures = json.loads((out / "package" / "card.json").read_bytes())
    assert card.beats(figures) == dict.fromkeys(card.BASELINES, True)
    assert all(figures["baselines"][name]["model_ahead_by"]["low"] > 0 for name in card.beats(figures))
    parts = figures["data"]["parts"]
    assert parts["train"]["to"] < parts["valid"]["from"] <= parts["valid"]["to"] < parts["test"]["from"]
    assert f"{figures['test']['average_precision']['value']:.3f}" in printed
    assert len(figures["test"]["weeks"]) == 2
    pictures = {path.name for path in (out / "plots").iterdir()}
    assert {"precision_recall.svg", "scores.svg", "calibration.svg", "recall_by_alerts.svg"} <= pictures
    if source is simulated:
        assert {one["pattern"] for one in figures["patterns"]} == set(simulator.FRAUDS)
