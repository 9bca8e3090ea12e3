"""A bucket asked by the operator: one that will do, and each way in which one doesn't, on a real store where there is one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import obstore
import pytest

from fraud_contracts import object_store
from fraud_operator.buckets import CHECKED, OBJECT, Bucket, ask, open_bucket
from fraud_testing import objects
from fraud_testing.kafka import free_port
from fraud_testing.required import require

pytestmark = pytest.mark.integration
OWNER = "spec.storage.secretRef: Secret mine in payments"


def bucket(store: objects.Server, uri: str = "", **credentials: str) -> Bucket:
    place = uri or f"{store.uri}/payments.cards"
    return Bucket(place, "spec.storage.uri", OWNER, {**store.environment, **credentials})


@pytest.fixture(scope="module")
def store() -> Iterator[objects.Server]:
    require(objects.missing())
    with objects.server() as running:
        yield running


def test_a_bucket_that_will_do_is_left_as_it_was(store: objects.Server) -> None:
    """A folder of a bucket and a whole bucket are both good, and nothing of the check stays in them."""
    assert ask(bucket(store)) == CHECKED
    assert ask(bucket(store, store.uri)) == CHECKED
    assert [name for name in store.objects() if OBJECT in name] == []


def test_a_bucket_that_was_good_is_only_listed(store: objects.Server) -> None:
    """The look once a minute writes nothing, so it adds no versions; a store that takes no writes passes it."""
    with objects.server(read_only=True) as read_only:
        assert ask(bucket(read_only), again=True) == CHECKED
    assert ask(bucket(store, AWS_SECRET_ACCESS_KEY="wrong-one"), again=True).reason == "AccessDenied"
    assert ask(bucket(store, "s3://another-bucket/x"), again=True).reason == "BucketAbsent"


def test_checks_of_one_folder_dont_meet(store: objects.Server) -> None:
    """Several operators may ask at the same time: each has an object of its own. Others' objects keep the folder, as in use."""
    obstore.put(open_bucket(bucket(store)), "kept", b"")
    facts: list[Any] = []
    threads = [threading.Thread(target=lambda: facts.append(ask(bucket(store)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert facts == [CHECKED] * 8


def test_an_absent_bucket_is_named(store: objects.Server) -> None:
    """The message names field, bucket and endpoint, and says what to do."""
    fact = ask(bucket(store, "s3://another-bucket/x"))
    assert (fact.ready, fact.reason) == (False, "BucketAbsent")
    where = f"127.0.0.1:{store.port}"
    assert fact.message == f"spec.storage.uri: there is no bucket another-bucket at {where}: make it"


@pytest.mark.parametrize("name", [object_store.ACCESS_KEY, object_store.SECRET_KEY])
def test_wrong_keys_are_named_by_their_secret(store: objects.Server, name: str) -> None:
    """A wrong key's id and a wrong key are both the Secret's fault, and neither stands in the message."""
    fact = ask(bucket(store, **{name: "wrong-one"}))
    assert (fact.ready, fact.reason) == (False, "AccessDenied")
    assert fact.message.startswith(f"{OWNER} may not list bucket fraud at 127.0.0.1:{store.port} (")
    assert "wrong-one" not in fact.message and store.environment[object_store.SECRET_KEY] not in fact.message


def test_a_bucket_that_may_only_be_read_is_named() -> None:
    """Keys that may list but not put are told as such."""
    require(objects.missing())
    with objects.server(read_only=True) as store:
        fact = ask(bucket(store))
    assert (fact.ready, fact.reason) == (False, "NotWritable")
    assert "may not write to" in fact.message and "put and to delete objects" in fact.message


def test_a_store_that_is_away_is_named_in_time(store: objects.Server) -> None:
    """Nobody listens, or nobody answers: within the bound the message says so."""
    start = time.monotonic()
    fact = ask(bucket(store, AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}"))
    assert (fact.ready, fact.reason) == (False, "Unreachable")
    assert time.monotonic() - start < 20


def test_an_endpoint_that_is_none_is_named(store: objects.Server) -> None:
    """What can't be an address is told as the Secret's, and breaks no pass."""
    for endpoint in ("nonsense", "http://[", "ftp://127.0.0.1"):
        fact = ask(bucket(store, AWS_ENDPOINT_URL=endpoint))
        assert (fact.ready, fact.reason) == (False, "Unreachable"), endpoint
        assert object_store.ENDPOINT in fact.message


class _Forgetful(BaseHTTPRequestHandler):
    """An object store that takes every PUT, whatever its condition; ``refusal`` answers one with a condition instead."""

    refusal = 0

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"d41d8cd98f00b204e9800998ecf8427e"')
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.refusal and "If-None-Match" in self.headers:
            self._answer(self.refusal, b"<Error><Code>NotImplemented</Code></Error>")
        else:
            self._answer(200)

    def do_DELETE(self) -> None:
        self._answer(204)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(200, b"<DeleteResult></DeleteResult>")

    def log_message(self, *args: Any) -> None:
        """Nothing: the test says what it saw."""


@pytest.mark.parametrize("refusal", [0, 501])
def test_a_store_without_conditional_put_is_refused_by_name(refusal: int) -> None:
    """One that ignores the condition and one that answers 501 to it are both told, with the reason and the remedy."""
    handler = type("Handler", (_Forgetful,), {"refusal": refusal})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        environment = {
            object_store.ACCESS_KEY: "a",
            object_store.SECRET_KEY: "b",
            object_store.ENDPOINT: f"http://127.0.0.1:{server.server_port}",
        }
        asked = Bucket("s3://bank/x", "spec.storage.uri", OWNER, environment)
        fact = ask(asked)
        assert (fact.ready, fact.reason) == (False, "NoConditionalPut")
        assert fact.message.startswith(f"spec.storage.uri: {asked.words} has no conditional PUT")
        assert ask(replace(asked, uri="s3://bank")).reason == "NoConditionalPut"
    finally:
        server.shutdown()
        server.server_close()
