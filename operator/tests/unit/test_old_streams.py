"""Which folders of earlier streaming jobs go, and which never do: what is deleted in a bucket doesn't come back."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

from fraud_contracts.lineage import HandOver, Lineage, Lineages
from fraud_operator.buckets import Bucket
from fraud_operator.facts import Facts, StorageFact
from fraud_operator.old_streams import MOST, UNTOUCHED_MS, OldStreams, delete_untouched, is_outdated
from fraud_testing.healthy import NOW, healthy_facts, make_detector

DAY = 86_400_000
A, B = "a" * 64, "b" * 64
# The set A had generation 3 and came back as 7; B answered between.
LINEAGES = Lineages(
    detector="n.d",
    highest=7,
    known=(
        Lineage(feature_set=B, generation=5),
        Lineage(feature_set=A, generation=7, restored="s3://b/flink/aaaaaa-7/x"),
    ),
)
STREAMS = ("aaaaaa", "aaaaaa-3", "aaaaaa-7", "bbbbbb-2", "bbbbbb-5", "cccccc-4", "dddddd-8")


def outdated(lineages: Lineages = LINEAGES, **made_from: str) -> set[str]:
    """``made_from``: by stream what its job that is there was made from."""
    jobs = {
        f"d-f-{stream.replace('_', '-')}": {"spec": {"job": {"initialSavepointPath": path}}}
        for stream, path in made_from.items()
    }
    return {one for one in STREAMS if is_outdated(one, "d", lineages, jobs)}


def test_what_a_later_generation_of_its_set_replaced_goes() -> None:
    """And what is of a set that nobody knows of any more. The newest of each set stays: its job may go on, weeks later."""
    assert outdated() == {"aaaaaa", "aaaaaa-3", "bbbbbb-2", "cccccc-4"}


@pytest.mark.parametrize(
    "name", ["", "checkpoints", "aaaaaa-0", "aaaaaa-03", "AAAAAA-3", "aaaaaa-3.bak", "lake", ".."]
)
def test_what_has_no_name_of_a_stream_stays(name: str) -> None:
    assert not is_outdated(name, "d", LINEAGES, {})


def test_nothing_goes_while_no_lineage_is_known() -> None:
    """As after the loss of the document."""
    assert outdated(Lineages(detector="n.d", highest=9)) == set()


def test_what_a_job_is_of_or_was_made_from_stays() -> None:
    """Also of one on its way out, and of one that the document, an older one, doesn't know."""
    made_from = "s3://b/n.d/flink/cccccc-4/savepoints/savepoint-1"
    assert outdated(aaaaaa_3="", eeeeee_9=made_from) == {"aaaaaa", "bbbbbb-2"}
    of_a = LINEAGES.known[1].model_copy(update={"unreadable": ("s3://b/flink/bbbbbb-2/checkpoints/1/chk-1",)})
    assert "bbbbbb-2" not in outdated(LINEAGES.using(of_a))


def store_of(*paths: str) -> MemoryStore:
    store = MemoryStore()
    for path in paths:
        obstore.put(store, path, b"x")
    return store


def left(store: MemoryStore) -> set[str]:
    return {one["path"] for chunk in obstore.list(store) for one in chunk}


def a_month_later(store: MemoryStore) -> int:
    newest = max(one["last_modified"] for chunk in obstore.list(store) for one in chunk)
    return int(newest.timestamp() * 1000) + UNTOUCHED_MS + 1_000


def test_a_folder_goes_whole_and_no_other_one() -> None:
    """Not that of a stream whose name begins with its own."""
    own = {
        "flink/aaaaaa/checkpoints/1/chk-3/_metadata",
        "flink/aaaaaa/checkpoints/1/shared/x",
        "flink/aaaaaa/ha/y",
    }
    others = {"flink/aaaaaa-3/checkpoints/1/chk-3/_metadata", "flink/aaaaaab/z", "lake/part-1"}
    store = store_of(*own, *others)
    assert delete_untouched(store, "flink/aaaaaa/", a_month_later(store)) == len(own)  # type: ignore[arg-type]  # another store than S3's
    assert left(store) == others
    assert delete_untouched(store, "flink/aaaaaa/", a_month_later(store)) == 0  # type: ignore[arg-type]  # as above


def test_a_folder_in_which_anything_was_written_lately_stays() -> None:
    """Another cluster's job may be at work there, whatever this one knows."""
    store = store_of("flink/aaaaaa/checkpoints/1/chk-3/_metadata")
    now = a_month_later(store)
    assert delete_untouched(store, "flink/aaaaaa/", now - DAY) == 0  # type: ignore[arg-type]  # as above
    assert left(store)


def test_a_folder_of_very_many_objects_goes_in_parts() -> None:
    store = store_of(*(f"flink/aaaaaa/checkpoints/1/shared/{n}" for n in range(MOST + 5)))
    now = a_month_later(store)
    assert [delete_untouched(store, "flink/aaaaaa/", now) for _ in range(3)] == [MOST, 5, 0]  # type: ignore[arg-type]  # as above


class AtOnce(Executor):
    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(call(*args, **kwargs))
        return done


def looks(*times: Facts, bucket: Bucket | StorageFact | None = None) -> list[tuple[str, set[str]]]:
    """(folder, what is outdated in it) of each look that led to the bucket."""
    seen: list[tuple[str, set[str]]] = []
    of = Bucket("s3://platform", "f", "o", {}) if bucket is None else bucket
    old = OldStreams(
        lambda where, outdated, _: seen.append((where.uri, {one for one in STREAMS if outdated(one)})),
        AtOnce(),
    )
    for facts in times:
        old.look(DETECTOR, facts, lambda _: of)
    return seen


DETECTOR = make_detector()
FACTS = replace(healthy_facts(DETECTOR), lineages=LINEAGES, storage=StorageFact(True, "Checked", ""), now=NOW)


def test_a_bucket_is_looked_at_once_a_day_in_the_detectors_own_folder() -> None:
    once = looks(FACTS, replace(FACTS, now=NOW + DAY - 1))
    assert once == [(DETECTOR.storage_uri, {"aaaaaa", "aaaaaa-3", "bbbbbb-2", "cccccc-4"})]
    assert len(looks(FACTS, replace(FACTS, now=NOW + DAY))) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"storage": StorageFact(False, "Unreachable", "")},
        {"missing": frozenset({"FlinkDeployment"})},
        {"lineage_waits": "for Kafka"},
        {"lineages": LINEAGES.model_copy(update={"hand_over": HandOver(to=B, generations=(7, 5), since=1)})},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_nothing_is_looked_for_while_it_isnt_certain_what_there_is(changed: dict[str, Any]) -> None:
    assert looks(replace(FACTS, **changed)) == []


def test_a_folder_of_one_node_is_out_of_reach() -> None:
    assert looks(FACTS, bucket=StorageFact(True, "NodeFolder", "")) == []
