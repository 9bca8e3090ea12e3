"""Where MLflow is and what its client logs in with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fraud_contracts.config import MLFLOW_LOGIN, MLFLOW_TRACKING_URI, STORES_ENV
from fraud_process.registry_access import log_in


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that MLflow's client reads are as before, after each test."""
    for name in MLFLOW_LOGIN:
        monkeypatch.setenv(name, "")


def test_the_login_in_the_file_is_the_clients(tmp_path: Path) -> None:
    """It is read anew each time, so that one which was replaced meanwhile is followed; the address has none left."""
    environ = {STORES_ENV: str(tmp_path), MLFLOW_TRACKING_URI: "http://variable"}
    for password in ("one", "two"):
        (tmp_path / MLFLOW_TRACKING_URI).write_text(f"http://u:{password}@h:5000\n")
        assert log_in(environ=environ) == "http://h:5000"
        assert [os.environ[name] for name in MLFLOW_LOGIN] == ["u", password, ""]


def test_a_login_of_ones_own_lies_beside_the_address(tmp_path: Path) -> None:
    """As files where there are some, else as variables, which who runs it by hand gives."""
    environ = {STORES_ENV: str(tmp_path), MLFLOW_LOGIN[0]: "u", MLFLOW_LOGIN[1]: "by hand"}
    (tmp_path / MLFLOW_LOGIN[1]).write_text("mounted")
    assert log_in("http://mine", environ) == "http://mine"
    assert [os.environ[name] for name in MLFLOW_LOGIN] == ["u", "mounted", ""]


def test_an_address_that_is_missing_is_named(tmp_path: Path) -> None:
    """Neither a file nor a variable has it."""
    with pytest.raises(KeyError, match=MLFLOW_TRACKING_URI):
        log_in(environ={STORES_ENV: str(tmp_path)})
