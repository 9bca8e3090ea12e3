"""Baseline: the decision service that a first project has. Flask, features from lists in Redis, an MLflow pyfunc model.

It makes no claim of the id, writes no record to Kafka, gives no reasons and knows no fallback: it does less than ours.

    gunicorn fraud_bench.flask_app:app
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import mlflow.pyfunc
import orjson
import pandas as pd
import redis
from flask import Flask, request

from fraud_bench.naive import HISTORY, vector
from fraud_contracts.config import load_config
from fraud_pipelines.features import compile_detector

app = Flask(__name__)
_spec = compile_detector(load_config().spec).spec
_names = [feature.name for feature in _spec.features]
_model = mlflow.pyfunc.load_model(os.environ["BENCH_MODEL"])
_redis = redis.Redis.from_url(os.environ["REDIS_URL"])


@app.get("/readyz")  # type: ignore[untyped-decorator]  # Flask is in the serving environment only
def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/v1/decisions")  # type: ignore[untyped-decorator]  # Flask is in the serving environment only
def decide() -> dict[str, Any]:
    start, payment = time.perf_counter(), request.get_json()
    event = {
        "id": payment["id"],
        "time": payment["time"],
        "amount": round(payment["amount"] * 100),
        "fields": {"category": payment["category"]},
    }
    keys = {"customer": f"flask:c:{payment['card']}", "counterparty": f"flask:m:{payment['merchant']}"}
    entry, pipe = orjson.dumps(event), _redis.pipeline(transaction=False)
    for key in keys.values():
        pipe.rpush(key, entry).ltrim(key, -HISTORY, -1).lrange(key, 0, -1)
    replies = pipe.execute()
    events: dict[str, Sequence[dict[str, Any]]] = {
        name: [orjson.loads(e) for e in replies[3 * i + 2]] for i, name in enumerate(keys)
    }
    row = pd.DataFrame([vector(_spec, event, events)], columns=_names)
    probability = float(_model.predict(row)[0])
    action = "decline" if probability > 0.7 else "review" if probability > 0.3 else "approve"
    took = round((time.perf_counter() - start) * 1000, 3)
    return {
        "id": event["id"],
        "action": action,
        "probability": probability,
        "degraded": [],
        "latency_ms": took,
    }
