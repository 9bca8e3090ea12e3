"""What the operator logs in to MLflow with, for each detector, and whom to tell where MLflow won't have it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import requests

from fraud_contracts.config import MLFLOW_LOGIN
from fraud_operator.detector import Detector
from fraud_operator.store_login import login_in

_USERNAME, _PASSWORD, _TOKEN = MLFLOW_LOGIN
FIELD: Final = "spec.stores.mlflow.secretRef"
_KEYS: Final = f"{_TOKEN}, or {_USERNAME} and {_PASSWORD}"


@dataclass(frozen=True)
class RegistryLogin:
    """Empty where none is to be had. ``place`` is where it comes from, and ``remedy`` what to do where MLflow refuses it."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    place: str = ""
    remedy: str = ""

    @property
    def known(self) -> bool:
        return bool(self.token or self.user)

    def use(self, session: requests.Session) -> None:
        if self.token:
            session.headers["Authorization"] = f"Bearer {self.token}"
        elif self.user:
            session.auth = (self.user, self.password)


def registry_login(detector: Detector, secret: Mapping[str, str]) -> RegistryLogin:
    """``secret`` is what the Secret that the spec names holds, decoded; empty where there is none."""
    own = detector.spec.stores.mlflow
    if own is None:
        login = login_in(detector.platform.stores.mlflow_tracking_uri)
        place = "stores.mlflowTrackingUri of the chart"
        remedy = "give an administrator's login in the address, and start the operator again"
        user, password = (login.user, login.password) if login is not None else ("", "")
        return RegistryLogin(user, password, place=place, remedy=remedy)
    if own.secret_ref is None:
        return RegistryLogin(place=FIELD, remedy=f"it is empty: name a Secret with {_KEYS}")
    remedy = f"put a login that is valid into Secret {own.secret_ref.name}, as {_KEYS}"
    token = secret.get(_TOKEN, "")
    return RegistryLogin(secret.get(_USERNAME, ""), secret.get(_PASSWORD, ""), token, FIELD, remedy)
