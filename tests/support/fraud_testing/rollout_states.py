"""States and facts of a rollout, written down for its tests."""

from __future__ import annotations

from typing import Any

from fraud_contracts.detector import parse_spec
from fraud_contracts.release import ModelPackage
from fraud_operator.rollout import Gate, GateResult, RolloutFacts
from fraud_operator.rollout_state import RolloutPhase, RolloutState

MINUTE = 60_000
NOW = 1_764_000_000_000


def spec(**rollout: Any) -> Any:
    return parse_spec(
        {
            "event": {"id": {"field": "i"}, "time": {"field": "t"}, "amount": {"field": "a"}},
            "entities": [{"name": "customer", "field": "c"}],
            "rollout": {"steps": [5, 50], "stepDuration": "1m", "keepPrevious": "10m", **rollout},
        }
    )


def package(version: str, slot: Any = "a") -> ModelPackage:
    return ModelPackage(
        name="n.d",
        version=version,
        digest="sha256:" + version * 8,
        feature_set="f" * 64,
        slot=slot,
        url=f"http://{slot}",
        score_map=[(0.0, 0.0), (1.0, 1000.0)],
    )


def facts(**changes: Any) -> RolloutFacts:
    changes.setdefault("urls", {"a": "http://a", "b": "http://b"})
    changes.setdefault("model", "n.d")
    return RolloutFacts(spec=changes.pop("spec", None) or spec(), **changes)


PASS = (Gate("AlertRate", GateResult.PASS), Gate("ServiceHealth", GateResult.PASS))


def shadowing(**more: Any) -> RolloutState:
    return RolloutState(
        **{
            "phase": RolloutPhase.SHADOW,
            "since": NOW,
            "counted": NOW,
            "stable": package("1"),
            "candidate": package("2", "b"),
            **more,
        }
    )


READY = {"propagated": True, "champion": "1", "ready": frozenset("ab"), "resolved": package("2")}


def spec_pinned(version: str | None, **rollout: Any) -> Any:
    whole = spec(**rollout)
    return whole.model_copy(update={"model": whole.model.model_copy(update={"pin": version})})
