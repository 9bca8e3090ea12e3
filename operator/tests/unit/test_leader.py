"""Who leads, over a Lease in memory and a clock that the test moves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from fraud_operator.kube import ApiError, ConflictError, UnreachableError
from fraud_operator.leader import LEASE_SECONDS, WRITE_SECONDS, Leader, identity, lease_name


class Server:
    """An API server with one Lease. ``away`` answers nothing; ``lost`` does what is asked, and its answers don't arrive."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.away = self.lost = False
        self.requests = 0
        self._version = 0

    def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        self._asked()
        return copy.deepcopy(self.lease)

    def create(self, kind: Any, body: dict[str, Any]) -> dict[str, Any]:
        self._asked()
        if self.lease is not None:
            raise ConflictError(409, "already exists")
        self.lease = copy.deepcopy(body)
        return self._stored()

    def merge(self, kind: Any, namespace: str, name: str, change: dict[str, Any]) -> dict[str, Any]:
        self._asked()
        if self.lease is None:
            raise ApiError(404, "not found")
        if change["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError(409, "the object has been modified")
        self.lease["spec"] |= change["spec"]
        return self._stored()

    def _asked(self) -> None:
        self.requests += 1
        if self.away:
            raise UnreachableError(0, "no answer")

    def _stored(self) -> dict[str, Any]:
        assert self.lease is not None
        self._version += 1
        self.lease["metadata"]["resourceVersion"] = str(self._version)
        if self.lost:
            raise UnreachableError(0, "no answer")
        return copy.deepcopy(self.lease)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Candidate(Leader):
    """Keeps what it is called back with."""

    def __init__(self, server: Server, clock: Clock, name: str) -> None:
        self.notes: list[str] = []
        super().__init__(
            server, "platform", "lease", name,  # type: ignore[arg-type]  # all that it uses of a client
            elected=lambda: self.notes.append("elected"), deposed=self.notes.append,
            stands_by=lambda: self.notes.append("stands by"), clock=clock,
        )  # fmt: skip


Make = Callable[[str], Candidate]


@pytest.fixture
def make(server: Server, clock: Clock) -> Make:
    """An operator, by its identity."""
    return partial(Candidate, server, clock)


def test_the_first_leads_and_the_second_stands_by(server: Server, clock: Clock, make: Make) -> None:
    """As long as the first renews, the second only looks; it knows who leads."""
    first, second = make("first"), make("second")
    for _ in range(20):
        first.look()
        second.look()
        clock.now += 2
    assert first.leads() and first.notes == ["elected"]
    assert not second.leads() and second.notes == ["stands by"] and second.holder == "first"


def test_a_renewal_is_one_request(server: Server, clock: Clock, make: Make) -> None:
    """The holder knows the Lease's version, so it needn't look first."""
    one = make("one")
    one.look()
    before = server.requests
    for _ in range(10):
        one.look()
    assert server.requests - before == 10


def test_a_lease_that_is_not_renewed_is_taken(server: Server, clock: Clock, make: Make) -> None:
    """The second takes it once the time has passed since it last saw a change, and by then the first writes no more."""
    first, second = make("first"), make("second")
    first.look()
    second.look()
    clock.now += WRITE_SECONDS
    assert not first.leads()
    second.look()
    assert not second.leads()
    clock.now += LEASE_SECONDS - WRITE_SECONDS
    second.look()
    assert second.leads() and second.notes == ["stands by", "elected"]
    assert server.lease is not None and server.lease["spec"]["leaseTransitions"] == 1


def test_who_comes_late_waits_the_whole_time(server: Server, clock: Clock, make: Make) -> None:
    """An operator that starts anew can't know how old the last renewal is, and counts from its own first look."""
    make("first").look()
    clock.now += 1000
    second = make("second")
    second.look()
    assert not second.leads()
    clock.now += LEASE_SECONDS
    second.look()
    assert second.leads()


def test_one_that_is_started_anew_goes_on_at_once(server: Server, clock: Clock, make: Make) -> None:
    """The same name in the Lease is the container before this one: it is dead."""
    make("pod").look()
    again = make("pod")
    again.look()
    assert again.leads() and again.notes == ["elected"]


def test_without_an_answer_nobody_writes(server: Server, clock: Clock, make: Make) -> None:
    """While the API server is away the leader stops writing; when it is back the same one goes on, elected once."""
    one = make("one")
    one.look()
    server.away = True
    clock.now += WRITE_SECONDS
    with pytest.raises(UnreachableError):
        one.look()
    assert not one.leads()
    clock.now += 1000
    server.away = False
    one.look()
    assert one.leads() and one.notes == ["elected"]


def test_an_answer_that_was_lost_deposes_nobody(server: Server, clock: Clock, make: Make) -> None:
    """A renewal that was done and not answered leaves the Lease with its holder."""
    one = make("one")
    one.look()
    server.lost = True
    with pytest.raises(UnreachableError):
        one.look()
    server.lost = False
    one.look()
    assert one.leads() and one.notes == ["elected"]


def test_one_that_slept_learns_that_another_leads(server: Server, clock: Clock, make: Make) -> None:
    """A leader that was stopped for a while never writes again: it is told who leads, also if that one has gone since."""
    for resigns in (False, True):
        server.lease = None
        first, second = make("first"), make("second")
        first.look()
        second.look()
        clock.now += LEASE_SECONDS
        second.look()
        assert second.leads()
        if resigns:
            second.resign()
        first.look()
        assert not first.leads()
        assert first.notes == ["elected", "another operator" if resigns else "second"]


def test_one_that_resigns_makes_room_at_once(server: Server, clock: Clock, make: Make) -> None:
    """The next look of another takes the Lease, without waiting for any time to pass."""
    first, second = make("first"), make("second")
    first.look()
    second.look()
    first.resign()
    assert not first.leads()
    second.look()
    assert second.leads()


def test_one_of_two_that_start_together_leads(server: Server, clock: Clock, make: Make) -> None:
    """Whoever writes the Lease first has it; the other's write is refused."""
    first, second = make("first"), make("second")
    get = server.get

    def late(*arguments: Any) -> Any:
        """The second sees no Lease, and the first makes it before the second's own comes."""
        lease = get(*arguments)
        server.get = get  # type: ignore[method-assign]
        first.look()
        return lease

    server.get = late  # type: ignore[method-assign]
    second.look()
    assert first.leads() and not second.leads() and second.notes == []


def test_a_lease_that_someone_deleted_is_made_again(server: Server, clock: Clock, make: Make) -> None:
    """The leader makes it anew with its next renewal, and leads on."""
    one = make("one")
    one.look()
    server.lease = None
    one.look()
    assert one.leads() and server.lease is not None and one.notes == ["elected"]


def test_a_leases_name_tells_its_scope() -> None:
    """Operators of the same namespaces are rivals, whatever the order in which they are named; others are none."""
    assert lease_name(["b", "a"]) == lease_name(["a", "b"])
    assert len({lease_name([]), lease_name(["a"]), lease_name(["b"]), lease_name(["a", "b"])}) == 4


def test_a_pod_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chart gives it; elsewhere host and process tell two operators apart."""
    monkeypatch.delenv("POD_NAME", raising=False)
    assert "_" in identity()
    monkeypatch.setenv("POD_NAME", "operator-0")
    assert identity() == "operator-0"
