"""The API server's answers, over a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes import client

from fraud_contracts.child_kinds import BY_KIND
from fraud_operator.kube import ApiError, Kube, UnreachableError


class Server(ThreadingHTTPServer):
    """Answers each request with the next of ``statuses``; the last one again and again."""

    statuses: list[int]
    requests: int = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        number = min(self.server.requests, len(self.server.statuses) - 1)
        self.server.requests += 1
        body = b'{"items": [], "message": "storage is (re)initializing"}'
        self.send_response(self.server.statuses[number])
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not of interest here."""


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server(("127.0.0.1", 0), Handler)
    running = threading.Thread(target=one.serve_forever)
    running.start()
    yield one
    one.shutdown()
    one.server_close()
    running.join()


def kube(server: Server) -> Kube:
    settings = client.Configuration(host=f"http://127.0.0.1:{server.server_address[1]}")
    return Kube(client.ApiClient(settings))


def test_a_server_that_asks_for_patience_is_asked_again(server: Server) -> None:
    server.statuses = [429, 429, 200]
    assert kube(server).list(BY_KIND["Secret"], "payments") == []
    assert server.requests == 3


def test_a_server_that_never_stops_asking_for_patience_is_reported_by_its_own_words(server: Server) -> None:
    server.statuses = [429]
    with pytest.raises(ApiError, match=r"storage is \(re\)initializing"):
        kube(server).list(BY_KIND["Secret"], "payments")
    assert server.requests == 6


def test_any_other_refusal_is_not_asked_again(server: Server) -> None:
    server.statuses = [500]
    with pytest.raises(ApiError):
        kube(server).list(BY_KIND["Secret"], "payments")
    assert server.requests == 1


def test_a_server_that_is_not_there_is_unreachable_at_once(server: Server) -> None:
    asked = kube(server)
    server.server_close()
    with pytest.raises(UnreachableError):
        asked.list(BY_KIND["Secret"], "payments")
    assert server.requests == 0
