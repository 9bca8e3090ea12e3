"""Payments as columns are the payments that went in: by plain definitions over lists, on tables drawn at random."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest

from fraud_contracts.detector import parse_spec
from fraud_contracts.standing_label import standing_label
from fraud_ray import columns
from fraud_ray.columns import EventBuilder, first_equal
from fraud_ray.lake import LakeSnapshot
from fraud_ray.training_history import TrainingHistory
from fraud_testing.history_files import HEADER, NOW, load

DECLARED = parse_spec(
    {
        "event": {
            "id": {"field": "id"},
            "time": {"field": "time"},
            "amount": {"field": "amount", "currency": "EUR"},
            "fields": [
                {"name": "shop"},
                {"name": "tries", "type": "integer"},
                {"name": "ratio", "type": "number"},
                {"name": "online", "type": "boolean"},
            ],
        },
        "entities": [{"name": "customer", "field": "card"}, {"name": "device", "field": "device"}],
    }
)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of seven rows, so that a few rows are several."""
    for module in ("columns", "history_import", "training_history"):
        monkeypatch.setattr(f"fraud_ray.{module}.BATCH", 7)


def event(rng: random.Random, event_id: str, time: int | None = None) -> Any:
    def maybe(value: Any) -> Any:
        return value if rng.random() < 0.7 else None

    return {
        "id": event_id,
        "time": NOW - rng.randrange(6) if time is None else time,
        "amount": rng.randrange(10**13),
        "currency": "EUR",
        "entities": {"customer": f"c{rng.randrange(4)}", "device": maybe(rng.choice("äöü"))},
        "fields": {
            "shop": maybe(rng.choice(["", "a", "ß€", "x" * 900])),
            "tries": maybe(rng.choice([0, 2**53 - 1, 1 - 2**53])),
            "ratio": maybe(rng.choice([0.0, -1.5, 1e299])),
            "online": maybe(rng.random() < 0.5),
        },
    }


def taken(events: list[Any]) -> EventBuilder:
    builder = EventBuilder(DECLARED)
    for one in events:
        builder.add(one)
    return builder


@pytest.mark.parametrize("count", [0, 1, 7, 50])
def test_what_goes_in_comes_out(count: int) -> None:
    """Every value with its type, null as None, in order and in any other order."""
    rng = random.Random(count)
    events = [event(rng, f"e{n}") for n in range(count)]
    made = taken(events).columns()
    assert list(made) == events
    assert [[type(v) for v in one["fields"].values()] for one in made] == [
        [type(v) for v in one["fields"].values()] for one in events
    ]
    order = rng.sample(range(count), count)
    assert list(made.batch(np.array(order, np.int64))) == [events[i] for i in order]
    made.take(np.array(order, np.int64))
    assert list(made) == [events[i] for i in order]


def test_a_value_of_another_type_than_declared_is_null_and_counted() -> None:
    """An older decision may have had another field of the name, or none."""
    one = event(random.Random(1), "e")
    one["fields"] = {"shop": 5, "tries": True, "ratio": 1, "online": None}
    builder = taken([one])
    assert next(iter(builder.columns()))["fields"] == dict.fromkeys(("shop", "tries", "ratio", "online"))
    assert builder.misfits == {"shop": 1, "tries": 1, "ratio": 1}


def test_numbers_of_texts_are_in_the_texts_order() -> None:
    """Of tokens of any alphabet, as numpy sorts them; a null comes first."""
    texts = ["b", None, "a\U0001f600", "ß", "a", "b", "", "\uffff"]
    numbers = columns.codes(pyarrow.array(texts, pyarrow.large_string()).dictionary_encode())
    plain = [text for text in texts if text is not None]
    assert numbers[1] == -1
    want = np.unique(np.array(plain), return_inverse=True)[1]
    assert np.array_equal(np.delete(numbers, 1), want)


@pytest.mark.parametrize("seed", range(20))
def test_the_first_row_of_an_id_is_found(seed: int) -> None:
    """Also where different ids have the same hash."""
    rng = random.Random(seed)
    ids = [f"i{rng.randrange(12)}" for _ in range(rng.randrange(60))]
    shared = {one: rng.randrange(3) for one in ids}
    hashes = np.array([shared[one] if seed % 2 else hash(one) for one in ids], np.int64)
    first = first_equal(pyarrow.chunked_array([pyarrow.array(ids, pyarrow.large_string())]), hashes)
    assert first.tolist() == [ids.index(one) for one in ids]


def plain_import(files: dict[str, list[tuple[int, int, int | None, int]]]) -> Any:
    """(id, amount, known, fraud) of each file's rows, one after the other: -> what the import must make of them."""
    first: dict[int, int] = {}
    labels: dict[int, list[tuple[int | None, int]]] = {}
    refused: dict[str, int] = {}
    examples: list[str] = []
    for name, rows in files.items():
        for line, (n, amount, known, fraud) in enumerate(rows, 2):
            if n not in first:
                first[n], labels[n] = amount, [(known, fraud)]
                continue
            if first[n] != amount:
                reason, why = "id_reused", "with another body"
            elif labels[n][-1][1] == fraud:
                reason, why = "repeat", ""
            else:
                reason, why = "label_changed", "with another label; the later word holds"
            if reason != "id_reused":
                labels[n].append((known, fraud))
            refused[reason] = refused.get(reason, 0) + 1
            examples.append(f"{name} line {line}: the id was seen before {why}".strip())
    standing = {}
    for n, said in labels.items():
        dated = sorted((one for one in said if one[0] is not None), key=lambda one: one[0] or 0)
        if dated:
            known, fraud = standing_label(reversed(dated), lambda one: bool(one[1]))
            standing[f"t{n}"] = (bool(fraud), known)
        else:
            standing[f"t{n}"] = (bool(said[-1][1]), NOW + 7 * 86_400_000 - n % 3)
    order = sorted(standing, key=lambda one: -(int(one[1:]) % 3))
    return order, standing, refused, examples[:5]


@pytest.mark.parametrize("seed", range(25))
def test_repeated_ids_are_told_as_if_row_came_after_row(seed: int, tmp_path: Path) -> None:
    """Several copies of a table with other labels, dates and bodies: counts, examples, order and standing labels."""
    rng = random.Random(seed)
    files = {
        f"{name}.csv": [
            (
                rng.randrange(15),
                rng.choice([1, 1, 1, 2]),
                rng.choice([None, NOW + rng.randrange(4)]),
                rng.randrange(2),
            )
            for _ in range(rng.randrange(1, 30))
        ]
        for name in "ab"
    }
    texts = {}
    for name, rows in files.items():
        lines = [
            f"t{n},{NOW - n % 3},{amount},4000001,m-1,Bob,{fraud},{known or ''}"
            for n, amount, known, fraud in rows
        ]
        texts[name] = "\n".join((f"{HEADER},known", *lines, "")).encode()
    imported = load(tmp_path, texts)
    order, standing, refused, examples = plain_import(files)
    assert [one["id"] for one in imported.events] == order
    assert (
        dict(zip(order, zip(imported.fraud.tolist(), imported.known_at.tolist(), strict=True), strict=True))
        == standing
    )
    assert (imported.refused, imported.examples) == (refused, examples)


def plain_merge(
    files: list[tuple[Any, bool, int]], decided: list[Any], labels: list[tuple[str, bool, int]]
) -> tuple[list[Any], list[tuple[bool, int]], list[tuple[str, bool, int]]]:
    """Files' (event, fraud, known at) and the lake's events and labels in order: -> events, their labels, and all labels in order."""
    rows, at = (
        [[one, fraud, known, False] for one, fraud, known in files],
        {e["id"]: i for i, (e, _, _) in enumerate(files)},
    )
    standing = {event_id: (fraud, known) for event_id, fraud, known in labels}
    told: list[tuple[str, bool, int]] = []
    for one in decided:
        label = standing.get(one["id"])
        if one["id"] not in at:
            rows.append([one, *(label or (False, one["time"])), True])
            continue
        row = rows[at[one["id"]]]
        row[0], row[3] = one, True
        if label is not None:
            row[1:3] = label
        elif row[1]:
            told.append((one["id"], True, row[2]))
    rows.sort(key=lambda row: row[0]["time"])
    own = [(row[0]["id"], True, row[2]) for row in rows if row[1] and not row[3]]
    everything = sorted([*own, *told, *labels], key=lambda one: one[2])
    return [row[0] for row in rows], [(row[1], row[2]) for row in rows], everything


@pytest.mark.parametrize("seed", range(25))
def test_files_and_lake_are_joined_as_if_row_came_after_row(seed: int) -> None:
    """Ids in both, equal times, several labels of one id that became known at once: rows and labels in the same order."""
    rng = random.Random(seed)

    def drawn(count: int) -> list[Any]:
        return [event(rng, f"i{n}") for n in rng.sample(range(40), count)]

    files = sorted(drawn(rng.randrange(25)), key=lambda one: one["time"])
    decided = drawn(rng.randrange(25))
    of_files = [(one, rng.random() < 0.5, one["time"] + rng.randrange(4)) for one in files]
    labels = sorted(
        (
            (rng.randrange(len(decided)), rng.random() < 0.5, NOW + rng.randrange(4))
            for _ in range(12 * bool(decided))
        ),
        key=lambda one: one[2],
    )
    past = TrainingHistory.empty(DECLARED)
    past.events = taken(files).columns()
    past.fraud = np.array([fraud for _, fraud, _ in of_files], np.bool_)
    past.known_at = np.array([known for _, _, known in of_files], np.int64)
    past.pattern = pyarrow.array([one["id"] for one in files], pyarrow.large_string()).dictionary_encode()
    past.decided = np.full(len(files), -1, np.int64)
    snapshot = LakeSnapshot(
        taken(decided).columns(),
        label_rows=np.array([row for row, _, _ in labels], np.int64),
        label_frauds=np.array([fraud for _, fraud, _ in labels], np.bool_),
        label_known=np.array([known for _, _, known in labels], np.int64),
    )
    past.add_lake(snapshot)
    events, standing, told = plain_merge(
        of_files, decided, [(decided[row]["id"], fraud, known) for row, fraud, known in labels]
    )
    assert list(past.events) == events
    assert list(zip(past.fraud.tolist(), past.known_at.tolist(), strict=True)) == standing
    assert [(one["id"], one["fraud"], one["known"]) for one in past.labels()] == told
    of_files_ids = {one["id"] for one in files}
    assert columns.values(past.pattern) == [
        one["id"] if one["id"] in of_files_ids else None for one in events
    ]
    assert [decided[n]["id"] for n in past.decided.tolist() if n >= 0] == [
        one["id"] for one in events if one["id"] in {d["id"] for d in decided}
    ]
