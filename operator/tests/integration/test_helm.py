"""The chart as helm handles it, in the order of a cluster's life: released before, upgraded, tested, uninstalled, installed again.

The controllers of Jobs and of garbage run, a node doesn't: what would run in a hook's Pod runs on this machine, with its account's
rights. One after another the tests go through one cluster.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts.child_kinds import BY_KIND, DETECTOR, Kind
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube
from fraud_operator.observe import Observer
from fraud_operator.ownership import snapshot
from fraud_operator.passwords import fill_in
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform, StoreAddresses
from fraud_testing.api_server import OPERATOR, Server, serve
from fraud_testing.helm import NAMESPACE, RELEASED, Helm, HookPods, hook_pods
from fraud_testing.kafka import wait_for
from fraud_testing.operator_process import CHART, NODE_FOLDER, OperatorProcess, find, render
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
CRD_NAME = "frauddetectors.fraudplatform.dev"
RELEASE = ("fraud-platform", str(CHART), "-n", NAMESPACE)
# The helm of the native node was compiled without a version of Kubernetes to assume.
WITHOUT_CLUSTER = ("--kube-version", "1.34.4")
STORES = (BY_KIND["Secret"], NAMESPACE, "fraud-platform-stores")
# What the message of a refused upgrade says, too.
ADOPT = (
    f"kubectl label --overwrite crd {CRD_NAME} app.kubernetes.io/managed-by=Helm",
    f"kubectl annotate --overwrite crd {CRD_NAME} meta.helm.sh/release-name=fraud-platform "
    f"meta.helm.sh/release-namespace={NAMESPACE}",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("helm-api"), own=False) as server:
        server.api.start_collector("job-controller")
        for name in (NAMESPACE, "payments"):
            server.namespace(name)
        yield server


@pytest.fixture(scope="module")
def helm(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(server, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def hooks(server: Server) -> Iterator[HookPods]:
    with hook_pods(server) as pods:
        yield pods


@pytest.fixture(scope="module")
def operator(
    upgraded: Kube, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """With the rights that the upgraded chart gives it."""
    running = OperatorProcess(server.api, tmp_path_factory.mktemp("operator"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def released(server: Server, helm: Helm) -> Kube:
    """The chart as it was, whose CRD helm installed from crds/ and whose template made the passwords.

    Its CRD lacks a column and a field that today's has, whatever today's is.
    """
    helm.must("install", "fraud-platform", str(RELEASED), "-n", NAMESPACE)
    server.wait(DETECTOR.path(None))
    kube = server.kube()
    crd = kube.get(CRD, None, CRD_NAME)
    assert crd is not None
    (version,) = crd["spec"]["versions"]
    version["additionalPrinterColumns"].pop()
    del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["paused"]
    kube._call("PUT", CRD.path(None, CRD_NAME), None, crd)
    return kube


def children(kube: Kube, uid: str) -> dict[tuple[str, str], str]:
    return {key: child["metadata"]["uid"] for key, child in snapshot(kube, "payments", uid)[0].items()}


@pytest.fixture(scope="module")
def detector(released: Kube) -> dict[str, Any]:
    """A live detector with its children, as they were before the upgrade."""
    body = yaml.safe_load((ROOT / "manifests/examples/rules.yaml").read_text())
    uid = released.create(DETECTOR, body)["metadata"]["uid"]
    platform = find(render(*NODE_FOLDER), "ConfigMap", "fraud-platform-operator")["data"]["platform.json"]
    stores = StoreAddresses(
        redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
    )
    settings = Platform.model_validate_json(platform).model_copy(update={"stores": stores})
    Reconciler(released, settings, Observer(released, logins=willing()), Recorder(released)).reconcile(
        "payments", "rules"
    )
    assert len(children(released, uid)) >= 30
    return {"uid": uid, "children": children(released, uid)}


def documents(text: str) -> list[Any]:
    return sorted((d for d in yaml.load_all(text, yaml.CSafeLoader) if d), key=str)


def passwords(kube: Kube) -> dict[str, str]:
    secret = kube.get(*STORES)
    assert secret is not None
    return {key: value for key, value in secret["data"].items() if key.endswith("PASSWORD")}


@pytest.fixture(scope="module")
def before(released: Kube, detector: dict[str, Any]) -> dict[str, str]:
    return passwords(released)


def adopt(kube: Kube) -> None:
    """As the commands do that the refusal names."""
    notes = {"meta.helm.sh/release-name": "fraud-platform", "meta.helm.sh/release-namespace": NAMESPACE}
    meta = {"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": notes}
    kube._call("PATCH", CRD.path(None, CRD_NAME), None, {"metadata": meta}, "application/merge-patch+json")


@pytest.fixture(scope="module")
def upgraded(released: Kube, helm: Helm, before: dict[str, str]) -> Kube:
    adopt(released)
    helm.must("upgrade", *RELEASE)
    return released


@pytest.fixture(scope="module")
def uninstalled(upgraded: Kube, helm: Helm, hooks: HookPods, operator: OperatorProcess) -> str:
    """What helm said once the detector was deleted."""
    upgraded.delete(DETECTOR, "payments", "rules")
    wait_for(lambda: upgraded.get(DETECTOR, "payments", "rules") is None, 60, "the detector's end")
    operator.stop()
    return helm.must("uninstall", "fraud-platform", "-n", NAMESPACE)


def test_the_chart_is_without_fault_for_helm(helm: Helm) -> None:
    """`helm lint` has nothing to say, warnings included."""
    helm.must("lint", "--strict", str(CHART))


def test_two_renderings_are_the_same(helm: Helm) -> None:
    """Nothing random is in a template, so a sync of Argo CD changes what was changed and no more."""
    first, second = (helm.must("template", *RELEASE, *WITHOUT_CLUSTER) for _ in range(2))
    assert first == second


def test_an_upgrade_says_how_it_takes_the_crd_over(
    released: Kube, helm: Helm, before: dict[str, str]
) -> None:
    """A CRD that belongs to no release is refused before anything changes, with the two commands that give it to this one."""
    message = helm.refused("upgrade", *RELEASE)
    assert all(command in message for command in ADOPT), message
    assert passwords(released) == before


def test_an_upgrade_brings_the_new_crd(upgraded: Kube) -> None:
    """The CRD is the chart's own after the upgrade, with helm's word that it stays."""
    wanted = yaml.load((CHART / "files/frauddetectors.yaml").read_text(), yaml.CSafeLoader)
    live = upgraded.get(CRD, None, CRD_NAME)
    assert live is not None
    versions = [crd["spec"]["versions"][0] for crd in (live, wanted)]
    assert versions[0]["additionalPrinterColumns"] == versions[1]["additionalPrinterColumns"]
    # The server writes some of a schema in another form, so by name.
    specs = [version["schema"]["openAPIV3Schema"]["properties"]["spec"] for version in versions]
    assert specs[0]["properties"].keys() == specs[1]["properties"].keys()
    assert live["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_what_is_installed_is_what_is_printed(upgraded: Kube, helm: Helm) -> None:
    """`helm template`, which sees no cluster, prints what helm applies to a cluster where everything is there already."""
    printed = helm.must("template", *RELEASE, *WITHOUT_CLUSTER, "--no-hooks")
    applied = helm.must("get", "manifest", "fraud-platform", "-n", NAMESPACE)
    assert documents(printed) == documents(applied)


def test_an_upgrade_keeps_the_passwords(upgraded: Kube, before: dict[str, str], server: Server) -> None:
    """The stores open by the passwords that they were made with; the operator, with its rights, finds nothing to make."""
    assert passwords(upgraded) == before != {}
    assert fill_in(server.kube(OPERATOR), NAMESPACE, STORES[2], sorted(before)) == []


def test_a_lacking_password_is_made_once(upgraded: Kube, before: dict[str, str], server: Server) -> None:
    """One that isn't there is made, and neither it nor any other is made again."""
    upgraded.merge(*STORES, {"data": {"REDIS_PASSWORD": None}})
    mine = server.kube(OPERATOR)
    assert fill_in(mine, NAMESPACE, STORES[2], sorted(before)) == ["REDIS_PASSWORD"]
    assert fill_in(mine, NAMESPACE, STORES[2], sorted(before)) == []
    made = passwords(upgraded)
    assert made["POSTGRES_PASSWORD"] == before["POSTGRES_PASSWORD"]
    assert len(base64.b64decode(made["REDIS_PASSWORD"])) == 32


def test_an_upgrade_leaves_a_live_detector_alone(
    upgraded: Kube, operator: OperatorProcess, detector: dict[str, Any]
) -> None:
    """The operator that comes with it takes the detector on: this one and all its children are the same objects as before."""
    service = (BY_KIND["Service"], "payments", "rules-decision")
    upgraded.delete(*service)
    wait_for(lambda: upgraded.get(*service), 60, "a child that was taken away")
    del detector["children"]["Service", "rules-decision"]
    body = upgraded.get(DETECTOR, "payments", "rules")
    assert body is not None and body["metadata"]["uid"] == detector["uid"]
    assert children(upgraded, detector["uid"]).items() >= detector["children"].items()


def test_a_second_installation_is_refused_by_name(upgraded: Kube, helm: Helm, server: Server) -> None:
    """One cluster has one platform, and the refusal says which it is."""
    server.namespace("second")
    message = helm.refused("install", "other", str(CHART), "-n", "second")
    assert f"as the release fraud-platform in the namespace {NAMESPACE}" in message


@pytest.mark.parametrize("value", ["persistence", "kafka.persistence"])
def test_a_storage_class_that_isnt_there_is_refused(upgraded: Kube, helm: Helm, value: str) -> None:
    """A volume of it would wait for ever; the refusal names the value and what classes there are."""
    settings = ("--set", f"{value}.enabled=true", "--set", f"{value}.storageClass=quick")
    message = helm.refused("upgrade", *RELEASE, *settings)
    assert (
        f"{value}.storageClass: the cluster has no StorageClass quick" in message
        and "there are: none" in message
    )
    message = helm.refused("upgrade", *RELEASE, "--set", f"{value}.enabled=true")
    assert f"{value}.storageClass: the cluster has no default StorageClass" in message


def test_a_storage_class_that_is_there_is_taken(upgraded: Kube, helm: Helm, server: Server) -> None:
    """Also one that exists by its volumes alone, which somebody made by hand."""
    server.post(
        "/apis/storage.k8s.io/v1/storageclasses",
        {"metadata": {"name": "slow"}, "provisioner": "example.org/none"},
    )
    spec = {
        "capacity": {"storage": "8Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "byhand",
        "hostPath": {"path": "/data"},
    }  # fmt: skip
    server.post("/api/v1/persistentvolumes", {"metadata": {"name": "one"}, "spec": spec})
    for name in ("slow", "byhand"):
        settings = ("--set", "persistence.enabled=true", "--set", f"persistence.storageClass={name}")
        helm.must("upgrade", *RELEASE, *settings, "--dry-run=server")


def test_an_upgrade_keeps_what_detectors_have_in_the_trials_object_store(upgraded: Kube, helm: Helm) -> None:
    """Values that take it away are refused with its name and the detectors'; it would go with all their data."""
    message = helm.refused("upgrade", *RELEASE, "--set", "trial.objects.enabled=false")
    assert "the trial's object store fraud-platform-objects" in message and "payments/rules" in message
    assert upgraded.get(BY_KIND["Deployment"], NAMESPACE, "fraud-platform-objects") is not None


def test_an_upgrade_leaves_no_detector_without_an_operator(upgraded: Kube, helm: Helm) -> None:
    """Namespaces to be watched must be those of all detectors, whose finalizers nobody else would take off."""
    watch = ("--set", f"operator.watchNamespaces={{{NAMESPACE}}}")
    message = helm.refused("upgrade", *RELEASE, *watch)
    assert "operator.watchNamespaces" in message and "payments/rules" in message
    helm.must(
        "upgrade", *RELEASE, "--set", f"operator.watchNamespaces={{{NAMESPACE},payments}}", "--dry-run=server"
    )


def test_helms_test_leaves_alone_what_it_didnt_make(
    upgraded: Kube, helm: Helm, hooks: HookPods, operator: OperatorProcess
) -> None:
    """A detector of the test's name that is there already is somebody's own: the test fails with the reason, and it stays."""
    body = yaml.safe_load((ROOT / "manifests/examples/rules.yaml").read_text())
    body["metadata"] |= {"name": "helm-test", "namespace": NAMESPACE}
    mine = upgraded.create(DETECTOR, body)
    helm.refused("test", "fraud-platform", "-n", NAMESPACE)
    assert "has a FraudDetector helm-test already" in hooks.printed["fraud-platform-test"]
    still = upgraded.get(DETECTOR, NAMESPACE, "helm-test")
    assert still is not None and still["metadata"]["uid"] == mine["metadata"]["uid"]
    upgraded.delete(DETECTOR, NAMESPACE, "helm-test")
    wait_for(lambda: upgraded.get(DETECTOR, NAMESPACE, "helm-test") is None, 60, "the detector's end")


def test_an_uninstallation_with_detectors_is_refused(upgraded: Kube, helm: Helm, hooks: HookPods) -> None:
    """Their finalizers would have no owner; helm names what to do, the hook's log each detector, and everything stays."""
    message = helm.refused("uninstall", "fraud-platform", "-n", NAMESPACE)
    assert "delete-detectors-first" in message
    (printed,) = (text for name, text in hooks.printed.items() if "delete-detectors-first" in name)
    assert "kubectl -n payments delete frauddetectors rules" in printed
    assert upgraded.get(BY_KIND["Deployment"], NAMESPACE, "fraud-platform-operator") is not None


def test_a_refused_uninstallation_is_taken_back(upgraded: Kube, helm: Helm, hooks: HookPods) -> None:
    """Helm takes the release for half uninstalled; the command that the refusal names makes it one that can be upgraded."""
    helm.refused("uninstall", "fraud-platform", "-n", NAMESPACE)
    printed = [text for name, text in hooks.printed.items() if "delete-detectors-first" in name][-1]
    (command,) = (line.strip() for line in printed.splitlines() if "helm rollback" in line)
    assert "no deployed releases" in helm.refused("upgrade", *RELEASE)
    helm.must(*command.split()[1:])
    helm.must("upgrade", *RELEASE)


def test_an_uninstallation_takes_all_but_what_holds_data(uninstalled: str, upgraded: Kube) -> None:
    """Without detectors the release goes; the CRD and the Secret that opens the stores' volumes stay, as helm says."""
    assert (
        "[CustomResourceDefinition] frauddetectors" in uninstalled
        and "[Secret] fraud-platform-stores" in uninstalled
    )
    assert upgraded.get(BY_KIND["Deployment"], NAMESPACE, "fraud-platform-operator") is None
    assert upgraded.get(CRD, None, CRD_NAME) is not None
    assert passwords(upgraded) != {}


def test_another_release_is_told_how_it_takes_the_crd_over(uninstalled: str, helm: Helm) -> None:
    """A CRD that stayed from a release that is gone isn't a second platform: the refusal names the one command."""
    message = helm.refused("install", "other", str(CHART), "-n", "second")
    assert (
        "which is gone" in message
        and "meta.helm.sh/release-name=other meta.helm.sh/release-namespace=second" in message
    )


def test_the_same_release_comes_back_with_its_passwords(uninstalled: str, upgraded: Kube, helm: Helm) -> None:
    """Installed again under its name, the chart takes up its CRD and the passwords of the volumes that stayed."""
    earlier = passwords(upgraded)
    helm.must("install", *RELEASE)
    assert passwords(upgraded) == earlier
    live = upgraded.get(CRD, None, CRD_NAME)
    assert live is not None and not live["metadata"].get("deletionTimestamp")
