"""Looks for planted card numbers in the stores that only the cluster reaches; runs in the demo's Pod, after the traffic.

Kafka (keys, values and headers of every topic of the detector but raw ``transactions``, aborted records included),
Redis (every key and value of every type), PostgreSQL (every table of every schema, as text), MLflow (experiments, runs,
models, every artifact) and storage (``leaks_objects``).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import redis
import requests
from confluent_kafka import Consumer, KafkaError, TopicPartition
from psycopg import sql

from fraud_contracts import object_store
from fraud_contracts.config import DetectorConfig
from fraud_local.demo import leaks_objects, places
from fraud_local.demo.leaks import LeakReport, Needles, planted
from fraud_process.kafka import KafkaAccess

_BATCH = 500
_TIMEOUT = 30
# So far from a value's beginning packed bytes may begin, and so many of them are unpacked.
_HEAD = 64
_MOST = 8 * 2**20


def scan(config: DetectorConfig, live: Path, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """The whole search, as ``LeakReport.document`` gives it, with the number of planted cards beside."""
    env = dict(os.environ) if environ is None else environ
    needles = planted(live)
    report = LeakReport()
    root, own = _storage(config)
    parts: dict[str, Callable[[LeakReport], None]] = {
        "kafka": lambda report: kafka(needles, config, report),
        "redis": lambda report: redis_server(needles, env["REDIS_URL"], report),
        "postgres": lambda report: postgres(needles, env["POSTGRES_DSN"], report),
        "mlflow": lambda report: mlflow(needles, env["MLFLOW_TRACKING_URI"], report),
        "lake": lambda report: leaks_objects.lake(needles, root, env, report, own),
        "storage": lambda report: leaks_objects.objects(needles, root, env, report, own),
    }
    for place, search in parts.items():
        report.join(_searched(place, search))
    return {"planted": len(needles.numbers), **report.document()}


def _searched(place: str, search: Callable[[LeakReport], None]) -> LeakReport:
    """Of one store, from its beginning again where a connection ended amid the search; one that is gone keeps no other from being searched."""
    for last in (False, True):
        report = LeakReport()
        try:
            search(report)
            return report
        except Exception as error:
            if last:
                report.miss(place, error)
    return report


def _storage(config: DetectorConfig) -> tuple[str, list[str]]:
    """(what is searched, its folders that hold the numbers by right): the whole bucket but the demo's files and the user's history."""
    train, place = config.spec.model.train, object_store.place(config.storage_uri)
    assert place is not None
    platform = place.folder.rpartition("/")[0]
    own = [f"{platform}/{places.FOLDER}", *([f"{place.folder}/{train.history.path}"] if train else [])]
    return f"{object_store.SCHEME}{place.bucket}", own


def kafka(needles: Needles, config: DetectorConfig, report: LeakReport) -> None:
    """All topics of the detector that the broker has, whatever they are called, but for the clients' raw one."""
    consumer = Consumer(
        {
            **KafkaAccess.of(config.kafka).settings(),
            "group.id": config.identity.group("demo-leaks"),
            "enable.auto.commit": False,
            # Aborted transactions are in the log too.
            "isolation.level": "read_uncommitted",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": 5000,
        }
    )
    try:
        raw = config.identity.topic("transactions")
        topics = consumer.list_topics(timeout=_TIMEOUT).topics
        for topic in sorted(
            name for name in topics if name.startswith(f"{config.identity}.") and name != raw
        ):
            report.visit(f"kafka/{topic}")
            opened = set(topics[topic].partitions)
            consumer.assign([TopicPartition(topic, partition, 0) for partition in opened])
            while opened:
                pieces: list[tuple[str, bytes]] = []
                for message in consumer.consume(2000, timeout=0.5):
                    error = message.error()
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            opened.discard(message.partition())
                        elif error.fatal():
                            raise RuntimeError(error.str())
                        continue
                    where = f"partition {message.partition()} offset {message.offset()}"
                    headers = b" ".join(
                        name.encode() + b" " + (value or b"") for name, value in message.headers() or ()
                    )
                    pieces.append(
                        (where, b"\n".join((message.key() or b"", message.value() or b"", headers)))
                    )
                report.search_all(needles, f"kafka/{topic}", pieces)
            consumer.unassign()
    finally:
        consumer.close()


def redis_server(needles: Needles, url: str, report: LeakReport) -> None:
    """Every database of the server; values by DUMP would be compressed, so each type is read in its own way."""
    first = redis.Redis.from_url(url, socket_timeout=_TIMEOUT)
    numbers = sorted({int(name[2:]) for name in first.info("keyspace")} | {0})
    report.visit("redis")
    for number in numbers:
        client = redis.Redis.from_url(url, db=number, socket_timeout=_TIMEOUT)
        batch: list[bytes] = []
        for key in client.scan_iter(count=_BATCH):
            batch.append(key)
            if len(batch) >= _BATCH:
                _keys(needles, client, number, batch, report)
                batch = []
        _keys(needles, client, number, batch, report)
        client.close()
    first.close()


_READ: dict[bytes, Callable[[Any, bytes], Any]] = {
    b"string": lambda pipe, key: pipe.get(key),
    b"list": lambda pipe, key: pipe.lrange(key, 0, -1),
    b"hash": lambda pipe, key: pipe.hgetall(key),
    b"set": lambda pipe, key: pipe.smembers(key),
    b"zset": lambda pipe, key: pipe.zrange(key, 0, -1),
    b"stream": lambda pipe, key: pipe.xrange(key),
}


def _keys(needles: Needles, client: Any, number: int, keys: list[bytes], report: LeakReport) -> None:
    if not keys:
        return
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.type(key)
    kinds = pipe.execute()
    readable = [(key, kind) for key, kind in zip(keys, kinds, strict=True) if kind in _READ]
    for kind in kinds:
        if kind not in _READ and kind != b"none":  # it may have expired meanwhile
            report.miss(f"redis/{number}", TypeError(f"a key of type {kind.decode()} was not read"))
    for key, kind in readable:
        _READ[kind](pipe, key)
    pieces = [
        (f"db {number} {key!r}", b"\n".join((key, *_flat(value))))
        for (key, _), value in zip(readable, pipe.execute(), strict=True)
    ]
    report.search_all(needles, "redis", pieces)


def _unpacked(value: bytes) -> Iterator[bytes]:
    """What begins near a value's own beginning and is packed by zlib, as the decision in a claim is."""
    for at in range(min(len(value) - 1, _HEAD)):
        # The first two bytes of all that zlib packs.
        if value[at] % 16 == 8 and value[at] < 128 and int.from_bytes(value[at : at + 2]) % 31 == 0:
            with suppress(zlib.error):
                yield zlib.decompressobj().decompress(value[at:], _MOST)


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
        yield from _unpacked(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(key)
            yield from _flat(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _flat(inner)
    elif value is not None:
        yield str(value).encode()


def postgres(needles: Needles, dsn: str, report: LeakReport) -> None:
    """Every table of every schema that isn't PostgreSQL's own, row by row as text, and what its statistics keep of them."""
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in sorted(tables):
            place = f"postgres/{schema}.{table}"
            report.visit(place)
            query = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(schema, table))
            with connection.cursor(name="leaks") as rows:
                rows.execute(query)
                number = 0
                while batch := rows.fetchmany(2000):
                    pieces = [(f"row {number + at}", text.encode()) for at, (text,) in enumerate(batch)]
                    report.search_all(needles, place, pieces)
                    number += len(batch)
        report.visit("postgres/pg_stats")
        for (text,) in connection.execute("SELECT s::text FROM pg_stats s"):
            report.search(needles, "postgres/pg_stats", "a column's statistics", text.encode())


def mlflow(needles: Needles, uri: str, report: LeakReport) -> None:
    """What its REST API tells of experiments, runs and models, and every artifact of every run."""
    session = requests.Session()
    base = uri.rstrip("/")

    def ask(method: str, path: str, /, **body: Any) -> dict[str, Any]:
        query, document = (body, None) if method == "GET" else (None, body)
        url = f"{base}/api/2.0/mlflow/{path}"
        answer = session.request(method, url, params=query, json=document, timeout=_TIMEOUT)
        answer.raise_for_status()
        report.search(needles, "mlflow", path, answer.content)
        result: dict[str, Any] = answer.json()
        return result

    def pages(method: str, path: str, key: str, /, **body: Any) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page = ask(method, path, max_results=500, **({"page_token": token} if token else {}), **body)
            yield from page.get(key, [])
            token = page.get("next_page_token", "")
            if not token:
                return

    def artifacts(run: str, path: str) -> None:
        for entry in ask("GET", "artifacts/list", run_id=run, path=path).get("files", []):
            if entry.get("is_dir"):
                artifacts(run, entry["path"])
                continue
            answer = session.get(
                f"{base}/get-artifact", params={"run_id": run, "path": entry["path"]}, timeout=_TIMEOUT
            )
            answer.raise_for_status()
            report.search(needles, "mlflow/artifacts", entry["path"], answer.content)

    report.visit("mlflow/artifacts")
    experiments = [e["experiment_id"] for e in pages("POST", "experiments/search", "experiments")]
    for model in pages("GET", "registered-models/search", "registered_models"):
        for _ in pages("GET", "model-versions/search", "model_versions", filter=f"name='{model['name']}'"):
            pass
    for run in pages("POST", "runs/search", "runs", experiment_ids=experiments):
        artifacts(run["info"]["run_id"], "")
