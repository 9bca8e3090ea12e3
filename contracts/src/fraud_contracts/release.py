"""The release document: one model package x one policy revision, the live truth of the data path.

It is kept in an immutable ConfigMap ``names.release`` and copied into the pointer ``names.release_pointer``, which
the decision service and the worker watch. Release 0 has no model: rules, else ``fallback.onNoModel``.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field

from fraud_contracts.config import Mounted
from fraud_contracts.detector_policy import Policy
from fraud_contracts.model_package import ScoreKnots
from fraud_contracts.names import Slot

BUCKETS = 10_000


class ModelPackage(Mounted):
    """A registered version, as the operator resolved it."""

    name: str
    version: str
    digest: str
    feature_set: str
    slot: Slot
    url: str
    score_map: ScoreKnots


class Split(Mounted):
    """Sticky split: ``bucket = hash(salt, first entity's token) mod 10,000``; the candidate gets the buckets below share."""

    salt: str
    share: Annotated[int, Field(ge=0, le=BUCKETS)]


class Release(Mounted):
    """``stable`` answers; ``candidate`` shadows where ``split`` is None or its share 0, else answers its buckets."""

    name: str
    stable: ModelPackage | None = None
    candidate: ModelPackage | None = None
    split: Split | None = None
    policy: Policy
    policy_revision: int

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=1)


def release_digest(
    stable: ModelPackage | None,
    candidate: ModelPackage | None,
    split: Split | None,
    policy: Policy,
    policy_revision: int,
) -> str:
    """64 hex characters over the content; the first 8 name the ConfigMap."""
    whole = Release(
        name="",
        stable=stable,
        candidate=candidate,
        split=split,
        policy=policy,
        policy_revision=policy_revision,
    )
    return hashlib.sha256(whole.to_json().encode()).hexdigest()


def parse_release(text: str | bytes) -> Release:
    return Release.model_validate_json(text)
