"""Authorities that vouch for nobody, for tests that only hand one on. Uses the operator's maker of certificates."""

from __future__ import annotations

from datetime import UTC, datetime

from fraud_contracts.config import CA_CERT
from fraud_operator.certificates import lacking


def new_authority() -> str:
    """A certificate (PEM), another one each time."""
    return lacking({}, {"ANY": ("any",)}, datetime.now(UTC))[CA_CERT]
