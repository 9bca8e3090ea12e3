"""Savepoints and checkpoints are found on a real object store, as Flink lays them out there."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import obstore
import pytest

from fraud_operator.buckets import Bucket, open_bucket
from fraud_operator.lineage import StoredState
from fraud_operator.old_streams import UNTOUCHED_MS, take_out
from fraud_operator.stored_states import StoredStates, search
from fraud_testing import objects
from fraud_testing.kafka import wait_for
from fraud_testing.required import require

pytestmark = pytest.mark.integration
STREAM = "abc123-4"
JOB = "0" * 32


@pytest.fixture(scope="module")
def store() -> Iterator[objects.Server]:
    require(objects.missing())
    with objects.server() as running:
        yield running


def bucket(store: objects.Server, folder: str) -> Bucket:
    return Bucket(f"{store.uri}/{folder}", "spec.storage.uri", "a test", store.environment)


def put(where: Bucket, *paths: str) -> None:
    for path in paths:
        obstore.put(open_bucket(where), path, b"x")


def put_later(where: Bucket, path: str, than: str) -> None:
    """The store's times are whole seconds: puts it again until it is the younger one."""

    def younger() -> bool:
        put(where, path)
        times = [obstore.head(open_bucket(where), one)["last_modified"] for one in (than, path)]
        return times[0] < times[1]

    wait_for(younger, 10, f"{path} younger than {than}", pause=0.2)


def test_the_newest_whole_one_is_found(store: objects.Server) -> None:
    """Of savepoints and checkpoints of all jobs of the stream; one that was never finished is passed over."""
    where = bucket(store, "newest")
    base = f"flink/{STREAM}"
    first, second, third = (
        f"{base}/{path}/_metadata"
        for path in ("savepoints/savepoint-1", f"checkpoints/{JOB}/chk-7", "savepoints/savepoint-2")
    )
    put(where, first)
    put_later(where, second, first)
    assert search(where, STREAM).paths[0] == f"{where.uri}/{base}/checkpoints/{JOB}/chk-7"
    put_later(where, third, second)
    put(where, f"{base}/checkpoints/{JOB}/chk-8/part")
    paths = ("savepoints/savepoint-2", f"checkpoints/{JOB}/chk-7", "savepoints/savepoint-1")
    assert search(where, STREAM) == StoredState(
        tuple(f"{where.uri}/{base}/{one}" for one in paths), (STREAM,), 4
    )


def flinks(number: int) -> bytes:
    """How Flink 2.2 begins the file of the checkpoint of this number."""
    return struct.pack(">IIq", 0x4960672D, 6, number) + b"\0" * 8


def test_checkpoints_are_ordered_by_their_numbers(store: objects.Server) -> None:
    """A clock that steps back gives later ones an earlier time; what is cut off comes last, and ten are offered."""
    where = bucket(store, "numbers")
    base = f"flink/{STREAM}/checkpoints/{JOB}"
    for number in (12, 3, 11, 10, 9, 8, 7, 6, 5, 4, 13):
        content = b"cut" if number == 13 else flinks(number)
        obstore.put(open_bucket(where), f"{base}/chk-{number}/_metadata", content)
    wanted = [f"{where.uri}/{base}/chk-{number}" for number in range(12, 2, -1)]
    assert list(search(where, STREAM).paths) == wanted


def test_other_streams_count_by_their_number_only(store: objects.Server) -> None:
    """The highest generation of any feature set comes first; folders that are none of a stream's are passed over."""
    where = bucket(store, "others")
    put(where, "flink/fff000/savepoints/a/_metadata", "flink/fff000-9/ha/x", "flink/notes/x", "lake/x")
    assert search(where, STREAM) == StoredState((), ("fff000-9", "fff000"), 0)
    assert search(bucket(store, "nothing-there"), STREAM) == StoredState()


def test_an_answer_holds_until_it_is_forgotten(store: objects.Server) -> None:
    """Passes of one question get one answer; afterwards the storage is searched again."""
    where, states = bucket(store, "kept"), StoredStates()
    key = ("n", "d")

    def found() -> StoredState:
        while (answer := states.look(key, where, STREAM)) is None:
            pass
        return answer

    assert found() == StoredState()
    put(where, f"flink/{STREAM}/savepoints/savepoint-1/_metadata")
    assert found() == StoredState()
    states.forget(key)
    assert found() == StoredState((f"{where.uri}/flink/{STREAM}/savepoints/savepoint-1",), (STREAM,), 4)


def test_a_store_that_is_away_is_asked_again(store: objects.Server) -> None:
    """A failed search is no answer: the job waits, and the next look begins another search."""
    asked: list[str] = []

    def away(_: Bucket, stream: str) -> StoredState:
        asked.append(stream)
        if len(asked) == 1:
            raise OSError("away")
        return StoredState()

    states = StoredStates(away)
    where = bucket(store, "away")
    assert states.look(("n", "d"), where, STREAM) is None
    assert states.look(("n", "d"), where, STREAM) == StoredState()


def test_the_folders_of_earlier_jobs_go(store: objects.Server) -> None:
    """A month after anything was written in them, and nothing else of the bucket."""
    where = bucket(store, "old")
    kept = [f"flink/{STREAM}/savepoints/savepoint-1/_metadata", "flink/abc123-40/x", "lake/flink/abc123/y"]
    put(where, *kept, "flink/abc123/checkpoints/1/chk-2/_metadata", "flink/abc123/checkpoints/1/shared/a")
    now = int(time.time() * 1000)
    take_out(where, lambda stream: stream == "abc123", now)
    assert len(paths(where)) == len(kept) + 2
    take_out(where, lambda stream: stream == "abc123", now + UNTOUCHED_MS + 10_000)
    assert paths(where) == set(kept)


def test_a_store_that_is_away_is_asked_another_day(store: objects.Server) -> None:
    where = bucket(store, "away")
    away = Bucket(
        where.uri, where.field, where.owner, {**where.credentials, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    )
    take_out(away, lambda stream: True, int(time.time() * 1000))


def paths(where: Bucket) -> set[str]:
    return {one["path"] for chunk in obstore.list(open_bucket(where)) for one in chunk}
