"""The console's HTTP side over a ledger in memory: who may ask, what is answered, what the page may do."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fraud_console.app import NEWEST
from fraud_contracts.clients import CLIENTS_KEY
from fraud_contracts.detector_clients import Scope
from fraud_contracts.errors import NotReadyError, StoreError
from fraud_testing.consoles import console
from fraud_testing.serving import access

KEY = {"X-API-Key": "secret"}
ANALYSTS = access("analysts", "secret", scopes=[Scope.READ])
PAYMENTS = access("payments", "pays", scopes=[Scope.DECIDE, Scope.LABEL])
ADMIN = access("admin", "all", scopes=[Scope.ADMIN], requests_per_second=1)
NASTY = "<img src=x onerror=alert(1)>/'\"&"


class Memory:
    """Stands for the ledger: remembers what it was asked, gives what it was told."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None

    def alerts(self, limit: int, before: tuple[int, str]) -> list[dict[str, Any]]:
        self.asked.append((limit, before))
        if self.error:
            raise self.error
        return [{"id": NASTY, "decided": 5}]

    def transaction(self, event_id: str) -> dict[str, Any] | None:
        self.asked.append(event_id)
        return {"id": event_id} if event_id == NASTY else None

    def check(self) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def ledger() -> Memory:
    return Memory()


@pytest.fixture
def client(ledger: Memory, tmp_path: Path) -> TestClient:
    return TestClient(console(ledger, tmp_path, ANALYSTS, PAYMENTS, ADMIN).app())


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "other"}, {"X-API-Key": ""}])
@pytest.mark.parametrize("path", ["/api/alerts", "/api/transactions/x"])
def test_the_api_asks_for_the_key(
    client: TestClient, ledger: Memory, path: str, headers: dict[str, str]
) -> None:
    """Without a client's key nothing is read from the ledger."""
    answer = client.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthenticated"
    assert ledger.asked == []


def test_a_payment_systems_key_reads_nothing(client: TestClient, ledger: Memory) -> None:
    """The console asks for Read; the answer names the scope that lacks."""
    answer = client.get("/api/alerts", headers={"X-API-Key": "pays"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert "Read" in answer.json()["error"]["message"]
    assert ledger.asked == []


def test_a_key_that_asks_too_often_is_told_when_to_ask_again(client: TestClient) -> None:
    """Past the client's limit: 429 with Retry-After; Admin reads, too."""
    answers = [client.get("/api/alerts", headers={"X-API-Key": "all"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].json()["error"]["code"] == "rate_limited"
    assert answers[1].headers["Retry-After"] == "1"


def test_a_console_without_clients_lets_nobody_in(ledger: Memory, tmp_path: Path) -> None:
    """A file that was never there must not open it to everyone: it isn't ready, and every key is wrong."""
    app = console(ledger, tmp_path, ANALYSTS)
    (tmp_path / CLIENTS_KEY).unlink()
    client = TestClient(app.app())
    assert client.get("/readyz").status_code == 503
    assert client.get("/api/alerts", headers=KEY).status_code == 401


def test_alerts_are_paged_by_the_last_one(client: TestClient, ledger: Memory) -> None:
    """limit defaults to 50; before names the alert to go on from, whose id may hold a comma."""
    assert client.get("/api/alerts", headers=KEY).json() == {"alerts": [{"id": NASTY, "decided": 5}]}
    client.get("/api/alerts", params={"limit": 7, "before": "99,a,b"}, headers=KEY)
    assert ledger.asked == [(50, NEWEST), (7, (99, "a,b"))]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "before=", "before=x,y", "before=5", "before=5,%00"]
)
def test_a_bad_page_is_refused(client: TestClient, ledger: Memory, query: str) -> None:
    """The answer is 400 and the ledger isn't asked."""
    assert client.get(f"/api/alerts?{query}", headers=KEY).status_code == 400
    assert ledger.asked == []


def test_an_id_may_hold_anything_printable(client: TestClient) -> None:
    """Slashes and markup come through as what they are; unknown and impossible ids are 404."""
    from urllib.parse import quote

    assert client.get(f"/api/transactions/{quote(NASTY, safe='')}", headers=KEY).json() == {"id": NASTY}
    for event_id in ("unknown", "%00", "x" * 201):
        assert client.get(f"/api/transactions/{event_id}", headers=KEY).status_code == 404


def test_a_ledger_that_is_away_is_503(client: TestClient, ledger: Memory) -> None:
    """The cause goes to the log, not to the caller; readiness follows."""
    assert client.get("/readyz").status_code == 200
    ledger.error = StoreError("postgres", "password of fraud at 10.0.0.1")
    answer = client.get("/api/alerts", headers=KEY)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "10.0.0.1" not in answer.text
    ledger.error = NotReadyError("LedgerMissing", "no tables yet")
    assert client.get("/api/alerts", headers=KEY).json()["error"]["code"] == "not_ready"
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_whoever_asks_without_a_key_keeps_the_ledger_from_nobody(client: TestClient, ledger: Memory) -> None:
    """While one has it asked whether it is ready, the others are told what it said last."""
    assert client.get("/readyz").status_code == 200
    asked, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        asked.set()
        assert go_on.wait(30)
        raise StoreError("postgres", "gone")

    ledger.check = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.get, "/readyz")
        assert asked.wait(30)
        assert [client.get("/readyz").status_code for _ in range(50)] == [200] * 50
        go_on.set()
        assert first.result(30).status_code == 503


def test_the_page_runs_no_foreign_script(client: TestClient) -> None:
    """The policy allows our own files only, the page has no inline script or style, and the script makes no markup."""
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert "<script>" not in page.text
    assert "style=" not in page.text
    assert "onclick" not in page.text
    script = client.get("/page.js").text
    assert not [
        word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write") if word in script
    ]
    assert client.get("/page.css").headers["Content-Type"].startswith("text/css")


def test_the_page_can_be_used_without_sight_or_mouse(client: TestClient) -> None:
    """Language, labels for each field, a caption, a live status and column headings are there."""
    text = client.get("/").text
    for part in (
        'lang="en"',
        'for="key"',
        'for="find"',
        "<caption>",
        'aria-live="polite"',
        'scope="col"',
        "<main>",
    ):
        assert part in text


def test_requests_are_counted(client: TestClient) -> None:
    """By route and status, never by id."""
    client.get("/api/alerts", headers=KEY)
    client.get("/api/alerts")
    text = client.get("/metrics").text
    for status in ("200", "401"):
        line = f'fraud_console_requests_total{{detector="tests.cards",route="alerts",status="{status}"}} 1.0'
        assert line in text
