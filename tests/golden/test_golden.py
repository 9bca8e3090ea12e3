"""All children of the example detectors, whole: a change in a builder shows in the diff of tests/golden."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fraud_contracts.child_kinds import BY_KIND
from fraud_contracts.clients import API_KEY, ClientAccess, ClientsDocument, hash_key
from fraud_contracts.lineage import Lineage
from fraud_operator import training
from fraud_operator.desired.child import Child, ClientKeys, Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.desired.documents import secret_data
from fraud_operator.detector import Detector, check
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
CASES = ("minimal", "payments", "production", "sparkov")
PLATFORM = Platform(
    storage=StorageSettings(
        uri="s3://fraud-platform", credentials={"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
    ),
    stores=StoreAddresses(
        redis_url="redis://r:6379/0", postgres_dsn="postgresql://p/d", mlflow_tracking_uri="http://m:5000"
    ),
)
KEYS = {"TOKEN_KEY": "00", "DEAD_LETTER_KEY": "key"}


class _Plain(yaml.SafeDumper):
    """No anchors: each child is to be read on its own."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def detector(case: str) -> tuple[Detector, dict[str, Any]]:
    body = yaml.safe_load((GOLDEN / case / "cr.yaml").read_text())
    facts = yaml.safe_load((GOLDEN / case / "facts.yaml").read_text())
    body["metadata"]["uid"] = facts["uid"]
    return Detector.parse(body, PLATFORM), facts


def clients_of(parsed: Detector) -> ClientKeys:
    """As of a detector whose clients each have one key, in the Secret that the operator makes."""
    access = [
        ClientAccess(
            name=client.name,
            scopes=tuple(client.scopes),
            hashes=(hash_key(client.name.encode()),),
            requests_per_second=client.requests_per_second,
        )
        for client in parsed.spec.clients
    ]
    own = [client.name for client in parsed.spec.clients if client.secret_ref is None]
    made = {name: secret_data({API_KEY: name}) for name in own}
    return ClientKeys(ClientsDocument(clients=tuple(access)), made)


def children(case: str) -> list[dict[str, Any]]:
    parsed, facts = detector(case)
    state = RolloutState.model_validate(facts["state"])
    wanted = Wanted(
        release=make_release(parsed, state, None, parsed.spec.policy),
        state=state,
        training_revision=training.wanted_revision(parsed.spec, parsed.feature_set, None, 0, 0),
        keys=KEYS if facts["fresh"] else None,
        storage_keys="5a1dedca11ed",
        stores={"REDIS_URL": "redis://own@r:6379/0", "POSTGRES_DSN": "postgresql://own@p/d"},
        clients=clients_of(parsed),
    )
    return [child.body for child in build_children(parsed, wanted)]


@pytest.mark.parametrize("case", CASES)
def test_children_are_as_recorded(case: str) -> None:
    """The builders give exactly what tests/golden holds; `make golden-update` records a change that is meant."""
    rendered = yaml.dump_all(children(case), Dumper=_Plain, sort_keys=False, width=120)
    path = GOLDEN / case / "expected.yaml"
    if os.environ.get("FRAUD_UPDATE_GOLDEN") == "1":
        path.write_text(rendered)
    assert rendered == path.read_text()


@pytest.mark.parametrize("case", CASES)
def test_examples_are_valid(case: str) -> None:
    """No example has a fault that the operator would refuse."""
    assert check(detector(case)[0]) == []


@pytest.mark.parametrize("case", CASES)
def test_names_are_unique_and_short_enough(case: str) -> None:
    """No two children share a kind and name, and none is longer than its kind takes."""
    names = [(child["kind"], child["metadata"]["name"]) for child in children(case)]
    assert len(names) == len(set(names))
    for kind, name in names:
        assert len(name) <= BY_KIND[kind].longest_name, (kind, name)


def _pods(value: Any) -> list[dict[str, Any]]:
    """All Pod specs anywhere inside."""
    if isinstance(value, dict):
        pods = [value] if "containers" in value and isinstance(value["containers"], list) else []
        return pods + [pod for item in value.values() for pod in _pods(item)]
    if isinstance(value, list):
        return [pod for item in value for pod in _pods(item)]
    return []


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_confined(case: str) -> None:
    """Each Pod runs as a user, without capabilities, with a writable /tmp of its own; each container has limits or Flink's own."""
    pods = [(child["kind"], pod) for child in children(case) for pod in _pods(child)]
    assert len(pods) >= 8
    for kind, pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
            assert container.get("imagePullPolicy") == "IfNotPresent"
            if kind != "FlinkDeployment":
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                assert container["resources"]["limits"].keys() >= {"cpu", "memory"}


def test_a_feature_set_beside_adds_its_job_and_its_document() -> None:
    """All else stays as it is for the set that answers; the job beside reads its own document, and so does a training for it."""
    parsed, facts = detector("payments")
    state = RolloutState.model_validate(facts["state"])
    release = make_release(parsed, state, None, parsed.spec.policy)
    labels = parsed.spec.model_copy(update={"entities": parsed.spec.entities[:1]})
    lineage = Lineage(feature_set="b" * 64, generation=2)
    beside = replace(parsed, spec=labels, lineage=lineage, decided=parsed.stream)
    alone = build_children(parsed, Wanted(release, state, "0" * 16))
    both = build_children(parsed, Wanted(release, state, "0" * 16, beside=beside, trains=beside))
    names = {(child.kind, child.name) for child in alone}
    document = f"payments-config-{beside.stream}"
    added = {(child.kind, child.name) for child in both} - names
    assert added == {("ConfigMap", document), ("FlinkDeployment", f"payments-f-{beside.stream}")}
    changed = [
        child.kind for child in both for old in alone if _key(child) == _key(old) and child.body != old.body
    ]
    assert changed == ["RayJob"]
    readers = [child for child in both if document in str(child.body) and child.kind != "ConfigMap"]
    assert [child.kind for child in readers] == ["FlinkDeployment", "RayJob"]


def _key(child: Child) -> tuple[str, str]:
    return child.kind, child.name


def test_a_changed_policy_restarts_nothing() -> None:
    """Policy reaches the data path through the release, so the Pods' hash of the document doesn't move with it."""
    parsed, _ = detector("payments")
    bands = parsed.spec.policy.bands.model_copy(update={"review": 650})
    policy = parsed.spec.policy.model_copy(update={"bands": bands})
    changed = Detector(
        parsed.namespace,
        parsed.name,
        parsed.uid,
        2,
        parsed.created,
        {},
        parsed.spec.model_copy(update={"policy": policy}),
        PLATFORM,
    )
    assert changed.config_hash == parsed.config_hash
    assert changed.config.to_json() != parsed.config.to_json()


def test_a_changed_partition_count_would_restart_all() -> None:
    """What a running process reads once is in the hash."""
    parsed, _ = detector("payments")
    kafka = parsed.spec.kafka.model_copy(update={"partitions": 8})
    changed = Detector(
        parsed.namespace,
        parsed.name,
        parsed.uid,
        2,
        parsed.created,
        {},
        parsed.spec.model_copy(update={"kafka": kafka}),
        PLATFORM,
    )
    assert changed.config_hash != parsed.config_hash


def test_external_kafka_gets_no_children() -> None:
    """With kafka.external the operator makes no Kafka object and the document names the user's brokers."""
    body = yaml.safe_load((GOLDEN / "payments" / "cr.yaml").read_text())
    body["spec"]["kafka"] = {"external": {"bootstrapServers": "mine:9092"}, "partitions": 2}
    parsed = Detector.parse(body, PLATFORM)
    wanted = Wanted(
        release=make_release(parsed, RolloutState(), None, parsed.spec.policy),
        state=RolloutState(),
        training_revision=None,
    )
    assert not [child for child in build_children(parsed, wanted) if child.kind.startswith("Kafka")]
    assert parsed.config.kafka.bootstrap_servers == "mine:9092"


@functools.cache
def _crds() -> dict[tuple[str, str], dict[str, Any]]:
    folder = Path(
        os.environ.get("FRAUD_CRDS") or os.environ.get("FRAUD_CACHE", Path.home() / ".cache/fraud-platform")
    )
    if not os.environ.get("FRAUD_CRDS"):
        folder = folder / "crds"
    out = {}
    # The whole set is ten megabytes; a file is named <plural>.<group>.yaml, and those of other kinds aren't read.
    ours = {kind.resource for kind in BY_KIND.values()}
    for path in [*folder.rglob("*.yaml"), *folder.rglob("*.yml")]:
        if path.stem not in ours:
            continue
        for document in yaml.load_all(path.read_text(), yaml.CSafeLoader):
            if document and document.get("kind") == "CustomResourceDefinition":
                for version in document["spec"]["versions"]:
                    key = (
                        f"{document['spec']['group']}/{version['name']}",
                        document["spec"]["names"]["kind"],
                    )
                    out[key] = version["schema"]["openAPIV3Schema"]
    return out


def _unknown(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Fields that a structural schema doesn't know: an API server drops them silently."""
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
        return []
    if isinstance(value, list):
        return [
            u for i, item in enumerate(value) for u in _unknown(item, schema.get("items", {}), f"{path}[{i}]")
        ]
    if not isinstance(value, dict):
        return []
    properties, more = schema.get("properties"), schema.get("additionalProperties")
    out = []
    for key, item in value.items():
        if properties and key in properties:
            out += _unknown(item, properties[key], f"{path}.{key}")
        elif isinstance(more, dict):
            out += _unknown(item, more, f"{path}.{key}")
        elif not more and (properties is not None or schema.get("type") == "object") and path:
            out.append(f"{path}.{key}")
    return out


@pytest.mark.parametrize("case", CASES)
def test_children_fit_the_upstream_schemas(case: str) -> None:
    """Each child of a custom kind passes its project's own CRD: types, required fields, no field that it doesn't know."""
    crds = _crds()
    if not crds:
        if os.environ.get("FRAUD_REQUIRE") == "all":
            pytest.fail("the upstream CRDs were not fetched: make crds")
        pytest.skip("the upstream CRDs were not fetched: make crds")
    checked = set()
    for child in children(case):
        schema = crds.get((child["apiVersion"], child["kind"]))
        if schema is None:
            assert not BY_KIND[child["kind"]].needs, f"no CRD for {child['kind']}"
            continue
        # Not jsonschema.validate: it would check the schema itself again for each child, for seconds.
        jsonschema.Draft202012Validator(schema).validate(child)
        spec = {"spec": schema["properties"]["spec"]}
        assert _unknown({"spec": child["spec"]}, {"properties": spec}, "spec") == []
        checked.add(child["kind"])
    assert {"Kafka", "KafkaNodePool", "KafkaTopic", "FlinkDeployment", "RayJob", "PodMonitor"} <= checked
