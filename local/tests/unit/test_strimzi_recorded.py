"""What the Strimzi stand-in makes and says, beside what Strimzi 1.2.0 made and said of the same Kafka (``recorded/``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fraud_local import strimzi_brokers as brokers
from fraud_local import strimzi_entity as entity
from fraud_local import strimzi_objects as objects
from fraud_local import strimzi_status as statuses
from fraud_local import topics
from fraud_local.api_client import stamp

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded" / "strimzi-1.2.0.json").read_text())
KAFKA, POOL = RECORDED["kafka"], RECORDED["pool"]
OBJECTS = {(one["kind"], one["metadata"]["name"]): one for one in RECORDED["objects"]}
# A StatefulSet takes the place of Strimzi's own kind of set, whose CRD is not installed.
SET = ("StrimziPodSet", "pay-nodes-935087")
PLAIN = [key for key in OBJECTS if key[0] not in ("StrimziPodSet", "Deployment", "ConfigMap")]


def _built() -> dict[tuple[str, str], dict[str, Any]]:
    ids = objects.node_ids([POOL])
    things = [
        *objects.build(KAFKA, ["pay-nodes-935087-0"]),
        *brokers.build(KAFKA, [POOL], ids, "id", {"pay-nodes-935087-0": "c"}),
        *entity.build(KAFKA),
    ]
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}


def test_every_object_is_made_by_its_name() -> None:
    """Kinds and names are Strimzi's, no more and no fewer."""
    expected = {("StatefulSet", SET[1]) if key == SET else key for key in OBJECTS}
    assert set(_built()) == expected


@pytest.mark.parametrize("key", list(OBJECTS), ids="/".join)
def test_labels_and_owners_are_strimzis(key: tuple[str, str]) -> None:
    """Our Kafka's labels stand on all of it but for ``app.kubernetes.io/*``, and nobody is its controller."""
    meta = _built()[("StatefulSet", SET[1]) if key == SET else key]["metadata"]
    recorded = OBJECTS[key]["metadata"]
    owners = [
        {**one, "uid": {"Kafka": KAFKA, "KafkaNodePool": POOL}[one["kind"]]["metadata"]["uid"]}
        for one in recorded["ownerReferences"]
    ]
    assert (meta["labels"], meta["ownerReferences"]) == (recorded["labels"], owners)


@pytest.mark.parametrize("key", PLAIN, ids="/".join)
def test_rights_policies_budgets_and_services_are_strimzis(key: tuple[str, str]) -> None:
    """What they say is equal: ports with their names, selectors, rules, who may reach what."""
    built, recorded = _built()[key], OBJECTS[key]
    assert {k: v for k, v in built.items() if k not in ("metadata",)} == {
        k: v for k, v in recorded.items() if k != "metadata"
    }


def test_a_node_needs_its_account_and_its_own_settings() -> None:
    """The Pod's account, its ConfigMap, its ports and labels are Strimzi's; it is as bare of security settings."""
    built = _built()["StatefulSet", SET[1]]["spec"]
    recorded = OBJECTS[SET]["spec"]["pods"][0]
    labels = {
        key: value for key, value in recorded["metadata"]["labels"].items() if key != "strimzi.io/pod-name"
    }
    pod, (container,) = built["template"]["spec"], built["template"]["spec"]["containers"]
    assert built["template"]["metadata"]["labels"] == labels
    assert built["selector"] == OBJECTS[SET]["spec"]["selector"]
    assert (pod["serviceAccountName"], built["serviceName"]) == (
        recorded["spec"]["serviceAccountName"],
        recorded["spec"]["subdomain"],
    )
    assert container["ports"] == recorded["spec"]["containers"][0]["ports"]
    sources = pod["volumes"][0]["projected"]["sources"]
    assert [source["configMap"]["name"] for source in sources if "configMap" in source] == [
        "pay-nodes-935087-0"
    ]
    assert pod["securityContext"] == {} and "securityContext" not in container


def test_the_topic_operator_is_a_deployment_with_its_account() -> None:
    """Selector, strategy, labels, account and what the environment says of names and addresses are Strimzi's."""
    built, recorded = (which["Deployment", "pay-entity-operator"]["spec"] for which in (_built(), OBJECTS))
    assert (built["selector"], built["strategy"]) == (recorded["selector"], recorded["strategy"])
    assert built["template"]["metadata"]["labels"] == recorded["template"]["metadata"]["labels"]
    assert (
        built["template"]["spec"]["serviceAccountName"] == recorded["template"]["spec"]["serviceAccountName"]
    )
    (container,) = recorded["template"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert (entity.environment({"spec": built}, "topic-operator") or {}).items() <= variables.items()


def test_templates_are_followed() -> None:
    """Settings and variables that the Kafka's templates ask for reach Pods and containers."""
    hard = {"securityContext": {"allowPrivilegeEscalation": False}}
    place = {
        "imagePullSecrets": [{"name": "p"}],
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "c",
    }
    pod = {"securityContext": {"runAsNonRoot": True}, **place}
    spec = json.loads(json.dumps(KAFKA["spec"]))
    spec["kafka"]["template"] = {"pod": pod, "kafkaContainer": hard}
    variable = {"name": "STRIMZI_USE_FINALIZERS", "value": "false"}
    spec["entityOperator"]["template"] = {"pod": pod, "topicOperatorContainer": {**hard, "env": [variable]}}
    kafka = {**KAFKA, "spec": spec}
    nodes = brokers.build(kafka, [POOL], {POOL["metadata"]["name"]: [0]}, "id", {"pay-nodes-935087-0": "c"})
    for thing in (*nodes, *entity.build(kafka)):
        if thing["kind"] in ("StatefulSet", "Deployment"):
            template = thing["spec"]["template"]["spec"]
            assert {key: template[key] for key in pod} == pod
            assert template["containers"][0]["securityContext"] == {"allowPrivilegeEscalation": False}
        if thing["kind"] == "Deployment":
            variables = entity.environment(thing, "topic-operator") or {}
            assert variables["STRIMZI_USE_FINALIZERS"] == "false"


def _timeless(status: dict[str, Any]) -> dict[str, Any]:
    conditions = [
        {key: value for key, value in one.items() if key != "lastTransitionTime"}
        for one in status["conditions"]
    ]
    return {**status, "conditions": conditions}


def test_a_ready_kafka_says_what_strimzi_says() -> None:
    """Two warnings of one type, then Ready; every field is there. Only the Kafka that runs is another one."""
    status = _timeless(statuses.ready(KAFKA, [POOL], KAFKA["status"]["clusterId"]))
    version = {key: status[key] for key in ("kafkaVersion", "kafkaMetadataVersion")}
    assert status == _timeless(KAFKA["status"]) | version


def test_pools_and_topics_say_what_strimzi_says() -> None:
    """A pool has no readiness of its own; a topic has one condition, its name and its id."""
    assert statuses.pool_status(KAFKA, POOL, [0], POOL["status"]["clusterId"]) == POOL["status"]
    topic = RECORDED["topic"]
    status = topics.status(topic, [statuses.condition("Ready", "True")], topic["status"]["topicId"])
    assert _timeless(status) == _timeless(topic["status"])
    assert topic["metadata"]["finalizers"] == [topics.FINALIZER]


def test_times_have_nine_decimals() -> None:
    """As both operators write them."""
    recorded = KAFKA["status"]["conditions"][0]["lastTransitionTime"]
    assert stamp(1_795_907_466_091_917_618) == recorded
