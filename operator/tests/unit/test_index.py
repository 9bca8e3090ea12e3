"""An index holds what its watch has brought and what our own writes came back with, whichever is later."""

from __future__ import annotations

from typing import Any

import pytest

from fraud_contracts import names
from fraud_operator.index import STALE, Index


def child(name: str, version: int, uid: str = "u", namespace: str = "n", **more: Any) -> dict[str, Any]:
    labels = {names.UID_LABEL: uid, names.DETECTOR_LABEL: "d"}
    meta = {"name": name, "namespace": namespace, "resourceVersion": str(version), "labels": labels}
    return {"kind": "Service", "metadata": meta, **more}


@pytest.fixture
def index() -> Index:
    """With one object, listed at version 10."""
    one = Index()
    one.replace([("10", [child("a", 5)])])
    return one


def held(index: Index) -> dict[str, int]:
    return {
        body["metadata"]["name"]: int(body["metadata"]["resourceVersion"]) for body in index.group("n", "u")
    }


def test_an_event_is_news_once(index: Index) -> None:
    """What is there already, be it by our own write, is no news; what is older changes nothing."""
    assert index.put(child("a", 11)) and not index.put(child("a", 11)) and not index.put(child("a", 7))
    index.absorb(child("b", 12))
    assert not index.put(child("b", 12))
    assert held(index) == {"a": 11, "b": 12}


def test_a_write_is_read_before_its_event_comes(index: Index) -> None:
    """What our write came back with is there at once, with what it says."""
    index.absorb(child("a", 11, spec={"x": 1}))
    body = index.get("n", "a")
    assert body is not None and body["spec"] == {"x": 1}


def test_a_late_answer_brings_nothing_back(index: Index) -> None:
    """An object that the watch saw go stays gone, though the answer to our own write of it comes only now."""
    assert index.put(child("b", 11)) and index.drop(child("b", 13))
    index.absorb(child("b", 11))
    assert held(index) == {"a": 5}
    index.absorb(child("b", 14))
    assert held(index) == {"a": 5, "b": 14}


def test_an_older_end_takes_no_newer_object(index: Index) -> None:
    """A namesake that was made after the end is there to stay."""
    index.absorb(child("a", 20))
    assert not index.drop(child("a", 15))
    assert held(index) == {"a": 20}


def test_a_list_tells_what_went_while_nobody_watched(index: Index) -> None:
    """What is not in a later list is gone, and that is told as every other difference is; what was written since stays."""
    index.put(child("b", 11))
    index.absorb(child("c", 40))
    version, changed = index.replace([("30", [child("a", 25)]), ("30", [child("e", 26)])])
    assert version == "30"
    assert held(index) == {"a": 25, "c": 40, "e": 26}
    assert changed == {("n", name, "d") for name in ("a", "b", "e")}


def test_nothing_of_ours_is_put_in_before_the_first_list() -> None:
    """Without a list nobody can tell whether an object that we wrote is there still."""
    index = Index()
    index.absorb(child("a", 5))
    assert held(index) == {} and not index.fresh


def test_objects_are_found_by_their_detector(index: Index) -> None:
    """A changed label moves an object to another detector; other namespaces' aren't found."""
    index.put(child("b", 11, uid="v"))
    index.put(child("a", 12, namespace="m"))
    assert held(index) == {"a": 5}
    index.put(child("b", 13))
    assert held(index) == {"a": 5, "b": 13} and index.group("n", "v") == []


def test_a_reader_cannot_change_what_others_read(index: Index) -> None:
    """Each reader gets an object of its own."""
    body = index.get("n", "a")
    assert body is not None
    body["metadata"]["labels"].clear()
    assert held(index) == {"a": 5}


def test_an_index_that_nothing_was_heard_of_is_not_read() -> None:
    """A watch that is well says something each minute; events, lists and bookmarks all count."""
    now = [0.0]
    index = Index(clock=lambda: now[0])
    assert not index.fresh
    index.replace([("1", [])])
    for hear in (
        lambda: index.heard("2"),
        lambda: index.put(child("a", 3)),
        lambda: index.drop(child("a", 4)),
    ):
        now[0] += STALE - 1
        assert index.fresh
        hear()
    now[0] += STALE
    assert not index.fresh


def test_a_kind_that_is_gone_leaves_nothing(index: Index) -> None:
    """Its objects went with it, and nothing can be read until it is listed again."""
    index.clear(unknown=True)
    assert held(index) == {} and index.unknown and not index.fresh
    index.absorb(child("a", 50))
    assert held(index) == {}
    index.replace([("60", [])])
    assert index.fresh and not index.unknown


def test_what_nobody_reads_is_not_kept() -> None:
    """An index may hold a part of each object."""
    index = Index(keep=lambda body: {"metadata": {"name": body["metadata"]["name"]}})
    index.replace([("10", [child("a", 5, spec={"large": "x" * 1000})])])
    assert index.get("n", "a") == {"metadata": {"name": "a"}}
