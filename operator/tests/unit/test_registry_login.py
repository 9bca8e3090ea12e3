"""What the operator logs in to MLflow with, and what it tells where that is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import requests

from fraud_operator.desired.documents import secret_data
from fraud_operator.observe import Observer
from fraud_operator.registry import Registry
from fraud_operator.registry_login import registry_login
from fraud_testing.healthy import healthy_facts, make_detector

OWN: dict[str, Any] = {"stores": {"mlflow": {"uri": "http://mine", "secretRef": {"name": "registry"}}}}


class Kube:
    """Has one Secret."""

    def __init__(self, **values: str) -> None:
        self.values = values

    def get(self, kind: object, namespace: str, name: str) -> dict[str, Any]:
        assert (namespace, name) == ("n", "registry")
        return {"data": secret_data(self.values)}


def observer(kube: Kube) -> Observer:
    return Observer(kube)  # type: ignore[arg-type]  # all that it asks of a cluster here


def test_the_login_comes_from_where_the_address_does() -> None:
    """The platform's from its address; a detector's own from its Secret, of which a token goes before a password."""
    plain = make_detector()
    addresses = plain.platform.stores.model_copy(update={"mlflow_tracking_uri": "http://fraud:p%40ss@m"})
    platform = replace(plain, platform=plain.platform.model_copy(update={"stores": addresses}))
    assert (registry_login(platform, {}).user, registry_login(platform, {}).password) == ("fraud", "p@ss")
    assert not registry_login(plain, {}).known
    secret = {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p", "MLFLOW_TRACKING_TOKEN": "t"}
    for values, authorization in (
        (secret, "Bearer t"),
        ({**secret, "MLFLOW_TRACKING_TOKEN": ""}, "Basic dTpw"),
    ):
        registry = Registry("http://mine", login=registry_login(make_detector(**OWN), values))
        question = registry.session.prepare_request(requests.Request("GET", "http://mine"))
        assert question.headers["Authorization"] == authorization
        assert "p'" not in repr(registry)


def test_another_login_in_the_secret_is_followed() -> None:
    """Without a restart of the operator; the same one keeps the connection and what was checked."""
    kube = Kube(MLFLOW_TRACKING_TOKEN="one")
    looking, detector = observer(kube), make_detector(**OWN)
    first = looking.registry(detector)
    assert looking.registry(detector) is first
    kube.values["MLFLOW_TRACKING_TOKEN"] = "two"
    assert looking.registry(detector).session.headers["Authorization"] == "Bearer two"


def test_a_login_that_mlflow_refuses_is_told_with_field_and_remedy() -> None:
    """As the model's condition; what is live goes on."""

    class Refusing(requests.Session):
        def request(self, *_: Any, **__: Any) -> requests.Response:  # type: ignore[override]  # whatever is asked
            answer = requests.Response()
            answer.status_code = 401
            return answer

    for own, words in (
        (OWN, "spec.stores.mlflow.secretRef: http://mine refuses the login (HTTP 401): put a login that is valid into Secret registry"),
        ({"stores": {"mlflow": {"uri": "http://mine"}}}, "spec.stores.mlflow.secretRef: http://mine refuses the login (HTTP 401): it is empty"),
    ):  # fmt: skip
        looking, detector = observer(Kube(MLFLOW_TRACKING_TOKEN="old")), make_detector(**own)
        looking.registry(detector).session = Refusing()
        problem = looking._models(detector, healthy_facts(detector)).problem
        assert problem is not None
        assert problem[0] == "LoginRefused" and problem[1].startswith(words)
