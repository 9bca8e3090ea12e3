"""The way back of a label, whole: reports on Kafka, the ledger's join, the topic ``labels``, the lake, the training set."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from deltalake import DeltaTable

from fraud_contracts import lake as places
from fraud_contracts.config import DetectorConfig
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_ray import dataset, history, lake
from fraud_testing import kafka, postgres
from fraud_testing.detectors import detector
from fraud_testing.kafka import wait_for
from fraud_testing.required import require
from fraud_testing.sinks import SinkProcess, sink

pytestmark = pytest.mark.integration
CACHE = Path(os.environ.get("FRAUD_CACHE", Path.home() / ".cache" / "fraud-platform"))
PYTHON = CACHE / "envs" / "serving" / "bin" / "python"
DAY = 86_400_000
TOKENS = Tokeniser(bytes(32))
FRAUD, HONEST = "fraud", "legitimate"


def decision(by: DetectorConfig, event_id: str, at: int) -> bytes:
    event = {
        "id": event_id,
        "time": at,
        "amount": 900,
        "currency": "EUR",
        "entities": {"customer": f"t_{event_id}", "counterparty": "shop"},
        "fields": {"category": "travel"},
    }
    width = len(compile_detector(by.spec).names)
    whole: dict[str, Any] = {
        "id": event_id,
        "hash": "h",
        "door": "stream",
        "event": event,
        "set": by.feature_set,
        "vector": [float(len(event_id))] * width,
        "action": "approve",
        "score": 17,
        "probability": 0.25,
        "reasons": [],
        "release": "r",
        "degraded": [],
        "decided": at + 5,
    }
    return orjson.dumps(whole)


def restarted(running: SinkProcess) -> None:
    running.stop(signal.SIGKILL)
    running.start()
    running.await_ready()


def test_labels_reach_the_training_set_once(tmp_path: Path) -> None:
    """In either order, corrected, repeated, on unknown payments, with both sinks killed: one row each, the right label."""
    for lacking in (kafka.missing(), postgres.missing(), None if PYTHON.exists() else "make env-serving"):
        require(lacking)
    with ExitStack() as stack:
        broker = stack.enter_context(kafka.broker())
        database = stack.enter_context(postgres.server())
        by = detector(
            broker.bootstrap,
            2,
            labels={
                "sources": [{"name": "chargeback", "maturity": "30d"}, {"name": "analyst", "maturity": "1d"}]
            },
            model={"train": {"minLabels": 1}},
        ).model_copy(update={"storage_uri": f"file://{tmp_path}"})
        broker.create_detector_topics(str(by.identity), 2)
        reports, decisions = by.identity.topic("label-reports"), by.identity.topic("decisions")
        labels = by.identity.topic("labels")

        def tell(event_id: str, what: str, source: str = "chargeback") -> None:
            report = {"id": event_id, "label": what, "source": source, "claimed": now - DAY}
            broker.produce(reports, [(event_id, orjson.dumps(report))])

        def published() -> Counter[tuple[str, bool]]:
            records = [orjson.loads(message.value()) for message in broker.read(labels)]
            return Counter((record["id"], record["fraud"]) for record in records)

        def stored() -> list[dict[str, Any]]:
            uri = places.table(by.storage_uri, places.LABELS)
            if not DeltaTable.is_deltatable(uri):
                return []
            return DeltaTable(uri).to_pyarrow_table().to_pylist()  # type: ignore[no-any-return]  # no types

        now = int(time.time() * 1000)
        ages = {"early": 40, "cleared": 40, "caught": 40, "silent": 40, "fresh": 2, "fresh-fraud": 2}
        stores = {"POSTGRES_DSN": database.dsn}
        ledger = stack.enter_context(sink("fraud_sinks.ledger", by, tmp_path, **stores))
        into_lake = stack.enter_context(sink("fraud_sinks.lake", by, tmp_path, **stores))
        for running in (ledger, into_lake):
            running.python = str(PYTHON)
            running.start()
        ledger.await_ready()
        # A report before its payment, and one whose payment never comes; the sink dies in between.
        tell("early", FRAUD)
        tell("never", FRAUD)
        wait_for(
            lambda: sum(broker.committed(by.identity.group("ledger-sink"), reports).values()) >= 2, 30, "them"
        )
        restarted(ledger)
        payments = [(f"t_{name}", decision(by, name, now - age * DAY)) for name, age in ages.items()]
        broker.produce(decisions, [*payments, payments[0]])
        wait_for(lambda: published() == Counter({("early", True): 1}), 30, "the early report's label")
        tell("cleared", FRAUD, "analyst")
        tell("caught", HONEST, "analyst")
        tell("fresh-fraud", FRAUD)
        wait_for(lambda: published().total() == 4, 30, "first words")
        into_lake.stop(signal.SIGKILL)
        tell("cleared", HONEST)
        tell("caught", FRAUD)
        tell("caught", FRAUD, "analyst")  # says it again: nothing new
        wait_for(lambda: published().total() >= 6, 30, "corrections")
        restarted(ledger)
        into_lake.start()
        into_lake.await_ready()
        wait_for(lambda: len(stored()) == 6, 60, "labels in the lake")
        first = DeltaTable(places.table(by.storage_uri, places.DECISIONS)).to_pyarrow_table()
        assert sorted(first["id"].to_pylist()).count("early") <= 2
        as_of = int(time.time() * 1000)
        past = history.load(by.spec, by.storage_uri, TOKENS, as_of, required=False)
        past.add_lake(lake.read(by, as_of))
        features = compile_detector(by.spec)
        data, _ = dataset.build(by.spec, features, past, as_of, 1, lambda profiles: sum(1 for _ in profiles))
        ids = [event["id"] for event in past.events]
        rows = dict(zip(ids, zip(data.y.tolist(), data.mature.tolist(), strict=True), strict=True))
        assert len(ids) == len(rows)
        assert rows == {
            "early": (1, True),
            "cleared": (0, True),
            "caught": (1, True),
            "silent": (0, True),
            "fresh": (0, False),
            "fresh-fraud": (1, False),
        }
        assert [(one["id"], one["fraud"]) for one in past.labels()].count(("cleared", True)) == 1
        assert data.vectors["recorded"] == len(ages)
        assert past.lake["labels_without_decision"] == 0
