"""Sizes by load: more of anything never takes less, and the command says the same as the function."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts import names, sizing
from fraud_contracts.item_sizes import ItemSizes
from fraud_contracts.retention import COMPACTED, KEPT_DAYS
from fraud_contracts.sizing import Load, LoadError, main, parts, profile_bytes, totals

PAGE = Path(__file__).parents[3] / "docs" / "sizing.md"
LOAD = sizing.typical(1_000)
LOADS = st.builds(
    Load,
    rate=st.floats(0.01, 50_000),
    keys=st.lists(st.integers(0, 10**9), min_size=1, max_size=4).map(tuple),
    inline=st.floats(0, 1),
    flagged=st.floats(0, 1),
    labelled=st.floats(0, 1),
    features=st.integers(0, 200),
    window_days=st.integers(1, 90),
    partitions=st.integers(1, 120),
    copies=st.integers(1, 3),
    ledger_days=st.integers(0, 4_000),
    lake_days=st.integers(0, 4_000),
)


def sizes(load: Load, items: ItemSizes = ItemSizes()) -> dict[tuple[str, str], float]:  # noqa: B008
    return {(part.store, part.what): part.bytes for part in parts(load, items)}


def never_less(less: dict[tuple[str, str], float], more: dict[tuple[str, str], float]) -> bool:
    return all(size <= more.get(key, 0.0) * (1 + 1e-9) for key, size in less.items())


@given(LOADS, st.floats(1, 100))
def test_a_higher_rate_needs_no_less_of_anything(load: Load, times: float) -> None:
    """Part by part, whatever the load."""
    assert never_less(sizes(load), sizes(replace(load, rate=load.rate * times)))


@given(
    LOADS, st.sampled_from(["features", "window_days", "partitions", "copies", "ledger_days", "lake_days"])
)
def test_more_of_a_number_needs_no_less_of_anything(load: Load, name: str) -> None:
    """Features, days, partitions, copies."""
    assert never_less(sizes(load), sizes(replace(load, **{name: getattr(load, name) + 1})))


@given(LOADS, st.integers(1, 10**6))
def test_more_keys_need_no_less_in_all(load: Load, more: int) -> None:
    """Each key then has fewer events, so single profiles are smaller, and together they are not. In Kafka less may wait to be compacted."""
    larger = totals(parts(replace(load, keys=tuple(keys + more for keys in load.keys))))
    fewer = {key: size for key, size in totals(parts(load)).items() if key[0] != "Kafka"}
    assert all(size <= larger[key] * (1 + 1e-9) for key, size in fewer.items())


@given(LOADS)
def test_larger_items_need_no_less_of_anything(load: Load) -> None:
    """Each constant counts, and none is subtracted."""
    twice: dict[str, Any] = {one.name: 2 * getattr(ItemSizes(), one.name) for one in fields(ItemSizes)}
    assert never_less(sizes(load), sizes(load, ItemSizes(**twice)))


@pytest.mark.parametrize("name", [one.name for one in fields(ItemSizes)])
def test_every_constant_is_used(name: str) -> None:
    """One that changes nothing would be a measurement for nobody."""
    items = replace(ItemSizes(), **{name: getattr(ItemSizes(), name) * 2})
    load = replace(LOAD, keys=(50_000_000, 10), features=30)
    assert sizes(load, items) != sizes(load)


def test_a_claim_is_whole_for_ten_minutes_and_small_for_the_rest_of_a_day() -> None:
    """A payment a second: 600 whole claims and 85,800 small ones."""
    items = replace(ItemSizes(), claim_whole=1_000, claim_small=100)
    found = sizes(Load(rate=1, keys=(1,)), items)
    assert found["Redis", "claims, whole"] == 600 * 1_000
    assert found["Redis", "claims, small"] == (86_400 - 600) * 100


def test_a_topic_takes_what_its_days_hold_in_each_copy() -> None:
    """Records of 30 days, compressed, twice."""
    items = replace(ItemSizes(), decision=900, vector=0, record=100, compression=0.5)
    found = sizes(Load(rate=2, keys=(1,), copies=2), items)
    assert found["Kafka", "decisions"] == 2 * 86_400 * 30 * 1_000 * 0.5 * 2


def test_a_profile_grows_with_its_events_up_to_its_bound() -> None:
    """A busy key's is no larger than one that is full; a key without an event is none."""
    items = ItemSizes()
    one_a_day = Load(rate=1, keys=(86_400,), window_days=37)
    assert profile_bytes(one_a_day, 86_400, items) == items.profile_base + 37 * items.profile_event
    assert profile_bytes(replace(one_a_day, rate=10**6), 86_400, items) == items.profile_full
    assert profile_bytes(one_a_day, 0, items) == 0


def test_every_topic_has_days_or_is_compacted() -> None:
    """And none is both."""
    assert sorted([*KEPT_DAYS, *COMPACTED]) == sorted(names.TOPICS)


def test_the_heap_stands_in_place_of_rocksdb() -> None:
    """What Flink takes in all is one of the two."""
    assert ("Flink", "memory") not in totals(parts(LOAD))
    assert ("Flink", "disk") in totals(parts(LOAD))


@pytest.mark.parametrize(
    "changes", [{"rate": 0}, {"keys": ()}, {"keys": (-1,)}, {"inline": 1.5}, {"copies": 0}, {"lake_days": -1}]
)
def test_a_load_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    """With a message; nothing is computed of it."""
    with pytest.raises(LoadError):
        replace(LOAD, **changes)


def test_the_command_prints_every_part_and_the_stores_totals(capsys: pytest.CaptureFixture[str]) -> None:
    """For people."""
    assert main(["--rate", "1000", "--keys", "50000000", "1000000"]) == 0
    printed = capsys.readouterr().out
    assert all(part.what in printed for part in parts(LOAD))
    assert printed.count("in all") == len(totals(parts(LOAD)))


def test_the_command_prints_bytes_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """The same numbers as the function's."""
    assert main(["--rate", "250", "--keys", "5000", "300", "--days", "90", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    load = Load(rate=250, keys=(5_000, 300), ledger_days=90, lake_days=90)
    assert {(one["store"], one["what"]): one["bytes"] for one in document["parts"]} == {
        key: round(size) for key, size in sizes(load).items()
    }
    assert {one["store"] for one in document["totals"]} == set(sizing.STORES)


@pytest.mark.parametrize("wrong", [["--rate", "0"], ["--inline", "2"], ["--copies", "0"]])
def test_the_command_refuses_what_cannot_be(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 2 and a sentence."""
    with pytest.raises(SystemExit) as end:
        main(wrong)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_page_has_the_commands_table() -> None:
    """It differs only until `make reference` is run."""
    assert sizing.with_table(PAGE.read_text()) == PAGE.read_text()


def test_a_page_without_a_place_is_refused() -> None:
    """It isn't written over."""
    with pytest.raises(ValueError, match="lacks the lines"):
        sizing.with_table("# Another page\n")
