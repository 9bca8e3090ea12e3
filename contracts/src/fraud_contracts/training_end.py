"""How a training run ends: its exit codes, the reasons for ending without a model, and the document that says so.

A run that made a model leaves a version in the registry (``model_version.VersionTags``). One that didn't leaves a run in
MLflow with the tag ``FAILURE_TAG``, which the operator reads: a Pod and its output are gone soon after.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

# Of an MLflow run and of a model version: which training revision it belongs to.
REVISION_TAG: Final = "training_revision"
# Of a run that ended without a model: why (a TrainingFailure).
FAILURE_TAG: Final = "training_failure"
# "1" in the environment of a run whose seeds a streaming job will begin with.
SEEDS_ENV: Final = "FRAUD_WRITES_SEEDS"
# MLflow takes tags of 5,000 characters.
MAX_MESSAGE: Final = 1_000


class ExitCode(IntEnum):
    """What the process ends with."""

    REGISTERED = 0
    UNEXPECTED = 1
    REASON_GIVEN = 3


class EndReason(StrEnum):
    """Why training, a refit or an evaluation ended without a result. The values are public: logs and documents carry them."""

    NO_HISTORY = "NoHistory"
    TOO_FEW_LABELS = "TooFewLabels"
    TOO_MANY_ROWS = "TooManyRows"
    NOTHING_TO_TRAIN = "NothingToTrain"
    NOT_CONFIGURED = "NotConfigured"
    FEATURE_SET_MISMATCH = "FeatureSetMismatch"
    FEATURE_OVERFLOW = "FeatureOverflow"
    HISTORY_UNREADABLE = "HistoryUnreadable"
    LAKE_UNREADABLE = "LakeUnreadable"
    SNAPSHOT_GONE = "SnapshotGone"
    SEARCH_FAILED = "SearchFailed"
    EXPORT_FAILED = "ExportFailed"
    SEEDS_NOT_WRITTEN = "SeedsNotWritten"
    STREAM_UNKNOWN = "StreamUnknown"
    STREAM_BEHIND = "StreamBehind"
    NOT_REGISTERED = "NotRegistered"
    # Of a refit and of an evaluation outside a cluster.
    NOT_FOUND = "NotFound"
    NOT_RECORDED = "NotRecorded"
    OUT_REFUSED = "OutRefused"


class TrainingFailure(BaseModel):
    """Why a run ended without a model. ``reason`` is an EndReason, or the type of an error that nobody foresaw."""

    model_config = ConfigDict(frozen=True)

    reason: str
    message: str
    ended: int
    """UTC ms."""

    def to_tags(self, revision: str) -> dict[str, str]:
        """The tags of the MLflow run that tells of it."""
        short = self.model_copy(update={"message": self.message[:MAX_MESSAGE]})
        return {REVISION_TAG: revision, FAILURE_TAG: short.model_dump_json()}

    @classmethod
    def parse(cls, tags: Mapping[str, str]) -> TrainingFailure | None:
        """From a run's tags; None where they hold no such document."""
        try:
            return cls.model_validate_json(tags.get(FAILURE_TAG, ""))
        except ValidationError:
            return None
