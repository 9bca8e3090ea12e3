"""Where MLflow is and how one logs in there, read anew by whoever is about to ask it: a training is longer than a login may be good.

MLflow's client has its login from variables of the process, a Pod from mounted files: in the address, where the platform made the
login, and beside it, where it is that of a detector's own MLflow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fraud_contracts.config import MLFLOW_LOGIN, MLFLOW_TRACKING_URI, STORES_ENV, STORES_PATH
from fraud_process.store_address import StoreAddress, split_login, store_address

_USERNAME, _PASSWORD, _ = MLFLOW_LOGIN


def log_in(server: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The server's address, without a login; that is what MLflow's client in this process uses from now on.

    ``server`` stands in the place of the address that files or variables have. KeyError, naming it, where there is none;
    StoreError where a file can't be read.
    """
    env = os.environ if environ is None else environ
    address, user, password = split_login(server or store_address(MLFLOW_TRACKING_URI, env).read())
    login = {_USERNAME: user, _PASSWORD: password} if user else _beside(env)
    os.environ.update({name: value for name, value in login.items() if value})
    return address


def _beside(env: Mapping[str, str]) -> dict[str, str]:
    """Of the login's variables those that have a file or are set."""
    folder = Path(env.get(STORES_ENV, STORES_PATH))
    login = {name: env[name] for name in MLFLOW_LOGIN if name in env}
    files = [folder / name for name in MLFLOW_LOGIN]
    return login | {file.name: StoreAddress(file=file).read() for file in files if file.exists()}
