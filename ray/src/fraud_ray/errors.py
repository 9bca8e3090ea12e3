"""Why a training run ended without a model. The text is what the operator shows, so it says what to do."""

from __future__ import annotations

from fraud_contracts.errors import FraudError
from fraud_contracts.training_end import EndReason


class TrainingError(FraudError):
    """Training can't go on; ``reason`` is a stable code, the message names the missing thing."""

    def __init__(self, reason: EndReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
