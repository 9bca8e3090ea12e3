"""Learning from the lake, on real Delta tables as the sink writes them: each decision once, under the label that stands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from deltalake import DeltaTable

from fraud_contracts import lake as places
from fraud_contracts import model_package
from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector import parse_spec
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_pipelines.simulator import reports, simulate, write_csv
from fraud_ray import dataset, fit, history, lake, train
from fraud_ray.cut import Cut
from fraud_ray.errors import TrainingError
from fraud_ray.refit import TrainingRecord, refit
from fraud_ray.training_history import TrainingHistory
from fraud_sinks.lake import LakeWriter
from fraud_sinks.lake_tables import DECISIONS, LABELS, LakeTable
from fraud_sinks.meters import Meters
from fraud_sinks.records import Record
from fraud_testing import detectors

START = 1_780_000_000_000
DAY = 86_400_000
NOW = START + 100 * DAY
TOKENS = Tokeniser(bytes(32))
SPEC: dict[str, Any] = {
    **detectors.SIMULATED,
    "labels": {"sources": [{"name": "chargeback", "maturity": "30d"}, {"name": "analyst", "maturity": "1d"}]},
    "model": {"train": {"trials": 1, "minLabels": 10}},
}
FEATURES = compile_detector(parse_spec(SPEC))
WIDTH = len(FEATURES.names)


def config(folder: Path) -> DetectorConfig:
    return detectors.document(SPEC, storage_uri=f"file://{folder}")


class StoredLake:
    """Appends records as the sink does, at the offsets that follow."""

    def __init__(self, by: DetectorConfig) -> None:
        self.by = by
        self.next = {DECISIONS.name: 0, LABELS.name: 0}

    def put(self, kind: LakeTable, values: Sequence[dict[str, Any]]) -> None:
        uri = places.table(self.by.storage_uri, kind.name)
        writer = LakeWriter(uri, self.by.identity.group("lake-sink"), Meters("d", "lake"), kind=kind)
        topic, start = self.by.identity.topic(kind.name), self.next[kind.name]
        writer.write(
            [Record(topic, 0, start + i, NOW, None, orjson.dumps(value)) for i, value in enumerate(values)]
        )
        self.next[kind.name] += len(values)


def decision(event_id: str, age_days: float, **changes: Any) -> dict[str, Any]:
    event = {
        "id": event_id,
        "time": NOW - round(age_days * DAY),
        "amount": 1250,
        "currency": "EUR",
        "entities": {"customer": "t_1", "counterparty": "shop"},
        "fields": {"category": "travel", "channel": "pos"},
    }
    return {
        "id": event_id,
        "hash": "h",
        "door": "stream",
        "event": event,
        "set": FEATURES.hash,
        "vector": [0.5, None, *[float(len(event_id))] * (WIDTH - 2)],
        "action": "approve",
        "degraded": [],
        "decided": event["time"] + 5,
        **changes,
    }


def label(of: dict[str, Any], fraud: bool, age_days: float, source: str = "chargeback") -> dict[str, Any]:
    known_at = NOW - round(age_days * DAY)
    event = of["event"]
    return {
        "id": of["id"],
        "time": event["time"],
        "entities": event["entities"],
        "fraud": fraud,
        "source": source,
        "claimed": known_at - DAY,
        "known": known_at,
    }


def build(by: DetectorConfig, as_of: int = NOW) -> tuple[TrainingHistory, dataset.Dataset]:
    past = history.load(by.spec, by.storage_uri, TOKENS, as_of, required=False)
    past.add_lake(lake.read(by, as_of))
    data, _ = dataset.build(by.spec, FEATURES, past, as_of, 1, lambda profiles: sum(1 for _ in profiles))
    return past, data


def test_each_decision_counts_once_under_the_label_that_stands(tmp_path: Path) -> None:
    """Corrections supersede in both directions, repeats and strays add nothing, and young rows are not mature."""
    by = config(tmp_path)
    store = StoredLake(by)
    decisions = {name: decision(name, 40) for name in ("fraud", "honest", "cleared", "caught", "unsure")}
    decisions["young"] = decision("young", 10)
    decisions["young-fraud"] = decision("young-fraud", 10)
    store.put(DECISIONS, [*decisions.values(), decisions["fraud"]])
    stray = label(decision("elsewhere", 40), True, 5)
    store.put(
        LABELS,
        [
            label(decisions["fraud"], True, 20),
            label(decisions["cleared"], True, 30, "analyst"),
            label(decisions["cleared"], False, 20),
            label(decisions["caught"], False, 30, "analyst"),
            label(decisions["caught"], True, 20),
            label(decisions["unsure"], True, -1),  # known only after ``as_of``
            label(decisions["young-fraud"], True, 5),
            stray,
        ],
    )
    past, data = build(by)
    ids = [event["id"] for event in past.events]
    assert sorted(ids) == sorted(decisions)
    rows = dict(zip(ids, zip(data.y.tolist(), data.mature.tolist(), strict=True), strict=True))
    assert rows == {
        "fraud": (1, True),
        "honest": (0, True),
        "cleared": (0, True),
        "caught": (1, True),
        "unsure": (0, True),
        "young": (0, False),
        "young-fraud": (1, False),
    }
    assert data.early_frauds == 1
    assert past.lake["labels"] == 6
    assert past.lake["labels_without_decision"] == 1
    assert [one["known"] for one in past.labels()] == sorted(one["known"] for one in past.labels())


def test_recorded_vectors_are_learned_from_as_they_are(tmp_path: Path) -> None:
    """A decision's vector is used unchanged; of another set, without one, or blind, it is replayed."""
    by = config(tmp_path)
    StoredLake(by).put(
        DECISIONS,
        [
            decision("as-it-was", 40),
            decision("other-set", 39, set="0" * 64),
            decision("without", 38, vector=None),
            decision("blind", 37, degraded=["profiles_unavailable"]),
        ],
    )
    past, data = build(by)
    assert data.vectors == {
        "recorded": 1,
        "recorded_as_replayed": 0,
        "replayed_for_want_of_one": 2,
        "replayed_of_another_set": 1,
    }
    want = np.array([0.5, np.nan, *[9.0] * (WIDTH - 2)], np.float32)
    assert np.array_equal(data.x[0], want, equal_nan=True)
    amount = FEATURES.names.index("amount")
    assert [float(row[amount]) for row in data.x[1:]] == [1250.0] * 3
    assert [event["id"] for event in past.events] == ["as-it-was", "other-set", "without", "blind"]


def test_a_payment_in_files_and_lake_is_one_row(tmp_path: Path) -> None:
    """The lake's event and vector hold; its label too, where it has one, else the file's."""
    by = config(tmp_path)
    rows = simulate(2_000, 1, 30, START, fraud_rate=0.1)
    write_csv(rows, tmp_path / "history" / "h.csv")
    frauds = [row for row in rows if row["is_fraud"]][:2]
    decisions = []
    for row in frauds:
        one = decision(row["transaction_id"], 0)
        one["event"]["time"] = row["timestamp"]
        decisions.append(one)
    store = StoredLake(by)
    store.put(DECISIONS, decisions)
    store.put(LABELS, [label(decisions[0], False, 5)])
    past, data = build(by)
    ids = [event["id"] for event in past.events]
    assert len(set(ids)) == len(ids) == 2_000
    y = dict(zip(ids, data.y.tolist(), strict=True))
    assert [y[row["transaction_id"]] for row in frauds] == [0, 1]
    assert past.lake["in_files_too"] == data.vectors["recorded"] == 2
    assert sum(one["id"] == decisions[1]["id"] for one in past.labels()) == 1


def no_search(*_: Any) -> tuple[fit.Params, int, list[dict[str, Any]]]:
    return dict(fit.DEFAULTS), 20, []


def test_a_refit_from_the_record_gives_the_digest_again(tmp_path: Path) -> None:
    """The manifest's parameters and the tags' snapshot are enough, though the lake grew and was compacted."""
    by = config(tmp_path)
    rows = simulate(8_000, 4, 60, START, fraud_rate=0.08)
    write_csv(rows[:4_000], tmp_path / "history" / "h.csv")
    schema = EventSchema(by.spec.event, by.spec.entities)
    decisions = []
    for row in rows[4_000:]:
        event = schema.canonical(row, TOKENS, NOW)
        decisions.append(decision(event["id"], 0, event=event, decided=event["time"], vector=None))
    reported = {one["id"]: one for one in reports(rows, 4)}
    labels = [
        {**label(one, reported[one["id"]]["label"] == "fraud", 0), "known": reported[one["id"]]["sent"]}
        for one in decisions
        if one["id"] in reported
    ]
    store = StoredLake(by)
    store.put(DECISIONS, decisions[:2_000])
    store.put(DECISIONS, decisions[2_000:])
    store.put(LABELS, labels)
    kept: dict[str, Any] = {}

    def keep(folder: Path, card: dict[str, Any], tags: Any, extra: Any, trials: Any) -> str:
        kept["tags"], kept["manifest"] = (
            tags.to_tags(),
            json.loads((folder / model_package.MANIFEST).read_bytes()),
        )
        return "1"

    def count(profiles: Any) -> int:
        return sum(1 for _ in profiles)

    first = train.run(by, TOKENS, NOW, count, no_search, keep)
    assert first.card["lake"]["decisions"] == 4_000
    assert first.card["lake"]["labels"] == len(labels) > 100

    store.put(DECISIONS, [decision(f"later-{n}", 50) for n in range(50)])
    store.put(LABELS, [{**label(decisions[0], True, 0), "known": NOW - 1}])
    DeltaTable(places.table(by.storage_uri, DECISIONS.name)).optimize.compact()
    record = TrainingRecord.of(kept["manifest"], kept["tags"])
    assert refit(by, TOKENS, record).digest == first.digest
    assert train.run(by, TOKENS, NOW, count, no_search, keep).digest != first.digest


def test_what_a_cut_leaves_to_the_stream_is_not_read(tmp_path: Path) -> None:
    """Decisions whose records came after it, and labels; what an older topic of the name had at such an offset is history."""
    by = config(tmp_path)
    store, of = StoredLake(by), by.identity

    def at(noun: str, offset: int, age_ms: int) -> dict[str, Any]:
        return {
            "source": {"topic": of.topic(noun), "partition": 0, "offset": offset},
            "appended": NOW - age_ms,
        }

    decisions = {
        "before": decision("before", 40, **at("accepted", 6, 1000)),
        "after": decision("after", 40, **at("accepted", 7, 1000)),
        "by-the-topic": decision("by-the-topic", 40, **at("transactions", 0, 1000)),
        "older-topic": decision("older-topic", 40, **at("accepted", 900, DAY)),
        "nobody-knows": decision("nobody-knows", 40),
    }
    store.put(DECISIONS, list(decisions.values()))
    store.put(LABELS, [label(decisions["before"], fraud, 1) for fraud in (True, False, True)])
    cut = Cut({"accepted": {0: 7}, "labels": {0: 2}, "transactions": {}}, {"accepted": {0: NOW - DAY + 1}})
    snapshot = lake.read(by, NOW, cut=cut)
    assert {event["id"] for event in snapshot.events} == {"before", "older-topic", "nobody-knows"}
    assert snapshot.label_frauds.tolist() == [True, False]
    assert {event["id"] for event in lake.read(by, NOW).events} == set(decisions)


def test_a_snapshot_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """A lake that holds less than a version was made from can't give the model again, and says so."""
    with pytest.raises(TrainingError, match="isn't there") as caught:
        lake.read(config(tmp_path), NOW, {"decisions": {"payments.cards.decisions.v1/0": 5}})
    assert caught.value.reason == "SnapshotGone"
