"""Makes the release from the rollout's state and the policy. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fraud_contracts import names
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_policy import Policy, PolicyList
from fraud_contracts.release import ModelPackage, Release, release_digest
from fraud_contracts.tokens import is_token, token
from fraud_operator.desired.inference_service import predictors_url
from fraud_operator.detector import Detector
from fraud_operator.rollout_state import RolloutState


def with_tokens(spec: DetectorSpec, token_key: str) -> Policy:
    """The policy with tokens in the place of what its lists name of sensitive fields: a ConfigMap is no place for those.

    ``token_key`` is hexadecimal. An entry that is a token already, copied from a decision, stays.
    """
    key = bytes.fromhex(token_key)

    def tokenised(listed: PolicyList) -> PolicyList:
        raw = next((entity.field for entity in spec.entities if entity.name == listed.field), listed.field)
        if raw not in spec.event.sensitive:
            return listed
        entries = [
            entry
            if is_token(entry.value)
            else entry.model_copy(update={"value": token(key, raw, entry.value)})
            for entry in listed.entries
        ]
        return listed.model_copy(update={"entries": entries})

    return spec.policy.model_copy(update={"lists": [tokenised(listed) for listed in spec.policy.lists]})


def live_policy(detector: Detector, release: Release | None, keys: Mapping[str, str] | None) -> Policy:
    """The spec's policy with tokens for sensitive values; without their key the live policy stays."""
    if keys is not None:
        return with_tokens(detector.spec, keys["TOKEN_KEY"])
    if release is not None:
        return release.policy
    return detector.spec.policy.model_copy(update={"lists": []})


def _addressed(detector: Detector, package: ModelPackage | None) -> ModelPackage | None:
    """Where the doors ask for it. The state keeps KServe's own address, by which an earlier version of the platform asks."""
    if package is None:
        return None
    return package.model_copy(update={"url": predictors_url(detector, package.slot)})


def make_release(detector: Detector, state: RolloutState, current: Release | None, policy: Policy) -> Release:
    """The release that is wanted. The policy's revision rises by one with each changed policy, and never falls."""
    if current is None:
        revision = 1
    elif current.policy == policy:
        revision = current.policy_revision
    else:
        revision = current.policy_revision + 1
    stable, candidate = _addressed(detector, state.stable), _addressed(detector, state.in_release())
    split = state.split(detector.spec)
    digest = release_digest(stable, candidate, split, policy, revision)
    return Release(
        name=names.release(detector.name, digest),
        stable=stable,
        candidate=candidate,
        split=split,
        policy=policy,
        policy_revision=revision,
    )
