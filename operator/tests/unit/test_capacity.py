"""When a store is said to fill up, and that what is said changes seldom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fraud_operator import capacity, still_asking
from fraud_operator.capacity import (
    KAFKA,
    REDIS,
    WINDOW,
    CapacityFact,
    Reading,
    Room,
    Volume,
    growth,
    judge,
    recent,
    seconds_left,
)
from fraud_testing.healthy import conditions_of, healthy_facts, make_detector

GIB = 2**30
DETECTOR = make_detector()
FACTS = healthy_facts(DETECTOR)


def line(start: float, per_hour: float, size: float = 100 * GIB, minutes: int = 60) -> list[Reading]:
    """A reading a minute, of a volume of ``size`` bytes that begins with ``start`` used."""
    return [
        Reading(at * 60.0, Volume(round(start + per_hour * at / 60), round(size)))
        for at in range(minutes + 1)
    ]


def told(readings: list[Reading], before: Room | None = None) -> Room:
    return judge(KAFKA, "broker 0", readings, before)


@given(st.integers(0, 70), st.floats(0.001, 10), st.floats(1.01, 10))
def test_faster_growth_leaves_less_time(used: int, per_hour: float, times: float) -> None:
    """Of the same volume; and it is told no later."""
    slow, fast = (line(used * GIB, grows * GIB) for grows in (per_hour, per_hour * times))
    assume(fast[-1].volume.used < 100 * GIB)
    left = [seconds_left(Volume(used * GIB, 100 * GIB), growth(readings)) for readings in (slow, fast)]
    assert left[0] is not None
    assert left[1] is not None
    assert left[1] < left[0]
    assert told(fast).warned or not told(slow).warned


@given(st.integers(0, 100), st.floats(-5, 0))
def test_what_does_not_grow_is_never_full(used: int, per_hour: float) -> None:
    """There is no time that could be told."""
    readings = line(used * GIB, 0)
    assert seconds_left(readings[-1].volume, min(0.0, per_hour)) is None
    assert told(readings).hours is None


@given(st.lists(st.integers(0, 100), min_size=1, max_size=90))
def test_a_store_is_warned_of_from_four_fifths_on(used: list[int]) -> None:
    """Whatever its growth says."""
    readings = [Reading(at * 60.0, Volume(part * GIB, 100 * GIB)) for at, part in enumerate(used)]
    if used[-1] >= capacity.FULL:
        assert told(readings).warned


def test_growth_is_measured_from_ten_minutes_on() -> None:
    """A burst of some minutes says nothing."""
    assert growth(line(0, 60 * GIB, minutes=9)) is None
    assert growth(line(0, 60 * GIB, minutes=10)) == pytest.approx(GIB / 60, rel=1e-6)


def test_only_the_last_hour_counts() -> None:
    """What is older is let go."""
    readings = line(0, GIB, minutes=300)
    assert recent(readings, readings[-1].at)[0].at == readings[-1].at - WINDOW


def test_kafka_is_told_of_72_hours_before_it_is_full() -> None:
    """At a growth of 1 GiB an hour: with 71 GiB left, and not with 75."""
    assert told(line(28 * GIB, GIB)).warned
    assert not told(line(24 * GIB, GIB)).warned


def test_redis_is_told_of_six_hours_before() -> None:
    """What it holds of a payment is gone after a day, so a growth that takes longer ends by itself."""
    assert not judge(REDIS, "", line(10 * GIB, 10 * GIB), None).warned
    assert judge(REDIS, "", line(10 * GIB, 15 * GIB), None).warned


def test_a_warning_goes_once_there_is_clearly_more() -> None:
    """Not at the edge at which it came."""
    warned = told(line(80 * GIB, 0))
    assert warned.warned
    assert told(line(77 * GIB, 0), warned).warned
    assert not told(line(74 * GIB, 0), warned).warned


@given(st.lists(st.floats(-1.9, 1.9), min_size=2, max_size=60), st.integers(5, 95))
def test_figures_stay_while_a_store_goes_up_and_down_a_little(noise: list[float], middle: int) -> None:
    """A status that is settled isn't written for it."""
    used = round((middle // 5 * 5 + 2) * GIB)
    room = told([Reading(0.0, Volume(used, 100 * GIB))])
    for at, jitter in enumerate(noise, 1):
        after = told([Reading(at * 60.0, Volume(round(used + jitter * GIB), 100 * GIB))], room)
        assert replace(after, warned=room.warned) == room or after.warned != room.warned
        room = after


@pytest.mark.parametrize(
    ("hours", "step"), [(0.4, 0), (1.5, 1), (5.9, 3), (7, 6), (30, 24), (71, 48), (73, None)]
)
def test_time_is_told_in_steps(hours: float, step: int | None) -> None:
    """Rounded down, none where it is long."""
    readings = line(0, 1 * GIB, size=(1 + hours) * GIB)
    assert told(readings).hours == step


def test_the_time_stays_while_it_is_nearly_right() -> None:
    """A step is left at a quarter more or less."""
    six = told(line(0, GIB, size=8 * GIB))
    assert six.hours == 6
    assert judge(KAFKA, "broker 0", line(0, GIB * 1.2, size=8 * GIB), six).hours == 6
    assert judge(KAFKA, "broker 0", line(0, GIB * 1.9, size=8 * GIB), six).hours == 3


def test_what_was_said_of_growth_stands_over_an_outage() -> None:
    """Until there are ten minutes of readings again."""
    warned = told(line(28 * GIB, GIB))
    after = told([Reading(9_000.0, Volume(31 * GIB, 100 * GIB))], warned)
    assert (after.warned, after.hours) == (True, warned.hours)


def capacity_left(*rooms: Room, **more: object) -> dict[str, object]:
    fact = replace(CapacityFact(rooms, asking=False), **more)  # type: ignore[arg-type]
    return conditions_of(DETECTOR, replace(FACTS, capacity=fact))["CapacityLeft"]


FULL = Room(REDIS, "", 80, 6, 2 * GIB, True, True)
HALF = Room(KAFKA, "broker 0", 40, None, 20 * GIB, False, True)


def test_a_warning_names_store_figures_time_and_remedy() -> None:
    """In one sentence, and who reads it knows where more stands."""
    condition = capacity_left(HALF, FULL)
    assert (condition["status"], condition["reason"]) == ("False", "FillingUp")
    assert str(condition["message"]).startswith(
        "Redis: 80 % of 2Gi used, full in about 6 h at the present growth; raise its maxmemory"
    )
    assert "docs/sizing.md" in str(condition["message"])


def test_the_store_that_is_full_first_is_named_first() -> None:
    """Then the fuller one."""
    soon = Room(KAFKA, "broker 1", 30, 2, 20 * GIB, True, True)
    assert str(capacity_left(FULL, soon)["message"]).startswith("Kafka (broker 1): 30 %")


def test_a_store_of_many_disks_names_three_and_its_remedy_once() -> None:
    """A condition holds 1,024 characters."""
    rooms = [Room(KAFKA, f"broker {number}", 85, None, 20 * GIB, True, True) for number in range(9)]
    message = str(capacity_left(*rooms)["message"])
    assert message.count("85 %") == 3
    assert message.count("spec.kafka.managed.storage") == 1
    assert " and 6 more; " in message


def test_all_well_names_no_figure_that_would_change() -> None:
    """And what isn't known."""
    condition = capacity_left(HALF, unknown=(("PostgreSQL", "nobody says how large its disk is"),))
    assert (condition["status"], condition["reason"]) == ("True", "EnoughLeft")
    assert "40" not in str(condition["message"])
    assert "not known: PostgreSQL (nobody says how large its disk is)" in str(condition["message"])


def test_where_nothing_is_known_that_is_said() -> None:
    """It is neither well nor ill."""
    condition = capacity_left(unknown=(("Redis", "it has no maxmemory"),))
    assert (condition["status"], condition["reason"]) == ("Unknown", "CapacityUnknown")


@pytest.mark.parametrize(("percent", "degraded"), [(90, "False"), (95, "True")])
def test_a_warning_degrades_a_detector_only_at_the_brim(percent: int, degraded: str) -> None:
    """Until then nothing is broken. Ready is never touched."""
    fact = CapacityFact((replace(FULL, percent=percent),), asking=False)
    conditions = conditions_of(DETECTOR, replace(FACTS, capacity=fact))
    assert conditions["Degraded"]["status"] == degraded
    assert conditions["Ready"]["status"] == "True"


def test_an_unknown_capacity_holds_nothing_up() -> None:
    """The detector is settled all the same."""
    conditions = conditions_of(DETECTOR, replace(FACTS, capacity=CapacityFact()))
    assert conditions["CapacityLeft"]["reason"] == "Checking"
    assert conditions["Progressing"]["status"] == "False"


@pytest.mark.parametrize("status", ["True", "False", "Unknown"])
def test_an_operator_that_has_just_started_says_what_was_said(status: str) -> None:
    """Until the stores have answered it."""
    before = {
        "type": "CapacityLeft",
        "status": status,
        "reason": "R",
        "message": "m",
        "observedGeneration": 3,
    }
    facts = still_asking.as_last_known(
        replace(FACTS, capacity=CapacityFact()), {"conditions": [before]}, DETECTOR.generation
    )
    after = conditions_of(DETECTOR, facts)["CapacityLeft"]
    assert (after["status"], after["reason"], after["message"]) == (status, "R", "m")


def test_a_warning_of_before_stands_until_growth_is_known() -> None:
    """Else each start of the operator would take it back for ten minutes."""
    before = {"type": "CapacityLeft", "status": "False", "reason": "FillingUp", "message": "m"}
    previous = {"conditions": [{**before, "observedGeneration": 3}]}
    for measured, reason in ((False, "FillingUp"), (True, "EnoughLeft")):
        fact = CapacityFact((replace(HALF, measured=measured),), asking=False)
        facts = still_asking.as_last_known(replace(FACTS, capacity=fact), previous, DETECTOR.generation)
        assert conditions_of(DETECTOR, facts)["CapacityLeft"]["reason"] == reason


@pytest.mark.parametrize(
    ("size", "words"), [(2 * GIB, "2Gi"), (700 * 2**20, "700Mi"), (1.5 * GIB, "1.5Gi"), (20 * 2**40, "20Ti")]
)
def test_sizes_are_written_as_kubernetes_writes_them(size: float, words: str) -> None:
    """Rounded."""
    assert capacity.size(int(size)) == words
