"""The inline door's clients, as a process sees them in its mounted file: scopes, keys that come and go, limits."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from fraud_contracts.clients import CLIENTS_KEY
from fraud_contracts.detector_clients import Scope
from fraud_testing import serving
from fraud_testing.detectors import replace_whole
from fraud_testing.kafka import wait_for

pytestmark = pytest.mark.integration
KEYS = {"payments": Scope.DECIDE, "labels": Scope.LABEL, "analysts": Scope.READ, "admin": Scope.ADMIN}
# Method, path, the scope that it asks for, and what it answers whom it lets in: to an empty body, of an unknown id.
ROUTES = [
    ("POST", "/v1/decisions", Scope.DECIDE, 400),
    ("POST", "/v1/labels", Scope.LABEL, 422),
    ("GET", "/v1/decisions/unknown", Scope.READ, 404),
    ("GET", "/v1/release", Scope.READ, 200),
]
CLIENTS = [serving.access(name, f"key-of-{name}", scopes=[scope]) for name, scope in KEYS.items()]


@pytest.fixture(scope="module")
def process(stack: Any) -> Iterator[serving.Process]:
    with serving.decision_service(stack.config, stack.folder, stack.redis.url) as running:
        yield running


@pytest.fixture
def service(stack: Any, process: serving.Process) -> serving.Process:
    """With one client of each scope."""
    serving.write_clients(stack.folder, *CLIENTS)
    wait_for(lambda: ask(process, "key-of-admin")[0] == 200, 10, "the clients")
    return process


def ask(
    service: serving.Process, key: str, method: str = "GET", path: str = "/v1/release"
) -> tuple[int, Any, Any]:
    """(status, JSON, headers) of the answer."""
    body = b"{}" if method == "POST" else None
    request = urllib.request.Request(
        service.url + path, data=body, method=method, headers={"X-API-Key": key} if key else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read()), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), error.headers


def scraped(service: serving.Process, metric: str) -> list[str]:
    with urllib.request.urlopen(service.url + "/metrics", timeout=5) as answer:
        return [line for line in answer.read().decode().splitlines() if line.startswith(metric)]


@pytest.mark.parametrize(("method", "path", "scope", "status"), ROUTES)
def test_a_key_opens_the_routes_of_its_scopes_alone(
    service: serving.Process, method: str, path: str, scope: Scope, status: int
) -> None:
    """403 names the scope that lacks; Admin opens all; a key that is nobody's opens none."""
    for name, own in KEYS.items():
        got, answer, _ = ask(service, f"key-of-{name}", method, path)
        if own in (scope, Scope.ADMIN):
            assert got == status, answer
        else:
            assert (got, answer["error"]["code"]) == (403, "forbidden")
            assert str(scope) in answer["error"]["message"]
    for wrong in ("", "key-of-nobody", "key-of-admin-"):
        got, answer, _ = ask(service, wrong, method, path)
        assert (got, answer["error"]["code"]) == (401, "unauthenticated")


def test_a_key_is_rotated_while_the_process_runs(stack: Any, service: serving.Process) -> None:
    """Two at once are good; one that is taken out is refused within seconds, and the other never is."""
    both = serving.access("admin", "key-of-admin", "the-next-key", scopes=[Scope.ADMIN])
    serving.write_clients(stack.folder, both)
    wait_for(lambda: ask(service, "the-next-key")[0] == 200, 10, "the new key")
    assert ask(service, "key-of-admin")[0] == 200
    serving.write_clients(stack.folder, serving.access("admin", "the-next-key", scopes=[Scope.ADMIN]))

    def refused() -> bool:
        assert ask(service, "the-next-key")[0] == 200
        return ask(service, "key-of-admin")[0] == 401

    wait_for(refused, 10, "the old key to be refused")


def test_past_its_limit_a_key_is_told_when_to_come_again(stack: Any, service: serving.Process) -> None:
    """429 with Retry-After, counted by client; another client's key goes on."""
    slow = serving.access("slow", "key-of-slow", scopes=[Scope.READ], requests_per_second=1)
    serving.write_clients(stack.folder, *CLIENTS, slow)
    wait_for(lambda: ask(service, "key-of-slow")[0] == 200, 10, "the slow client")
    status, answer, headers = wait_for(
        lambda: next((one for one in [ask(service, "key-of-slow")] if one[0] == 429), None), 10, "a refusal"
    )
    assert (status, answer["error"]["code"], headers["Retry-After"]) == (429, "rate_limited", "1")
    assert ask(service, "key-of-analysts")[0] == 200
    counted = scraped(service, "fraud_client_requests_total")
    assert any('client="slow"' in line and 'result="rate_limited"' in line for line in counted)


def test_a_broken_file_leaves_the_keys_and_is_told(stack: Any, service: serving.Process) -> None:
    """The door stays open to those who had keys, ready, and says in readiness and metric that the file can't be read."""
    replace_whole(stack.folder / CLIENTS_KEY, "{")

    def stale() -> bool:
        with urllib.request.urlopen(service.url + "/readyz", timeout=5) as answer:
            return bool(json.loads(answer.read())["clients"] == "stale")

    wait_for(stale, 10, "readiness to tell of it")
    assert ask(service, "key-of-analysts")[0] == 200
    assert scraped(service, "fraud_clients_stale")[0].endswith(" 1.0")


def test_the_api_describes_its_keys(service: serving.Process) -> None:
    """Each operation says which scope it asks for, and that it may answer 401, 403 and 429."""
    with urllib.request.urlopen(service.url + "/openapi.json", timeout=5) as answer:
        document = json.loads(answer.read())
    for method, path, scope, _ in ROUTES:
        operation = document["paths"][path.replace("unknown", "{id}")][method.lower()]
        assert str(scope) in operation["description"]
        assert operation["responses"].keys() >= {"401", "403", "429"}
