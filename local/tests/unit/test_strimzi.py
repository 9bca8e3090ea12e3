"""The Strimzi stand-in: what it makes of a Kafka, and what it says about it."""

from fraud_local import strimzi_brokers as brokers
from fraud_local import strimzi_objects as objects
from fraud_local import strimzi_status as statuses
from fraud_local import topics

CLAIM = {"id": 0, "type": "persistent-claim", "size": "5Gi", "class": "local"}


def _kafka(**kafka):
    listener = {"name": "plain", "port": 9092, "type": "internal", "tls": False}
    return {
        "apiVersion": objects.API,
        "kind": "Kafka",
        "metadata": {"name": "cards", "namespace": "payments", "uid": "u", "generation": 3},
        "spec": {"kafka": {"listeners": [listener], "config": {}, **kafka}},
    }


def _pool(name="nodes", replicas=1, roles=("controller", "broker"), status=None, volume=None):
    storage = {"type": "jbod", "volumes": [volume or {"id": 0, "type": "ephemeral"}]}
    return {
        "apiVersion": objects.API,
        "kind": "KafkaNodePool",
        "metadata": {"name": name, "namespace": "payments", "uid": f"u-{name}", "generation": 1},
        "spec": {"replicas": replicas, "roles": list(roles), "storage": storage},
        "status": status,
    }


def _built(kafka, pools):
    ids = objects.node_ids(pools)
    pods = [brokers.pod_name(kafka, pool, node) for pool in pools for node in ids[pool["metadata"]["name"]]]
    things = [*objects.build(kafka, pods), *brokers.build(kafka, pools, ids, "id", dict.fromkeys(pods, "c"))]
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}


def test_names_are_strimzis():
    """Clients find the bootstrap Service, and Pods are called <cluster>-<pool>-<id>."""
    built = _built(_kafka(), [_pool()])
    service = built["Service", "cards-kafka-bootstrap"]
    assert {port["port"] for port in service["spec"]["ports"]} == {9091, 9092}
    assert built["StatefulSet", "cards-nodes"]["spec"]["serviceName"] == "cards-kafka-brokers"


def test_ids_of_pools_do_not_overlap_and_are_kept():
    """A pool keeps the ids in its status; another takes the lowest free ones."""
    pools = [_pool("a", 2), _pool("b", 3, status={"nodeIds": [0, 1, 2]})]
    assert objects.node_ids(pools) == {"a": [3, 4], "b": [0, 1, 2]}


def test_the_quorum_is_every_controller():
    """All nodes know all controllers by their stable names."""
    pools = [_pool("c", 3, roles=["controller"]), _pool("x", 1, roles=["broker"])]
    text = brokers.server_properties(_kafka(), pools[1], 3, [(0, "h0"), (1, "h1"), (2, "h2")])
    assert "controller.quorum.voters=0@h0:9090,1@h1:9090,2@h2:9090" in text
    assert "process.roles=broker\n" in text


def test_forbidden_settings_are_left_out():
    """What would take the cluster apart is not passed on; the rest is, in Kafka's spelling."""
    config = brokers.user_config(
        {"listeners": "x", "log.dirs": "/", "auto.create.topics.enable": False, "min.insync.replicas": 2}
    )
    assert config == {"auto.create.topics.enable": "false", "min.insync.replicas": "2"}


def test_persistent_storage_is_a_claim():
    """The claim is called data-0, as Strimzi calls it, so data outlives the Pod."""
    built = _built(_kafka(), [_pool(volume=CLAIM)])
    claim = built["StatefulSet", "cards-nodes"]["spec"]["volumeClaimTemplates"][0]
    assert claim["metadata"]["name"] == "data-0"
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"


def test_three_brokers_are_one_quorum_in_little_memory():
    """Each knows the other two, keeps copies of its own storage, and has a heap that three of them leave room for on one machine."""
    pool = _pool(replicas=3)
    pool["spec"]["jvmOptions"] = {"-Xms": "256m", "-Xmx": "768m"}
    built = _built(_kafka(config={"min.insync.replicas": 2, "default.replication.factor": 3}), [pool])
    (stateful_set,) = (thing for (kind, _), thing in built.items() if kind == "StatefulSet")
    assert stateful_set["spec"]["replicas"] == 3
    texts = [built["ConfigMap", f"cards-nodes-{node}"]["data"]["server.config"] for node in range(3)]
    voters = ",".join(f"{node}@cards-nodes-{node}.cards-kafka-brokers.payments.svc:9090" for node in range(3))
    for node, text in enumerate(texts):
        assert f"controller.quorum.voters={voters}\n" in text and f"node.id={node}\n" in text
        assert "min.insync.replicas=2\n" in text and f"kafka-log{node}\n" in text

    def heap(stateful_set):
        (container,) = stateful_set["spec"]["template"]["spec"]["containers"]
        return next(one["value"] for one in container["env"] if one["name"] == "KAFKA_HEAP_OPTS")

    assert heap(stateful_set) == f"-Xms{brokers.SHARED_HEAP} -Xmx{brokers.SHARED_HEAP}"
    alone = dict(pool, spec={**pool["spec"], "replicas": 1})
    assert heap(_built(_kafka(), [alone])["StatefulSet", "cards-nodes"]) == "-Xms256m -Xmx768m"
    assert built["PodDisruptionBudget", "cards-kafka"]["spec"]["minAvailable"] == 2


def test_a_brokers_claim_belongs_to_strimzis_group():
    """Without a context of the user's own a Pod with a claim may write to it; one without has none."""

    def security(volume=None, **kafka):
        built = _built(_kafka(**kafka), [_pool(volume=volume)])
        return built["StatefulSet", "cards-nodes"]["spec"]["template"]["spec"]["securityContext"]

    assert (security(CLAIM), security()) == ({"fsGroup": 0}, {})
    assert security(CLAIM, template={"pod": {"securityContext": {"runAsUser": 7}}}) == {"runAsUser": 7}


def test_a_changed_setting_restarts_brokers():
    """The Pod template carries a hash of the configuration."""

    def template(**config):
        built = _built(_kafka(config=config), [_pool()])
        return built["StatefulSet", "cards-nodes"]["spec"]["template"]["metadata"]["annotations"]

    assert template(a=1) != template(a=2)
    assert template(a=1) == template(a=1)


def test_ready_status_has_what_clients_read():
    """Ready alone, the listener's address and the observed generation."""
    status = statuses.ready(_kafka(), [_pool(volume=CLAIM)], "id")
    assert [(one["type"], one["status"]) for one in status["conditions"]] == [("Ready", "True")]
    assert status["listeners"][0]["bootstrapServers"] == "cards-kafka-bootstrap.payments.svc:9092"
    assert status["observedGeneration"] == 3


def test_a_failed_kafka_is_notready_and_never_ready_false():
    """Strimzi writes one of Ready and NotReady, both with status True, and the reason is an exception's class."""
    (condition,) = statuses.failed(_kafka(), "TimeoutException", "too long")["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "NotReady",
        "True",
        "TimeoutException",
    )


def test_another_version_is_a_warning():
    """What runs is told, not what was asked for; warnings come first, as Strimzi writes them."""
    status = statuses.ready(_kafka(version="4.1.0"), [_pool(volume=CLAIM)], "id")
    assert [one["type"] for one in status["conditions"]] == ["Warning", "Ready"]


def test_a_listeners_peers_are_in_the_policy():
    """Whom a listener names, its port lets in; without any it is everybody's."""
    peers = [{"podSelector": {"matchLabels": {"app": "shop"}}}]
    listener = {"name": "plain", "port": 9092, "type": "internal", "tls": False}
    for more, expected in (({}, None), ({"networkPolicyPeers": peers}, peers)):
        built = objects.build(_kafka(listeners=[{**listener, **more}]), [])
        policy = next(one for one in built if one["kind"] == "NetworkPolicy")
        rule = next(one for one in policy["spec"]["ingress"] if one["ports"][0]["port"] == 9092)
        assert rule.get("from") == expected


TLS = {
    "name": "tls",
    "port": 9093,
    "type": "internal",
    "tls": True,
    "authentication": {"type": "scram-sha-512"},
}


def test_what_the_stand_in_cannot_serve_is_refused():
    """A listener of another kind, another login, another authorizer: an error, not a listener less."""
    assert objects.unsupported(_kafka(listeners=[TLS], authorization={"type": "simple"})) is None
    assert "ingress" in objects.unsupported(_kafka(listeners=[{**TLS, "name": "ingress", "type": "ingress"}]))
    assert "oauth" in objects.unsupported(
        _kafka(listeners=[{**TLS, "name": "oauth", "authentication": {"type": "custom"}}])
    )
    assert "opa" in objects.unsupported(_kafka(authorization={"type": "opa"}))


def test_inner_listeners_are_for_bearers_of_certificates():
    """Nodes and operators know each other by them and may do everything; clients log in, over TLS."""
    text = brokers.server_properties(
        _kafka(listeners=[TLS], authorization={"type": "simple", "superUsers": ["me"]}), _pool(), 0, []
    )
    assert "CONTROLPLANE-9090:SSL,REPLICATION-9091:SSL,TLS-9093:SASL_SSL" in text
    for name in ("controlplane-9090", "replication-9091"):
        assert f"listener.name.{name}.ssl.client.auth=required\n" in text
    assert "listener.name.tls-9093.sasl.enabled.mechanisms=SCRAM-SHA-512\n" in text
    assert "User:CN=cards-entity-user-operator,O=io.strimzi;" in text and ";User:me\n" in text
    assert "authorizer" not in brokers.server_properties(_kafka(), _pool(), 0, [])


def test_other_certificates_restart_a_node():
    """They are files of the Secret that has its Pod's name; the template carries a digest."""
    pools = [_pool()]

    def template(digest):
        things = brokers.build(_kafka(), pools, {"nodes": [0]}, "id", {"cards-nodes-0": digest})
        return things[-1]["spec"]["template"]

    assert template("a")["metadata"] != template("b")["metadata"]
    sources = template("a")["spec"]["volumes"][0]["projected"]["sources"]
    secrets = {one["secret"]["name"] for one in sources if "secret" in one}
    assert secrets == {"cards-nodes-0", "cards-cluster-ca-cert"}


def test_times_of_unchanged_conditions_stay():
    """A settled pass writes the same status."""
    old = {
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "then"}],
        "clusterId": "x",
    }
    new = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "now"}], "clusterId": "x"}
    assert statuses.settled(old, new) == old


def test_topic_settings_are_compared_as_text():
    """A number in YAML equals Kafka's text; what is no longer wanted is taken back."""
    topic = {"metadata": {"name": "t"}, "spec": {"config": {"retention.ms": 5, "preallocate": True}}}
    wanted = topics.wanted_config(topic)
    assert topics.config_changes(wanted, {"retention.ms": "5", "segment.ms": "1"}) == (
        {"preallocate": "true"},
        ["segment.ms"],
    )
