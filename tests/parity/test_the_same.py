"""What the paths left, compared bit for bit. Runs last; each path ran in its own environment."""

from __future__ import annotations

import struct
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from fraud_pipelines.audit import audit
from fraud_pipelines.features import compile_detector
from fraud_pipelines.replay import replay
from fraud_testing import parity

pytestmark = pytest.mark.integration
PATHS = ("replay", "ray", "inline")
STORY = parity.tell()
NEW = {str(payment.n) for payment in STORY.payments if not payment.repeat}


def expected(path: str) -> set[str]:
    """Plain replay looks at repeats as the stream does; the other two don't compute them again."""
    return {str(payment.n) for payment in STORY.payments} if path == "replay" else NEW


def same_digests(path: str, name: str, record: dict[str, Any]) -> bool:
    """Whether the path saw the set that the stream saw. Only the inline path may not: a late pending event of a busy key
    is left to the stream, as nobody can tell whether the profile has it."""
    if path != "inline":
        return True
    theirs: dict[str, str] = parity.fetch(path)["saw"][name][str(record["n"])]
    return all(record["saw"][entity][2] == digest for entity, digest in theirs.items())


def first_and_last(records: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    for record in records:
        first.setdefault(str(record["n"]), record)
        last[str(record["n"])] = record
    return first, last


@pytest.mark.parametrize("path", PATHS)
def test_with_one_partition_every_emission_has_the_same_bits(path: str) -> None:
    """First and second emission, before and after the restart, each equals the path's vector in all columns."""
    records = parity.fetch("stream-one")["records"]
    theirs = parity.fetch(path)["one"]
    assert set(theirs) == expected(path)
    twice = len(records) - len(STORY.payments)
    compared = [r for r in records if str(r["n"]) in theirs]
    fresh = [r for r in compared if same_digests(path, "one", r)]
    summary = f"{len(records)} emissions, {twice} of them again, against {path}"
    print(f"one partition: {summary}: {len(fresh)} of the same set, {len(compared) - len(fresh)} stale")
    assert twice > 0
    assert len(compared) - len(fresh) <= len(compared) // 100
    assert [r["n"] for r in fresh if parity.hexes(r["vector"]) != theirs[str(r["n"])]] == []


@pytest.mark.parametrize("entity", ["customer", "counterparty"])
@pytest.mark.parametrize("path", PATHS)
def test_with_two_partitions_every_record_emitted_once_has_the_same_bits(path: str, entity: str) -> None:
    """In the order in which the entity's stage took the events, the path gives each vector that was emitted once, and
    the last emission of each that was emitted twice."""
    records = parity.fetch("stream-two")["records"]
    theirs = parity.fetch(path)[entity]
    features = compile_detector(parity.config().spec)
    mine = parity.columns(features, entity)
    assert set(theirs) == expected(path)
    times = Counter(str(record["n"]) for record in records)
    _, last = first_and_last(records)
    fresh = [n for n in theirs if same_digests(path, entity, last[n])]
    once = [n for n in fresh if times[n] == 1]
    twice = [n for n in fresh if times[n] > 1]
    summary = f"{len(once)} emitted once, {len(twice)} twice, {len(theirs) - len(fresh)} stale"
    print(f"two partitions, {entity} against {path}: {summary}")
    assert len(theirs) - len(fresh) <= len(theirs) // 100
    assert len(once) > 0 < len(twice)
    assert [n for n in (*once, *twice) if parity.hexes(last[n]["vector"], mine) != theirs[n]] == []


def test_no_column_is_left_uncompared() -> None:
    """Each column of the vector belongs to one of the entities, so comparing by entity compares all."""
    features = compile_detector(parity.config().spec)
    of_both = {*parity.columns(features, "customer"), *parity.columns(features, "counterparty")}
    assert of_both == set(range(len(features.names)))


@pytest.mark.parametrize("name", ["stream-one", "stream-two"])
def test_first_emissions_stand_and_each_is_computed_again_from_what_it_saw(name: str) -> None:
    """Decided on first emissions, as the worker does: the audit counts those emitted twice, and no vector differs."""
    records = parity.fetch(name)["records"]
    first, _ = first_and_last(records)
    decisions = [
        {
            "id": record["event"]["id"],
            "door": "stream",
            **{k: record[k] for k in ("event", "set", "vector", "saw", "source")},
        }
        for n, record in first.items()
        if n in NEW
    ]
    labels = [
        {**label, "at": [chapter, 0, i]}
        for chapter, chapter_labels in enumerate(STORY.labels)
        for i, label in enumerate(chapter_labels)
    ]
    result = audit([compile_detector(parity.config().spec)], {}, decisions, records, labels)
    print(f"{name}: {result}")
    assert (result["differing"], result["unreproducible"]) == (0, 0), result
    assert result["equal"] == result["compared"] == len(NEW)
    assert result["emitted_twice"] == len(records) - len(STORY.payments) > 0
    assert result["first_emission"] == {"kept": len(NEW)}
    assert result["runs"] >= 2


def test_the_story_holds_what_it_says() -> None:
    """Past K, ties, late and too old, repeats, missing entities, corrections: none of them is missing by chance."""
    rows = [payment.row for payment in STORY.payments if not payment.repeat]
    times = [row["time"] for row in rows]
    cards = Counter(row["card"] for row in rows)
    assert cards["hot"] > 5 * 128
    assert sum(a == b for a, b in pairwise(times)) > 100
    assert sum(b < a for a, b in pairwise(times)) > 100
    assert sum(payment.repeat for payment in STORY.payments) > 30
    assert sum(row["merchant"] is None for row in rows) > 100
    assert sum(not label["fraud"] for chapter in STORY.labels for label in chapter) > 10
    vectors = {parity.hexes(r["vector"]) for r in parity.fetch("stream-one")["records"]}
    features = compile_detector(parity.config().spec)
    at = features.names.index("frauds_1d") * 16
    zero = struct.pack("<d", 0.0).hex()
    nan = struct.pack("<d", float("nan")).hex()
    assert sum(one[at : at + 16] not in (zero, nan) for one in vectors) > 20


def test_training_is_fit_on_the_bits_of_plain_replay() -> None:
    """In order of time, with the history's labels: the matrix is the plain replay's vectors, cut to float32 once."""
    theirs = parity.fetch("ray")
    ids, matrix = theirs["by_time"]
    schema, tokeniser = parity.intake()
    events = {p.row["id"]: schema.parse(parity.raw(p), tokeniser, parity.NOW)[0] for p in STORY.payments}
    features = compile_detector(parity.config().spec)
    replayed = b"".join(
        struct.pack(f"<{len(vector)}f", *vector)
        for _, vector in replay(features, [events[name] for name in ids], theirs["labels"])
    )
    assert replayed.hex() == matrix
