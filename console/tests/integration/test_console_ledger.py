"""The console over a real ledger, as the ledger sink's migrations make it."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import psycopg
import pytest
from starlette.testclient import TestClient

from fraud_console.ledger import Ledger
from fraud_contracts.clients import CLIENTS_ENV
from fraud_contracts.config import HTTP_PORT_ENV
from fraud_contracts.detector_clients import Scope
from fraud_process.store_address import StoreAddress
from fraud_sinks.database import migrate
from fraud_testing import postgres
from fraud_testing.consoles import console
from fraud_testing.detectors import detector, write
from fraud_testing.kafka import free_port, wait_for
from fraud_testing.proxy import Fault, proxy
from fraud_testing.required import require
from fraud_testing.serving import Process, access, write_clients

pytestmark = pytest.mark.integration
SCHEMA = "fraud_tests_console"
KEY = {"X-API-Key": "secret"}
ANALYSTS = access("analysts", "secret", scopes=[Scope.READ])


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    require(postgres.missing())
    with postgres.server() as running:
        yield running


@pytest.fixture
def running(server: postgres.Server) -> postgres.Server:
    """The server, whatever the test before did to it."""
    if server.process is None:
        server.start()
    return server


def test_alerts_and_transactions_come_from_the_ledger(server: postgres.Server, tmp_path: Path) -> None:
    """Before the tables exist: not ready. Then alerts newest first, in pages without gap or repeat, and whole decisions."""
    client = TestClient(console(Ledger(StoreAddress(server.dsn), SCHEMA), tmp_path, ANALYSTS).app())
    assert client.get("/readyz").status_code == 503
    assert client.get("/api/alerts", headers=KEY).json()["error"]["code"] == "not_ready"
    migrate(server.dsn, SCHEMA)
    assert client.get("/readyz").status_code == 200
    assert client.get("/api/alerts", headers=KEY).json() == {"alerts": []}

    def record(number: int) -> dict[str, object]:
        action = ("approve", "review", "decline")[number % 3]
        event = {
            "id": f"tx/{number}",
            "time": 1,
            "amount": number,
            "currency": "EUR",
            "entities": {"card": "t_1"},
        }
        reasons = [{"code": "rule:<b>", "text": "<b>bold</b>"}]
        return {
            "id": f"tx/{number}",
            "hash": "h",
            "door": "inline",
            "action": action,
            "score": 7,
            "event": event,
        } | {
            "reasons": reasons,
            "decided": number // 10,
        }

    with psycopg.connect(server.dsn, autocommit=True, options=f"-c search_path={SCHEMA}") as connection:
        for number in range(60):
            connection.execute(
                'INSERT INTO decisions (id, content, record, entity, topic, partition, "offset")'
                " VALUES (%s, '', %s, 't_1', 't', 0, %s)",
                (f"tx/{number}", orjson.dumps(record(number)).decode(), number),
            )
        connection.execute(
            "INSERT INTO label_reports VALUES ('r', 0, 0, 'tx/2', true, 'analyst', 5, 6, true)"
        )
        connection.execute(
            "INSERT INTO label_reports VALUES ('r', 0, 1, 'alone', true, 'analyst', 5, 6, false)"
        )
        connection.execute(
            "INSERT INTO labels (id, fraud, source, claimed, known, time, entities) VALUES ('tx/2', true, 'analyst', 5, 6, 1, '{}')"
        )

    alerts: list[dict[str, object]] = []
    while True:
        query = {"limit": "7"} | ({"before": f"{alerts[-1]['decided']},{alerts[-1]['id']}"} if alerts else {})
        page = client.get("/api/alerts", params=query, headers=KEY).json()["alerts"]
        if not page:
            break
        alerts += page
    want = sorted((n // 10, f"tx/{n}") for n in range(60) if n % 3)
    assert [(alert["decided"], alert["id"]) for alert in alerts] == want[::-1]

    transaction = client.get("/api/transactions/tx%2F2", headers=KEY).json()
    assert transaction["decision"] == record(2)
    assert transaction["label"] == {"fraud": True, "source": "analyst", "claimed": 5, "known": 6}
    assert transaction["reports"] == [{"fraud": True, "source": "analyst", "claimed": 5, "known": 6}]
    alone = client.get("/api/transactions/alone", headers=KEY).json()
    assert alone["decision"] is None
    assert len(alone["reports"]) == 1
    assert client.get("/api/transactions/none", headers=KEY).status_code == 404
    server.stop()
    assert client.get("/api/alerts", headers=KEY).json()["error"]["code"] == "ledger_unavailable"


def test_a_record_with_a_number_of_any_size_is_shown(running: postgres.Server, tmp_path: Path) -> None:
    """PostgreSQL keeps it as it is; neither its transaction nor the page of alerts fails over it."""
    migrate(running.dsn, SCHEMA)
    big = 10**30
    record = {"id": "big", "action": "decline", "decided": 2**40, "reasons": [{"code": big}]}
    record["event"] = {"time": 1, "amount": 1, "entities": {}}
    with psycopg.connect(running.dsn, autocommit=True, options=f"-c search_path={SCHEMA}") as connection:
        connection.execute(
            'INSERT INTO decisions (id, content, record, topic, partition, "offset") VALUES (%s, %s, %s, %s, 0, 99)',
            ("big", b"", json.dumps(record), "t"),
        )
    client = TestClient(console(Ledger(StoreAddress(running.dsn), SCHEMA), tmp_path, ANALYSTS).app())
    assert client.get("/api/alerts", headers=KEY).json()["alerts"][0]["reasons"] == [{"code": big}]
    assert client.get("/api/transactions/big", headers=KEY).json()["decision"] == record


def test_a_database_that_is_silent_or_gone_costs_a_bounded_wait(
    running: postgres.Server, tmp_path: Path
) -> None:
    """503 with a code, in time, however many ask; when it is back, so are the answers."""
    migrate(running.dsn, SCHEMA)
    with proxy(free_port(), running.port) as between:
        ledger = Ledger(StoreAddress(running.dsn.replace(str(running.port), str(between.port))), SCHEMA)
        client = TestClient(console(ledger, tmp_path, ANALYSTS).app())
        assert client.get("/api/alerts", headers=KEY).status_code == 200
        for fault in (Fault.STALL, Fault.CUT):
            between.set(fault)
            began = time.monotonic()
            with ThreadPoolExecutor(12) as pool:
                asked = [pool.submit(client.get, "/api/alerts", headers=KEY) for _ in range(12)]
                answers = [one.result(30) for one in asked]
            assert {one.status_code for one in answers} == {503}
            assert {one.json()["error"]["code"] for one in answers} == {"ledger_unavailable"}
            assert time.monotonic() - began < 15
            assert client.get("/readyz").status_code == 503
            between.set(None)
            assert client.get("/api/alerts", headers=KEY).status_code == 200


def test_it_answers_from_a_promoted_standby(tmp_path: Path) -> None:
    """Of an address with both hosts; while none of them takes writes it says that the ledger isn't there."""
    require(postgres.missing())
    with postgres.server() as primary, postgres.standby(primary) as standby:
        migrate(primary.dsn, SCHEMA)
        address = StoreAddress(postgres.either(standby, primary))
        client = TestClient(console(Ledger(address, SCHEMA), tmp_path, ANALYSTS).app())
        wait_for(lambda: client.get("/readyz").status_code == 200, 20, "the ledger's tables")
        primary.stop(signal.SIGQUIT)
        answer = client.get("/api/alerts", headers=KEY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_unavailable")
        standby.promote()
        assert client.get("/api/alerts", headers=KEY).json() == {"alerts": []}


def test_sigterm_ends_it_cleanly(running: postgres.Server, tmp_path: Path) -> None:
    """Unready first, still answering; then the process exits with 0."""
    config = detector("127.0.0.1:1")
    migrate(running.dsn, config.identity.database_schema)
    environ = {
        "FRAUD_CONFIG": str(write(config, tmp_path)),
        CLIENTS_ENV: str(write_clients(tmp_path, ANALYSTS)),
        "POSTGRES_DSN": running.dsn,
    }
    process = Process("fraud_console", tmp_path, environ)
    environ[HTTP_PORT_ENV] = str(process.port)
    process.start()
    try:
        assert process.process is not None
        process.process.send_signal(signal.SIGTERM)

        def unready() -> bool:
            try:
                urllib.request.urlopen(process.url + "/readyz", timeout=2).close()
            except urllib.error.HTTPError as error:
                return error.code == 503
            return False

        wait_for(unready, 2, "it to be unready")
        request = urllib.request.Request(process.url + "/api/alerts", headers=KEY)
        with urllib.request.urlopen(request, timeout=2) as answer:
            assert answer.status == 200
        assert process.process.wait(25) == 0
    finally:
        process.stop()
