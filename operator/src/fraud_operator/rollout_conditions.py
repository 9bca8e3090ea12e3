"""What the conditions of a rollout say, from what was observed: which replicas use the release, how the candidate does. Pure."""

from __future__ import annotations

from dataclasses import replace

from fraud_contracts import names
from fraud_contracts.feature_set import hash6
from fraud_operator import readiness
from fraud_operator.child_status import Level
from fraud_operator.condition_state import ConditionState
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts
from fraud_operator.feature_sets import FeatureSets, unreadable_policy
from fraud_operator.objects import to_timestamp
from fraud_operator.rollout import GONE_MS
from fraud_operator.rollout_state import RolloutPhase, waiting


def release_propagated(facts: Facts) -> ConditionState:
    if facts.release is None:
        return ConditionState(
            False, "NoRelease", "the first release is about to be written", Level.PROGRESSING
        )
    updated = sum(replica.release == facts.release.name for replica in facts.replicas)
    message = f"{updated} of {len(facts.replicas)} replicas use {facts.release.name}"
    if readiness.propagated(facts):
        return ConditionState(True, "Propagated", message)
    mute = [replica.pod for replica in facts.replicas if replica.release is None]
    if mute:
        message += f"; no answer from {', '.join(mute[:3])}"
    return ConditionState(False, "Propagating", message, Level.PROGRESSING)


def rollout_healthy(detector: Detector, facts: Facts) -> ConditionState:
    """The candidate's state, a version that waits for a slot, a rollback annotation that is spent, a hand-over that stands still."""
    candidate, state, resolved = candidate_state(detector, facts), facts.state, facts.models.resolved
    notes = [candidate.message]
    if resolved is not None and (version := waiting(state, resolved.package())) is not None:
        kept = state.previous and state.previous_until
        why = (
            f"version {state.previous.version} is kept until {to_timestamp(kept)}"
            if state.previous and kept
            else "none is free"
        )
        notes.append(f"version {version} waits for a slot: {why}")
    rollback = detector.annotations.get(names.ROLLBACK_ANNOTATION)
    if state.stable is not None and rollback == state.stable.version == state.rollback:
        notes.append(
            f"{names.ROLLBACK_ANNOTATION} is older than version {rollback} is live: to take it back, remove it and set it again"
        )
    if facts.beside.note:
        notes.append(facts.beside.note)
    if candidate.status and readiness.hand_over_overdue(facts):
        return ConditionState(False, "HandingOver", "; ".join(notes), Level.DEGRADED)
    return replace(candidate, message="; ".join(notes))


def beside_note(sets: FeatureSets, facts: Facts) -> str:
    """What is to be said while two feature sets have a streaming job; empty while one has."""
    answering, beside = sets.answering, sets.beside
    if beside is None:
        return ""
    verb = "is built beside" if beside.feature_set == sets.declared.feature_set else "is kept beside"
    notes = [f"feature set {beside.hash6} {verb} {answering.hash6}, which answers"]
    hand_over = facts.lineages.hand_over
    if hand_over is not None:
        what = hand_over.step.value
        notes.append(
            f"the decisions go over to {hash6(hand_over.to)} ({what} since {to_timestamp(hand_over.since)})"
        )
        notes += [waits] if (waits := readiness.hand_over_waits(answering, facts)) else []
    elif beside.lineage is None:
        notes.append(facts.beside.waits or "its streaming job is about to be made")
    else:
        notes.append(readiness.beside_warm(beside, facts)[1])
    if beside.spec is sets.declared.spec and beside.spec.model.none is not None:
        notes.append("as the spec wants no model, rules decide once it answers")
    if sets.returns:
        notes.append(f"rules decide until {beside.hash6} answers again")
        job = readiness.flink(answering, facts)
        if hand_over is None and not job.usable:
            # What it has written, and the other hasn't, is known only once it stops by itself.
            notes.append(f"which waits for streaming job {answering.streaming_job} to run: {job.message}")
    faults = unreadable_policy(sets)
    if faults:
        notes.append(
            f"{faults[0]}, by {answering.hash6}: the policy from before stays until {beside.hash6} answers"
        )
    return "; ".join(notes)


def candidate_state(detector: Detector, facts: Facts) -> ConditionState:
    state = facts.state
    if state.phase is RolloutPhase.ROLLED_BACK:
        bad = state.rejected[-1] if state.rejected else "?"
        return ConditionState(
            False,
            "RolledBack",
            f"model version {bad} was taken back and isn't tried again; register another version, or name it anew in spec.model.pin",
            Level.DEGRADED,
        )
    if state.gone is not None and state.candidate is not None:
        return ConditionState(
            False,
            "CandidateGone",
            f"no replica of version {state.candidate.version}'s predictor answers since {to_timestamp(state.gone)}: the stable model "
            f"answers in its place, and it is taken back after {GONE_MS // 1000} s",
            Level.DEGRADED,
        )
    if detector.spec.rollout.paused and state.candidate is not None:
        return ConditionState(
            True,
            "Paused",
            f"version {state.candidate.version} stays in {state.phase} while spec.rollout.paused",
        )
    if state.phase in (RolloutPhase.SHADOW, RolloutPhase.RAMP) and state.candidate is not None:
        open_gates = [f"{gate.name} {gate.result}" for gate in facts.gates if gate.result != "Pass"]
        hold = f"; waits for {', '.join(open_gates)}" if open_gates else ""
        hint = f"; approve with {names.APPROVE_ANNOTATION}: {state.candidate.version!r}" if open_gates else ""
        return ConditionState(
            True, str(state.phase), f"version {state.candidate.version} in {state.phase}{hold}{hint}"
        )
    if state.phase is RolloutPhase.PREPARING and state.candidate is not None:
        message = f"version {state.candidate.version} is prepared in slot {state.candidate.slot}"
        readable = detector.feature_set, state.stable and state.stable.feature_set
        if state.stable is not None and state.candidate.feature_set not in readable:
            message = (
                f"version {state.candidate.version} was trained on the new feature set {hash6(state.candidate.feature_set)}, so it can't be "
                f"tried beside version {state.stable.version}: to switch, approve it with {names.APPROVE_ANNOTATION}: {state.candidate.version!r}"
            )
        verdict = readiness.predictor(detector, facts, state.candidate.slot, state.candidate.version)
        if verdict.level is Level.BLOCKED:
            return ConditionState(
                True, "Preparing", f"{message}: its predictor {verdict.message}", Level.BLOCKED
            )
        return ConditionState(True, "Preparing", message)
    return ConditionState(True, str(state.phase), "no version is on its way")
