"""The client that goes on while credentials change: what it sends is good, and no answer escapes it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from fraud_contracts.detector import DetectorSpec
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_testing import client_load
from fraud_testing.http_server import QuietHandler, serving
from fraud_testing.kafka import wait_for

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "manifests/examples").glob("*.yaml"))
NOW = 1_780_000_000_000
SPEC = {
    "event": {
        "id": {"field": "id"},
        "time": {"field": "time", "unit": "rfc3339"},
        "amount": {"field": "amount", "scale": 0, "currency": "EUR", "currencyField": "currency"},
        "fields": [
            {"name": "shop", "type": "string"},
            {"name": "items", "type": "integer"},
            {"name": "weight", "type": "number"},
            {"name": "abroad", "type": "boolean"},
        ],
    },
    "entities": [{"name": "customer", "field": "card"}, {"name": "counterparty", "field": "merchant"}],
    "labels": {"sources": [{"name": "analyst"}]},
}


def taken(spec: dict[str, Any], number: int) -> Any:
    """The payment as the platform reads it; its error where it is a bad one."""
    parsed = DetectorSpec.model_validate(spec)
    schema = EventSchema(parsed.event, parsed.entities)
    raw = json.dumps(client_load.transaction(spec, f"run-{number}", number, NOW)).encode()
    return schema.parse(raw, Tokeniser(b"k" * 32), NOW)[0]


def detectors() -> list[Any]:
    documents = [one for path in EXAMPLES for one in yaml.safe_load_all(path.read_text())]
    return [
        pytest.param(one["spec"], id=one["metadata"]["name"])
        for one in documents
        if one["kind"] == "FraudDetector"
    ]


@pytest.mark.parametrize("spec", detectors())
def test_the_examples_take_its_payments(spec: dict[str, Any]) -> None:
    """Whatever names and units a detector has for its fields."""
    assert taken(spec, 7)["id"] == "run-7"


def test_a_payment_has_every_declared_field() -> None:
    """Of each type, with the currency where one is to be said, and the time as text."""
    body = client_load.transaction(SPEC, "run-7", 7, NOW)
    assert body == {
        "id": "run-7", "time": "2026-05-28T20:26:40+00:00", "amount": 8, "currency": "EUR", "card": "4000000000000007",
        "merchant": "m-7", "shop": "rotation", "items": 7, "weight": 1.5, "abroad": True,
    }  # fmt: skip


def test_it_waits_as_the_answer_says() -> None:
    """Retry-After counts, else pauses grow to five seconds."""
    assert client_load.pause_of("3", 1) == 3.0
    assert [client_load.pause_of(None, attempt) for attempt in (1, 2, 3, 4, 5, 9)] == [0.5, 1, 2, 4, 5, 5]


@dataclass
class Door:
    """Answers as the service does to the keys that it knows; ``refusals`` are told first, one an attempt, then the truth."""

    known: set[str]
    refusals: list[int] = field(default_factory=list)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)

    def answer(self, method: str, path: str, key: str, body: bytes) -> tuple[int, dict[str, Any]]:
        self.asked[method, path.split("?")[0].rpartition("/")[0]] += 1
        if key not in self.known:
            return 401, {}
        if self.refusals:
            return self.refusals.pop(), {}
        if path == client_load.DECIDE.path:
            return 200, {"id": json.loads(body)["id"], "degraded": []}
        return (202 if path == client_load.REPORT.path else 200), {}


def handler(door: Door) -> type[QuietHandler]:
    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = door.answer(self.command, self.path, self.headers["X-API-Key"], body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _do

    return Handler


def give(keys: dict[str, str]) -> None:
    part = client_load.FOLDER / "part"
    part.write_text(json.dumps(keys))
    part.replace(client_load.FOLDER / client_load.KEYS)


def status() -> dict[str, Any]:
    file = client_load.FOLDER / client_load.STATUS
    return json.loads(file.read_text()) if file.exists() else {"counts": {}}


def failures() -> list[dict[str, Any]]:
    text = (client_load.FOLDER / client_load.FAILURES).read_text()
    return [json.loads(line) for line in text.splitlines()]


class Server(ThreadingHTTPServer):
    # A full queue drops connections, which busy cores then pay with seconds of waiting.
    request_queue_size = 512


@contextmanager
def loading(door: Door, key: str) -> Iterator[None]:
    """The load at fifty payments a second; when the block ends, so does it, with its last answer."""
    give(dict.fromkeys(("Decide", "Label", "Read"), key))
    with serving(Server(("127.0.0.1", 0), handler(door))) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        load = client_load.Load(url, url, 50, SPEC, "run")
        thread = Thread(target=lambda: asyncio.run(load.go()))
        thread.start()
        try:
            yield
        finally:
            (client_load.FOLDER / client_load.STOP).touch()
            thread.join(30)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_load, "FOLDER", tmp_path)


def decided(number: int) -> bool:
    return int(status()["counts"].get(client_load.DECIDE.path, 0)) >= number


def test_all_goes_well_where_it_does() -> None:
    """It decides, reports, reads again and looks at the console; each answer to a payment is kept, and nothing is a failure."""
    door = Door({"first"})
    with loading(door, "first"):
        wait_for(lambda: decided(150), 20, "150 payments")
    assert failures() == []
    with gzip.open(client_load.FOLDER / client_load.ANSWERS, "rt") as lines:
        ids = [json.loads(line)["id"] for line in lines]
    assert len(set(ids)) == len(ids) == status()["counts"][client_load.DECIDE.path]
    assert set(door.asked) == {("POST", "/v1"), ("GET", "/v1/decisions"), ("GET", "/api")}
    assert status()["done"]


def test_it_moves_to_another_key_without_a_failure() -> None:
    """Whoever takes the former key away once the client says that it has the other one refuses nobody."""
    door = Door({"first", "second"})
    with loading(door, "first"):
        wait_for(lambda: decided(50), 20, "50 payments")
        before = status()["keys"]
        give(dict.fromkeys(("Decide", "Label", "Read"), "second"))
        wait_for(lambda: status()["keys"] != before, 10, "the other key")
        wait_for(lambda: decided(100), 10, "those under way")
        door.known.discard("first")
        wait_for(lambda: decided(200), 20, "100 payments more")
    assert failures() == []


def test_each_attempt_that_fails_is_written_down() -> None:
    """Also one whose repeat succeeded; a key that is refused is not tried again."""
    door = Door({"first"}, refusals=[503])
    with loading(door, "first"):
        wait_for(lambda: decided(25), 20, "25 payments")
        assert [(one["status"], one["final"]) for one in failures()] == [(503, False)]
        door.known.clear()
        wait_for(lambda: len(failures()) > 5, 20, "refusals")
    assert {(one["status"], one["final"]) for one in failures()[1:]} == {(401, True)}


def test_nobody_there_is_a_failure() -> None:
    """A refused connection counts as any other attempt."""
    give(dict.fromkeys(("Decide", "Label", "Read"), "first"))
    # Port 9 is that of a service which nobody has.
    load = client_load.Load("http://127.0.0.1:9", "http://127.0.0.1:9", 100, SPEC, "run")

    async def some() -> None:
        going = asyncio.create_task(load.go())
        await asyncio.wait({going}, timeout=1.0)
        going.cancel()

    asyncio.run(some())
    assert failures()[0]["status"] == 0
