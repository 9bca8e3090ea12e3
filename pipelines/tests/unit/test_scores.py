"""Label maturity, score map and evaluation, held against their definitions on small cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts.detector import parse_spec
from fraud_pipelines import evaluation, score_map
from fraud_pipelines.labels import Maturity, history_delay

DAY = 86_400_000
MATURITY = Maturity({"chargeback": 90 * DAY, "analyst": DAY})
ranked = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=40)


def test_maturity_comes_from_the_spec() -> None:
    """Each source's maturity and the entities' label delay are read from the resource."""
    spec = parse_spec(
        {
            "event": {"id": {"field": "i"}, "time": {"field": "t"}, "amount": {"field": "a"}},
            "entities": [
                {"name": "customer", "field": "c"},
                {"name": "counterparty", "field": "m", "labelDelay": "7d"},
            ],
        }
    )
    assert Maturity.of(spec.labels) == MATURITY
    assert history_delay(spec.entities) == 7 * DAY
    assert history_delay(spec.entities[:1]) == 0


def test_immature_transactions_are_left_out() -> None:
    """A transaction younger than its source's maturity is no example, whatever its label."""
    times = np.array([0, 5, 10]) * DAY
    assert MATURITY.mature(times, 95 * DAY, "chargeback").tolist() == [True, True, False]
    assert MATURITY.mature(times, 95 * DAY, "analyst").all()
    assert MATURITY.mature(times, 95 * DAY).tolist() == [True, True, False]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=3000), st.floats(0, 1))
def test_a_score_map_keeps_alert_rates(probabilities: list[float], other: float) -> None:
    """On its own data no score is reached by more than its share; scores rise with probability and stay within 0 to 1000."""
    knots = score_map.fit(np.array(probabilities))
    scores = score_map.ScoreMap(knots)
    reached = np.array([scores.score(p) for p in probabilities])
    in_knots = {score for _, score in knots}
    for score, rate in score_map.ALERT_RATES:
        if score in in_knots:
            assert (reached >= score).mean() <= rate
    assert scores.score(0.0) == 0
    assert scores.score(1.0) == 1000
    assert scores.score(min(other, 0.5)) <= scores.score(max(other, 0.5))


def test_a_score_stands_for_its_share() -> None:
    """With distinct probabilities a score is reached by exactly its share of the payments."""
    probabilities = np.random.default_rng(1).beta(0.3, 9, 20_000)
    scores = score_map.ScoreMap(score_map.fit(probabilities))
    reached = np.array([scores.score(p) for p in probabilities])
    for score, rate in score_map.ALERT_RATES:
        assert (reached >= score).sum() == int(rate * 20_000)


@pytest.mark.parametrize(
    "knots",
    [
        [],
        [(0.0, 0.0)],
        [(0.1, 0.0), (1.0, 9.0)],
        [(0.0, 0.0), (0.0, 1.0), (1.0, 2.0)],
        [(0.0, 5.0), (1.0, 1.0)],
    ],
)
def test_a_broken_map_is_refused(knots: list[tuple[float, float]]) -> None:
    """A map that doesn't ascend from 0 to 1 is refused when it is loaded."""
    with pytest.raises(ValueError, match="score map"):
        score_map.ScoreMap(knots)


@given(ranked)
def test_average_precision_is_its_definition(pairs: list[tuple[int, int]]) -> None:
    """The sum over thresholds of recall gained times precision there."""
    y, s = np.array(pairs, dtype=float).T
    got = evaluation.average_precision(y, s)
    if not y.sum():
        assert np.isnan(got)
        return
    expected, before = 0.0, 0.0
    for threshold in sorted(set(s), reverse=True):
        recall = y[s >= threshold].sum() / y.sum()
        expected += (recall - before) * y[s >= threshold].mean()
        before = recall
    assert got == pytest.approx(expected)


@given(ranked)
def test_roc_auc_is_its_definition(pairs: list[tuple[int, int]]) -> None:
    """The share of pairs of a fraud and an honest payment in the right order, ties half."""
    y, s = np.array(pairs, dtype=float).T
    got = evaluation.roc_auc(y, s)
    frauds, honest = s[y == 1], s[y == 0]
    if not len(frauds) or not len(honest):
        assert np.isnan(got)
        return
    wins = (frauds[:, None] > honest).mean() + (frauds[:, None] == honest).mean() / 2
    assert got == pytest.approx(wins)


def test_a_budget_of_alerts() -> None:
    """Precision, recall and recovered money of the riskiest share."""
    measures = evaluation.at_budget([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1], 0.5, [100, 1, 300, 1])
    assert measures == {"alert_rate": 0.5, "alerts": 2, "precision": 0.5, "recall": 0.5, "money_recall": 0.25}


def test_precision_per_card_and_day() -> None:
    """Of a day's riskiest cards, those with a fraud; a card counts once a day."""
    labels, scores = [1, 0, 0, 0, 1], [0.9, 0.8, 0.1, 0.9, 0.2]
    times, cards = [0, 1, 2, DAY, DAY + 1], ["a", "a", "b", "a", "b"]
    assert evaluation.card_precision_at(labels, scores, times, cards, 1) == 0.5
    assert evaluation.card_precision_at(labels, scores, times, cards, 2) == 0.5


def test_the_curve_ends_at_full_recall() -> None:
    """However thinned, the curve has few points and reaches recall 1 at alert rate at most 1."""
    rng = np.random.default_rng(2)
    y = (rng.random(5000) < 0.02).astype(float)
    curve = evaluation.precision_recall(y, rng.random(5000) + y, points=50)
    assert len(curve) <= 110
    assert max(point["recall"] for point in curve) == 1.0


def test_calibration_of_true_probabilities_is_small() -> None:
    """Labels drawn from the probabilities give a small expected error; wrong probabilities a large one."""
    rng = np.random.default_rng(3)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(float)
    assert evaluation.calibration(y, p)["expected_error"] < 0.02
    assert evaluation.calibration(y, p / 2)["expected_error"] > 0.2


def test_the_interval_holds_the_value_and_repeats() -> None:
    """The interval surrounds the value, is the same for the same seed, and wider when few customers hold all frauds."""
    rng = np.random.default_rng(4)
    y = (rng.random(3000) < 0.05).astype(float)
    s = rng.random(3000) + 0.5 * y
    free = evaluation.bootstrap(evaluation.average_precision, y, s, rounds=100)
    assert free.low < free.value < free.high
    assert free == evaluation.bootstrap(evaluation.average_precision, y, s, rounds=100)
    few = evaluation.bootstrap(
        evaluation.average_precision, y, s, groups=(np.arange(3000) // 300).tolist(), rounds=100
    )
    assert few.value == free.value


def test_segments_with_few_frauds_are_marked() -> None:
    """A segment's figures are given only where there are frauds enough to mean something."""
    rows = evaluation.by_segment(
        [1, 0, 1, 0, 0], [0.9, 0.1, 0.8, 0.2, 0.3], ["a", "a", "a", "a", "b"], least=2
    )
    assert [(row["segment"], row["enough"], row["average_precision"]) for row in rows] == [
        ("a", True, 1.0),
        ("b", False, None),
    ]


def test_alerts_per_day_count_each_day_by_itself() -> None:
    """Two alerts a day find the two riskiest of each day, whatever another day's scores are."""
    times = [0, 1, 2, DAY, DAY + 1, DAY + 2]
    labels, scores = [1, 0, 1, 1, 0, 0], [0.9, 0.8, 0.7, 0.1, 0.3, 0.2]
    one, two = evaluation.by_alerts_per_day(labels, scores, times, (1, 2))
    assert (one["recall"], one["precision"]) == (pytest.approx(1 / 3), 0.5)
    assert (two["recall"], two["precision"]) == (pytest.approx(1 / 3), 0.25)
    weeks = evaluation.by_week([1, 0, 1], [0.9, 0.1, 0.2], [0, DAY, 8 * DAY])
    assert [(week["week"], week["rows"], week["frauds"]) for week in weeks] == [(1, 2, 1), (2, 1, 1)]
    bins = evaluation.distribution(labels, scores, (0.0, 0.5, 1.0))
    assert [(part["honest"], part["fraud"]) for part in bins] == [(2, 1), (1, 2)]


def test_a_comparison_is_paired() -> None:
    """A score against itself is ahead by nothing in every draw; the draws are those of the interval alone."""
    rng = np.random.default_rng(3)
    y = (rng.random(500) < 0.2).astype(int)
    s, cards = y + rng.normal(size=500), rng.integers(0, 60, 500)
    both = evaluation.compare(
        evaluation.average_precision, y, s, {"same": s, "noise": rng.random(500)}, cards, seed=5
    )
    assert (both["same"].ahead.low, both["same"].ahead.high) == (0.0, 0.0)
    assert both["noise"].ahead.low > 0
    alone = evaluation.bootstrap(evaluation.average_precision, y, s, cards, seed=5)
    assert both["same"].value == alone
