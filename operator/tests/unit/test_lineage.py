"""Which lineage a streaming job is of: it goes on where it can, begins anew where it can't, and never writes what was written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts.lineage import INPUTS, Beginning, Lineage, Lineages
from fraud_operator.lineage import HELD_BACK, LineageFacts, SeedsOffer, StoredState, decide

A, B = "a" * 64, "b" * 64
NOW = 1_795_000_000_000
TOPICS = {"transactions": "t1", "accepted": "a1", "labels": "l1", "seeds": "s1"}
NONE = Lineages(detector="n.d")
GONE = LineageFacts(job=False, stored=StoredState(), committed={}, topics=TOPICS)
RUNS = LineageFacts(job=True, topics=TOPICS)


def gone(path: str | None = None, highest: int = 0, **facts: Any) -> LineageFacts:
    stored = StoredState(() if path is None else (path,), (f"ffffff-{highest}",) if highest else ())
    known = {"job": False, "stored": stored, "committed": {}, "topics": TOPICS, "held": {}}
    return LineageFacts(**{**known, **facts})


def after(*lineages: Lineage) -> Lineages:
    lineages_of = NONE
    for lineage in lineages:
        lineages_of = lineages_of.using(lineage)
    return lineages_of


FIRST = Lineage(feature_set=A, generation=1, begun=NOW, topics=TOPICS)


def test_a_new_detector_begins_with_the_first_generation() -> None:
    """It waits for no Kafka, since there is nothing that a job before it could have read, and tells nobody."""
    step = decide(NONE, A, LineageFacts(job=False, stored=StoredState()), NOW)
    assert step.lineages.in_use == Lineage(feature_set=A, generation=1, begun=NOW)
    assert (step.waits, step.told) == ("", None)


def test_a_job_from_before_lineages_is_of_the_first() -> None:
    """An operator that is upgraded takes up what runs, with the topics that it reads."""
    step = decide(NONE, A, RUNS, NOW)
    assert step.lineages.in_use == Lineage(feature_set=A, generation=1, topics=TOPICS)


def test_a_job_that_is_there_changes_nothing() -> None:
    """Whatever the storage holds; topics that weren't known yet are noted."""
    assert decide(after(FIRST), A, RUNS, NOW).lineages == after(FIRST)
    young = FIRST.model_copy(update={"topics": {}})
    assert decide(after(young), A, RUNS, NOW).lineages == after(FIRST)


@pytest.mark.parametrize(
    "facts",
    [
        LineageFacts(job=False, topics=TOPICS, committed={}),
        LineageFacts(job=False, stored=StoredState(), topics=TOPICS),
        LineageFacts(job=False, stored=StoredState(), committed={}),
    ],
)
def test_a_job_is_not_made_of_what_nobody_knows(facts: LineageFacts) -> None:
    """While storage or Kafka give no answer the lineages stay as they are, and the step says what it waits for."""
    step = decide(after(FIRST), A, facts, NOW)
    assert step.lineages == after(FIRST)
    assert step.waits


def test_a_job_goes_on_from_its_newest_state() -> None:
    """In the same generation, silent up to what it had read for good."""
    step = decide(after(FIRST), A, gone("s3://b/x", committed={"accepted": {0: HELD_BACK + 7}}), NOW)
    assert step.lineages.in_use == FIRST.model_copy(
        update={"restored": "s3://b/x", "beginning": Beginning(emits_from={"accepted": {0: 7}})}
    )
    assert step.told is not None and step.told[0] == "StateRestored"


def test_lost_state_is_a_new_generation_and_told() -> None:
    """Its number is above any that was given, also above what only the storage knows of."""
    step = decide(after(FIRST), A, gone(highest=6, committed={"accepted": {0: HELD_BACK + 7}}), NOW)
    in_use = step.lineages.in_use
    assert in_use is not None and (in_use.generation, in_use.restored) == (7, None)
    assert in_use.beginning == Beginning(emits_from={"accepted": {0: 7}})
    assert step.told is not None and step.told[0] == "StateLost" and step.told[2]


def test_a_job_that_never_read_anything_has_lost_nothing() -> None:
    """One whose Pods never came up is made again as it was."""
    assert decide(after(FIRST), A, GONE, NOW).lineages == after(FIRST)


def test_another_feature_set_begins_where_the_one_before_it_stopped() -> None:
    """It takes what that one read in silence, and coming back it is silent up to what the other one had read."""
    to_b = decide(
        after(FIRST),
        B,
        gone(committed={"accepted": {0: HELD_BACK + 7}, "transactions": {1: HELD_BACK + 2, 0: 3}}),
        NOW,
    ).lineages
    assert to_b.in_use == Lineage(
        feature_set=B,
        generation=2,
        begun=NOW,
        topics=TOPICS,
        beginning=Beginning(emits_from={"accepted": {0: 7}, "transactions": {1: 2}}),
    )
    back = decide(to_b, A, gone("s3://b/x", committed={"accepted": {0: HELD_BACK + 9}}), NOW).lineages
    in_use = back.in_use
    assert in_use is not None and (in_use.feature_set, in_use.generation) == (A, 1)
    assert in_use.beginning.emits_from == {"accepted": {0: 9}, "transactions": {1: 2}}


def test_a_topic_made_anew_ends_the_lineage() -> None:
    """Also of a job that runs: its offsets mean other records now. What the new topic holds is not passed over."""
    silent = Beginning(emits_from={"accepted": {0: 5}, "transactions": {0: 5}})
    written = after(FIRST.model_copy(update={"beginning": silent}))
    now = {**TOPICS, "accepted": "a2"}
    for job in (True, False):
        # The job that lives on commits the old offsets to the new topic.
        committed = {"transactions": {0: HELD_BACK + 8}, "accepted": {0: HELD_BACK + 900}}
        facts = gone("s3://b/x", job=job, committed=committed, topics=now)
        step = decide(written, A, facts, NOW)
        in_use = step.lineages.in_use
        assert in_use is not None and in_use.generation == 2
        assert (in_use.topics, in_use.beginning.emits_from) == (now, {"transactions": {0: 8}})
        assert step.told is not None and step.told[0] == "TopicsRemade"
    assert decide(written, A, LineageFacts(job=True, topics=now), NOW).waits


def test_lineages_that_are_gone_take_no_state_from_the_storage() -> None:
    """Nobody knows whose it is: tokens, topics and answers may be another detector's of the name."""
    step = decide(NONE, A, gone("s3://b/x", highest=3), NOW)
    in_use = step.lineages.in_use
    assert in_use is not None and (in_use.generation, in_use.restored) == (4, None)
    assert step.told is not None and step.told[0] == "LineagesLost"


OFFER = SeedsOffer("abcdef01", {"transactions": {0: 40}, "accepted": {0: 7}, "labels": {0: 3}})
HELD = {"transactions": {0: (10, 90)}, "accepted": {0: (0, 9)}, "labels": {0: (0, 3)}}
EMPTY = {noun: {0: (0, 0)} for noun in HELD}


def test_seeds_are_taken_by_a_job_that_has_read_nothing_else() -> None:
    """It goes on in its lineage, which has those seeds once all are read."""
    for taken in (False, True):
        facts = LineageFacts(job=True, topics=TOPICS, seeds=OFFER, taken=taken, held=EMPTY, committed={})
        step = decide(after(FIRST), A, facts, NOW)
        in_use = step.lineages.in_use
        assert in_use == FIRST.model_copy(update={"taken": OFFER.run if taken else ""})
        assert step.told is None


def test_seeds_that_come_after_payments_begin_a_lineage() -> None:
    """A key that had an event would refuse its seed: so another job begins with all of them, where they end."""
    committed = {"transactions": {0: HELD_BACK + 60}}
    facts = LineageFacts(job=True, topics=TOPICS, seeds=OFFER, taken=True, held=HELD, committed=committed)
    assert decide(after(FIRST), A, facts, NOW).lineages == after(
        FIRST
    )  # the storage may know of later numbers
    facts = replace(facts, stored=StoredState())
    in_use = decide(after(FIRST), A, facts, NOW).lineages.in_use
    assert in_use is not None and in_use.generation == 2 and in_use.seeded == OFFER.run
    assert in_use.beginning == Beginning(
        seeds=OFFER.run, starts_at=OFFER.starts_at or {}, emits_from={"transactions": {0: 60}}
    )
    again = decide(after(FIRST, in_use), A, replace(facts, seeds=SeedsOffer("99", {})), NOW)
    assert again.lineages == after(FIRST, in_use)


def test_seeds_of_before_their_end_was_fixed_are_taken_as_they_were() -> None:
    """A training of an earlier version wrote them for the job that runs."""
    facts = LineageFacts(job=True, topics=TOPICS, seeds=SeedsOffer("abcdef01", None), taken=True)
    in_use = decide(after(FIRST), A, facts, NOW).lineages.in_use
    assert in_use is not None and (in_use.generation, in_use.taken) == (1, "abcdef01")


def test_seeds_that_lack_what_the_topics_lost_are_refused_by_name() -> None:
    """The job that runs goes on, and what to do is told; nothing begins with a gap in it."""
    held = {**HELD, "transactions": {0: (41, 90)}}
    facts = LineageFacts(job=True, topics=TOPICS, seeds=OFFER, held=held, committed={})
    step = decide(after(FIRST), A, facts, NOW)
    assert step.lineages == after(FIRST)
    assert "1 records of transactions" in step.unseeded and "Train again" in step.unseeded
    assert decide(after(FIRST), A, replace(facts, held=None), NOW).lineages == after(FIRST)


def test_seeds_of_topics_that_were_made_anew_are_refused_by_name() -> None:
    """Their end is an offset of a topic that is gone, or they went with it."""
    for noun in ("accepted", "seeds"):
        offer = replace(OFFER, topics={**TOPICS, noun: "older"})
        facts = LineageFacts(job=True, topics=TOPICS, seeds=offer, held=HELD, committed={})
        step = decide(after(FIRST), A, facts, NOW)
        assert step.lineages == after(FIRST) and f"{noun} were made anew" in step.unseeded


def test_a_lineage_that_has_no_seeds_is_told() -> None:
    """Where training has ended and offers none: it is to train again. A first lineage, or one without training, has nothing to miss."""
    second = FIRST.model_copy(update={"generation": 2})
    for lineage, trained, told in ((second, True, True), (second, False, False), (FIRST, True, False)):
        facts = LineageFacts(job=True, topics=TOPICS, trained=trained)
        assert bool(decide(after(lineage), A, facts, NOW).unseeded) is told


def test_state_that_is_lost_comes_back_by_seeds_while_nothing_is_missing_since() -> None:
    """Those of the newest training, else those that the lineage began with; a gap, and there are none."""
    own = FIRST.model_copy(update={"beginning": Beginning(seeds="00000001", starts_at=OFFER.starts_at)})
    for seeds, held, wanted in (
        (OFFER, HELD, OFFER.run),
        (None, HELD, "00000001"),
        (None, {**HELD, "labels": {0: (4, 9)}}, ""),
    ):
        step = decide(after(own), A, gone(committed={"accepted": {0: 9}}, seeds=seeds, held=held), NOW)
        in_use = step.lineages.in_use
        assert in_use is not None and (in_use.generation, in_use.seeded) == (2, wanted)
        assert step.told is not None and step.told[0] == "StateLost"


def test_a_job_on_its_way_out_is_waited_for() -> None:
    """Back at a feature set whose job is still ending: it has a savepoint only afterwards."""
    b = Lineage(feature_set=B, generation=2, topics=TOPICS)
    facts = LineageFacts(job=True, ending=True, topics=TOPICS)
    assert decide(after(FIRST, b), A, facts, NOW).waits
    assert decide(after(FIRST), A, facts, NOW).lineages == after(FIRST)


offsets = st.dictionaries(st.sampled_from(INPUTS), st.dictionaries(st.integers(0, 2), st.integers(0, 20_000)))
lives = st.lists(
    st.tuples(
        st.sampled_from([A, B]),
        st.booleans(),
        offsets,
        st.sampled_from([TOPICS, {**TOPICS, "accepted": "a2"}]),
    ),
    max_size=8,
)


@given(lives)
def test_over_many_lives_numbers_rise_and_silence_never_shrinks(life: list[Any]) -> None:
    """A number is given to one beginning only; of an unchanged topic nothing is written a second time."""
    lineages, given_to = NONE, {}
    for now, (feature_set, has_state, committed, topics) in enumerate(life):
        before = lineages.in_use
        facts = gone("s3://b/x" if has_state else None, committed=committed, topics=topics)
        step = decide(lineages, feature_set, facts, now)
        lineages = step.lineages
        in_use = lineages.in_use
        assert in_use is not None and in_use.feature_set == feature_set
        # A beginning has the time of its step.
        assert given_to.setdefault(in_use.generation, (feature_set, in_use.begun)) == (
            feature_set,
            in_use.begun,
        )
        assert in_use.generation <= lineages.highest
        if before is None:
            continue
        for noun in INPUTS:
            if before.topics.get(noun, topics[noun]) != topics[noun]:
                continue
            for partition, offset in before.beginning.emits_from.get(noun, {}).items():
                assert in_use.beginning.emits_from[noun][partition] >= offset
            for partition, offset in committed.get(noun, {}).items():
                assert in_use.beginning.emits_from.get(noun, {}).get(partition, 0) >= offset - HELD_BACK
