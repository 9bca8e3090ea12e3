"""Judging a case: split, bands, rules, lists, fallbacks and limits, without any server."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_contracts.detector_policy import Policy
from fraud_contracts.feature_set import feature_set_hash
from fraud_contracts.records import Decision
from fraud_contracts.release import BUCKETS, ModelPackage, Release, Split
from fraud_pipelines.events import Tokeniser
from fraud_serving.ruling import Case, Prediction, Route, RoutedScore, Ruling, bucket_of
from fraud_testing import detectors

CONFIG = detectors.detector("none:9092")
SPEC = CONFIG.spec
SET = feature_set_hash(SPEC)
TOKENISER = Tokeniser(b"0" * 32)
NAMES = ("amount", "night")
NOW = 1_700_000_000_000
KNOTS = [(0.0, 0.0), (0.1, 500.0), (0.5, 700.0), (0.9, 900.0), (1.0, 1000.0)]


def package(version: str = "1", **changes: Any) -> ModelPackage:
    whole: dict[str, Any] = {
        "name": "tests.cards",
        "version": version,
        "digest": "sha256:" + version * 8,
        "feature_set": SET,
        "slot": "a",
        "url": "127.0.0.1:1",
        "score_map": KNOTS,
        **changes,
    }
    return ModelPackage(**whole)


def ruling(policy: dict[str, Any] | None = None, **release: Any) -> Ruling:
    parts: dict[str, Any] = {"name": "r", "stable": package(), "policy_revision": 1, **release}
    whole = Release(policy=Policy.model_validate(policy or {}), **parts)
    return Ruling(whole, SPEC, SET, NAMES, TOKENISER)


def event(**changes: Any) -> Any:
    whole = {
        "id": "e1",
        "time": NOW,
        "amount": 1000,
        "currency": "EUR",
        "entities": {"customer": TOKENISER.token("card", "4111"), "counterparty": "m1"},
        "fields": {"category": "travel"},
    }
    return {**whole, **changes}


def judge(
    rule: Ruling,
    probability: float | None = 0.01,
    vector: list[float | None] | None = None,
    degraded: tuple[str, ...] = (),
    counts: tuple[int, int] = (0, 0),
    **changes: Any,
) -> Decision:
    payment = event(**changes)
    route = rule.route(payment)
    prediction = None
    if probability is not None and route.package is not None:
        prediction = Prediction(probability, ((0, 1.5),), route.package.version, route.package.digest)
    case = Case(payment, "h", SET, vector or [10.0, 1.0], {}, "stream", degraded)
    return rule.judge(case, RoutedScore(route, prediction), counts, NOW)


@given(
    st.text(min_size=1, max_size=40),
    st.text(max_size=10),
    st.lists(st.integers(0, BUCKETS), min_size=2, max_size=5),
)
def test_a_ramp_only_adds_entities(token: str, salt: str, shares: list[int]) -> None:
    """Whoever got the candidate at a share gets it at every higher share of the same salt."""
    arms = []
    for share in sorted(shares):
        rule = ruling(candidate=package("2"), split=Split(salt=salt, share=share))
        arms.append(rule.route(event(entities={"customer": token})).arm)
    assert arms == sorted(arms, key=["stable", "candidate"].index)


def test_shares_are_met_within_noise() -> None:
    """Of many entities about the share falls below it, and another salt draws other entities."""
    one, other = Split(salt="a", share=500), Split(salt="b", share=500)
    tokens = [f"t_{i}" for i in range(20_000)]
    chosen = {t for t in tokens if bucket_of(one, t) < one.share}
    again = {t for t in tokens if bucket_of(other, t) < other.share}
    assert 850 < len(chosen) < 1150
    assert len(chosen & again) < 120


@settings(max_examples=200)
@given(st.floats(0, 1), st.floats(0, 1))
def test_the_score_never_falls_with_the_probability(a: float, b: float) -> None:
    """The score map is monotone, and its ends are 0 and 1000."""
    rule = ruling()
    low, high = sorted((a, b))
    assert rule.map_score(package(), low) <= rule.map_score(package(), high)
    assert (rule.map_score(package(), 0.0), rule.map_score(package(), 1.0)) == (0, 1000)


@pytest.mark.parametrize(("probability", "action"), [(0.49, "approve"), (0.5, "review"), (0.9, "decline")])
def test_bands_are_reached_exactly_at_their_knot(probability: float, action: str) -> None:
    """A score equal to a band's bound belongs to the band."""
    assert judge(ruling(), probability)["action"] == action


def test_no_model_means_rules_else_the_declared_action() -> None:
    """Release 0 has no model: onNoModel answers, a rule that applies answers instead, no_model is stated."""
    empty = ruling({"fallback": {"onNoModel": "Decline"}}, stable=None)
    decision = judge(empty)
    assert (decision["action"], decision["score"], decision["degraded"]) == ("decline", None, ["no_model"])
    rules = [{"name": "all", "when": "event.amount > 1", "action": "Review"}]
    assert judge(ruling({"rules": rules}, stable=None))["action"] == "review"


@pytest.mark.parametrize(
    ("loss", "action"),
    [("Rules", "review"), ("Review", "review"), ("Approve", "approve"), ("Decline", "decline")],
)
def test_a_lost_model_is_answered_as_declared(loss: str, action: str) -> None:
    """onModelLoss decides, and the decision says model_unavailable."""
    decision = judge(ruling({"fallback": {"onModelLoss": loss}}), None)
    assert (decision["action"], decision["degraded"]) == (action, ["model_unavailable"])


def test_failed_features_count_as_a_lost_model_under_their_own_name() -> None:
    """A null vector gives no score and says features_failed."""
    rule = ruling({"fallback": {"onModelLoss": "Approve"}})
    unscored = RoutedScore(rule.route(event()), None)
    for feature_set, vector, mark in [(SET, None, "features_failed"), ("f" * 64, [1.0], "other_feature_set")]:
        case = Case(event(), "h", feature_set, vector, {}, "stream")
        decision = rule.judge(case, unscored, (0, 0), NOW)
        assert (decision["action"], decision["degraded"]) == ("approve", [mark])


@pytest.mark.parametrize(
    ("loss", "action"), [("DefaultProfile", "approve"), ("Rules", "decline"), ("Review", "review")]
)
def test_lost_profiles_are_answered_as_declared(loss: str, action: str) -> None:
    """onProfileLoss chooses between the score of a default profile, rules and review."""
    rule = ruling({"fallback": {"onProfileLoss": loss, "onNoModel": "Decline"}})
    assert judge(rule, 0.01, degraded=("profiles_unavailable",))["action"] == action


def test_the_strictest_of_rule_and_model_wins_and_a_lone_approve_overrides() -> None:
    """A review rule can't soften a decline; an approve rule is what lets a customer through."""
    review = {"rules": [{"name": "r", "when": "true", "action": "Review"}]}
    approve = {"rules": [{"name": "a", "when": "true", "action": "Approve"}]}
    both = {"rules": [*review["rules"], *approve["rules"]]}
    assert judge(ruling(review), 0.95)["action"] == "decline"
    assert judge(ruling(approve), 0.95)["action"] == "approve"
    assert judge(ruling(both), 0.01)["action"] == "review"


def test_a_shadow_rule_is_noted_and_changes_nothing() -> None:
    """Shadow rules show up beside the decision only."""
    rules = [
        {"name": "s", "when": "features.night && event.amount > 5", "action": "Decline", "mode": "Shadow"}
    ]
    decision = judge(ruling({"rules": rules}))
    assert (decision["action"], decision["shadow"]) == ("approve", {"rules": ["s"]})


def test_a_rule_sees_features_events_and_fields() -> None:
    """Yes-or-no features are booleans, others numbers, fields by name."""
    when = "features.night && features.amount > 5.0 && event.fields.category == 'travel' && event.entities.counterparty == 'm1'"
    decision = judge(ruling({"rules": [{"name": "x", "when": when, "action": "Decline"}]}))
    assert (decision["action"], decision["reasons"][0]["code"]) == ("decline", "rule:x")


def test_a_broken_rule_matches_nothing_and_is_named() -> None:
    """A rule that doesn't compile is a problem of the release; it and one that fails while running are told by name."""
    rules = [
        {"name": "broken", "when": "event.amount >", "action": "Decline"},
        {"name": "unknown", "when": "features.nothing > 1.0", "action": "Decline"},
        {"name": "fails", "when": "1000 / (event.amount - 1000) > 1", "action": "Decline"},
    ]
    failed: list[str] = []
    release = Release(
        name="r", stable=package(), policy=Policy.model_validate({"rules": rules}), policy_revision=1
    )
    rule = Ruling(release, SPEC, SET, NAMES, TOKENISER, failed.append)
    assert (judge(rule)["action"], failed) == ("approve", ["broken", "unknown", "fails"])
    assert [problem.split()[1] for problem in rule.problems] == ["broken", "unknown"]


def test_a_list_matches_a_plain_value_of_a_sensitive_field_until_it_expires() -> None:
    """Entries of tokenised fields may be written plainly; an expired entry is as if absent."""
    entry = {"value": "4111", "expires": "2023-11-14T22:13:21Z"}
    lists = [{"name": "stolen", "field": "customer", "action": "Decline", "entries": [entry]}]
    decision = judge(ruling({"lists": lists}))
    assert (decision["action"], decision["reasons"][0]["code"]) == ("decline", "list:stolen")
    entry["expires"] = "2023-11-14T22:13:20Z"
    assert judge(ruling({"lists": lists}))["action"] == "approve"


def test_the_breaker_turns_declines_into_reviews_but_not_those_of_a_list() -> None:
    """Past declinesPerMinute a decline waits for a person, unless a list asked for it."""
    limits = {"declinesPerMinute": 2}
    assert judge(ruling({"limits": limits}), 0.95, counts=(1, 0))["action"] == "decline"
    held = judge(ruling({"limits": limits}), 0.95, counts=(2, 0))
    assert held["action"] == "review"
    assert "limit:declinesPerMinute" in [reason["code"] for reason in held["reasons"]]
    lists = [{"name": "l", "field": "counterparty", "action": "Decline", "entries": [{"value": "m1"}]}]
    assert judge(ruling({"limits": limits, "lists": lists}), 0.95, counts=(9, 0))["action"] == "decline"
    assert judge(ruling({"limits": {"reviewsPerDay": 3}}), 0.6, counts=(0, 3))["action"] == "approve"


def test_a_list_that_asked_for_less_lifts_no_limit() -> None:
    """A list's review doesn't let the model's decline past declinesPerMinute."""
    lists = [{"name": "l", "field": "counterparty", "action": "Review", "entries": [{"value": "m1"}]}]
    policy = {"limits": {"declinesPerMinute": 2}, "lists": lists}
    assert judge(ruling(policy), 0.95, counts=(1, 0))["action"] == "decline"
    assert judge(ruling(policy), 0.95, counts=(9, 0))["action"] == "review"


def test_a_package_of_another_feature_set_is_refused() -> None:
    """Its columns mean something else: the model counts as lost and the release says why."""
    rule = ruling(stable=package(feature_set="f" * 64))
    decision = judge(rule, None)
    assert decision["degraded"] == ["model_unavailable"]
    assert "feature set" in rule.problems[0]


def test_reasons_name_features_with_their_values() -> None:
    """A model reason has the feature's name as its code and says what the value was."""
    reason = judge(ruling(), 0.95, vector=[math.nan, 1.0])["reasons"][0]
    assert (reason["code"], reason["contribution"]) == ("amount", 1.5)
    assert "unknown" in reason["text"]


def test_no_split_entity_means_the_stable_arm_uncounted() -> None:
    """An event without the first entity has no bucket."""
    rule = ruling(candidate=package("2"), split=Split(salt="s", share=9_999))
    assert rule.route(event(entities={"customer": None})) == Route("stable", package(), None)
