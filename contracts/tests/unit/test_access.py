"""Keys of the mounted clients document: which opens what, how often, and what happens as the file changes."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fraud_contracts import metrics
from fraud_contracts.clients import ClientsDocument, hash_key
from fraud_contracts.detector_clients import Scope
from fraud_contracts.errors import AccessError, ForbiddenError, RateLimitedError, UnauthenticatedError
from fraud_process.access import LOOK_SECONDS, KeyCheck, KeyState, TokenBucket
from fraud_process.instruments import Instruments

OPENS = {
    "payments": {Scope.DECIDE},
    "labels": {Scope.LABEL},
    "analysts": {Scope.READ},
    "admin": set(Scope),
}


class Door:
    """A check over a file of clients, each with the keys named after it, and a clock that a test turns."""

    def __init__(self, folder: Path) -> None:
        self.path, self.now = folder / "clients.json", 100.0
        self.instruments = Instruments(CollectorRegistry(), detector="n.d")
        self.check = KeyCheck(self.path, self.instruments, lambda: self.now)

    def write(self, *clients: dict[str, Any]) -> None:
        """As the kubelet does: another file under the name; the door looks at it a second later."""
        document = {
            "clients": [{**one, "hashes": [hash_key(k.encode()) for k in one["keys"]]} for one in clients]
        }
        for one in document["clients"]:
            del one["keys"]
        self.put(json.dumps(document))

    def put(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self.path)
        self.now += LOOK_SECONDS

    def ask(self, key: str, scope: Scope = Scope.DECIDE) -> int:
        """The status that the answer would have."""
        try:
            self.check.admit(key.encode(), scope)
        except AccessError as error:
            return error.status
        return 200

    def count(self, client: str, result: str) -> float:
        value: float = self.instruments(metrics.CLIENT_REQUESTS, client=client, result=result)._value.get()
        return value


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def client(name: str, *keys: str, scopes: tuple[str, ...] = ("Decide",), **more: Any) -> dict[str, Any]:
    return {"name": name, "scopes": list(scopes), "keys": keys, **more}


@pytest.mark.parametrize("name", OPENS)
@pytest.mark.parametrize("scope", Scope)
def test_a_key_opens_its_clients_scopes_and_admin_opens_all(door: Door, name: str, scope: Scope) -> None:
    """Anything else is forbidden, by the name of the scope that lacks."""
    scopes = {"payments": "Decide", "labels": "Label", "analysts": "Read", "admin": "Admin"}
    door.write(*(client(one, f"key-of-{one}", scopes=(scopes[one],)) for one in scopes))
    if scope in OPENS[name]:
        door.check.admit(f"key-of-{name}".encode(), scope)
        assert door.count(name, "admitted") == 1
        return
    with pytest.raises(ForbiddenError, match=str(scope)) as caught:
        door.check.admit(f"key-of-{name}".encode(), scope)
    assert (caught.value.status, caught.value.code) == (403, "forbidden")
    assert door.count(name, "forbidden") == 1


@pytest.mark.parametrize("key", ["", "key", "Key-of-payments", "key-of-payments "])
def test_a_key_that_is_nobodys_opens_nothing(door: Door, key: str) -> None:
    """A missing one, too; it is counted for no client, since anybody may send any number of them."""
    door.write(client("payments", "key-of-payments"))
    with pytest.raises(UnauthenticatedError) as caught:
        door.check.admit(key.encode(), Scope.DECIDE)
    assert (caught.value.status, caught.value.code) == (401, "unauthenticated")


def test_a_key_is_rotated_without_a_gap(door: Door) -> None:
    """The new one is added, both are good, the old one is taken out: within a second of the file's change, without a restart."""
    door.write(client("payments", "old-key"))
    assert (door.ask("old-key"), door.ask("new-key")) == (200, 401)
    door.write(client("payments", "old-key", "new-key"))
    assert (door.ask("old-key"), door.ask("new-key")) == (200, 200)
    door.write(client("payments", "new-key"))
    assert (door.ask("old-key"), door.ask("new-key")) == (401, 200)


def test_a_key_of_two_clients_opens_what_either_does(door: Door) -> None:
    """As the one key of a detector from before there were clients; each request counts for the client that it opens as."""
    door.write(client("payments", "old"), client("analysts", "old", scopes=("Read",)))
    assert [door.ask("old", scope) for scope in (Scope.DECIDE, Scope.READ, Scope.LABEL)] == [200, 200, 403]
    assert door.count("payments", "admitted") == door.count("analysts", "admitted") == 1


def test_a_limit_lets_a_seconds_worth_through_and_then_its_rate(door: Door) -> None:
    """The answer past it says after how many whole seconds to come again; another key of the client has a limit of its own."""
    door.write(client("payments", "one", "two", requests_per_second=10))
    assert [door.ask("one") for _ in range(12)] == [200] * 10 + [429] * 2
    with pytest.raises(RateLimitedError) as caught:
        door.check.admit(b"one", Scope.DECIDE)
    assert (caught.value.code, caught.value.retry_after) == ("rate_limited", 1)
    assert door.ask("two") == 200
    door.now += 0.31
    assert [door.ask("one") for _ in range(4)] == [200] * 3 + [429]
    assert door.count("payments", "rate_limited") == 4


def test_a_file_that_changes_gives_no_key_a_full_bucket(door: Door) -> None:
    """Who has used up a second's worth has, whatever becomes of other clients; another limit begins anew."""
    door.write(client("payments", "one", requests_per_second=2))
    assert [door.ask("one") for _ in range(3)] == [200, 200, 429]
    door.now -= LOOK_SECONDS
    door.write(client("payments", "one", requests_per_second=2), client("more", "x"))
    assert door.ask("one") == 429
    door.write(client("payments", "one"))
    assert [door.ask("one") for _ in range(9)] == [200] * 9


@pytest.mark.parametrize(
    "text", ["", "{", '{"clients": [{"name": "x"}]}', '{"clients": 1}', '["secret-key"]']
)
def test_a_broken_file_leaves_the_last_keys(door: Door, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """One line in the log and a metric tell of it, without the file's content; a good one is taken up again."""
    caplog.set_level(logging.INFO)
    door.write(client("payments", "key"))
    assert door.ask("key") == 200
    caplog.clear()
    door.put(text)
    for _ in range(3):
        door.now += LOOK_SECONDS
        assert (door.ask("key"), door.check.state) == (200, KeyState.STALE)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "secret-key" not in str(vars(caplog.records[0]))
    assert door.instruments(metrics.CLIENTS_STALE)._value.get() == 1
    door.write(client("payments", "other"))
    assert (door.ask("other"), door.ask("key"), door.check.state) == (200, 401, KeyState.CURRENT)
    assert door.instruments(metrics.CLIENTS_STALE)._value.get() == 0


def test_a_file_that_goes_and_comes_leaves_the_last_keys(door: Door) -> None:
    """A volume that is unmounted under a running process revokes nothing."""
    door.write(client("payments", "key"))
    assert door.ask("key") == 200
    text = door.path.read_text()
    door.path.unlink()
    door.now += LOOK_SECONDS
    assert (door.ask("key"), door.check.state) == (200, KeyState.STALE)
    door.put(text)
    assert (door.ask("key"), door.check.state) == (200, KeyState.CURRENT)


def test_before_there_is_a_file_nobody_is_let_in(door: Door) -> None:
    """A process that starts too early asks again instead of ending or of opening to everybody."""
    assert (door.check.state, door.ask("key")) == (KeyState.MISSING, 401)
    door.put("{")
    assert (door.check.state, door.ask("key")) == (KeyState.MISSING, 401)
    door.write(client("payments", "key"))
    assert (door.check.state, door.ask("key")) == (KeyState.CURRENT, 200)


def test_a_file_that_is_as_it_was_is_not_read(door: Door) -> None:
    """Looking is one call of the system a second; a request in between costs not even that."""
    door.write(client("payments", "key"))
    assert door.ask("key") == 200
    door.put("{")
    door.now -= LOOK_SECONDS / 2
    assert door.check.state is KeyState.CURRENT


def test_a_client_that_is_gone_has_no_series_left(door: Door) -> None:
    """There are never more series than the spec has clients."""
    door.write(client("payments", "key"), client("shop", "shops"))
    assert door.ask("shops") == 200
    door.write(client("payments", "key"))
    door.ask("key")
    samples = [
        sample.labels["client"]
        for family in door.instruments.registry.collect()
        for sample in family.samples
        if sample.name == metrics.CLIENT_REQUESTS.name
    ]
    assert samples == ["payments"]


def test_a_bucket_never_holds_more_than_a_seconds_worth() -> None:
    """However long nobody asks; and a wait is as long as a request takes to be earned."""
    bucket = TokenBucket(4, 0.0)
    assert [bucket.take(1_000.0) for _ in range(5)] == [0.0] * 4 + [0.25]
    assert bucket.take(1_000.25) == 0.0


def test_the_document_holds_no_key(door: Door) -> None:
    """Hashes alone, of a form that the schema checks."""
    door.write(client("payments", "a-key-in-plain"))
    text = door.path.read_text()
    assert "a-key-in-plain" not in text
    assert ClientsDocument.model_validate_json(text).clients[0].hashes == (hash_key(b"a-key-in-plain"),)
