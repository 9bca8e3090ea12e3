"""Lineages put back from a backup, or gone: what runs and what the storage holds know better, and no number is given twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts import names
from fraud_contracts.lineage import NO_STATE, Beginning, HandOver, HandOverStep, Lineage, Lineages
from fraud_operator.lineage import HELD_BACK, LineageFacts, SeedsOffer, StoredState, decide, furthest
from fraud_operator.objects import Json
from fraud_operator.stream_jobs import StreamJob, stream_job, taken_up

A, B = "a" * 64, "b" * 64
TOPICS = {"transactions": "t1", "accepted": "a1", "labels": "l1", "seeds": "s1"}
SEEDED = Beginning(seeds="abcdef01", starts_at={"accepted": {0: 7}}, emits_from={"accepted": {0: 9}})
FIRST = Lineage(feature_set=A, generation=1, topics=TOPICS)
OLD = Lineages(detector="n.d", highest=1, known=(FIRST,))


def body(name: str, **job: Any) -> Json:
    return {"metadata": {"name": name}, "spec": {"job": job}}


def gone(paths: tuple[str, ...] = (), newest: str = "", own: int = 0, **facts: Any) -> LineageFacts:
    known = {"job": False, "stored": StoredState(paths, (newest,), own), "committed": {}, "topics": TOPICS}
    return LineageFacts(**{**known, **facts})


def test_a_job_says_which_lineage_it_is_of() -> None:
    """By its name, the path that it was made from, and its arguments."""
    arguments = ["-py", "job.py", "--beginning", SEEDED.model_dump_json(exclude_defaults=True)]
    live = body("pay-f-aaaaaa-3", initialSavepointPath="s3://b/x", args=arguments)
    assert stream_job("pay", live) == StreamJob("aaaaaa", 3, "s3://b/x", SEEDED)
    assert stream_job("pay", body("pay-f-aaaaaa")) == StreamJob("aaaaaa", 1, None, Beginning())


@pytest.mark.parametrize(
    "name", ["pay-f-aaaaaa-0", "pay-f-aaaaaa-01", "pay-f-x", "aaaaaa-3", "pay2-f-aaaaaa"]
)
def test_another_name_says_nothing(name: str) -> None:
    """Nobody's lineage is guessed."""
    assert stream_job("pay", body(name)) is None


@pytest.mark.parametrize("arguments", [["--beginning"], ["--beginning", "{"], ["--beginning", '{"x": 1}']])
def test_arguments_that_cannot_be_read_say_nothing(arguments: list[str]) -> None:
    """The job is what its name says all the same."""
    assert stream_job("pay", body("pay-f-aaaaaa-3", args=arguments)) == StreamJob(
        "aaaaaa", 3, None, Beginning()
    )


def test_a_running_job_of_a_later_generation_is_taken_up() -> None:
    """It isn't ended for the older one that the document knows, and nothing is asked or begun for it."""
    running = StreamJob("aaaaaa", 3, "s3://b/x", SEEDED)
    for before in (OLD, Lineages(detector="n.d")):
        lineages = taken_up(before, A, [running])
        in_use = lineages.in_use
        assert in_use == Lineage(feature_set=A, generation=3, restored="s3://b/x", beginning=SEEDED)
        assert lineages.highest == 3
        step = decide(lineages, A, LineageFacts(job=True, topics=TOPICS), 0)
        assert (step.waits, step.told, step.ends) == ("", None, False)
        assert step.lineages.in_use == in_use.model_copy(update={"topics": TOPICS})


def test_a_job_that_the_document_knows_changes_nothing() -> None:
    """Nor one that is older: it is on its way out."""
    third = OLD.using(FIRST.model_copy(update={"generation": 3}))
    for generation in (1, 3):
        assert taken_up(third, A, [StreamJob("aaaaaa", generation, None, Beginning())]) == third


def test_a_job_of_another_set_counts_by_its_number_only() -> None:
    """The next one that begins is above it."""
    lineages = taken_up(OLD, A, [StreamJob("bbbbbb", 4, None, Beginning())])
    assert (lineages.highest, lineages.known) == (4, OLD.known)


def test_a_document_older_than_the_storage_is_not_gone_back_to() -> None:
    """Its generation's profiles would be refused in Redis, where a later one has written: a new one begins, above all."""
    step = decide(OLD, A, gone(("s3://b/1",), "aaaaaa-3", 3, committed={"accepted": {0: HELD_BACK + 5}}), 0)
    in_use = step.lineages.in_use
    assert in_use is not None and (in_use.generation, in_use.restored) == (4, None)
    assert in_use.beginning.emits_from == {"accepted": {0: 5}}
    assert step.told is not None and step.told[0] == "LineagesLost"


def test_another_sets_later_folder_does_not_end_a_lineage() -> None:
    """Back at an earlier set after a backup of before the other one: its own state is as good as ever."""
    in_use = decide(OLD, A, gone(("s3://b/1",), "bbbbbb-3", 1), 0).lineages.in_use
    assert in_use is not None and (in_use.generation, in_use.restored) == (1, "s3://b/1")


def test_a_document_that_is_gone_is_silent_for_what_was_written() -> None:
    """By what the last stream that has a folder has committed; while nobody says, it waits."""
    nothing = Lineages(detector="n.d")
    assert decide(nothing, A, gone((), "bbbbbb-3", 0, committed=None), 0).waits
    step = decide(nothing, A, gone((), "bbbbbb-3", 0, committed={"accepted": {0: HELD_BACK + 5}}), 0)
    in_use = step.lineages.in_use
    assert in_use is not None and in_use.generation == 4
    assert in_use.beginning.emits_from == {"accepted": {0: 5}}


def test_the_furthest_of_several_groups_counts() -> None:
    """For each partition; one that isn't known leaves all unknown."""
    one, other = {"accepted": {0: 7, 1: 2}}, {"accepted": {0: 3, 2: 4}, "transactions": {0: 1}}
    assert furthest([one, other]) == {"accepted": {0: 7, 1: 2, 2: 4}, "transactions": {0: 1}}
    assert furthest([one, None]) is None
    assert one == {"accepted": {0: 7, 1: 2}}


def test_seeds_begin_above_what_only_the_storage_knows() -> None:
    """A job that was taken up runs on while the storage is asked; the number is then above all folders'."""
    held = {noun: {0: (0, 9)} for noun in ("transactions", "accepted", "labels")}
    facts = gone(
        (),
        "bbbbbb-6",
        1,
        job=True,
        seeds=SeedsOffer("abcdef01", {"accepted": {0: 7}}),
        held=held,
        trained=True,
    )
    in_use = decide(OLD, A, facts, 0).lineages.in_use
    assert in_use is not None and (in_use.generation, in_use.seeded) == (7, "abcdef01")


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B]), st.booleans(), st.integers(-7_200_000, 7_200_000)), max_size=8
    )
)
def test_a_clock_that_steps_back_changes_nothing(lives: list[Any]) -> None:
    """The same lives give the same lineages at any time, but for the note of when they begun."""
    told = []
    for shifts in (True, False):
        lineages = Lineages(detector="n.d")
        for feature_set, has_state, shift in lives:
            facts = gone(("s3://b/x",) if has_state else (), committed={"accepted": {0: 1}})
            lineages = decide(lineages, feature_set, facts, 1_800_000_000_000 + shift * shifts).lineages
        told.append([one.model_copy(update={"begun": 0}) for one in lineages.known])
    assert told[0] == told[1]


@given(st.integers(1, 999_999_999), st.text("0123456789abcdef", min_size=6, max_size=6))
def test_a_streams_name_says_its_lineage(generation: int, hash6: str) -> None:
    """There and back."""
    assert names.parse_stream(names.stream(hash6, generation)) == (hash6, generation)


def test_jobs_are_asked_how_far_they_wrote_from_the_one_in_use_on() -> None:
    """A later one that the document doesn't know may have been silent, so the one before it counts too; earlier ones wrote less."""
    stored = StoredState((), ("bbbbbb-3", "aaaaaa-2", "aaaaaa"))
    assert stored.since(2) == {"bbbbbb-3", "aaaaaa-2"}
    assert stored.since(0) == set(stored.streams)


SILENT = Beginning(emits_from={"accepted": {0: 9}}, silent=True)
B_FIRST = Lineage(feature_set=B, generation=2, beginning=SILENT)


def test_a_silent_job_is_not_taken_up() -> None:
    """Where nobody knows who answered beside it, nobody would write: a new generation begins, above it."""
    lineages = taken_up(Lineages(detector="n.d"), B, [StreamJob("bbbbbb", 2, None, SILENT)])
    assert (lineages.in_use, lineages.highest) == (None, 2)
    step = decide(lineages, B, gone((), "bbbbbb-2", 2, committed={"accepted": {0: HELD_BACK + 5}}), 0)
    in_use = step.lineages.in_use
    assert in_use is not None and (in_use.generation, in_use.beginning.silent) == (3, False)
    assert in_use.beginning.emits_from == {"accepted": {0: 5}}
    assert step.told is not None and step.told[0] == "LineagesLost"


def test_a_document_of_before_a_hand_over_follows_the_jobs() -> None:
    """It takes the old set for the one that answers, whose job is silent by now: the other one's goes on writing, from where it does."""
    before = Lineages(detector="n.d", highest=2, known=(B_FIRST, FIRST))
    aloud = Beginning(emits_from={"accepted": {0: 30}})
    jobs = [StreamJob("aaaaaa", 1, None, SILENT), StreamJob("bbbbbb", 2, None, aloud)]
    under_way = HandOver(to=B, generations=(1, 2), step=HandOverStep.DRAINING, since=0)
    for older in (before, before.model_copy(update={"hand_over": under_way})):
        after = taken_up(older, A, jobs)
        assert after.in_use == B_FIRST.model_copy(update={"beginning": aloud})
        assert after.of(A) == FIRST.model_copy(update={"beginning": SILENT}) and after.hand_over is None


@pytest.mark.parametrize("step", list(HandOverStep))
def test_the_jobs_of_a_hand_over_are_no_news(step: HandOverStep) -> None:
    """In each step the document and what the jobs say fit: one is silent, and after the switch both are for a moment."""
    settles = step is HandOverStep.SETTLING
    known = (B_FIRST, FIRST) if not settles else (FIRST.model_copy(update={"beginning": SILENT}), B_FIRST)
    under_way = HandOver(to=B, generations=(1, 2), step=step, since=0)
    before = Lineages(detector="n.d", highest=2, known=known, hand_over=under_way)
    says = SILENT if settles else NO_STATE
    jobs = [StreamJob("aaaaaa", 1, None, says), StreamJob("bbbbbb", 2, None, SILENT)]
    assert taken_up(before, before.known[-1].feature_set, jobs) == before


def test_a_job_that_took_over_and_lost_its_state_is_of_a_new_generation() -> None:
    """Its group has no offsets before its next checkpoint, though it was silent for long: its generation's profiles are in Redis."""
    own = B_FIRST.model_copy(
        update={"beginning": Beginning(emits_from={"accepted": {0: 9}}), "topics": TOPICS}
    )
    before = Lineages(detector="n.d", highest=2, known=(FIRST, own))
    step = decide(before, B, gone((), "bbbbbb-2", 2, committed={}), 0)
    assert step.told is not None and step.told[0] == "StateLost"
    assert step.lineages.in_use is not None and step.lineages.in_use.generation == 3
