"""Who ordered a step of a rollout: read from what the API server keeps of field managers, and carried into state and event."""

from __future__ import annotations

from typing import Any

from fraud_contracts import names
from fraud_operator import orders
from fraud_operator.orders import UNNAMED, Orders
from fraud_operator.rollout import Gate, GateResult, PostEvent, back, decide
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_testing.rollout_states import MINUTE, NOW, PASS, READY, facts, package, shadowing, spec_pinned

WHO = Orders(approve="ann", abort="bob", rollback="cleo", pin="dora")
PATH = ("f:metadata", "f:annotations", f"f:{names.APPROVE_ANNOTATION}")


def entry(manager: str, time: str | None, *path: str, operation: str = "Update") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in reversed(path):
        fields = {part: fields}
    when = {} if time is None else {"time": time}
    return {"manager": manager, "operation": operation, "fieldsV1": fields, **when}


def body(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"managedFields": list(entries)}}


def said(actions: list[Any], reason: str) -> str:
    return next(a.message for a in actions if isinstance(a, PostEvent) and a.reason == reason)


def test_the_manager_of_the_annotation_is_named() -> None:
    """With what it did and when; another manager's fields and a status write don't count."""
    answer = orders.of(
        body(
            entry("kubectl-edit", "2026-01-01T00:00:02Z", "f:spec", "f:rollout"),
            entry("kubectl-annotate", "2026-01-01T00:00:01Z", *PATH),
            entry("argocd", "2026-01-01T00:00:00Z", "f:spec", "f:model", "f:pin", operation="Apply"),
        )
    )
    assert answer.approve == "kubectl-annotate (Update at 2026-01-01T00:00:01Z)"
    assert answer.pin == "argocd (Apply at 2026-01-01T00:00:00Z)"
    assert answer.abort == answer.rollback == UNNAMED


def test_of_several_managers_the_last_one_counts() -> None:
    """Two that declare the same value own it both: the one that wrote last is named."""
    managers = [entry("a", "2026-01-01T00:00:05Z", *PATH), entry("b", "2026-01-01T00:00:04Z", *PATH)]
    assert orders.of(body(*managers)).approve.startswith("a (")


def test_without_managed_fields_nobody_is_named() -> None:
    """An object that came without them, or with an entry that lacks its parts, names nobody and breaks nothing."""
    for one in ({"metadata": {}}, {"metadata": {"managedFields": None}}, body({}), body({"manager": "a"})):
        assert orders.of(one) == Orders()
    assert orders.of(body(entry("a", None, *PATH))).approve == "a (Update)"


def test_each_order_is_in_state_and_event() -> None:
    """Approval, abort, rollback and pin name who ordered them."""
    ramp, actions = decide(shadowing(), facts(**READY, approve="2", orders=WHO), NOW)
    assert ramp.phase is RolloutPhase.RAMP and ramp.by == "approved by ann"
    assert said(actions, "Ramp").endswith("approved by ann")
    aborted, actions = decide(ramp, facts(**READY, abort="2", orders=WHO), NOW)
    assert aborted.by == "aborted by bob" and "aborted by bob" in said(actions, "RolledBack")
    live = RolloutState(phase=RolloutPhase.PROMOTED, stable=package("2", "b"), previous=package("1"))
    returned, actions = back(live, facts(rollback="2", orders=WHO), NOW)
    assert returned.by == "ordered by cleo" and "ordered by cleo" in said(actions, "RolledBack")
    returned, actions = back(live, facts(spec=spec_pinned("1"), orders=WHO), NOW)
    assert returned.by == "pinned by dora" and "pinned by dora" in said(actions, "RolledBack")


def test_a_step_that_nobody_ordered_names_nobody() -> None:
    """Passed gates, a failing gate and a lost predictor leave the name of whoever ordered the phase before."""
    ramp, actions = decide(shadowing(by="approved by ann"), facts(**READY, gates=PASS), NOW + MINUTE)
    assert ramp.phase is RolloutPhase.RAMP and ramp.by is None and said(actions, "Ramp").endswith("entities")
    failing = (Gate("ServiceHealth", GateResult.FAIL, "9 %", "1 %"),)
    assert decide(shadowing(by="approved by ann"), facts(**READY, gates=failing), NOW)[0].by is None
