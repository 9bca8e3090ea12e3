"""MLflow users of detectors: training writes its detector's experiment and model, who fetches for predictors reads the model.

They are users of MLflow's own app ``basic-auth``, by whose rights each has what is granted to it and nothing else. With workspaces,
as the trial's server has them, such a user makes no experiment and no model, so the names of detectors to come are nobody's to take;
what a detector needs is made here. A server that starts with an empty list of users is told them again when they are next looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import requests

from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_operator.detector import Detector
from fraud_operator.store_login import LoginRefusedError, StoreAdmin, StoreLogin, is_login, others
from fraud_process.store_address import split_login

TIMEOUT: Final = (3.0, 10.0)
_MLFLOW: Final = "/api/2.0/mlflow/"
_RIGHTS: Final = "/api/3.0/mlflow/users/"
# The role that holds what is granted to one user alone.
_OWN_ROLE: Final = "__user_"


class Right(NamedTuple):
    """``permission`` on the experiment of an id or the registered model of a name."""

    resource_type: str
    resource_id: str
    permission: str


def ensure_writer(admin: StoreAdmin, detector: Detector, login: StoreLogin, settled: bool) -> None:
    """The user of the detector's training as it should be, and where it is ``settled`` in Pods the only one.

    StoreError or LoginRefusedError; ends within seconds, but for a server that is late with each of its answers.
    """
    identity = detector.identity
    with _connected(admin) as server:
        experiment = Right("experiment", server.make_experiment(identity.experiment), "EDIT")
        wanted = {experiment, Right("registered_model", identity.model, "EDIT")}
        _ensure(server, identity, login, wanted)
        if settled:
            server.delete(others(identity.mlflow_writers, server.users(), login))


def ensure_reader(admin: StoreAdmin, detector: Detector, login: StoreLogin, settled: bool) -> None:
    """The user who fetches the detector's model, as ``ensure_writer`` says of the other."""
    with _connected(admin) as server:
        wanted = {Right("registered_model", detector.model, "READ")}
        _ensure(server, detector.identity, login, wanted)
        if settled:
            server.delete(others(detector.identity.mlflow_readers, server.users(), login))


def remove_writers(admin: StoreAdmin, identity: Identity) -> None:
    """Every user of the detector's trainings; runs and models stay."""
    _remove(admin, identity.mlflow_writers)


def remove_readers(admin: StoreAdmin, identity: Identity) -> None:
    """Every user who fetches the detector's model."""
    _remove(admin, identity.mlflow_readers)


def _remove(admin: StoreAdmin, prefix: str) -> None:
    with _connected(admin) as server:
        server.delete([user for user in server.users() if is_login(prefix, user)])


def _ensure(server: _Server, identity: Identity, login: StoreLogin, wanted: set[Right]) -> None:
    rights = server.rights(login)
    if rights is None:
        server.make_user(login)
        rights = server.rights(login)
        if rights is None:
            raise LoginRefusedError("mlflow", f"the user {login.user} was made and isn't let in")
    for right in rights - wanted:
        server.revoke(login, right)
    for right in wanted - rights:
        if right.resource_id == identity.model:
            server.make_model(identity.model)
        server.grant(login, right)


class _Server:
    def __init__(self, admin: StoreAdmin, session: requests.Session) -> None:
        self.address, user, password = split_login(admin.address)
        self.session, self.admin = session, StoreLogin(user, password)

    def make_experiment(self, name: str) -> str:
        """Its id."""
        answer = self._ask("GET", f"{_MLFLOW}experiments/get-by-name", experiment_name=name)
        if answer is not None:
            return str(answer["experiment"]["experiment_id"])
        return str((self._ask("POST", f"{_MLFLOW}experiments/create", name=name) or {})["experiment_id"])

    def make_model(self, name: str) -> None:
        self._ask("POST", f"{_MLFLOW}registered-models/create", name=name)

    def make_user(self, login: StoreLogin) -> None:
        """With this password, also where there was one with another."""
        named = {"username": login.user, "password": login.password}
        if self._ask("POST", f"{_MLFLOW}users/create", **named) is None:
            self._ask("PATCH", f"{_MLFLOW}users/update-password", **named)

    def users(self) -> list[str]:
        answer = self._ask("GET", f"{_MLFLOW}users/list") or {}
        return [str(user["username"]) for user in answer.get("users", [])]

    def delete(self, users: list[str]) -> None:
        for user in users:
            self._ask("DELETE", f"{_MLFLOW}users/delete", username=user)

    def rights(self, login: StoreLogin) -> set[Right] | None:
        """What is granted to the user itself; None where it isn't let in with this password."""
        answer = self._answer("GET", f"{_RIGHTS}current/permissions", login, {})
        if answer.status_code == 401:
            return None
        rows = self._content(answer, f"{_RIGHTS}current/permissions") or {}
        return {
            Right(row["resource_type"], row["resource_pattern"], row["permission"])
            for row in rows.get("permissions", [])
            if row["role_name"].startswith(_OWN_ROLE)
        }

    def grant(self, login: StoreLogin, right: Right) -> None:
        self._ask("POST", f"{_RIGHTS}permissions/grant", username=login.user, **right._asdict())

    def revoke(self, login: StoreLogin, right: Right) -> None:
        named = {"resource_type": right.resource_type, "resource_id": right.resource_id}
        self._ask("POST", f"{_RIGHTS}permissions/revoke", username=login.user, **named)

    def _ask(self, method: str, path: str, **named: str) -> dict[str, Any] | None:
        """As the platform's user. None where what is asked for isn't there, or what is to be made is."""
        return self._content(self._answer(method, path, self.admin, named), path)

    def _answer(self, method: str, path: str, login: StoreLogin, named: dict[str, str]) -> requests.Response:
        content: dict[str, Any] = {"params": named} if method == "GET" else {"json": named}
        return self.session.request(
            method,
            self.address.rstrip("/") + path,
            auth=(login.user, login.password),
            timeout=TIMEOUT,
            allow_redirects=False,
            **content,
        )

    def _content(self, answer: requests.Response, path: str) -> dict[str, Any] | None:
        status = answer.status_code
        if status in (401, 403):
            what = "isn't let in" if status == 401 else "is no administrator's"
            raise LoginRefusedError("mlflow", f"the platform's login {what} (HTTP {status})")
        if status >= 500:
            raise StoreError("mlflow", f"HTTP {status} from {path}")
        try:
            content = answer.json()
            code = content.get("error_code") if isinstance(content, dict) else None
        except ValueError:
            # The API's own answers are JSON, also of what isn't there: it has no such page.
            message = (
                f"no users are kept there, HTTP {status} from {path}: start it with --app-name basic-auth"
            )
            raise LoginRefusedError("mlflow", message) from None
        if code in ("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"):
            return None
        if status != 200 or not isinstance(content, dict):
            raise LoginRefusedError("mlflow", f"{path}: HTTP {status} {code or ''}".strip())
        return content


@contextmanager
def _connected(admin: StoreAdmin) -> Iterator[_Server]:
    with requests.Session() as session:
        try:
            yield _Server(admin, session)
        except requests.RequestException as error:
            raise StoreError("mlflow", f"no answer: {type(error).__name__}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise LoginRefusedError(
                "mlflow", f"an answer of another form than MLflow's: {type(error).__name__}"
            ) from error
