"""The chart on a real API server, and the operator as the chart runs it: a process with the chart's own rights."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_contracts.object_store import KEYS
from fraud_operator.kube import Kube, RefusedError
from fraud_operator.ownership import snapshot
from fraud_testing.api_server import binary
from fraud_testing.kafka import wait_for
from fraud_testing.operator_process import CHART, OperatorProcess, find, install, render

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
# Values under which every object of the chart and every field of its Pods is there.
EVERYTHING = (
    "persistence.enabled=true", "persistence.storageClass=slow", "images.pullSecrets[0].name=registry",
    *(
        f"{part}.{setting}"
        for part in ("operator", "trial")
        for setting in (
            "nodeSelector.pool=fraud", "tolerations[0].key=pool", "tolerations[0].operator=Exists",
            "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
            "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key=pool",
            "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].operator=Exists",
            "topologySpreadConstraints[0].maxSkew=1", "topologySpreadConstraints[0].topologyKey=zone",
            "topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
            "priorityClassName=system-cluster-critical",
        )
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def installed(server: Any) -> Kube:
    kube: Kube = server.kube()
    server.post(
        "/api/v1/namespaces",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fraud-platform"}},
    )
    install(kube, render())
    return kube


def test_the_api_server_takes_every_object_of_the_chart(installed: Kube) -> None:
    """The chart's objects pass the real schemas, KServe's runtime and storage container among them."""
    assert installed.get(BY_KIND["Deployment"], "fraud-platform", "fraud-platform-operator") is not None


def test_the_api_server_takes_every_field_of_the_chart(installed: Kube) -> None:
    """With every value set, and helm's hooks among them, no object has a field that the server doesn't know."""
    documents = render(*EVERYTHING, hooks=True)
    assert {"Job", "Pod", "PersistentVolumeClaim", "PodDisruptionBudget"} <= {d["kind"] for d in documents}
    install(installed, documents, dry_run=True)


def test_every_pod_of_the_chart_runs_where_pod_security_is_restricted(installed: Kube, server: Any) -> None:
    """The stores', the operator's and those of helm's hooks are let in where the strictest level is enforced; a bare one isn't."""
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"name": "restricted-chart", "labels": level}
    server.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    path = BY_KIND["Pod"].path("restricted-chart")
    pods = {"bare": {"containers": [{"name": "main", "image": "any:1"}]}}
    for document in render(*EVERYTHING, hooks=True):
        if document["kind"] in ("Deployment", "Job"):
            pods[document["metadata"]["name"]] = document["spec"]["template"]["spec"]
        elif document["kind"] == "Pod":
            pods[document["metadata"]["name"]] = document["spec"]
    assert len(pods) >= 8
    refused = {}
    for name, spec in pods.items():
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        try:
            installed._call("POST", path, {"dryRun": "All"}, body)
        except RefusedError as error:
            refused[name] = error.message
    assert refused.pop("bare").count("restricted") > 0
    assert refused == {}


def test_every_pod_of_the_chart_is_confined() -> None:
    """Each container has limits, a read-only root, no capability and no root user, and no tag is latest."""
    for document in render("persistence.enabled=true"):
        if document["kind"] != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"startupProbe", "readinessProbe", "livenessProbe"} & container.keys()
            assert not container["image"].endswith(":latest")


def test_another_version_leaves_the_trial_stores_pods_alone(tmp_path: Path) -> None:
    """Without a volume a Pod that is made anew has lost its data; MLflow alone has an image of ours, which has the version's tag."""
    newer = tmp_path / "chart"
    shutil.copytree(CHART, newer)
    text = (CHART / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(re.sub(r"(?m)^(appV|v)ersion: .*$", r"\1ersion: 99.0.0", text))

    def templates(chart: Path) -> dict[str, Any]:
        values = ("-f", str(CHART / "upstream-images.yaml"), "--kube-version", "1.34.4")
        command = [str(binary("helm")), "template", "fraud-platform", str(chart), *values]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        made = {
            d["metadata"]["name"].removeprefix("fraud-platform-"): d["spec"]["template"]
            for d in yaml.load_all(printed, yaml.CSafeLoader)
            if d and d["kind"] == "Deployment"
        }
        made["mlflow"]["spec"]["containers"][0].pop("image")
        return {name: template for name, template in made.items() if name != "operator"}

    before, after = templates(CHART), templates(newer)
    assert before.keys() == {"mlflow", "redis", "postgres", "prometheus", "objects"}
    assert before == after


def test_stores_can_be_the_users_own() -> None:
    """With the trial switched off the operator gets the given addresses and no trial store is made."""
    documents = render(
        "trial.mlflow.enabled=false", "trial.redis.enabled=false", "trial.postgres.enabled=false",
        "trial.prometheus.enabled=false", "trial.objects.enabled=false", "stores.redisUrl=redis://mine:6379", "stores.mlflowTrackingUri=http://mine:5000",
    )  # fmt: skip
    assert {d["metadata"]["name"] for d in documents if d["kind"] == "Deployment"} == {
        "fraud-platform-operator"
    }
    assert find(documents, "Secret", "fraud-platform-stores")["stringData"] == {
        "REDIS_URL": "redis://mine:6379",
        "MLFLOW_TRACKING_URI": "http://mine:5000",
    }
    pod = find(documents, "Deployment", "fraud-platform-operator")["spec"]["template"]["spec"]
    assert "initContainers" not in pod
    env = {one["name"]: one for one in pod["containers"][0]["env"]}
    for address in ("MLFLOW_TRACKING_URI", "REDIS_URL"):
        assert env[address]["valueFrom"]["secretKeyRef"]["name"] == "fraud-platform-stores"
    assert "POSTGRES_DSN" not in env


def test_no_password_is_in_the_chart() -> None:
    """The trial stores' passwords are named where they are made, read and put into the addresses, and nowhere given."""
    documents = render()
    assert "stringData" not in find(documents, "Secret", "fraud-platform-stores")
    pod = find(documents, "Deployment", "fraud-platform-operator")["spec"]["template"]["spec"]
    (maker,) = pod["initContainers"]
    assert maker["command"][-6:] == [
        "fraud-platform-stores",
        "REDIS_PASSWORD",
        "POSTGRES_PASSWORD",
        "MLFLOW_PASSWORD",
        "MLFLOW_SESSION_KEY",
        "OBJECTS_PASSWORD",
    ]
    env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    assert env["REDIS_URL"] == "rediss://:$(REDIS_PASSWORD)@fraud-platform-redis.fraud-platform.svc:6379/0"
    assert (
        env["MLFLOW_TRACKING_URI"]
        == "http://fraud:$(MLFLOW_PASSWORD)@fraud-platform-mlflow.fraud-platform.svc:5000"
    )
    for password, address in (("REDIS_PASSWORD", "REDIS_URL"), ("MLFLOW_PASSWORD", "MLFLOW_TRACKING_URI")):
        assert list(env).index(password) < list(env).index(address)


def test_the_trials_mlflow_asks_for_a_login() -> None:
    """By its own app, whose first user is the operator's; who logs in may do nothing that isn't granted, and make nothing."""
    documents = render()
    (container,) = find(documents, "Deployment", "fraud-platform-mlflow")["spec"]["template"]["spec"][
        "containers"
    ]
    assert {"--app-name=basic-auth", "--enable-workspaces"} <= set(container["command"])
    env = environment(documents, "mlflow")
    assert env["MLFLOW_AUTH_ADMIN_PASSWORD"] == ("fraud-platform-stores", "MLFLOW_PASSWORD")
    assert env["MLFLOW_AUTH_CONFIG_PATH"] == "/etc/fraud/auth.ini"
    assert env["MLFLOW_PASSWORD_FILE"] == "/etc/fraud-server/password"
    files = find(documents, "ConfigMap", "fraud-platform-mlflow")["data"]
    settings = configparser.ConfigParser()
    settings.read_string(files["auth.ini"])
    assert settings["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    assert settings["mlflow"]["admin_username"] == "fraud"
    assert f"{settings['mlflow']['authorization_function'].partition(':')[0]}.py" in files


def test_predictors_fetch_with_what_their_detector_brings() -> None:
    """The storage container mounts the volume that the operator writes into each InferenceService, and has no login of its own."""
    container = find(render(), "ClusterStorageContainer", "fraud-mlflow")["spec"]["container"]
    assert "env" not in container
    assert [mount["name"] for mount in container["volumeMounts"]] == ["stores"]


def test_no_digest_of_a_password_is_in_the_chart() -> None:
    """Who sees the operator's Pod could guess passwords by one; another host makes another Pod all the same."""

    def pod(redis_url: str, postgres_dsn: str) -> Any:
        settings = (f"stores.redisUrl={redis_url}", f"stores.postgresDsn={postgres_dsn}")
        return find(render(*settings), "Deployment", "fraud-platform-operator")["spec"]["template"]

    first = pod("redis://:one@cache:6379/0", "postgresql://u:one@db/x?password=one")
    assert first == pod("redis://:two@cache:6379/1", "postgresql://u:two@db/x?password=two")
    assert first != pod("redis://:one@other:6379/0", "postgresql://u:one@db/x")
    # With its commas as helm's command line wants them.
    several = pod("redis://:one@cache:6379/0", r"postgresql://u:one@db:5432\,standby/x")
    assert first != pod(r"redis+sentinel://:one@s1\,s2/main/0", "postgresql://u:one@db/x")
    assert several not in (first, pod("redis://:one@cache:6379/0", r"postgresql://u:one@db:5432\,third/x"))
    for redis_url, dsn in (
        ("redis://:%s/w@h", "postgresql:///db?host=h&password=%s@w"),
        ("redis://:%s?w@h", "postgresql://%s@w@h"),
    ):
        assert pod(redis_url % "a", dsn % "a") == pod(redis_url % "b", dsn % "b"), redis_url


@pytest.mark.parametrize(
    ("settings", "ephemeral", "storage_class"),
    [
        ((), True, None),
        (("persistence.enabled=true", "persistence.storageClass=slow"), False, "slow"),
        (("persistence.enabled=true", "kafka.persistence.enabled=false"), True, None),
        (("kafka.persistence.enabled=true", "kafka.persistence.storageClass=fast"), False, "fast"),
    ],
)
def test_kafkas_volumes_are_set_apart(
    settings: tuple[str, ...], ephemeral: bool, storage_class: str | None
) -> None:
    """Managed Kafka follows the trial stores' persistence where its own isn't set, and its own where it is."""
    document = find(render(*settings), "ConfigMap", "fraud-platform-operator")
    assert json.loads(document["data"]["platform.json"])["kafka"] == {
        "ephemeral": ephemeral,
        "storage_class": storage_class,
    }


def test_budgets_are_the_users() -> None:
    """Each Deployment has a PodDisruptionBudget of its name, unless its value is null."""
    documents = render("trial.podDisruptionBudget=null", "operator.podDisruptionBudget.maxUnavailable=0")
    budgets = [d for d in documents if d["kind"] == "PodDisruptionBudget"]
    assert [(d["metadata"]["name"], d["spec"]["maxUnavailable"]) for d in budgets] == [
        ("fraud-platform-operator", 0)
    ]
    names = {d["metadata"]["name"] for d in render() if d["kind"] == "PodDisruptionBudget"}
    assert names == {d["metadata"]["name"] for d in render() if d["kind"] == "Deployment"}


def test_an_override_replaces_one_image() -> None:
    """A full reference takes one image's place; the others have registry and the chart's version, and :latest is refused."""
    version = yaml.safe_load((ROOT / "charts/fraud-platform/Chart.yaml").read_text())["appVersion"]
    documents = render("images.overrides.redis=docker.io/library/redis:7.2.11")
    images = {
        name: find(documents, "Deployment", f"fraud-platform-{name}")["spec"]["template"]["spec"][
            "containers"
        ][0]["image"]
        for name in ("redis", "postgres")
    }
    assert images == {
        "redis": "docker.io/library/redis:7.2.11",
        "postgres": f"docker.io/fraud-platform/postgres:{version}",
    }
    with pytest.raises(AssertionError, match="overrides"):
        render("images.overrides.redis=redis:latest")


def test_values_are_checked() -> None:
    """A mistyped value is refused by the chart's schema."""
    with pytest.raises(AssertionError, match="storage"):
        render("storage.uri=ftp://x")
    with pytest.raises(AssertionError, match="storage"):
        render("storage.uri=s3://bank/../x")


NODE = ("storage.uri=file:///data/fraud/x", "storage.nodeFolder.enabled=true")


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (NODE[:1], "set storage.nodeFolder.enabled=true"),
        (NODE, "must be storage.nodeFolder.root, /var/lib/fraud-platform/storage, or lie below it"),
        (
            ("storage.uri=file:///data/fraud/../x", *NODE[1:], "storage.nodeFolder.root=/data/fraud"),
            "lie below it",
        ),
    ],
)
def test_a_nodes_folder_is_asked_for_twice(settings: tuple[str, ...], remedy: str) -> None:
    """A file:// default needs the switch and lies below its root; else helm says which value to set."""
    with pytest.raises(AssertionError, match=remedy):
        render(*settings)


def platform_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The operator's platform file."""
    text = find(documents, "ConfigMap", "fraud-platform-operator")["data"]["platform.json"]
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def environment(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """A Deployment's variables: the value, or the Secret and key that it comes from; not what a Pod has of itself."""
    pod = find(documents, "Deployment", f"fraud-platform-{name}")["spec"]["template"]["spec"]
    return {
        one["name"]: one.get("value") or (secret["name"], secret["key"])
        for one in pod["containers"][0]["env"]
        if (secret := one.get("valueFrom", {}).get("secretKeyRef")) or "value" in one
    }


def test_the_trial_brings_the_bucket_of_the_default_storage() -> None:
    """The store makes the URI's bucket at its start, and operator and MLflow have the one key that the Secret holds."""
    documents = render("storage.uri=s3://mine/folder")
    pod = find(documents, "Deployment", "fraud-platform-objects")["spec"]["template"]["spec"]
    assert "/data/buckets/mine" in pod["initContainers"][0]["command"]
    key = ("fraud-platform-stores", "OBJECTS_PASSWORD")
    assert environment(documents, "objects")["ROOT_SECRET_ACCESS_KEY"] == key
    assert environment(documents, "operator")["STORAGE_AWS_SECRET_ACCESS_KEY"] == key
    mlflow = environment(documents, "mlflow")
    assert mlflow["AWS_SECRET_ACCESS_KEY"] == key
    assert mlflow["AWS_ENDPOINT_URL"] == "http://fraud-platform-objects.fraud-platform.svc:9000"
    command = find(documents, "Deployment", "fraud-platform-mlflow")["spec"]["template"]["spec"][
        "containers"
    ][0]["command"]
    assert "--artifacts-destination=s3://mine/folder/mlflow" in command
    assert platform_of(documents)["storage"] == {
        "uri": "s3://mine/folder", "secret": "", "account_annotations": {}, "node_folder": "",
    }  # fmt: skip


def test_keys_of_ones_own_replace_the_trials() -> None:
    """With a Secret for the storage its four keys are used, under names of their own for the operator; no trial store runs."""
    documents = render("storage.uri=s3://mine", "storage.existingSecret=objects")
    assert not [d for d in documents if d["metadata"]["name"] == "fraud-platform-objects"]
    for name, prefix in (("operator", "STORAGE_"), ("mlflow", "")):
        variables = environment(documents, name)
        assert {key: variables[prefix + key] for key in KEYS} == {key: ("objects", key) for key in KEYS}
    pod = find(documents, "Deployment", "fraud-platform-operator")["spec"]["template"]["spec"]
    assert "OBJECTS_PASSWORD" not in pod["initContainers"][0]["command"]
    assert platform_of(documents)["storage"]["secret"] == "objects"


def test_a_role_replaces_keys() -> None:
    """With annotations no key is anywhere, and the operator's and MLflow's accounts bear them."""
    documents = render("storage.serviceAccountAnnotations.iam/role=x")
    assert platform_of(documents)["storage"]["account_annotations"] == {"iam/role": "x"}
    for name in ("operator", "mlflow"):
        account = find(documents, "ServiceAccount", f"fraud-platform-{name}")
        assert account["metadata"]["annotations"] == {"iam/role": "x"}
        assert not [key for key in environment(documents, name) if "AWS_" in key]
    pod = find(documents, "Deployment", "fraud-platform-mlflow")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "fraud-platform-mlflow"


def test_a_nodes_folder_needs_no_object_store() -> None:
    """With file:// storage there is no trial object store, and MLflow keeps its artifacts on its own volume."""
    documents = render(*NODE, "storage.nodeFolder.root=/data/fraud")
    assert not [d for d in documents if d["metadata"]["name"] == "fraud-platform-objects"]
    assert platform_of(documents)["storage"]["node_folder"] == "/data/fraud"
    assert not [key for key in environment(documents, "mlflow") if key.startswith("AWS_")]


@pytest.fixture
def operator(server: Any, installed: Kube, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator with the platform file of the chart and the rights of the chart's service account."""
    running = OperatorProcess(server.api, tmp_path)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def test_the_operator_runs_with_the_charts_rights(
    server: Any, installed: Kube, operator: OperatorProcess
) -> None:
    """Children appear soon after apply, a deleted one comes back by its event, and SIGTERM ends it within seconds."""
    kube, namespace = installed, server.namespace("rights")
    body = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = namespace
    uid = kube.create(DETECTOR, body)["metadata"]["uid"]
    wait_for(lambda: len(snapshot(kube, namespace, uid)[0]) >= 40, 60, "children")
    status = wait_for(lambda: (kube.get(DETECTOR, namespace, "payments") or {}).get("status"), 60, "status")
    degraded = next(c for c in status["conditions"] if c["type"] == "Degraded")
    assert degraded["reason"] not in ("ApplyRefused", "ApplyConflict"), degraded
    console = ("Deployment", "payments-console")
    kube.delete(BY_KIND["Deployment"], namespace, console[1])
    wait_for(lambda: console in snapshot(kube, namespace, uid)[0], 60, "the deleted Deployment")
    assert "fraud_operator_reconciles_total" in operator.get("/metrics")
    kube.delete(DETECTOR, namespace, "payments")
    wait_for(lambda: kube.get(DETECTOR, namespace, "payments") is None, 60, "the detector's end")
    assert operator.terminate(15) == 0
