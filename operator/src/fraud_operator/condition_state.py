"""A condition of a detector as the operator thinks of it, before it is written into the status."""

from __future__ import annotations

from dataclasses import dataclass

from fraud_operator.child_status import Level


@dataclass(frozen=True)
class ConditionState:
    """A condition without its type and times. ``status`` None stands for Unknown."""

    status: bool | None
    reason: str
    message: str
    level: Level = Level.READY
