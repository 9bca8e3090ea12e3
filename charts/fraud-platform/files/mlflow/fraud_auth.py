"""MLflow's own check of logins, but that nobody except the platform's user renames: names are how a detector's models are found.

Who may write an experiment or a model may rename it in MLflow, so also to the name of a detector that is still to come.
"""

from __future__ import annotations

from typing import Any, Final

from flask import Response, request
from mlflow.server.auth import auth_config, authenticate_request_basic_auth, make_forbidden_response

_RENAMES: Final = ("/experiments/update", "/registered-models/rename")


def authenticate() -> Any:
    """Who asks, or the answer that refuses them, as MLflow expects it of its ``authorization_function``."""
    asker = authenticate_request_basic_auth()
    if isinstance(asker, Response) or asker.username == auth_config.admin_username:
        return asker
    return make_forbidden_response() if request.path.endswith(_RENAMES) else asker
