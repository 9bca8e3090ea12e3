"""Pull Secrets, the stores' Secrets and storage classes on a real API server: copied, followed, given back, and told where they lack."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts.child_kinds import BY_KIND, DETECTOR, STORAGE_CLASS, Kind
from fraud_operator.desired.documents import DOCKER_CONFIG
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube
from fraud_operator.observe import Observer
from fraud_operator.reconcile import Reconciler
from fraud_operator.references import DEFAULT_CLASS, SHARED_MS
from fraud_operator.settings import Platform
from fraud_testing.operator_process import find, render
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
SECRET = BY_KIND["Secret"]
DOCKER = "kubernetes.io/dockerconfigjson"


@dataclass
class Place:
    """A detector ``rules`` in a namespace of its own, on a platform whose own namespace has a registry's login."""

    kube: Kube
    namespace: str
    home: str
    now: int = 1_764_000_000_000
    reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        self.start("registry")

    def start(self, *pull_secrets: str, **kafka: Any) -> None:
        """An operator that starts anew with these settings."""
        platform = Platform.model_validate(
            {
                "namespace": self.home,
                "pull_secrets": pull_secrets,
                "storage": {"uri": "file:///s", "node_folder": "/s"},
                "stores": {"redis_url": "redis://x", "postgres_dsn": "postgresql://x", "mlflow_tracking_uri": "http://127.0.0.1:9"},
                "kafka": {"ephemeral": True, **kafka},
            }
        )  # fmt: skip
        self.reconciler = Reconciler(
            self.kube, platform, Observer(self.kube, logins=willing()), Recorder(self.kube), lambda: self.now
        )

    def put_login(self, password: str) -> None:
        document = json.dumps({"auths": {"registry.example": {"auth": password}}})
        data = {DOCKER_CONFIG: base64.b64encode(document.encode()).decode()}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "registry"},
            "type": DOCKER,
            "data": data,
        }
        self.kube._call(
            "PATCH", SECRET.path(self.home, "registry"), {"fieldManager": "a-person"}, body, "application/apply-patch+yaml"
        )  # fmt: skip

    def reconcile(self, after_ms: int = 0) -> dict[str, Any]:
        """A pass; the condition ReferencesFound."""
        self.now += after_ms
        self.reconciler.reconcile(self.namespace, "rules")
        body = self.kube.get(DETECTOR, self.namespace, "rules")
        assert body is not None
        return next(c for c in body["status"]["conditions"] if c["type"] == "ReferencesFound")

    def copy(self) -> dict[str, Any] | None:
        return self.kube.get(SECRET, self.namespace, "rules-pull")

    def password(self) -> str:
        copy = self.copy()
        assert copy is not None and copy["type"] == DOCKER
        document = json.loads(base64.b64decode(copy["data"][DOCKER_CONFIG]))
        return str(document["auths"]["registry.example"]["auth"])


@pytest.fixture
def place(server: Any, request: pytest.FixtureRequest) -> Place:
    name = request.node.name.partition("[")[0].removeprefix("test_").replace("_", "-")[:50].rstrip("-")
    place = Place(server.kube(), server.namespace(name), server.namespace(f"{name}-home"))
    body = yaml.safe_load((ROOT / "manifests/examples/rules.yaml").read_text())
    body["metadata"]["namespace"] = name
    place.kube.create(DETECTOR, body)
    return place


def test_a_login_is_copied_followed_and_given_back(place: Place) -> None:
    """The copy lies beside the Pods that name it, changes with its source, and goes when the platform names none any more."""
    place.put_login("old")
    assert place.reconcile()["status"] == "True"
    assert place.password() == "old"
    pod = (place.kube.get(BY_KIND["Deployment"], place.namespace, "rules-decision") or {})["spec"]["template"]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "rules-pull"}]
    place.put_login("new")
    place.reconcile(SHARED_MS)
    assert place.password() == "new"
    place.kube.delete(SECRET, place.namespace, "rules-pull")
    place.reconcile()
    assert place.password() == "new"
    place.start()
    place.reconcile()
    assert place.copy() is None
    pod = (place.kube.get(BY_KIND["Deployment"], place.namespace, "rules-decision") or {})["spec"]["template"]
    assert "imagePullSecrets" not in pod["spec"]


def test_a_login_that_is_not_there_is_told(place: Place) -> None:
    """The chart's field and the command that makes it; as soon as it is there the copy is made, and the condition is True."""
    condition = place.reconcile()
    assert (condition["status"], condition["reason"]) == ("False", "PullSecretMissing")
    command = f"kubectl -n {place.home} create secret docker-registry registry"
    assert "images.pullSecrets[0]" in condition["message"] and command in condition["message"]
    place.put_login("now")
    assert place.reconcile(SHARED_MS)["status"] == "True"
    assert place.password() == "now"


def test_what_someone_else_made_is_neither_written_nor_deleted(place: Place) -> None:
    """A Secret that has the copy's name stays as it is, with a platform that has logins and with one that has none."""
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "rules-pull", "namespace": place.namespace},
    }
    before = place.kube._call("POST", SECRET.path(place.namespace), {"fieldManager": "a-person"}, body)
    place.put_login("x")
    place.reconcile()
    place.start()
    place.reconcile()
    after = place.copy()
    assert after is not None and after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_a_storage_class_is_looked_for(place: Place) -> None:
    """A class that isn't there is told by name at the first pass, and no more once it is there."""
    place.start(ephemeral=False, storage_class="fast")
    condition = place.reconcile()
    assert condition["reason"] == "StorageClassMissing" and "class fast" in condition["message"]
    body = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "fast", "annotations": {DEFAULT_CLASS: "true"}},
        "provisioner": "example.com/none",
    }
    place.kube._call("POST", STORAGE_CLASS.path(None), None, body)
    try:
        assert place.reconcile(SHARED_MS)["status"] == "True"
        place.start(ephemeral=False)
        assert place.reconcile()["status"] == "True"
    finally:
        place.kube._call("DELETE", STORAGE_CLASS.path(None, "fast"))


def test_a_store_whose_secret_lacks_its_key_is_told(place: Place) -> None:
    """Field, Secret and key, at the first pass; the children are made all the same, so it goes on by itself."""
    place.start()
    kind = Kind("v1", "Secret", "secrets")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "cache"},
        "stringData": {"URL": "redis://x"},
    }
    place.kube._call("POST", kind.path(place.namespace), {"fieldManager": "a-person"}, secret)
    stores = {"spec": {"stores": {"redis": {"secretRef": {"name": "cache"}}}}}
    place.kube.merge(DETECTOR, place.namespace, "rules", stores)
    condition = place.reconcile()
    assert condition["reason"] == "SecretKeyMissing"
    assert (
        f"spec.stores.redis.secretRef: Secret cache in {place.namespace} lacks REDIS_URL"
        in condition["message"]
    )
    assert place.kube.get(BY_KIND["Deployment"], place.namespace, "rules-decision") is not None
    change = {"stringData": {"REDIS_URL": "redis://x"}}
    path, by = SECRET.path(place.namespace, "cache"), {"fieldManager": "a-person"}
    place.kube._call("PATCH", path, by, change, "application/merge-patch+json")
    assert place.reconcile()["status"] == "True"


def test_the_chart_grants_the_named_secrets_only() -> None:
    """An operator of given namespaces may get the pull Secrets in its own, by name, and nothing else there."""
    documents = render("images.pullSecrets[0].name=registry", "operator.watchNamespaces={team}")
    role = find(documents, "Role", "fraud-platform-operator-pull")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["registry"], "verbs": ["get"]}
    ]
    platform = find(documents, "ConfigMap", "fraud-platform-operator")["data"]["platform.json"]
    assert Platform.model_validate_json(platform).pull_secrets == ("registry",)
    everywhere = render("images.pullSecrets[0].name=registry")
    assert not [
        d for d in everywhere if d["kind"] == "Role" and d["metadata"]["name"] == role["metadata"]["name"]
    ]


def test_the_charts_settings_of_pods_reach_the_operator() -> None:
    """Tolerations with their numbers, and the priority class, as the operator reads them."""
    settings = ("detectors.tolerations[0].key=dedicated", "detectors.tolerations[0].tolerationSeconds=30")
    documents = render(*settings, "detectors.priorityClassName=high")
    platform = find(documents, "ConfigMap", "fraud-platform-operator")["data"]["platform.json"]
    scheduling = Platform.model_validate_json(platform).scheduling
    assert scheduling.tolerations == ({"key": "dedicated", "tolerationSeconds": 30},)
    assert scheduling.priority_class == "high"


def test_a_secret_of_the_operators_is_no_reference(place: Place) -> None:
    """Naming another detector's is refused whole and tells the field; what ran goes on, and the Secret's values reach no Pod."""
    place.start()
    place.reconcile()
    other = yaml.safe_load((ROOT / "manifests/examples/rules.yaml").read_text())
    other["metadata"] = {"name": "other", "namespace": place.namespace}
    place.kube.create(DETECTOR, other)
    place.reconciler.reconcile(place.namespace, "other")
    deployment = BY_KIND["Deployment"]
    before = place.kube.get(deployment, place.namespace, "rules-decision")
    for spec, path in (
        ({"stores": {"redis": {"secretRef": {"name": "other-stores"}}}}, "spec.stores.redis.secretRef"),
        ({"clients": [{"name": "c", "scopes": ["Read"], "secretRef": {"name": "other-client-labels"}}]}, "spec.clients[0]"),
    ):  # fmt: skip
        place.kube.merge(DETECTOR, place.namespace, "rules", {"spec": spec})
        place.reconcile()
        body = place.kube.get(DETECTOR, place.namespace, "rules") or {}
        refusal = next(c for c in body["status"]["conditions"] if c["type"] == "ValidationFailed")
        assert refusal["status"] == "True" and refusal["message"].startswith(path)
        assert "name one that you made" in refusal["message"]
        assert place.kube.get(deployment, place.namespace, "rules-decision") == before
        place.kube.merge(DETECTOR, place.namespace, "rules", {"spec": dict.fromkeys(spec)})
