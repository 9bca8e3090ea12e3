"""Decisions and reports as the ledger reads them, and questions to what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import psycopg

from fraud_contracts.config import DetectorConfig
from fraud_testing.postgres import Server
from fraud_testing.sinks import sink

DAY = 1_764_000_000_000


def decision(event_id: str, action: str = "approve", **changes: Any) -> bytes:
    event = {
        "id": event_id,
        "time": DAY,
        "amount": 1250,
        "currency": "EUR",
        "entities": {"customer": f"t_{event_id}", "counterparty": "shop-1"},
        "fields": {"category": "travel"},
    }
    whole = {
        "id": event_id,
        "hash": "h1",
        "door": "inline",
        "event": event,
        "set": "s",
        "vector": [1.5, None],
        "action": action,
        "score": 17,
        "probability": 0.25,
        "reasons": [{"code": "rule:x", "text": "x"}],
        "release": "cards-release-1",
        "model_version": "3",
        "arm": "stable",
        "bucket": 12,
        "degraded": [],
        "decided": DAY + 5,
        "latency_ms": 1.25,
    }
    return orjson.dumps({**whole, **changes})


def report(event_id: str, label: str = "fraud", source: str = "analyst") -> bytes:
    return orjson.dumps({"id": event_id, "label": label, "source": source})


class Ledger:
    """Asks the database what the sink wrote."""

    def __init__(self, database: Server, config: DetectorConfig) -> None:
        schema = config.identity.database_schema
        self.connection = psycopg.connect(database.dsn, autocommit=True, options=f"-c search_path={schema}")

    def rows(self, query: str) -> list[Any]:
        rows: list[Any] = self.connection.execute(query).fetchall()
        return rows

    def one(self, query: str) -> Any:
        return self.rows(query)[0][0]


def ledger_sink(config: DetectorConfig, folder: Path, database: Server) -> Any:
    return sink("fraud_sinks.ledger", config, folder, POSTGRES_DSN=database.dsn)
