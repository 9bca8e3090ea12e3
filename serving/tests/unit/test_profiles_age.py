"""How old the profiles are said to be: never younger than they are, and never old where there is nothing to do."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from fraud_serving.decision.profiles_age import ASKED_SECONDS, AppliedOffsets, Extent, ProfilesAge

A, T = ("accepted", 0), ("transactions", 0)


def applied(beat: int, **offsets: int) -> AppliedOffsets:
    return AppliedOffsets({(noun, 0): offset for noun, offset in offsets.items()}, beat)


def test_nothing_is_known_before_kafka_was_asked() -> None:
    age = ProfilesAge()
    assert not age.known
    assert age.seconds(10.0) == math.inf


def test_empty_inputs_leave_nothing_to_apply() -> None:
    age = ProfilesAge()
    age.update(10.0, AppliedOffsets(), {A: Extent(0), T: Extent(0)})
    assert age.seconds(10.5) == 0.5


def test_a_loss_is_forgotten_only_by_a_question_begun_after_it() -> None:
    """What was read before, and arrives later, may be of what was lost."""
    age = ProfilesAge()
    age.update(10.0, applied(1, accepted=5), {A: Extent(5)})
    age.forget(11.0)
    age.update(10.9, applied(1, accepted=5), {A: Extent(5)})
    assert (age.known, age.seconds(11.0)) == (False, math.inf)
    age.update(11.5, applied(1, accepted=5), {A: Extent(5)})
    assert age.seconds(12.0) == 0.5


def test_time_goes_on_where_payments_are_accepted() -> None:
    """Kafka may take them and not tell where all of its partitions end."""
    age = ProfilesAge()
    age.update(10.0, applied(1, accepted=5), {A: Extent(5)})
    age.accepted(60.0)
    assert age.seconds(61.0) == 50.0


def test_records_that_retention_took_leave_nothing_to_apply() -> None:
    age = ProfilesAge()
    age.update(10.0, AppliedOffsets(), {A: Extent(700, first=700)})
    assert age.known


def test_a_partition_of_which_nothing_is_applied_keeps_profiles_old() -> None:
    age = ProfilesAge()
    age.update(10.0, applied(1, accepted=5), {A: Extent(5), T: Extent(1)})
    assert not age.known


def test_the_age_is_that_of_the_last_moment_that_is_wholly_applied() -> None:
    age = ProfilesAge()
    age.update(10.0, applied(1, accepted=5), {A: Extent(5)})
    age.update(11.0, applied(2, accepted=5), {A: Extent(100)})
    age.update(12.0, applied(3, accepted=50), {A: Extent(200)})
    assert age.seconds(12.0) == 2.0
    age.update(13.0, applied(4, accepted=150), {A: Extent(300)})
    assert age.seconds(13.0) == 2.0  # what was accepted by second 11 is applied, not that by 12


def test_a_stream_that_stands_still_gets_older_with_each_look() -> None:
    age = ProfilesAge()
    age.update(0.0, applied(1, accepted=5), {A: Extent(5)})
    for second in range(1, 60):
        age.update(float(second), applied(1, accepted=5), {A: Extent(5 + second)})
        assert age.seconds(second + 0.25) == second + 0.25


def test_profiles_dont_age_while_kafka_cant_be_asked() -> None:
    age = ProfilesAge()
    age.update(10.0, applied(1, accepted=5), {A: Extent(5)})
    assert age.seconds(1_000.0) == ASKED_SECONDS


def test_offsets_beyond_the_end_are_of_another_topic() -> None:
    age = ProfilesAge()
    age.update(10.0, applied(1, accepted=500), {A: Extent(500)})
    for second in range(11, 20):
        age.update(float(second), applied(second, accepted=500), {A: Extent(3)})
    assert age.seconds(20.0) == 10.0


def test_the_end_of_a_transaction_is_no_record_that_is_missing() -> None:
    age = ProfilesAge()
    for beat in range(10):
        age.update(float(beat), applied(beat, transactions=99), {T: Extent(100)})
    assert age.seconds(9.0) == 0.0


def test_a_rest_counts_as_missing_while_the_stream_gives_no_sign_of_life() -> None:
    age = ProfilesAge()
    for second in range(10):
        age.update(float(second), applied(7, transactions=99), {T: Extent(100)})
    assert not age.known


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 60), st.booleans()), min_size=1, max_size=60))
def test_profiles_are_never_said_to_be_younger_than_they_are(steps: list[tuple[int, int, bool]]) -> None:
    """``steps``: how many are accepted, how many more are applied, whether the stream is asked in vain."""
    age, end, done = ProfilesAge(), 0, 0
    accepted_at: list[float] = []
    for second, (more, progress, stuck) in enumerate(steps):
        now = float(second)
        done = done if stuck else min(end, done + progress)
        age.update(now, AppliedOffsets({A: done}, 0), {A: Extent(end)})
        accepted_at += [now + 0.5] * more
        end += more
        later = now + 0.75
        oldest = later - accepted_at[done] if done < end else 0.0
        assert age.seconds(later) >= oldest
