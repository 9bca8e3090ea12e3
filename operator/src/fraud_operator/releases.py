"""Makes the release from the rollout's state and the policy. Pure."""

from __future__ import annotations

from fraud_contracts import names
from fraud_contracts.release import Release, release_digest
from fraud_operator.detector import Detector
from fraud_operator.rollout import State


def make_release(detector: Detector, state: State, current: Release | None) -> Release:
    """The release that is wanted. The policy's revision rises by one with each changed policy, and never falls."""
    policy = detector.spec.policy
    if current is None:
        revision = 1
    elif current.policy == policy:
        revision = current.policy_revision
    else:
        revision = current.policy_revision + 1
    stable, candidate, split = state.stable, state.in_release(), state.split(detector.spec)
    digest = release_digest(stable, candidate, split, policy, revision)
    return Release(
        name=names.release(detector.name, digest[:8]),
        stable=stable,
        candidate=candidate,
        split=split,
        policy=policy,
        policy_revision=revision,
    )
