"""The detector's status: computed once a pass from what was observed, also after a failure. Pure.

``lastTransitionTime`` moves only when a condition's status does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.errors import SpecError
from fraud_contracts.feature_set import hash6
from fraud_operator import readiness
from fraud_operator.condition_state import ConditionState
from fraud_operator.conditions import Trouble, conditions
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts
from fraud_operator.objects import Json, to_timestamp

ORDER: Final = (
    "Ready", "Progressing", "Degraded", "Paused", "ReferencesFound", "KeysReady", "StorageReady", "StoresReady", "KafkaReady",
    "CapacityLeft", "FeaturesWarm", "StreamingReady", "TrainingSucceeded",
    "ModelResolved", "ModelLive", "ServingReady", "ReleasePropagated", "RolloutHealthy", "ValidationFailed",
)  # fmt: skip


def _listed(
    states: Mapping[str, ConditionState], previous: Mapping[str, Any], generation: int, now: int
) -> list[Json]:
    before = {c["type"]: c for c in previous.get("conditions") or []}
    out = []
    for name in ORDER:
        if name not in states:
            continue
        condition = states[name]
        status = "Unknown" if condition.status is None else str(condition.status)
        old = before.get(name)
        moved = old is None or old.get("status") != status
        out.append(
            {
                "type": name,
                "status": status,
                "reason": condition.reason or "Unknown",
                "message": condition.message[:1024],
                "lastTransitionTime": to_timestamp(now)
                if moved or old is None
                else old["lastTransitionTime"],
                "observedGeneration": generation,
            }
        )
    return out


def compute(detector: Detector, facts: Facts, trouble: Trouble, previous: Mapping[str, Any]) -> Json:
    """The whole status; None values stand for fields that a merge patch takes away."""
    state, release = facts.state, facts.release
    states = conditions(detector, facts, trouble)
    updated = sum(r.release == release.name for r in facts.replicas) if release else 0
    split = release.split if release else None
    live = release.stable if release else state.stable
    result = readiness.training_outcome(detector, facts)
    return {
        "observedGeneration": detector.generation,
        "featureSet": hash6(facts.beside.declared or detector.feature_set),
        "decisionURL": detector.decision_url,
        "release": {
            "name": release.name if release else None,
            "model": live.version if live else None,
            "digest": live.digest if live else None,
            "featureSet": hash6(live.feature_set) if live else None,
            "policyRevision": release.policy_revision if release else None,
            "propagated": f"{updated}/{len(facts.replicas)}",
        },
        "rollout": {
            "phase": str(state.phase),
            "candidate": state.candidate.version if state.candidate else None,
            "share": split.share // 100 if split else None,
            "since": to_timestamp(state.since) if state.since else None,
            "by": state.by,
            "gates": [
                {"name": g.name, "result": str(g.result), "value": g.value or "", "bound": g.bound or ""}
                for g in facts.gates
            ],
        },
        "training": {
            "revision": facts.revision,
            "job": names.ray_job(detector.name, facts.revision) if facts.revision else None,
            "version": facts.models.trained,
            "phase": str(result.phase) if facts.revision else None,
        },
        "conditions": _listed(states, previous, detector.generation, facts.now),
    }


def add_refusal(
    after: Json, errors: Sequence[SpecError], generation: int, previous: Mapping[str, Any], now: int
) -> None:
    """Puts the newest spec's faults beside what is so of the last valid one.

    observedGeneration, the status's and each other condition's, stays that of the spec at work, so whoever waits for the newest
    one doesn't take Ready for its. Degraded and ValidationFailed tell of the newest.
    """
    message = f"{'; '.join(map(str, errors))[:900]}; the last valid spec stays at work"
    states = {"ValidationFailed": ConditionState(True, "SpecError", message)}
    if any(c["type"] == "Degraded" and c["status"] == "False" for c in after["conditions"]):
        states["Degraded"] = ConditionState(True, "ValidationFailed", message)
    merged = {c["type"]: c for c in [*after["conditions"], *_listed(states, previous, generation, now)]}
    after["conditions"] = [merged[name] for name in ORDER if name in merged]


def invalid(errors: Sequence[SpecError], generation: int, previous: Mapping[str, Any], now: int) -> Json:
    """Of a spec that can't be built, where none could be before: nothing is made."""
    message = "; ".join(str(error) for error in errors)
    states = {
        "Ready": ConditionState(False, "ValidationFailed", message),
        "Progressing": ConditionState(False, "ValidationFailed", "waits for a changed spec"),
        "Degraded": ConditionState(True, "ValidationFailed", message),
        "ValidationFailed": ConditionState(True, "SpecError", message),
    }
    return {"observedGeneration": generation, "conditions": _listed(states, previous, generation, now)}


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value


def changed(status: Json, previous: Mapping[str, Any]) -> bool:
    """Whether writing it would change anything."""
    return bool(
        _pruned(status)
        != {key: _pruned(previous.get(key)) for key in status if previous.get(key) is not None}
    )
