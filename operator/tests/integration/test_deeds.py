"""What the Pods of `make test-network` try shows what a login may, at real stores and a real API server; without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_contracts.config import POSTGRES_DSN, REDIS_URL, STORES_ENV, ca_cert
from fraud_contracts.detector import Component
from fraud_contracts.names import Identity
from fraud_operator import postgres_logins, redis_logins
from fraud_operator.detector import Detector, check
from fraud_operator.settings import Platform
from fraud_operator.store_login import StoreAdmin, new_login
from fraud_testing import certificates, deeds_in_pod, kafka_tls, postgres, second_detector
from fraud_testing import redis as redis_server
from fraud_testing.api_server import Server
from fraud_testing.deeds import Setting, expected_deeds, kafka_rights
from fraud_testing.healthy import STORES, make_detector
from fraud_testing.kafka import wait_for
from fraud_testing.operator_process import find, render
from fraud_testing.required import require

pytestmark = pytest.mark.integration
ONE, TWO = Identity("n", "d"), Identity("n", "d-2")
BOTH = {"own": str(ONE), "other": str(TWO)}


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Pod's store files."""
    folder = tmp_path / "stores"
    folder.mkdir()
    monkeypatch.setenv(STORES_ENV, str(folder))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_server.Server]:
    require(redis_server.missing() or certificates.missing())
    made = certificates.make(tmp_path_factory.mktemp("tls"))
    with redis_server.server(certificates=made) as running:
        yield running


def test_a_redis_login_may_use_its_detectors_keys_and_no_more(
    cache: redis_server.Server, stores: Path
) -> None:
    """One that the server's own settings let do all is found out, and so is a server that lets in anybody."""
    assert cache.certificates is not None
    admin = StoreAdmin(cache.url, cache.certificates.authority.read_text())
    order = {**BOTH, "redis": ["localhost", urlsplit(cache.url).port]}
    login = new_login(ONE.redis_logins, 1)
    redis_logins.ensure(admin, ONE, login, settled=False)
    (stores / ca_cert(REDIS_URL)).write_text(cache.certificates.authority.read_text())
    (stores / REDIS_URL).write_text(redis_logins.address(cache.url, login))
    every = {deeds_in_pod.REDIS_OWN, deeds_in_pod.REDIS_OTHER, deeds_in_pod.REDIS_SERVER}
    assert deeds_in_pod.redis_deeds(order) == {deeds_in_pod.REDIS_OWN, deeds_in_pod.REDIS_OPEN}
    cache.command("ACL", "SETUSER", "default", "resetpass", ">secret")
    assert deeds_in_pod.redis_deeds(order) == {deeds_in_pod.REDIS_OWN}
    (stores / REDIS_URL).write_text(cache.url.replace("//", "//:secret@"))
    assert deeds_in_pod.redis_deeds(order) == every


def test_a_postgres_login_may_use_its_ledger_and_no_more(stores: Path) -> None:
    """The server's own login is found out. What is tried leaves nothing."""
    require(postgres.missing())
    with postgres.server(passwords=True) as server:
        admin = StoreAdmin(server.dsn)
        order = {**BOTH, "postgres": ["127.0.0.1", server.port]}
        logins = {one: new_login(one.database_logins, 1) for one in (ONE, TWO)}
        for identity, login in logins.items():
            postgres_logins.ensure(admin, identity, login, settled=False)
        (stores / POSTGRES_DSN).write_text(postgres_logins.address(server.dsn, logins[ONE]))
        assert deeds_in_pod.postgres_deeds(order) == {deeds_in_pod.POSTGRES_OWN}
        (stores / POSTGRES_DSN).write_text(server.dsn)
        every = {deeds_in_pod.POSTGRES_OWN, deeds_in_pod.POSTGRES_OTHER, deeds_in_pod.POSTGRES_SERVER}
        assert deeds_in_pod.postgres_deeds(order) == every
        assert deeds_in_pod.postgres_deeds(order) == every


def test_a_kafka_user_may_what_its_acls_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the brokers' own word, and nothing without a login; a listener that lets in anybody is found out."""
    require(kafka_tls.missing())
    topics = [ONE.topic("accepted"), ONE.topic("labels")]
    with kafka_tls.locked_broker() as broker:
        broker.plain.create(topics)
        order = {"kafka": broker.bootstrap, "topics": topics}
        monkeypatch.setattr(deeds_in_pod, "KAFKA_LOGIN_PATH", str(tmp_path))
        assert deeds_in_pod.kafka_deeds({**order, "kafka": broker.plain.bootstrap}) == {
            deeds_in_pod.KAFKA_OPEN
        }
        assert deeds_in_pod.kafka_deeds(order) == set()
        broker.set_password("user", "one of sixteen or more")
        broker.allow("user", topics[0], [AclOperation.WRITE], kinds=(ResourceType.TOPIC,))
        broker.login(tmp_path, "user", "one of sixteen or more")
        resource = {"type": "topic", "name": topics[0], "patternType": "prefix"}
        acls = [{"resource": resource, "operations": ["Write"]}]
        due = kafka_rights({"spec": {"authorization": {"acls": acls}}}, topics)
        wait_for(lambda: deeds_in_pod.kafka_deeds(order) == due, 60, "the broker knows the user's rights")


@pytest.fixture(scope="module")
def api(own_server: Server) -> Server:
    own_server.namespace("n")
    return own_server


def _give_rights(server: Server, account: str, rules: list[dict[str, Any]]) -> str:
    """Binds a role to an account of the namespace n; -> a token of its."""
    kube, group = server.kube(), "rbac.authorization.k8s.io"
    here = {"name": account, "namespace": "n"}
    kube.create(BY_KIND["ServiceAccount"], {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here})
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": here, "rules": rules}
    kube.create(BY_KIND["Role"], role)
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": here,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
        "subjects": [{"kind": "ServiceAccount", **here}],
    }
    kube.create(BY_KIND["RoleBinding"], binding)
    path = f"/api/v1/namespaces/n/serviceaccounts/{account}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return str(kube._call("POST", path, None, request)["status"]["token"])


@pytest.mark.parametrize("component", [Component.WORKER, Component.FEATURES])
def test_an_accounts_rights_are_those_of_the_page(
    component: Component, api: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the API server's own word, with the token alone; a Pod without one may nothing."""
    one = make_detector()
    if component is Component.WORKER:
        rules = [
            {
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": [names.release_pointer("d")],
                "verbs": ["get", "list", "watch"],
            }
        ]
    else:
        rules = find(render(), "ClusterRole", "fraud-platform-flink")["rules"]
    token = _give_rights(api, f"d-{component.lower()}", rules)
    address = urlsplit(api.api.url)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
    monkeypatch.setattr(deeds_in_pod, "_TOKEN", tmp_path)
    order = {"namespaces": ["n", "other", "kube-system"]}
    assert deeds_in_pod.api_deeds(order) == set()
    (tmp_path / "token").write_text(token)
    (tmp_path / "ca.crt").write_bytes((api.api.folder / "certs/apiserver.crt").read_bytes())
    api_part = {deed for deed in expected_deeds(component, Setting(one, {})) if deed.startswith("API")}
    assert deeds_in_pod.api_deeds(order) == api_part


def test_the_second_detector_is_a_good_one(api: Server) -> None:
    """The API server takes it, and nothing is wrong with its spec."""
    body = second_detector.second_detector("fraud-platform")
    api.namespace(second_detector.NAMESPACE)
    created = api.kube().create(DETECTOR, body)
    platform = Platform.model_validate_json(
        find(render(), "ConfigMap", "fraud-platform-operator")["data"]["platform.json"]
    )
    detector = Detector.parse(created, platform.model_copy(update={"stores": STORES}))
    assert check(detector) == []
    running = {one for one in Component if detector.replicas(one, 1)}
    assert running == {Component.TRAINING, Component.PREDICTOR}
