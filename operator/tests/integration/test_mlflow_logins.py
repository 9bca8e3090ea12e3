"""Detectors' users in a real MLflow as the chart runs it: training writes what is its detector's, and nobody else's does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests

from fraud_contracts.errors import StoreError
from fraud_operator import mlflow_logins
from fraud_operator.detector import Detector
from fraud_operator.registry import Registry, RegistryLoginError
from fraud_operator.registry_login import registry_login
from fraud_operator.settings import StoreAddresses
from fraud_operator.store_login import (
    GRACE_SECONDS,
    LoginRefusedError,
    StoreAdmin,
    StoreLogin,
    login_in,
    new_login,
)
from fraud_operator.store_logins import STORES, StoreLogins
from fraud_testing import mlflow
from fraud_testing.healthy import make_detector
from fraud_testing.required import require
from fraud_testing.store_logins import AtOnce

pytestmark = pytest.mark.integration
START = 1_764_000_000
MODEL: dict[str, Any] = {"train": {"history": {"path": "history"}}}
API = "/api/2.0/mlflow"


@pytest.fixture(scope="module")
def server() -> Iterator[mlflow.Server]:
    require(mlflow.missing())
    with mlflow.server(users=True) as running:
        yield running


@pytest.fixture(scope="module")
def cards(server: mlflow.Server) -> Detector:
    return detector(server, "cards")


def detector(server: mlflow.Server, name: str, **spec: Any) -> Detector:
    """One that uses the platform's MLflow."""
    made = make_detector(**spec)
    stores = StoreAddresses(mlflow_tracking_uri=server.admin)
    return replace(made, name=name, platform=made.platform.model_copy(update={"stores": stores}))


def writer(server: mlflow.Server, one: Detector, now: int = START, *, settled: bool = False) -> StoreLogin:
    login = new_login(one.identity.mlflow_writers, now)
    mlflow_logins.ensure_writer(StoreAdmin(server.admin), one, login, settled)
    return login


def reader(server: mlflow.Server, one: Detector) -> StoreLogin:
    login = new_login(one.identity.mlflow_readers, START)
    mlflow_logins.ensure_reader(StoreAdmin(server.admin), one, login, settled=False)
    return login


def ask(
    server: mlflow.Server, login: StoreLogin | None, method: str, path: str, **content: Any
) -> requests.Response:
    sent = {"params" if method == "GET" else "json": content}
    auth = (login.user, login.password) if login is not None else None
    return requests.request(method, server.url + path, auth=auth, timeout=20, **sent)


def publish(server: mlflow.Server, login: StoreLogin, one: Detector) -> dict[str, str]:
    """Registers a version as training does; -> the run's document."""
    named = {"experiment_name": one.identity.experiment}
    experiment = ask(server, login, "GET", f"{API}/experiments/get-by-name", **named).json()["experiment"]
    number = experiment["experiment_id"]
    run: dict[str, str] = ask(server, login, "POST", f"{API}/runs/create", experiment_id=number).json()[
        "run"
    ]["info"]
    assert put(server, login, run, b"{}").ok
    version = {
        "name": one.identity.model,
        "source": f"{run['artifact_uri']}/package",
        "run_id": run["run_id"],
    }
    created = ask(server, login, "POST", f"{API}/model-versions/create", **version)
    assert created.ok, created.text
    alias = {
        "name": one.identity.model,
        "alias": "challenger",
        "version": created.json()["model_version"]["version"],
    }
    assert ask(server, login, "POST", f"{API}/registered-models/alias", **alias).ok
    return run


def put(server: mlflow.Server, login: StoreLogin, run: dict[str, str], data: bytes) -> requests.Response:
    root = run["artifact_uri"].partition("mlflow-artifacts:/")[2]
    address = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/{root}/package/manifest.json"
    return requests.put(address, data=data, auth=(login.user, login.password), timeout=20)


def manifest(server: mlflow.Server, login: StoreLogin | None, one: Detector) -> int:
    """How the server answers who asks for a file of the detector's first version."""
    query = {"name": one.identity.model, "version": "1"}
    address = f"{server.url}/model-versions/get-artifact"
    auth = (login.user, login.password) if login is not None else None
    return requests.get(address, params={**query, "path": "manifest.json"}, auth=auth, timeout=20).status_code


def test_training_writes_its_detectors_model_and_no_other(server: mlflow.Server, cards: Detector) -> None:
    """Another's versions, aliases, runs and files are refused, as are new models, renames, users and rights of its own giving."""
    other = detector(server, "other")
    own, foreign = writer(server, cards), writer(server, other)
    run = publish(server, own, cards)
    model, source = cards.identity.model, f"{run['artifact_uri']}/package"
    right = {
        "username": foreign.user,
        "resource_type": "registered_model",
        "resource_id": model,
        "permission": "EDIT",
    }
    refused = {
        f"{API}/model-versions/create": {"name": model, "source": source, "run_id": run["run_id"]},
        f"{API}/registered-models/alias": {"name": model, "alias": "challenger", "version": "1"},
        f"{API}/runs/create": {"experiment_id": run["experiment_id"]},
        f"{API}/runs/set-tag": {"run_id": run["run_id"], "key": "k", "value": "v"},
        f"{API}/registered-models/create": {"name": "n.to-come"},
        f"{API}/registered-models/rename": {"name": other.identity.model, "new_name": "n.to-come"},
        f"{API}/experiments/create": {"name": "n.to-come.training"},
        f"{API}/experiments/update": {"experiment_id": "2", "new_name": "n.to-come.training"},
        f"{API}/users/create": {"username": "n.to-come_training_00000000", "password": "p" * 20},
        "/api/3.0/mlflow/users/permissions/grant": right,
    }
    answers = {path: ask(server, foreign, "POST", path, **body).status_code for path, body in refused.items()}
    assert answers == dict.fromkeys(refused, 403)
    assert put(server, foreign, run, b"forged").status_code == 403
    assert ask(server, foreign, "GET", f"{API}/runs/get", run_id=run["run_id"]).status_code == 403
    # Nor does its own model show another's files.
    planted = {"name": other.identity.model, "source": source}
    assert ask(server, foreign, "POST", f"{API}/model-versions/create", **planted).status_code == 400


def test_who_fetches_a_model_reads_it_and_writes_nothing(server: mlflow.Server, cards: Detector) -> None:
    """Its detector's model, file by file; not another's, and nothing of the run."""
    publish(server, writer(server, cards), cards)
    own, foreign = reader(server, cards), reader(server, detector(server, "other"))
    assert manifest(server, own, cards) == 200
    assert manifest(server, foreign, cards) == 403
    alias = {"name": cards.identity.model, "alias": "challenger", "version": "1"}
    assert ask(server, own, "POST", f"{API}/registered-models/alias", **alias).status_code == 403
    assert ask(server, own, "POST", f"{API}/model-versions/create", name=alias["name"]).status_code in (
        400,
        403,
    )


def test_a_detector_reads_the_registered_model_that_its_spec_names(
    server: mlflow.Server, cards: Detector
) -> None:
    """Also one that another's training made, once the spec names it, and no longer when it doesn't."""
    publish(server, writer(server, cards), cards)
    one = detector(server, "borrower", model={"registered": {"name": cards.identity.model, "alias": "live"}})
    assert manifest(server, reader(server, one), cards) == 200
    assert manifest(server, reader(server, detector(server, "borrower")), cards) == 403


def test_nobody_without_a_login_is_answered(server: mlflow.Server, cards: Detector) -> None:
    """All but the health of the server takes a login that is known."""
    for login in (None, StoreLogin(mlflow.ADMIN, "wrong"), StoreLogin("nobody", mlflow.PASSWORD)):
        assert ask(server, login, "GET", f"{API}/registered-models/search").status_code == 401
        assert manifest(server, login, cards) == 401
    token = {"Authorization": "Bearer of-somebody"}
    assert (
        requests.get(f"{server.url}{API}/registered-models/search", headers=token, timeout=20).status_code
        == 401
    )
    assert ask(server, None, "GET", "/health").ok


def test_a_login_that_is_replaced_goes_once_pods_had_the_time(server: mlflow.Server) -> None:
    """Both are good for the grace; then the old one isn't let in, and with the detector goes the new one too."""
    one = detector(server, "rotated", model=MODEL)
    now = [0.0]
    stores = tuple(store for store in STORES if store.part == "mlflow")
    logins = StoreLogins(stores, lambda: now[0], lambda: START + now[0], AtOnce())

    def let_in(address: str) -> bool:
        return ask(server, login_in(address), "GET", "/api/3.0/mlflow/users/current/permissions").ok

    old = dict(logins.look(one, {}).addresses)
    assert old.keys() == {"MLFLOW_TRACKING_URI", "MLFLOW_READER_URI"}
    assert logins.look(one, old).ready and all(map(let_in, old.values()))
    now[0] = 100.0
    logins.look(one, {})
    new = dict(logins.look(one, {}).addresses)
    assert not set(new.values()) & set(old.values())
    assert all(map(let_in, (*old.values(), *new.values())))
    logins.look(one, new)
    now[0] += GRACE_SECONDS + 100
    assert logins.look(one, new).ready
    assert all(map(let_in, new.values())) and not any(map(let_in, old.values()))
    assert logins.remove(one.identity, one.platform.stores) == []
    assert not any(map(let_in, new.values()))


def test_a_server_that_forgot_its_users_is_told_them_again(server: mlflow.Server, cards: Detector) -> None:
    """With the password that Pods have; a password that somebody changed in MLflow is put back."""
    login = writer(server, cards)
    admin, platform = StoreLogin(mlflow.ADMIN, mlflow.PASSWORD), StoreAdmin(server.admin)
    assert ask(server, admin, "DELETE", f"{API}/users/delete", username=login.user).ok
    assert ask(server, login, "GET", f"{API}/experiments/search").status_code == 401
    mlflow_logins.ensure_writer(platform, cards, login, settled=False)
    assert publish(server, login, cards)
    changed = {"username": login.user, "password": "another-password"}
    assert ask(server, admin, "PATCH", f"{API}/users/update-password", **changed).ok
    mlflow_logins.ensure_writer(platform, cards, login, settled=False)
    assert publish(server, login, cards)


def test_the_operator_says_why_mlflow_refuses_it(server: mlflow.Server, cards: Detector) -> None:
    """The platform's login as the chart's value, a detector's own as its Secret's field, each with the remedy and no password."""
    assert Registry(server.url, login=registry_login(cards, {})).alias("n.none", "champion") is None
    wrong = server.admin.replace(mlflow.PASSWORD, "a-wrong-password")
    with pytest.raises(LoginRefusedError, match="isn't let in") as refused:
        mlflow_logins.ensure_reader(
            StoreAdmin(wrong), cards, new_login(cards.identity.mlflow_readers, START), False
        )
    assert "a-wrong-password" not in str(refused.value)
    own = detector(server, "own", stores={"mlflow": {"uri": server.url, "secretRef": {"name": "mine"}}})
    secret = {"MLFLOW_TRACKING_USERNAME": "fraud", "MLFLOW_TRACKING_PASSWORD": "a-wrong-password"}
    registry = Registry(server.url, login=registry_login(own, secret))
    with pytest.raises(
        RegistryLoginError, match=r"spec\.stores\.mlflow\.secretRef.*HTTP 401.*Secret mine"
    ) as told:
        registry.alias("n.own", "champion")
    assert "a-wrong-password" not in f"{told.value}{registry}"


def test_the_platforms_own_password_is_the_one_in_its_file(server: mlflow.Server, cards: Detector) -> None:
    """Another one is taken without a restart, and the former is refused from then on; it opens what only an administrator may."""
    former, latter = (StoreLogin(mlflow.ADMIN, password) for password in (mlflow.PASSWORD, "q" * 32))
    writer(server, cards)
    rename = {"name": cards.identity.model, "new_name": "n.renamed"}
    try:
        server.password.write_text(latter.password + "\n")
        assert ask(server, former, "GET", f"{API}/users/list").status_code == 401
        assert ask(server, latter, "GET", f"{API}/users/list").ok
        assert ask(server, latter, "POST", f"{API}/registered-models/rename", **rename).ok
        back = {"name": rename["new_name"], "new_name": rename["name"]}
        assert ask(server, latter, "POST", f"{API}/registered-models/rename", **back).ok
    finally:
        server.password.write_text(former.password)
    assert ask(server, former, "GET", f"{API}/users/list").ok


def test_a_server_without_users_is_named(server: mlflow.Server, cards: Detector) -> None:
    """A login that training has is no administrator's; an address where nothing listens is a store that is away."""
    login = writer(server, cards)
    admin = StoreAdmin(server.url.replace("://", f"://{login.user}:{login.password}@"))
    with pytest.raises(LoginRefusedError, match="no administrator's"):
        mlflow_logins.remove_writers(admin, cards.identity)
    with pytest.raises(StoreError, match="no answer"):
        mlflow_logins.remove_writers(StoreAdmin("http://fraud:p@127.0.0.1:9"), cards.identity)
