"""The search of the demo's Pod finds what is planted in real stores, and nothing where nothing is."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pyarrow
import pyarrow.parquet
import pytest
import redis
from confluent_kafka import Producer

from fraud_contracts.config import DetectorConfig
from fraud_local.demo import leaks_objects
from fraud_local.demo.leaks import LeakReport, Needles
from fraud_local.demo.leaks_stores import scan
from fraud_testing import detectors, kafka, objects, postgres
from fraud_testing import redis as redis_servers
from fraud_testing.required import require

pytestmark = pytest.mark.integration
CARD = "4539578763621486"


class Tracking(BaseHTTPRequestHandler):
    """The part of MLflow's API that is searched: one run with one artifact in a folder, one model on two pages."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        path = url.path.rpartition("/mlflow/")[2]
        if url.path == "/get-artifact":
            return self._answer(CARD.encode() if query["path"] == ["package/card.json"] else b"{}")
        if path == "artifacts/list":
            inner = (
                [{"path": "package/card.json"}]
                if query.get("path") == ["package"]
                else [{"path": "package", "is_dir": True}]
            )
            return self._answer(json.dumps({"files": inner}).encode())
        first = "page_token" not in query
        document = {"registered-models/search": {"registered_models": [{"name": "m" if first else "n"}]}}.get(
            path, {}
        )
        more = {"next_page_token": "2"} if path == "registered-models/search" and first else {}
        return self._answer(json.dumps({**document, **more}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        runs = {"runs": [{"info": {"run_id": "r"}}]}
        document = runs if self.path.endswith("runs/search") else {"experiments": [{"experiment_id": "1"}]}
        self._answer(json.dumps(document).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nobody reads it."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DetectorConfig, Path, dict[str, str]]]:
    for missing in (kafka.missing(), redis_servers.missing(), postgres.missing(), objects.missing()):
        require(missing)
    folder = tmp_path_factory.mktemp("leaks")
    live = folder / "live.jsonl.gz"
    live.write_bytes(gzip.compress(json.dumps({"raw": json.dumps({"card": CARD})}).encode()))
    tracking = ThreadingHTTPServer(("127.0.0.1", 0), Tracking)
    threading.Thread(target=tracking.serve_forever, daemon=True).start()
    with (
        kafka.broker() as broker,
        redis_servers.server() as cache,
        postgres.server() as database,
        objects.server() as store,
    ):
        config = detectors.detector(broker.bootstrap, 2, model={"train": {}})
        config = config.model_copy(update={"storage_uri": f"{store.uri}/{config.identity}"})
        broker.create_detector_topics(str(config.identity), 2)
        url = f"http://127.0.0.1:{tracking.server_address[1]}"
        env = {
            "REDIS_URL": cache.url,
            "POSTGRES_DSN": database.dsn,
            "MLFLOW_TRACKING_URI": url,
            **store.environment,
        }
        broker.produce(config.identity.topic("transactions"), [(CARD, json.dumps({"card": CARD}))])
        broker.produce(
            config.identity.topic("accepted"), [("t_1", json.dumps({"id": f"x{n}"})) for n in range(500)]
        )
        yield config, live, env
    tracking.shutdown()


def plant(config: DetectorConfig, env: dict[str, str]) -> None:
    """Once in each place, each time in another disguise."""
    broker = Producer({"bootstrap.servers": config.kafka.bootstrap_servers, "compression.type": "zstd"})
    broker.produce(config.identity.topic("decisions"), b"{}", headers=[("from", CARD.encode())])
    broker.produce(config.identity.topic("dead-letters"), base64.b64encode(b"id " + CARD.encode()), key=b"k")
    broker.flush(30)
    client = redis.Redis.from_url(env["REDIS_URL"], db=3)
    client.hset("h", "field", CARD)
    client.zadd("z", {f"card {CARD[:4]} {CARD[4:8]} {CARD[8:12]} {CARD[12:]}": 1.0})
    client.set(f"claim:{CARD}", b"1")
    client.set("claim:packed", b"C" + bytes(33) + zlib.compress(b'{"card":"%s"}' % CARD.encode(), 1))
    with psycopg.connect(env["POSTGRES_DSN"]) as connection:
        connection.execute("CREATE SCHEMA s; CREATE TABLE s.t (id bigint, doc jsonb)")
        connection.execute("INSERT INTO s.t SELECT n, '{}' FROM generate_series(1, 3000) n")
        connection.execute("INSERT INTO s.t VALUES (%s, '{}')", (int(CARD),))
    table = pyarrow.table({"id": ["a", "b"], "record": ["{}", json.dumps({"card": CARD})]})
    system, own = leaks_objects.file_system(config.storage_uri, env)
    for folder in ("lake/decisions", "history"):
        path = f"{own}/{folder}/part.parquet"
        pyarrow.parquet.write_table(table, path, compression="zstd", filesystem=system)
    bucket = own.partition("/")[0]
    # Gzipped here and not by its suffix; the demo's own folder may hold it, and a neighbour's may not.
    for name in (f"{own}/flink/chk-1/state", f"{bucket}/demo/live", f"{bucket}/mlflow/1/model"):
        with system.open_output_stream(name, compression=None) as out:
            out.write(gzip.compress(b"x" + CARD.encode()))


def test_what_is_planted_is_all_that_a_scan_finds(
    stores: tuple[DetectorConfig, Path, dict[str, str]],
) -> None:
    """Clean stores give no finding but for the artifact; then each planted number is found where it lies, in no raw topic or history."""
    config, live, env = stores
    clean = scan(config, live, env)
    assert clean["planted"] == 1 and clean["unread"] == [], clean
    assert {hit["place"] for hit in clean["hits"]} == {"mlflow/artifacts"}
    assert clean["searched"][f"kafka/{config.identity.topic('accepted')}"] > 500
    assert f"kafka/{config.identity.topic('transactions')}" not in clean["searched"]
    plant(config, env)
    report: dict[str, Any] = scan(config, live, env)
    topic = config.identity.topic
    # PostgreSQL may have taken a sample for its statistics by then, or not.
    hits = [(hit["place"], hit["form"]) for hit in report["hits"] if hit["place"] != "postgres/pg_stats"]
    assert sorted(hits) == sorted(
        [
            (f"kafka/{topic('decisions')}", "plain"), (f"kafka/{topic('dead-letters')}", "base64"),
            *[("redis", "plain")] * 4, ("postgres/s.t", "plain"),
            ("lake", "plain"), ("mlflow/artifacts", "plain"), *[("storage", "plain")] * 3,
        ]
    ), report  # fmt: skip
    assert CARD not in json.dumps(report)


def test_a_store_that_is_gone_is_named(stores: tuple[DetectorConfig, Path, dict[str, str]]) -> None:
    """What can't be searched is named as such, and the others are searched all the same."""
    config, live, env = stores
    report = scan(config, live, {**env, "REDIS_URL": "redis://127.0.0.1:9/0"})
    assert [text.partition(":")[0] for text in report["unread"]] == ["redis"]
    assert any(place.startswith("postgres/") for place in report["searched"])


def test_an_object_that_vanishes_leaves_the_others_to_be_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream removes old checkpoints, and a job its own files, while storage is searched."""
    table = pyarrow.table({"record": [json.dumps({"card": CARD})]})
    for name in ("a", "b"):
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet", compression="zstd")
    real = leaks_objects.listed

    def listed(*arguments: Any) -> Any:
        found = list(real(*arguments))
        (tmp_path / "a.parquet").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(leaks_objects, "listed", listed)
    report = LeakReport()
    for search in (leaks_objects.lake, leaks_objects.objects):
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
        search(Needles([CARD]), f"file://{tmp_path}", {}, report, ())
    # A Parquet file's statistics hold a value as it is.
    assert [(hit["place"], hit["where"]) for hit in report.hits] == [
        ("lake", "b.parquet"),
        ("storage", "b.parquet"),
    ]
    assert report.unread == []
