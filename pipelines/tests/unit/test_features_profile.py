"""The binary form of a key's state: round trip, refusal, header, and what the engine promises never to change."""

from __future__ import annotations

import hashlib
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_contracts import profile_header
from fraud_pipelines.features import (
    EntitySpec,
    FeatureSet,
    FeatureSetSpec,
    FeatureSpec,
    ProfileError,
    profile_key,
    read_header,
)
from fraud_pipelines.features.last_seen import LastSeen
from fraud_pipelines.replay import replay
from fraud_testing.profiles import DAY, ENTITIES, HOUR, START, busy, event, label, payments, summed


def test_decoding_and_encoding_gives_the_same_bytes() -> None:
    """A profile with cells, single events and labels survives the way through the object form."""
    features = payments(k=16)
    for entity, state in busy(features).items():
        assert features.stage(entity).open(state).dump() == state


def test_the_header_is_the_one_that_other_components_read() -> None:
    """The sink and the service read epoch, seq and digest without the engine; digest is the sum of what was applied."""
    features = payments()
    states: dict[str, bytes] = {}
    bodies = [event(i, START + i) for i in range(3)]
    for i, body in enumerate(bodies):
        _, states, saw = features.observe(states, body, epoch=4)
        assert saw["customer"][:2] == (4, i)
    header = read_header(states["customer"])
    shared = profile_header.read(states["customer"])
    assert header[:5] == shared
    assert shared.epoch == 4
    assert shared.seq == 3
    assert shared.set_hash8 == features.hash[:8]
    assert shared.digest == summed(*bodies)
    assert header.newest_time == START + 2


def test_an_id_used_again_for_another_event_changes_the_digest() -> None:
    """Two bodies under one id are two events, and the hash of an event is no sum of its parts': bodies that change their ids tell."""
    stage = payments().stage("customer")
    _, one, _ = stage.observe(None, event(0, START))
    _, two, _ = stage.observe(one, {**event(0, START), "time": START + 1})
    header = read_header(two)
    assert (header.seq, header.digest != 0) == (2, True)
    assert summed(event(0, START), {**event(0, START), "amount": 7}) != 0
    assert summed(event(0, START, 5), event(1, START, 7)) != summed(event(0, START, 7), event(1, START, 5))
    assert summed(event(0, START), event(1, START + 9)) != summed(event(0, START + 9), event(1, START))


def test_events_taken_three_times_have_another_digest_than_taken_once() -> None:
    """Events so old that a busy key can't tell them for repeats count each time, in the values and in the digest."""
    stage, live = payments().stage("customer"), payments().stage("customer").open(None)
    old = [event(i, START + i) for i in range(20)]
    for body in (*old, *(event(i, START + i) for i in range(20, 200))):
        live.observe(body)
    once = live.dump()
    for body in old * 2:
        assert live.observe(body) is not None
    assert stage.peek(once, event(999, START + 999)) != live.peek(event(999, START + 999))
    assert live.digest != stage.open(once).digest


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), max_size=40), st.lists(st.integers(0, 9), max_size=40), st.randoms())
def test_digests_are_equal_for_equal_multisets_only(
    one: list[int], other: list[int], dice: random.Random
) -> None:
    """Two states that took the same events, each as often, in whatever order, have one digest; any others have two."""
    stage = payments(k=1).stage("customer")  # all but the newest event may be taken again

    def taken(numbers: list[int]) -> tuple[int, list[int]]:
        live = stage.open(None)
        applied = [n for n in numbers if live.observe(event(n, START + n)) is not None]
        return live.digest, sorted(applied)

    mixed = list(one)
    dice.shuffle(mixed)
    (first, by_first), *others = taken(one), taken(mixed), taken(other), taken([*one, 0, 0])
    for digest, applied in others:
        assert (digest == first) == (applied == by_first)


def test_a_seed_is_the_same_curve_under_another_epoch() -> None:
    """Only the epoch differs between a profile and the seed made of it."""
    features = payments()
    stage, state = features.stage("customer"), busy(features)["customer"]
    seed = stage.seed(state, 9)
    assert read_header(seed) == read_header(state)._replace(epoch=9)
    assert stage.seed(seed, read_header(state).epoch) == state


def test_a_cut_profile_is_refused_whatever_is_missing() -> None:
    """No length but the right one is accepted, and the refusal is a ProfileError."""
    features = payments(k=8)
    for entity, state in busy(features, 40).items():
        stage = features.stage(entity)
        for length in range(len(state)):
            with pytest.raises(ProfileError):
                stage.open(state[:length])
        with pytest.raises(ProfileError):
            stage.open(state + b"\0")


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_profile_is_refused_or_opened_but_never_breaks_the_reader(at: int, change: int) -> None:
    """Any one byte may be wrong: the outcome is a ProfileError or a state."""
    features = payments(k=8)
    state = bytearray(busy(features, 12)["counterparty"])
    state[at % len(state)] ^= change
    try:
        features.stage("counterparty").open(bytes(state)).dump()
    except ProfileError:
        return


def test_a_profile_of_another_feature_set_is_refused_by_name() -> None:
    """A stage never reads a state that other rules made."""
    theirs = FeatureSet(
        FeatureSetSpec("none", ENTITIES, (FeatureSpec("c", "customer", "Count", window_ms=HOUR),))
    )
    mine = payments()
    with pytest.raises(ProfileError, match=theirs.hash[:8]):
        mine.stage("customer").observe(busy(theirs, 2)["customer"], event(9, START))


def test_a_profile_of_a_later_version_is_refused() -> None:
    """The version is checked before anything else is read."""
    features = payments()
    state = bytearray(busy(features, 2)["customer"])
    struct.pack_into("<H", state, 2, 99)
    with pytest.raises(ProfileError, match="version 99"):
        features.stage("customer").open(bytes(state))
    with pytest.raises(ProfileError, match="version 99"):
        read_header(bytes(state))


def test_a_repeat_changes_nothing_and_still_gets_its_values() -> None:
    """A repeated id gives None from observe, the given state itself, and from peek what it got the first time."""
    features = payments()
    stage = features.stage("customer")
    body = event(1, START)
    first, state, _ = stage.observe(None, body)
    again, after, saw = stage.observe(state, body)
    assert again is None
    assert after is state
    assert saw[1] == 1
    assert features.vector(body, {"customer": stage.peek(state, body)})[0] == 1
    assert first is not None
    vector, new, _ = features.observe({"customer": state}, body)
    assert new["customer"] is state
    assert "counterparty" not in new
    assert vector[0] == 1


def test_peek_shows_the_next_event_without_taking_it() -> None:
    """What peek gives for a new event is what observe would give."""
    features = payments()
    stage, state = features.stage("customer"), busy(features)["customer"]
    body = event(1_000, START + 400 * HOUR)
    assert stage.peek(state, body) == stage.observe(state, body)[0]


def test_an_absent_entity_gives_nulls_and_no_state() -> None:
    """An event without a counterparty has NaN in that entity's features and leaves no profile of it."""
    features = payments()
    vector, new, saw = features.observe({}, event(1, START, counterparty=None))
    assert set(new) == set(saw) == {"customer"}
    for name, value in zip(features.names, vector, strict=True):
        assert (value != value) == (name.startswith("counterparty_") or name.endswith("seconds_since_last"))


def test_nulls_of_json_are_nulls_of_the_vector() -> None:
    """Values that travelled as JSON, with null for NaN, give the same vector."""
    features = payments()
    body = event(1, START)
    values: dict[str, Any] = {stage.entity: stage.observe(None, body)[0] for stage in features.stages}
    as_json = {entity: [None if v != v else v for v in mine] for entity, mine in values.items()}
    assert str(features.vector(body, as_json)) == str(features.vector(body, values))


def test_a_burst_of_one_card_counts_one_to_ten() -> None:
    """Ten events of a second, each seen after the last."""
    features, states = payments(), {}
    for i in range(10):
        vector, new, _ = features.observe(states, event(i, START + 100 * i))
        states.update(new)
        assert vector[features.names.index("customer_count_1h")] == i + 1


def test_a_label_counts_from_its_delay_and_from_when_it_is_known() -> None:
    """A fraud of day 0 known on day 3 shows from day 7 (the delay) to the end of its window, and not once withdrawn."""
    features, stage = payments(), payments().stage("counterparty")
    at = features.names.index("counterparty_fraud_count_7d")
    first = event(0, START)
    _, state, _ = stage.observe(None, first)
    state = stage.label(state, label(first, START + 3 * DAY))
    assert stage.label(state, label(first, START + 3 * DAY)) is state

    def count(days: int, of: bytes) -> float:
        body = event(days, START + days * DAY)
        return features.vector(body, {"counterparty": stage.peek(of, body)})[at]

    assert [count(days, state) for days in (6, 7, 13, 14)] == [0, 1, 1, 0]
    digest = read_header(state).digest
    withdrawn = stage.label(state, label(first, START + 4 * DAY, fraud=False))
    assert count(7, withdrawn) == 0
    assert read_header(withdrawn).digest == summed(first) != digest


def test_a_second_report_that_was_known_earlier_moves_the_label_forward() -> None:
    """Two sources report one fraud: it counts from the earlier one, in whichever order the reports come."""
    features, stage = payments(), payments().stage("counterparty")
    at = features.names.index("counterparty_fraud_count_30d")
    first = event(0, START)
    _, state, _ = stage.observe(None, first)
    reports = [label(first, START + days * DAY) for days in (20, 10)]
    states = []
    for order in (reports, reports[::-1]):
        labelled = state
        for report in order:
            labelled = stage.label(labelled, report)
        states.append(labelled)
        body = event(1, START + 15 * DAY)
        assert features.vector(body, {"counterparty": stage.peek(labelled, body)})[at] == 1
    assert read_header(states[0]).digest == read_header(states[1]).digest


def test_labels_are_forgotten_with_the_events_that_they_belong_to() -> None:
    """Once a key's newest event has left a label behind the longest window, the profile holds it no more."""
    features = payments()
    stage = features.stage("counterparty")
    first = event(0, START)
    _, state, _ = stage.observe(None, first)
    labelled = stage.label(state, label(first, START))
    assert len(labelled) > len(state)
    _, later, _ = stage.observe(labelled, event(1, START + stage.grid.retain))
    assert len(later) == len(state)
    assert stage.label(later, label(first, START)) is later


def test_an_event_too_late_by_a_millisecond_is_counted_alone() -> None:
    """At exactly the retained age an event changes nothing but a counter; a millisecond younger it is taken."""
    features = payments()
    stage = features.stage("customer")
    at = features.names.index("customer_count_30d")
    _, state, _ = stage.observe(None, event(0, START))
    for late, seq in ((stage.grid.retain, 1), (stage.grid.retain - 1, 2)):
        body = event(1, START - late)
        values, after, _ = stage.observe(state, body)
        assert features.vector(body, {"customer": values})[at] == 1
        assert read_header(after).seq == seq
        assert stage.open(after).too_old == (seq == 1)


def test_the_values_seen_last_are_kept_in_one_order() -> None:
    """Which of two values of one millisecond came first leaves no trace; past the limit the one seen longest ago goes."""
    tables = []
    for order in ([(5, 7), (5, 3), (1, 9), (2, 3)], [(1, 9), (2, 3), (5, 3), (5, 7)]):
        table = LastSeen(limit=2, retain=100)
        for t, value in order:
            table.add(t, value, newest=5)
        tables.append((list(table.lasts), list(table.hashes)))
        assert table.count(0, 5) == 2
        assert table.count(5, 9) == 0
    assert tables == [([5, 5], [3, 7])] * 2


def test_sums_stay_exact_after_more_than_64_bits_went_by() -> None:
    """The running sum of a key's whole life passes 2^63; windows are still exact."""
    large = 2**53 - 1
    feature = FeatureSpec("total", "a", "Sum", of="units", window_ms=HOUR)
    features = FeatureSet(FeatureSetSpec("none", (EntitySpec("a"),), (feature,), (("units", "integer"),)))
    live = features.stage("a").open(None)
    for i in range(2_500):
        body = {
            "id": str(i),
            "time": START + i * HOUR // 4,
            "amount": 1,
            "entities": {"a": "x"},
            "fields": {"units": large},
        }
        values = live.observe(body)
        assert features.vector(body, {"a": values}) == [float(large * min(i + 1, 4))]


def test_the_preset_never_changes() -> None:
    """payments/v1 is frozen: its names, and the bits of a fixed history. A change needs a new preset or engine version."""
    features = payments()
    assert features.names == (
        *(
            f"customer_{what}_{window}"
            for window in ("1h", "1d", "7d", "30d")
            for what in ("count", "amount_sum", "amount_mean")
        ),
        "customer_seconds_since_last",
        "customer_amount_ratio_30d",
        *(f"counterparty_count_{window}" for window in ("1d", "7d", "30d")),
        *(f"counterparty_fraud_{what}_{window}" for window in ("7d", "30d") for what in ("count", "rate")),
        *("amount", "hour", "night", "weekend"),
    )
    bodies = [
        event(i, START + i * i * 40_000, 100 + i * 37 % 991, f"c{i % 7}", f"m{i % 3}") for i in range(1_500)
    ]
    labels = [label(body, body["time"] + 2 * DAY) for body in bodies[::50]]
    digest = hashlib.sha256()
    for _, vector in replay(features, bodies, labels):
        digest.update(struct.pack(f"<{len(vector)}d", *(v if v == v else float("nan") for v in vector)))
    assert digest.hexdigest()[:16] == "ba9844555b4a3c64"


def test_profile_keys_name_set_entity_and_token() -> None:
    """Seeds of a replay come under the key that the stream and Redis use."""
    features = payments()
    run = replay(features, [event(1, START)])
    list(run)
    assert {key for key, _ in run.profiles(1)} == {
        profile_key(features.hash6, "customer", "a"),
        profile_key(features.hash6, "counterparty", "m"),
    }
