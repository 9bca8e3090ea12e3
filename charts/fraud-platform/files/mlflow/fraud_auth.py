"""MLflow's own check of logins, but for two things, as its ``authorization_function``.

The platform's user has the password that its file holds now, so that another one needs no restart: MLflow itself would keep the first.
Nobody else renames, since names are how a detector's models are found: who may write an experiment or a model may rename it in
MLflow, so also to the name of a detector that is still to come.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, Final

from flask import request
from mlflow.server.auth import (
    auth_config,
    authenticate_request_basic_auth,
    make_basic_auth_response,
    make_forbidden_response,
)

_PASSWORD: Final = Path(os.environ["MLFLOW_PASSWORD_FILE"])
_RENAMES: Final = ("/experiments/update", "/registered-models/rename")


def authenticate() -> Any:
    """Who asks, or the answer that refuses them."""
    asker = request.authorization
    if asker is None or asker.type != "basic":  # a token, which MLflow would take for an error of its own
        return make_basic_auth_response()
    if asker.username == auth_config.admin_username:
        good = secrets.compare_digest((asker.password or "").encode(), _PASSWORD.read_bytes().strip())
        return asker if good else make_basic_auth_response()
    return make_forbidden_response() if request.path.endswith(_RENAMES) else authenticate_request_basic_auth()
