"""Baseline: the decision service that a first project has. Flask, features from lists in Redis, an MLflow pyfunc model.

It makes no claim of the id, writes no record to Kafka, gives no reasons and knows no fallback: it does less than ours.

    gunicorn fraud_bench.flask_app:app
"""

from __future__ import annotations

import os
import time
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


@app.get("/readyz")
def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/v1/decisions")
def decide() -> dict[str, Any]:
    start, given = time.perf_counter(), request.get_json()
    event = {
        "id": given["id"],
        "time": given["time"],
        "amount": round(given["amount"] * 100),
        "fields": {"category": given["category"]},
    }
    keys = {"customer": f"flask:c:{given['card']}", "counterparty": f"flask:m:{given['merchant']}"}
    entry, pipe = orjson.dumps(event), _redis.pipeline(transaction=False)
    for key in keys.values():
        pipe.rpush(key, entry).ltrim(key, -HISTORY, -1).lrange(key, 0, -1)
    replies = pipe.execute()
    seen = {name: [orjson.loads(e) for e in replies[3 * i + 2]] for i, name in enumerate(keys)}
    row = pd.DataFrame([vector(_spec, event, seen)], columns=_names)
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
