"""The table of figures: what it says of goals, and that it never hides one."""

from __future__ import annotations

from typing import Any

from fraud_bench import table

MACHINE = {
    "cpu": "c", "cores": 2, "memory_gib": 8, "kernel": "k", "python": "3.11", "load_before": 0.1, "at": "2026-01-01 00:00 UTC",
}  # fmt: skip


def kept(**figures: dict[str, Any]) -> dict[str, Any]:
    return {"bench": {"machine": MACHINE, "figures": figures}}


def line(text: str, what: str) -> str:
    return next(one for one in text.splitlines() if one.startswith(f"| {what}"))


def test_a_missed_goal_is_marked() -> None:
    """A predictor of three times the stock server's rate is marked as missed, one of five times as met."""
    stock = {"per_s": 100, "p50_ms": 1, "cpu_us": 9}
    for rate, verdict in ((300, "**missed**"), (500, "met")):
        text = table.markdown(kept(predictor={**stock, "per_s": rate}, stock=stock))
        assert line(text, "predictor").rsplit("|", 2)[1].strip() == verdict


def test_what_was_not_measured_has_its_line() -> None:
    """Every goal has its line, also where no bench has run for it."""
    text = table.markdown(kept())
    assert sum("not measured" in one for one in text.splitlines()) == len(table.ROWS)


def test_a_rate_without_equal_bits_is_no_success() -> None:
    """A fast replay that differs from the stream in one vector misses its goal."""
    ours = {
        "per_core_s": 200_000, "features": 25, "checked": 10, "equal_to_stream": 9,
        "checked_by_oracle": 5, "equal_to_oracle": 5,
    }  # fmt: skip
    text = table.markdown(kept(replay=ours, pandas={"features": 12, "per_core_s": 1}))
    assert "missed" in line(text, "offline replay")


def test_locks_stand_beside_the_open_door() -> None:
    """What else than a decision came back is told of each."""
    both = {"p50_ms": 2.0, "p99_ms": 9.0, "lost": 0, "cpu_us": {"service": 700}}
    text = table.markdown(
        kept(door_locked={**both, "answers": {"200": 9, "503": 1}}, door_open={**both, "answers": {"200": 9}})
    )
    assert "p99 9.0 ms, 503 1; CPU service 700 µs | by open servers: p50 2.0" in line(
        text, "inline decision by"
    )
