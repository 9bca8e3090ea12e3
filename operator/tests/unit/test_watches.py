"""A watch of one kind, over an API server whose answers are written down beforehand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, CRD
from fraud_operator import watches
from fraud_operator.index import Index
from fraud_operator.kube import ApiError, RefusedError, UnknownKindError, UnreachableError, unknown_kind
from fraud_operator.watches import Watch

RAY = BY_KIND["RayJob"]
UNKNOWN = unknown_kind(RAY)
Event = tuple[str, dict[str, Any]]


def job(name: str, version: int) -> dict[str, Any]:
    labels = {names.UID_LABEL: "u", names.DETECTOR_LABEL: "d"}
    return {"metadata": {"name": name, "namespace": "n", "resourceVersion": str(version), "labels": labels}}


class Server:
    """Gives each list and each stream in turn, then a stream on which nothing comes. ``since`` are the versions asked for."""

    def __init__(self, lists: list[Any], streams: list[list[Any]], definitions: list[list[Any]]) -> None:
        self.lists, self.streams, self.definitions = lists, streams, definitions
        self.since: list[str] = []
        self.end = threading.Event()

    def pages(self, *_: object) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        answer = self.lists.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        yield answer

    def watch(self, kind: Any, _: object, choice: Mapping[str, str], __: int) -> Iterator[Event]:
        if kind == CRD:
            assert choice == {"fieldSelector": "metadata.name=rayjobs.ray.io"}
            stream = self.definitions.pop(0) if self.definitions else []
        else:
            self.since.append(choice["resourceVersion"])
            stream = self.streams.pop(0) if self.streams else []
        for event in stream:
            if isinstance(event, ApiError):
                raise event
            yield event
        if not stream:
            self.end.wait()


class Watched:
    """A watch on a thread of its own, what it told, and the index that it kept."""

    def __init__(self, lists: list[Any], streams: list[list[Any]], definitions: list[list[Any]]) -> None:
        self.server = Server(lists, streams, definitions)
        self.news: list[str] = []
        self.turns: list[bool] = []
        self.index = Index()
        self.stop = threading.Event()
        self.watch = Watch(
            self.server, RAY, None, names.UID_LABEL, self.index,  # type: ignore[arg-type]  # all that it uses of a client
            lambda _, name, __: self.news.append(name), lambda: self.turns.append(self.index.unknown), self.stop,
        )  # fmt: skip
        self.thread = threading.Thread(target=self.watch.run)
        self.thread.start()

    def has(self, *names: str) -> bool:
        return [body["metadata"]["name"] for body in self.index.group("n", "u")] == list(names)


Start = Callable[..., Watched]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(watches, "FIRST_PAUSE", 0.01)
    running: list[Watched] = []

    def begin(
        lists: list[Any], streams: list[list[Any]] | None = None, definitions: list[list[Any]] | None = None
    ) -> Watched:
        running.append(Watched(lists, streams or [], definitions or []))
        return running[-1]

    yield begin
    for one in running:
        one.stop.set()
        one.server.end.set()
        one.thread.join(10)
        assert not one.thread.is_alive()


def until(fact: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.01)


def test_what_is_there_and_what_happens(start: Start) -> None:
    """The list fills the index and tells nothing, since nobody has asked before; events change it and are told."""
    events = [("ADDED", job("b", 11)), ("MODIFIED", job("a", 12)), ("DELETED", job("b", 13))]
    one = start([("10", [job("a", 5)])], [events])
    until(lambda: one.server.since == ["10", "13"])
    assert one.has("a") and one.news == ["b", "a", "b"] and one.turns == []
    assert one.watch.tried.is_set() and one.index.fresh


def test_a_stream_that_breaks_goes_on_where_it_was(start: Start) -> None:
    """Nothing is listed again; a bookmark moves the place from which it goes on."""
    broken = [("BOOKMARK", job("", 40)), UnreachableError(0, "gone")]
    one = start([("10", [])], [broken, [RefusedError(403, "for a moment")], [("ADDED", job("a", 41))]])
    until(lambda: one.has("a"))
    assert one.server.since[:3] == ["10", "40", "40"]


def test_a_place_that_is_too_old_leads_to_a_new_list(start: Start) -> None:
    """What went meanwhile is told, and so is what came."""
    lists = [("10", [job("a", 5), job("b", 6)]), ("90", [job("a", 5), job("c", 80)])]
    one = start(lists, [[ApiError(410, "too old")]])
    until(lambda: one.has("a", "c"))
    until(lambda: sorted(one.news) == ["b", "c"])
    assert one.server.since[-1] == "90"


def test_a_kind_that_comes_later_is_taken_up(start: Start) -> None:
    """While it is missing the index says so; its definition's appearance, not a timer, leads to another list."""
    definitions = [[("ADDED", {})], [("MODIFIED", {})]]
    one = start([UNKNOWN, UNKNOWN, ("10", [job("a", 5)])], [], definitions)
    until(lambda: one.has("a"))
    assert one.turns == [False] and one.server.definitions == []


def test_a_kind_that_is_missing_waits_for_its_definition(start: Start) -> None:
    """Nothing else is asked for meanwhile, and whoever waits for the first look needn't wait for the kind."""
    one = start([UNKNOWN])
    until(one.watch.tried.is_set)
    assert one.index.unknown and one.turns == []


def test_a_kind_that_goes_takes_its_objects_along(start: Start) -> None:
    """Its index is empty and unknown, and the detectors are told, since a condition names what to install."""
    one = start([("10", [job("a", 5)])], [[UnknownKindError(404, "no RayJob")]])
    until(lambda: one.turns == [True])
    assert one.has()


def test_a_list_that_is_refused_is_tried_again(start: Start) -> None:
    """Until then the index isn't read; nobody waits for it, and what it brings then is told."""
    one = start([RefusedError(403, "no right"), ("10", [job("a", 5)])])
    until(lambda: one.news == ["a"])
    assert one.has("a") and one.watch.tried.is_set()


def test_a_stream_that_makes_no_sense_ends_no_watch(start: Start) -> None:
    """An event without metadata is a fault that is logged; all is listed again."""
    one = start([("10", []), ("20", [job("a", 15)])], [[("ADDED", {})]])
    until(lambda: one.has("a"))
