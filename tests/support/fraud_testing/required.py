"""A missing tool skips a test by its name on a laptop and fails it where FRAUD_REQUIRE=all."""

from __future__ import annotations

import os

import pytest


def require(missing: str | None) -> None:
    if missing is None:
        return
    if os.environ.get("FRAUD_REQUIRE") == "all":
        pytest.fail(missing)
    pytest.skip(missing)
