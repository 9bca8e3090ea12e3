"""When a predictor that failed is asked again; time is an argument."""

from __future__ import annotations

from fraud_serving.cooldown import COOL_DOWN, CoolDown

FAILURES = 3


def test_after_some_failures_in_a_row_one_caller_a_second_tries() -> None:
    """Fewer failures change nothing; then the first caller after the rest asks, and the others don't."""
    cooling = CoolDown(FAILURES)
    for _ in range(FAILURES):
        assert cooling.take_turn("b", 10.0)
        cooling.failed("b", 10.0)
    assert not cooling.take_turn("b", 10.0 + COOL_DOWN / 2)
    assert cooling.take_turn("a", 10.0)
    assert [cooling.take_turn("b", 10.0 + COOL_DOWN) for _ in range(3)] == [True, False, False]


def test_an_answer_ends_the_rest() -> None:
    """One that answers is asked by everyone at once, and its failures count anew."""
    cooling = CoolDown(FAILURES)
    for _ in range(FAILURES):
        cooling.failed("b", 10.0)
    cooling.answered("b")
    assert cooling.take_turn("b", 10.0)
    cooling.failed("b", 10.0)
    assert cooling.take_turn("b", 10.0)
