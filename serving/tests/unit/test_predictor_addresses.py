"""Predictors are asked in turns, whichever door asks; one that fails is passed over at once."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import ThreadingHTTPServer
from typing import Any

import orjson
import pytest

from fraud_contracts.errors import StoreError
from fraud_serving.clients.addresses import REST_SECONDS, AddressBook, Turns, time_for
from fraud_serving.clients.blocking_model import BlockingModelClient
from fraud_serving.clients.model_client import ModelClient
from fraud_testing.http_server import QuietHandler, serving
from fraud_testing.kafka import free_port, wait_for
from fraud_testing.packages import release_package

ANSWER = orjson.dumps(
    {
        "outputs": [{"name": "probability", "data": [0.5]}],
        "parameters": {"model_version": "1", "digest": "sha256:1"},
    }
)
Score = Callable[[], Any]


def turns(*addresses: str) -> Turns:
    one = Turns()
    one.know(addresses)
    return one


def test_each_address_comes_first_in_its_turn() -> None:
    """All others follow it, for the case that it fails."""
    three = turns("a", "b", "c")
    assert [three.order(0.0) for _ in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_one_that_failed_rests_and_then_one_caller_tries_it() -> None:
    """Its answer ends the rest; until then nobody else waits for it."""
    two = turns("a", "b")
    two.failed("a", 0.0)
    assert [two.order(0.5) for _ in range(4)] == [["b"]] * 4
    late = REST_SECONDS + 0.1
    assert [two.order(late) for _ in range(4)] == [["a", "b"], ["b"], ["b"], ["b"]]
    two.answered("a")
    assert [two.order(late) for _ in range(2)] == [["a", "b"], ["b", "a"]]


def test_where_all_failed_one_is_asked() -> None:
    """Slow ones don't get each request twice, and a lone one never rests."""
    two = turns("a", "b")
    two.failed("a", 0.0)
    two.failed("b", 0.0)
    assert [two.order(0.5) for _ in range(2)] == [["a"], ["b"]]
    one = turns("a")
    one.failed("a", 0.0)
    assert one.order(0.5) == ["a"]


def test_an_added_address_gets_its_turns_and_one_that_is_gone_gets_none() -> None:
    """What is known of the others stays."""
    one = turns("a", "b")
    one.failed("a", 0.0)
    one.know(("a", "c"))
    assert [one.order(0.5) for _ in range(2)] == [["c"], ["c"]]


def test_a_try_leaves_half_of_the_time_to_those_after_it() -> None:
    """The last one gets all that is left."""
    assert (time_for(2, 1.0), time_for(1, 0.5)) == (0.5, 0.5)


def test_addresses_are_looked_up_anew_while_the_old_ones_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that fails leaves them as they are; a name that was never found is an error."""
    answers: list[list[str] | OSError] = [OSError("away"), ["a"], OSError("away"), ["a", "b"]]

    def look_up(_: str) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr("fraud_serving.clients.addresses.RENEW_SECONDS", -1.0)
    monkeypatch.setattr("fraud_serving.clients.addresses.REST_SECONDS", -1.0)
    book = AddressBook(look_up)
    with pytest.raises(OSError, match="away"):
        book.ask("name").result(10)
    assert book.ask("name").result(10).addresses == ("a",)

    def known() -> tuple[str, ...]:
        return book.ask("name").result(10).addresses if answers else ("all",)

    wait_for(lambda: known() == ("all",), 10, "all look-ups")
    wait_for(lambda: book._names["name"].turns.addresses == ("a", "b"), 10, "the added address")


class Predictors:
    """Servers of one port on several addresses of loopback; ``asked`` counts by address."""

    def __init__(self, stack: ExitStack, *addresses: str) -> None:
        self.port, self.asked = free_port(), dict.fromkeys(addresses, 0)
        self.running: dict[str, ThreadingHTTPServer] = {}
        self.silent = threading.Event()
        self._stack = stack
        for address in addresses:
            self.start(address)

    def start(self, address: str) -> None:
        outer = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                if address not in outer.running:
                    self.close_connection = True  # as of a process that is gone
                    return
                outer.asked[address] += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(ANSWER)))
                self.end_headers()
                self.wfile.write(ANSWER)

        server = ThreadingHTTPServer((address, self.port), Handler)
        server.daemon_threads = True
        self.running[address] = self._stack.enter_context(serving(server))

    def stop(self, address: str) -> None:
        server = self.running.pop(address)
        server.shutdown()
        server.server_close()


@pytest.fixture
def predictors() -> Iterator[Predictors]:
    with ExitStack() as stack:
        yield Predictors(stack, "127.0.0.1", "127.0.0.2")


@pytest.fixture(params=["worker", "inline door"])
def score(request: pytest.FixtureRequest, predictors: Predictors) -> Iterator[Score]:
    """Asks for one score within a second, as that door does."""
    package = release_package("sha256:1", "set", f"http://predictors:{predictors.port}")
    book = AddressBook(lambda _: sorted(predictors.asked))
    if request.param == "worker":
        blocking = BlockingModelClient(1.0, book)
        yield lambda: blocking.score(package, "cards-a", [[1.0]])
        return
    with asyncio.Runner() as runner:
        client = ModelClient(book)
        yield lambda: runner.run(client.score(package, "cards-a", [[1.0]], 1.0))
        client.close()


def test_two_predictors_get_half_each(predictors: Predictors, score: Score) -> None:
    """By turns, over kept connections."""
    for _ in range(20):
        score()
    assert predictors.asked == {"127.0.0.1": 10, "127.0.0.2": 10}


def test_where_one_dies_the_other_takes_all_and_no_caller_hears_of_it(
    predictors: Predictors, score: Score
) -> None:
    """Its kept connection breaks, and new ones are refused."""
    for _ in range(4):
        score()
    predictors.stop("127.0.0.1")
    for _ in range(20):
        score()
    assert predictors.asked == {"127.0.0.1": 2, "127.0.0.2": 22}


def test_one_that_falls_silent_costs_one_caller_half_of_its_time(
    predictors: Predictors, score: Score
) -> None:
    """As on a lost node: it takes connections' bytes and never answers."""
    predictors.stop("127.0.0.1")
    with socket.create_server(("127.0.0.1", predictors.port)):
        start = time.monotonic()
        for _ in range(10):
            score()
        assert time.monotonic() - start < 2 * REST_SECONDS
    assert predictors.asked["127.0.0.2"] == 10


def test_without_any_the_caller_hears_why(predictors: Predictors, score: Score) -> None:
    """And one that comes back is asked again."""
    predictors.stop("127.0.0.1")
    predictors.stop("127.0.0.2")
    with pytest.raises(StoreError, match="Connection"):
        score()
    predictors.start("127.0.0.1")

    def answered() -> bool:
        try:
            return bool(score())
        except StoreError:
            return False

    wait_for(answered, 10, "an answer")
