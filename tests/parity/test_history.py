"""The story as a history file through training's import and replay, in training's own environment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import FeatureSet, compile_detector
from fraud_ray import dataset, history
from fraud_ray.training_history import TrainingHistory
from fraud_testing import parity

pytestmark = pytest.mark.integration


def load(folder: Path, story: parity.Story) -> TrainingHistory:
    """The history as training reads it: a Parquet file, whose repeats the import refuses and counts."""
    (folder / "history").mkdir()
    # A repeat has the label of the first.
    first = {p.row["id"]: p.n for p in reversed(story.payments)}
    rows = [
        {**p.row, "amount": str(p.row["amount"]), "fraud": first[p.row["id"]] % 50 == 0}
        for p in story.payments
    ]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "history" / "payments.parquet")
    imported = history.load(
        parity.config().spec, f"file://{folder}", Tokeniser.from_hex(parity.TOKEN_KEY), parity.NOW
    )
    assert dict(imported.refused) == {"repeat": sum(p.repeat for p in story.payments)}
    return imported


def replayed(
    features: FeatureSet, loaded: TrainingHistory, story: parity.Story, order: list[int] | None
) -> Iterator[tuple[int, list[float]]]:
    """Training's replay over imported events, in the story's order instead of that of time; repeats are gone."""
    by_id = {event["id"]: event for event in loaded.events}
    numbers: list[int] = []

    def events() -> Iterator[Any]:
        for item in story.items(order):
            if isinstance(item, dict):
                run.label(item)
            elif not item.repeat:
                numbers.append(item.n)
                yield by_id[item.row["id"]]

    run = dataset.replay(features, events())
    for _, vector in run:
        yield numbers[-1], vector


def test_training_leaves_its_vectors(tmp_path: Path) -> None:
    """Imported from Parquet, replayed by training's code: one vector for each payment that is no repeat."""
    features, story = compile_detector(parity.config().spec), parity.tell()
    loaded = load(tmp_path, story)
    document: dict[str, Any] = {
        "one": {n: parity.hexes(v) for n, v in replayed(features, loaded, story, None)}
    }
    for entity, order in parity.orders().items():
        mine = parity.columns(features, entity)
        document[entity] = {n: parity.hexes(v, mine) for n, v in replayed(features, loaded, story, order)}
    # What the model is fit on: the same replay in order of time, as float32; and the seeds that the stream starts from.
    seeds: dict[str, bytes] = {}

    def write_seeds(profiles: Any) -> int:
        seeds.update(profiles)
        return len(seeds)

    built, count = dataset.build(parity.config().spec, features, loaded, parity.NOW, 1, write_seeds)
    assert count == len(seeds) > 0
    document["by_time"] = [[event["id"] for event in loaded.events], built.x.tobytes().hex()]
    document["labels"] = json.loads(json.dumps(list(loaded.labels())))
    parity.leave("ray", document)
