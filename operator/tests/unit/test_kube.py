"""The API server's answers, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
import urllib3
from kubernetes import client

from fraud_contracts.child_kinds import BY_KIND
from fraud_operator.kube import ApiError, Kube, NotLeadingError, UnreachableError, _wait
from fraud_testing.http_server import QuietHandler, serving


class Server(ThreadingHTTPServer):
    """Answers each request with the next of ``statuses``; the last one again and again."""

    statuses: list[int]
    requests: int = 0


class Handler(QuietHandler):
    server: Server

    def do_PATCH(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self) -> None:
        number = min(self.server.requests, len(self.server.statuses) - 1)
        self.server.requests += 1
        body = b'{"items": [], "message": "storage is (re)initializing"}'
        self.send_response(self.server.statuses[number])
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server(("127.0.0.1", 0), Handler)) as one:
        yield one


def kube(server: Server, **options: Any) -> Kube:
    settings = client.Configuration(host=f"http://127.0.0.1:{server.server_address[1]}")
    return Kube(client.ApiClient(settings), **options)


def test_a_server_that_asks_for_patience_is_asked_again(server: Server) -> None:
    server.statuses = [429, 429, 200]
    assert kube(server).list(BY_KIND["Secret"], "payments") == []
    assert server.requests == 3


def test_a_server_that_never_stops_asking_for_patience_is_reported_by_its_own_words(server: Server) -> None:
    server.statuses = [429]
    with pytest.raises(UnreachableError, match=r"storage is \(re\)initializing"):
        kube(server).list(BY_KIND["Secret"], "payments")
    assert server.requests == 6


def test_a_write_is_sent_again_only_by_who_still_leads(server: Server) -> None:
    """Before each try it is asked anew: a Lease lost while the server asked for patience stops the write."""
    server.statuses = [429, 429, 200]
    leads = [True, True, False]
    asked = kube(server, may_write=lambda: leads.pop(0))
    with pytest.raises(NotLeadingError):
        asked.merge(BY_KIND["Secret"], "payments", "x", {})
    assert server.requests == 2 and leads == []
    server.requests = 0
    kube(server, may_write=lambda: True).merge(BY_KIND["Secret"], "payments", "x", {})
    assert server.requests == 3


def test_the_lease_is_renewed_by_a_single_try(server: Server) -> None:
    """One try is sent where no more are wanted, and the server's words are told."""
    server.statuses = [429, 200]
    with pytest.raises(UnreachableError, match="initializing"):
        kube(server, tries=1).merge(BY_KIND["Secret"], "payments", "x", {})
    assert server.requests == 1


@pytest.mark.parametrize(
    ("header", "seconds"), [({"Retry-After": "3"}, 3.0), ({"Retry-After": "900"}, 30.0), ({}, 4.0)]
)
def test_the_servers_wait_is_kept_within_bounds(header: dict[str, str], seconds: float) -> None:
    """What the server asks for is waited, half a minute at most; where it asks for nothing, longer each time."""
    assert _wait(urllib3.HTTPResponse(headers=header, status=429), 3) == seconds


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
