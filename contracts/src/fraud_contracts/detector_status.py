"""The FraudDetector's status: a mirror, rebuilt from the release ConfigMap and the children."""

from __future__ import annotations

from pydantic import Field

from fraud_contracts.detector_base import Spec


class ReleaseStatus(Spec):
    """The release in use."""

    name: str | None = Field(None, description="Name of the release's ConfigMap.")
    model: str | None = Field(None, description="Version of the live model; absent where rules alone decide.")
    digest: str | None = Field(None, description="Digest of the live model's package.")
    feature_set: str | None = Field(
        None, description="First characters of the hash of the feature set that the live model reads."
    )
    policy_revision: int | None = Field(None, description="Counts the policies that were released.")
    propagated: str | None = Field(
        None, description="Replicas that use the release, of all that should, as in 3/3."
    )


class GateStatus(Spec):
    name: str = Field(description="The gate: ServiceHealth or AlertRate.")
    result: str = Field(
        description="Pass, Fail, NotEnough or NoData; a step needs Pass, Fail takes the version back."
    )
    value: str | None = Field(None, description="What was measured.")
    bound: str | None = Field(None, description="What it is compared with.")


class RolloutStatus(Spec):
    """How far a new version has come."""

    phase: str = Field("Idle", description="Idle, Preparing, Shadow, Ramp, Promoted or RolledBack.")
    candidate: str | None = Field(None, description="Version that is on its way.")
    share: int | None = Field(None, description="Percent of the entities that the candidate decides.")
    since: str | None = Field(None, description="When the phase began.")
    by: str | None = Field(
        None,
        description="Who ordered the phase: a field manager, not a user. Empty where gates or a failure led to it.",
    )
    gates: list[GateStatus] = Field(default_factory=list, description="What the candidate is judged by.")


class TrainingStatus(Spec):
    """The newest training that the spec asks for."""

    revision: str | None = Field(None, description="Hash of what training depends on.")
    job: str | None = Field(None, description="Name of its RayJob.")
    version: str | None = Field(None, description="Model version that it registered.")
    phase: str | None = Field(None, description="How the run stands, or how it ended.")


class Condition(Spec):
    type: str = Field(description="What is judged, as in Ready or KafkaReady.")
    status: str = Field(description="True, False or Unknown.")
    reason: str = Field(description="Why, in one word.")
    message: str = Field(description="Why, and what to do.")
    last_transition_time: str = Field(description="When the status last changed.")
    observed_generation: int = Field(description="Generation of the spec that it tells of.")


class DetectorStatus(Spec):
    """A mirror: rebuilt from the release ConfigMap and the children."""

    observed_generation: int | None = Field(None, description="Generation of the spec at work.")
    release: ReleaseStatus | None = None
    rollout: RolloutStatus | None = None
    training: TrainingStatus | None = None
    feature_set: str | None = Field(
        None, description="First characters of the hash of the feature set that the spec asks for."
    )
    decision_url: str | None = Field(
        None, alias="decisionURL", description="Address of the decision service in the cluster."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        description="What is so and what to do, one a subject; read Ready first.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
