"""What a feature set is made of stays as it was while it answers beside a changed spec."""

from __future__ import annotations

from typing import Any

from fraud_contracts.lineage import Declaration, Lineage, Lineages
from fraud_contracts.tokens import is_token
from fraud_operator.detector import Detector
from fraud_operator.feature_sets import FeatureSets, feature_sets, noted, policy_of
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_testing.healthy import SPEC, make_detector
from fraud_testing.rollout_states import package

KEYS = {"TOKEN_KEY": "ab" * 32}


def declares(fields: list[str], sensitive: list[str], **spec: Any) -> Detector:
    event = {**SPEC["event"], "fields": [{"name": name} for name in fields], "sensitive": sensitive}
    return make_detector(event=event, **spec)


def known_of(detector: Detector) -> Lineages:
    """Its set is in use, and what it is made of is written down."""
    lineages = Lineages(known=(Lineage(feature_set=detector.feature_set, generation=1),))
    return Lineages.model_validate_json(noted(lineages, FeatureSets(detector, detector)).model_dump_json())


def edited(before: Detector, after: Detector, lineages: Lineages | None = None) -> FeatureSets:
    """The sets after an edit, while a version of the first one is live."""
    stable = package("1").model_copy(update={"feature_set": before.feature_set})
    state = RolloutState(phase=RolloutPhase.PROMOTED, stable=stable)
    return feature_sets(after, lineages or known_of(before), state)


def test_a_sensitive_field_that_the_spec_drops_is_never_written_in_clear() -> None:
    """The set that answers still has the field, so it still has its tokens; its processes' document doesn't change at all."""
    before = declares(["email"], ["email"])
    sets = edited(before, declares([], []))
    assert sets.answering.spec.event.sensitive == ["email"]
    assert sets.answering.config_hash == before.config_hash
    assert sets.beside is not None and sets.beside.spec.event.sensitive == []


def test_a_field_that_becomes_sensitive_with_another_set_does_so_when_that_set_answers() -> None:
    """The set that answers has counted and compared plain values, and a token equals none of them."""
    sets = edited(declares(["channel"], []), declares(["channel", "shop"], ["channel"]))
    assert sets.answering.spec.event.sensitive == []
    assert sets.beside is not None and sets.beside.spec.event.sensitive == ["channel"]


def test_of_a_set_of_which_that_was_not_written_down_the_spec_says_it() -> None:
    """A document of an earlier version has no such entry."""
    before, after = declares(["channel"], ["channel"]), declares(["channel", "shop"], ["channel"])
    lineages = known_of(before)
    known = Declaration.of(before.spec).model_copy(update={"sensitive": None})
    lineages = lineages.model_copy(
        update={"known": (lineages.known[0].model_copy(update={"declared": known}),)}
    )
    assert edited(before, after, lineages).answering.spec.event.sensitive == ["channel"]


def test_a_list_is_looked_up_by_what_the_events_of_the_answering_set_have() -> None:
    """Tokens where the field is sensitive in that set, whatever it is in the one that is built."""
    policy = {
        "lists": [{"name": "l", "field": "channel", "action": "Decline", "entries": [{"value": "web"}]}]
    }
    for first, tokens in (([], False), (["channel"], True)):
        before = declares(["channel"], first)
        then: list[str] = [] if first else ["channel"]
        sets = edited(before, declares(["channel", "shop"], then, policy=policy))
        entry = policy_of(sets, None, KEYS).lists[0].entries[0].value
        assert is_token(entry) is tokens
        handed_over = FeatureSets(sets.declared, sets.declared)
        assert is_token(policy_of(handed_over, None, KEYS).lists[0].entries[0].value) is not tokens
