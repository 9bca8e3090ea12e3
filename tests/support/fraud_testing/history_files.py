"""Files of a detector's history, and what training's import makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud_contracts.detector import DetectorSpec, parse_spec
from fraud_pipelines.events import Tokeniser
from fraud_ray import history
from fraud_ray.errors import TrainingError
from fraud_ray.training_history import TrainingHistory

NOW = 1_790_000_000_000
HEADER = "transaction_id,timestamp,amount,card,merchant_id,merchant_name,is_fraud"


def spec() -> DetectorSpec:
    return parse_spec(
        {
            "event": {
                "id": {"field": "transaction_id"},
                "time": {"field": "timestamp"},
                "amount": {"field": "amount"},
                "sensitive": ["card"],
            },
            "entities": [
                {"name": "customer", "field": "card"},
                {"name": "counterparty", "field": "merchant_id", "labelDelay": "7d"},
            ],
        }
    )


def row(n: int, name: str = "Bob", fraud: int = 0) -> str:
    return f"t{n},{NOW - 1_000 + n},12.50,4000001,m-1,{name},{fraud}"


def text(*rows: str) -> bytes:
    return "\n".join((HEADER, *rows, "")).encode()


def load(folder: Path, files: dict[str, bytes]) -> TrainingHistory:
    for name, data in files.items():
        path = folder / "history" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return history.load(spec(), f"file://{folder}", Tokeniser(bytes(32)), NOW)


def refusal(folder: Path, files: dict[str, bytes]) -> str:
    with pytest.raises(TrainingError) as caught:
        load(folder, files)
    assert caught.value.reason in ("HistoryUnreadable", "NoHistory")
    return str(caught.value)
