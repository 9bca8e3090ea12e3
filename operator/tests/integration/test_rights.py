"""What each service account may do, and what none may: the chart's rules and those of a detector, and a real authorizer's answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, CHILD_KINDS, DETECTOR
from fraud_contracts.release import Release
from fraud_operator.desired.child import Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.detector import Detector
from fraud_operator.kube import ApiError, Kube
from fraud_operator.rollout_state import RolloutState
from fraud_operator.settings import Platform
from fraud_testing.api_server import OPERATOR, USER, Server
from fraud_testing.healthy import make_detector
from fraud_testing.kafka import wait_for
from fraud_testing.operator_process import OperatorProcess, find, install, render
from fraud_testing.rights import FLINK, READ, WRITE, Rights

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
TEAM = "team"
ALONE = ("clusterScoped.enabled=false", f"operator.watchNamespaces={{{TEAM}}}")
WIDE_ROLES = {
    "fraud-platform-flink",
    "fraud-platform-operator",
    "fraud-platform-operator-discovery",
    "fraud-platform-operator-finalizer",
}
CLUSTER_SCOPED = ("Cluster", "CustomResourceDefinition", "Namespace")
OPERATOR_ITSELF: Rights = {
    "frauddetectors.fraudplatform.dev": (READ | {"patch"}, ()),
    "frauddetectors/status.fraudplatform.dev": ({"patch"}, ()),
    "frauddetectors/finalizers.fraudplatform.dev": ({"update"}, ()),
    "pods": ({"list", "watch"}, ()),
    "events": ({"create"}, ()),
    **{kind.resource: ((READ if kind.listed else {"get"}) | WRITE, ()) for kind in CHILD_KINDS},
}


def _rights(rules: Iterable[dict[str, Any]]) -> Rights:
    return {
        f"{resource}.{group}".rstrip("."): (set(rule["verbs"]), tuple(rule.get("resourceNames") or ()))
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def _roles(documents: Iterable[dict[str, Any]]) -> dict[str, Rights]:
    return {
        f"{d['kind']} {d['metadata']['name']}": _rights(d["rules"])
        for d in documents
        if d["kind"] in ("Role", "ClusterRole")
    }


def _children(platform: Platform) -> list[dict[str, Any]]:
    plain = make_detector()
    detector = Detector("n", "d", "u", 3, 0, {}, plain.spec, platform)
    release = Release(name="d-release-x", policy=plain.spec.policy, policy_revision=1)
    return [child.body for child in build_children(detector, Wanted(release, RolloutState(), None))]


def _platform(*settings: str) -> Platform:
    text = find(render(*settings), "ConfigMap", "fraud-platform-operator")["data"]["platform.json"]
    return Platform.model_validate_json(text)


@pytest.mark.parametrize(
    ("settings", "operator", "flink"),
    [
        ((), "ClusterRole fraud-platform-operator", "ClusterRole fraud-platform-flink"),
        (ALONE, "Role fraud-platform-operator", "Role fraud-platform-flink"),
    ],
)
def test_the_operator_and_flink_may_do_this_and_no_more(
    settings: tuple[str, ...], operator: str, flink: str
) -> None:
    """The rules are the table's, whichever the scope; of roles the operator binds Flink's alone."""
    roles = _roles(render(*settings))
    bound = "clusterroles" if operator.startswith("Cluster") else "roles"
    own = dict(roles[operator])
    own.pop("namespaces", None)
    bind = own.pop(f"{bound}.rbac.authorization.k8s.io", None)
    if bound == "clusterroles":
        assert bind == ({"bind"}, ("fraud-platform-flink",))
        assert own == OPERATOR_ITSELF
    else:  # a resource has two rules there: what may be bound, and the roles that are children
        assert {r: rights for r, rights in OPERATOR_ITSELF.items() if not r.startswith("roles.")} == own
    assert roles[flink] == FLINK


@pytest.mark.parametrize("settings", [(), (f"operator.watchNamespaces={{{TEAM}}}",), ALONE])
def test_what_no_role_grants(settings: tuple[str, ...]) -> None:
    """No wildcard, no list of Secrets, no shell in a Pod, no nodes, no way to rights that one doesn't have."""
    for document in render(*settings, hooks=True):
        if document["kind"] not in ("ClusterRole", "Role"):
            continue
        for rule in document["rules"]:
            what = document["metadata"]["name"], rule
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], what
            assert not {"escalate", "impersonate"} & set(rule["verbs"]), what
            assert "bind" not in rule["verbs"] or rule["resourceNames"] == ["fraud-platform-flink"], what
            assert not {"secrets"} & set(rule["resources"]) or not {"list", "watch"} & set(rule["verbs"]), (
                what
            )
            refused = {
                "nodes",
                "pods/exec",
                "pods/attach",
                "pods/ephemeralcontainers",
                "serviceaccounts/token",
            }
            assert not refused & set(rule["resources"]), what
            writes = set(rule["verbs"]) - READ - {"bind"}
            assert not writes or not {"clusterroles", "clusterrolebindings"} & set(rule["resources"]), what


@pytest.mark.parametrize("settings", [(), ALONE])
def test_of_a_detectors_accounts_three_may_do_anything(settings: tuple[str, ...]) -> None:
    """The two doors read the one release, the streaming job has Flink's role, and only their Pods have a token at all."""
    children = _children(_platform(*settings))
    pointer = names.release_pointer("d")
    assert _roles(children) == {f"Role {pointer}": {"configmaps": (READ, (pointer,))}}
    kind = "Role" if settings else "ClusterRole"
    bound = {
        (subject["name"], one["roleRef"]["kind"], one["roleRef"]["name"])
        for one in children
        if one["kind"] == "RoleBinding"
        for subject in one["subjects"]
    }
    assert bound == {
        ("d-decision", "Role", pointer),
        ("d-worker", "Role", pointer),
        ("d-features", kind, "fraud-platform-flink"),
    }
    assert not [one for one in children if one["kind"].startswith("Cluster")]
    with_token = {
        one["metadata"]["name"]
        for one in children
        if one["kind"] == "Deployment"
        and one["spec"]["template"]["spec"].get("automountServiceAccountToken") is not False
    }
    assert with_token == {"d-decision", "d-worker"}


def test_nothing_of_a_release_without_cluster_rights_lies_outside_a_namespace() -> None:
    """It makes no CRD, ClusterRole, binding of one, nor KServe's objects; with no namespace named it is refused."""
    kinds = {document["kind"] for document in render(*ALONE, hooks=True)}
    assert not {kind for kind in kinds if kind.startswith(CLUSTER_SCOPED)}
    by_default = {d["metadata"]["name"] for d in render() if d["kind"] == "ClusterRole"}
    assert by_default == WIDE_ROLES - {"fraud-platform-operator-finalizer"}
    with pytest.raises(AssertionError, match="it must name the namespaces"):
        render("clusterScoped.enabled=false")


ASKED = [
    ("secrets", "", "list", "kube-system", False),
    ("secrets", "", "watch", TEAM, False),
    ("secrets", "", "get", TEAM, True),
    ("secrets", "", "get", "other", False),
    ("pods", "", "create", TEAM, False),
    ("pods/exec", "", "create", TEAM, False),
    ("nodes", "", "list", "", False),
    ("namespaces", "", "list", "", False),
    ("namespaces", "", "get", TEAM, True),
    ("clusterroles", "rbac.authorization.k8s.io", "create", "", False),
    ("roles", "rbac.authorization.k8s.io", "escalate", TEAM, False),
    ("frauddetectors", "fraudplatform.dev", "list", "", False),
    ("frauddetectors", "fraudplatform.dev", "list", TEAM, True),
    ("customresourcedefinitions", "apiextensions.k8s.io", "watch", "", False),
]


@pytest.fixture(scope="module")
def alone(own_server: Server) -> Server:
    """The chart without cluster-wide objects, installed for one namespace beside another one."""
    for name in ("fraud-platform", TEAM, "other"):
        own_server.namespace(name)
    install(own_server.kube(), render(*ALONE))
    return own_server


def test_the_authorizer_says_the_same(alone: Server) -> None:
    """Asked as the operator's account, the API server refuses all but its own namespace's objects."""
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    for resource, group, verb, namespace, may in ASKED:
        base, _, part = resource.partition("/")
        wanted = {"resource": base, "subresource": part, "group": group, "verb": verb, "namespace": namespace}
        if base == "namespaces" and namespace:
            wanted["name"] = namespace
        answer = alone.kube()._call(
            "POST", path, None, {"spec": {"user": USER, "resourceAttributes": wanted}}
        )
        assert answer["status"]["allowed"] is may, wanted


def test_an_operator_of_one_namespace_keeps_a_detector(alone: Server, tmp_path: Path) -> None:
    """Under these rights alone it makes all children, puts one back that was deleted, and lets the detector go."""
    kube: Kube = alone.kube()
    operator = OperatorProcess(alone.api, tmp_path, [TEAM], ALONE)
    body = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = TEAM
    body["spec"]["deletionPolicy"] = "Delete"
    kube.create(DETECTOR, body)
    operator.start()
    try:
        console = BY_KIND["Deployment"], TEAM, "payments-console"
        wait_for(lambda: kube.get(*console), 90, "the children")
        binding = kube.get(BY_KIND["RoleBinding"], TEAM, names.service_account("payments", "features"))
        assert binding is not None and binding["roleRef"]["kind"] == "Role"
        wait_for(lambda: _conditions(kube).get("ReferencesFound") == "True", 60, "a status")
        kube.delete(*console)
        wait_for(lambda: kube.get(*console), 60, "the child is back")
        with pytest.raises(ApiError):
            alone.kube(OPERATOR).list(DETECTOR, None)
        assert "delete frauddetectors payments" in _uninstall(alone)
        kube.delete(DETECTOR, TEAM, "payments")
        wait_for(lambda: _streams_end(kube), 120, "the detector is gone")
    finally:
        operator.stop()


def _uninstall(alone: Server) -> str:
    """What helm's hook says with the operator's rights."""
    command = [sys.executable, "-m", "fraud_operator.uninstall", "helm rollback x 1", f"--namespace={TEAM}"]
    environ = {**os.environ, "KUBECONFIG": str(alone.kubeconfig(OPERATOR)), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    return done.stdout


def _conditions(kube: Kube) -> dict[str, str]:
    body = kube.get(DETECTOR, TEAM, "payments") or {}
    return {c["type"]: c["status"] for c in (body.get("status") or {}).get("conditions") or []}


def _streams_end(kube: Kube) -> bool:
    """Whether the detector is gone; what Strimzi and Flink would do meanwhile is done for them."""
    for kind in ("FlinkDeployment", "KafkaTopic"):
        for child in kube.list(BY_KIND[kind], TEAM):
            if child["metadata"].get("finalizers"):
                kube.merge(BY_KIND[kind], TEAM, child["metadata"]["name"], {"metadata": {"finalizers": []}})
    return kube.get(DETECTOR, TEAM, "payments") is None
