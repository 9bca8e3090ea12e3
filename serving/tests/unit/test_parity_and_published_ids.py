"""The parity audit's verdicts and the memory of published ids."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_serving.worker.parity import ParitySamples, compare_vectors, with_audit
from fraud_serving.worker.published_ids import DecisionStamp, PublishedIds

SAW = {"customer": (1, 3, "aa"), "counterparty": (1, 9, "bb")}


def pair(inline: Any, streamed: Any, saw: Any = None, other_set: str = "s") -> tuple[Any, Any]:
    decision = {"vector": inline, "saw": SAW, "set": "s"}
    source = {"topic": "t", "partition": 0, "offset": 1}
    record = {"vector": streamed, "saw": saw or SAW, "set": other_set, "source": source, "appended": 5}
    return decision, record


@pytest.mark.parametrize(
    ("vectors", "result"),
    [
        (pair([1.0, None], [1.0, None]), "equal"),
        (pair([1.0], [1.0000000000000002]), "mismatch"),
        (pair([1.0, None], [1.0, 0.0]), "mismatch"),
        (pair([1.0], [2.0], {**SAW, "customer": (1, 4, "ac")}), "stale"),
        (pair([1.0], [1.0], {"customer": (2, 7, "aa"), "counterparty": (1, 9, "bb")}), "equal"),
        (pair(None, [1.0]), "none"),
        (pair([1.0], None), "none"),
        (pair([1.0], [1.0], other_set="other"), "none"),
    ],
)
def test_the_verdict_depends_on_the_digests_and_on_every_bit(vectors: tuple[Any, Any], result: str) -> None:
    """Equal digests demand equal bits, whatever epoch and sequence say; another digest is staleness."""
    assert compare_vectors(*vectors) == result


def test_the_streamed_vector_is_kept_where_it_differs() -> None:
    """Evidence of a difference is in the record itself; where there is none it would be ballast."""
    assert with_audit(*pair([1.0], [1.0]))["streamed"] is None
    assert with_audit(*pair([1.0], [2.0]))["streamed"] == {"set": "s", "vector": [2.0], "saw": SAW}
    assert with_audit(*pair([1.0], None))["streamed"] is None


def test_differing_decisions_are_sampled_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A mismatch shows id and features at once and then once a second, staleness its entity once a minute; no equal one."""
    caplog.set_level("INFO")
    now = [0.0]
    samples = ParitySamples(("count", "sum"), lambda: now[0])
    mismatch = pair([1.0, 2.0], [1.0, 3.0])
    stale = pair([1.0, 2.0], [2.0, 2.0], {**SAW, "customer": (1, 4, "ac")})

    def note(number: int, vectors: tuple[Any, Any]) -> None:
        samples.note({**with_audit(*vectors), "id": f"tx{number}"})

    for number, vectors in enumerate([mismatch, mismatch, stale, stale, pair([1.0, 2.0], [1.0, 2.0])]):
        note(number, vectors)
    now[0] = 2.0
    note(5, mismatch)
    note(6, stale)
    logged = [record.data for record in caplog.records]
    shown = [
        (one["id"], one["result"], one["count"], one["stale_entities"], one["features"]) for one in logged
    ]
    assert shown == [
        ("tx0", "mismatch", 1, [], ["sum"]),
        ("tx2", "stale", 1, ["customer"], ["count"]),
        ("tx5", "mismatch", 2, [], ["sum"]),
    ]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3)), max_size=80))
def test_the_newest_ids_are_kept_and_the_first_decision_stands(entries: list[tuple[int, int]]) -> None:
    """At most the bound stays, the newest; an id keeps its first decision while it is known."""
    recent, kept = PublishedIds(kept=10), []
    for number, decided in entries:
        before = recent.get(str(number))
        recent.add(0, [(str(number), DecisionStamp("h", decided))])
        assert recent.get(str(number)) == (before or DecisionStamp("h", decided))
        kept = [*(n for n in kept if n != number), number][-10:]
    assert len(recent) == len(kept)
    assert all(recent.get(str(number)) is not None for number in kept)


def test_an_id_is_remembered_on_whichever_partition_it_lies() -> None:
    """Another body of an id may have another card, and so lie on another partition."""
    recent = PublishedIds()
    recent.add(1, [("a", DecisionStamp("h", 5))])
    assert recent.get("a") == DecisionStamp("h", 5)
    recent.forget(1)
    assert recent.get("a") is None
