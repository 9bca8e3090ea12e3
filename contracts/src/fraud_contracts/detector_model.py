"""The FraudDetector's model: where it comes from, how it is trained, and how a new version goes live."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from fraud_contracts.detector_base import Duration, FieldName, Name, Spec, rule, rules, text


class Algorithm(StrEnum):
    LIGHTGBM = "LightGBM"


class Objective(StrEnum):
    AVERAGE_PRECISION = "AveragePrecision"


class History(Spec):
    """Files of labelled transactions to learn from."""

    path: Annotated[str, text(r"^[^/].*$", "write a folder below storage.uri, with no / in front", 200)] = (
        Field(
            "history/",
            description="Folder of CSV or Parquet files, below storage.uri, with the event's field names.",
        )
    )
    label_field: FieldName = Field(
        "is_fraud", description="Field of the history that is 1 or true for fraud."
    )
    label_source: Name = Field("chargeback", description="Source that the history's labels count as.")


class Train(Spec):
    """The platform trains a model and registers each version."""

    history: History = Field(default_factory=History)
    algorithm: Algorithm = Field(Algorithm.LIGHTGBM, description="Kind of model; there is one.")
    objective: Objective = Field(
        Objective.AVERAGE_PRECISION, description="What the search makes as large as it can; there is one."
    )
    trials: int = Field(20, ge=1, le=200, description="Sets of parameters that the search tries.")
    schedule: (
        Annotated[
            str, text(r"^\S+ \S+ \S+ \S+ \S+$", "write minute hour day month weekday, as in 0 3 * * *", 100)
        ]
        | None
    ) = Field(None, description="When to train again. Cron, UTC: minute hour day month weekday.")
    min_labels: int = Field(500, ge=1, description="Training waits for as many matured fraud labels.")


class Registered(Spec):
    """A model that something else puts into the registry."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="Name of the registered model in MLflow."
    )
    alias: Annotated[str, Field(min_length=1, max_length=100)] = Field(
        "challenger", description="Alias whose version is tried."
    )


class Nothing(Spec):
    """An empty object: no model, rules and lists decide."""


class Model(Spec):
    """Where the model comes from: exactly one of train, registered and none."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.train), has(self.registered), has(self.none)].filter(x, x).size() == 1",
                "give exactly one of train, registered, none",
            )
        )
    )
    train: Train | None = None
    registered: Registered | None = None
    none: Nothing | None = None
    pin: Annotated[str, text(r"^[1-9][0-9]*$", 'write a model version, as in "3"', 10)] | None = Field(
        None, description="Hold this version."
    )


class RolloutMode(StrEnum):
    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class Rollout(Spec):
    """How a new version takes over from the live one."""

    mode: RolloutMode = Field(
        RolloutMode.AUTOMATIC,
        description="Automatic: a step is taken when all gates pass, or a person approves (today always a person: a gate can't be measured yet); Manual: only when a person approves.",
    )
    steps: list[Annotated[int, Field(ge=1, le=99)]] = Field(
        default_factory=lambda: [1, 5, 25, 50],
        min_length=1,
        max_length=10,
        description="Percent of the entities that the new version decides, step by step, each larger than the one before.",
    )
    step_duration: Duration = Field("1h", description="Shortest time between two steps.")
    min_entities: int = Field(
        5000,
        ge=1,
        description="Changes nothing yet: it is kept for the gate AlertRate, which isn't measured yet.",
    )
    keep_previous: Duration = Field(
        "24h", description="How long the version before the live one stays ready for the way back."
    )
    paused: bool = Field(
        False, description="While true no step forward is taken; a version can still be taken back."
    )
