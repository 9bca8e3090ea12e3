"""What the node needs, its certificates and its configuration."""

import dataclasses
import json
from pathlib import Path

import pytest

from fraud_local import node, node_config, paths, pki, prerequisites, processes
from fraud_local.shell import LocalError

GOOD = prerequisites.Machine(
    system="linux",
    uid=0,
    python=(3, 11),
    filesystems=frozenset({"overlay"}),
    namespaces=frozenset({"net", "mnt", "pid", "ipc", "uts"}),
    cgroups=frozenset({"cpu", "memory", "pids", "cpuset"}),
    bridge_filter=True,
    disk_gib=100,
    memory_gib=24,
    go=(1, 25),
    apt=True,
    programs=frozenset(),
    networks=("192.0.2.0/24",),
    built=False,
    cache=Path("/root/.cache/fraud-platform"),
)


def test_a_good_machine_lacks_nothing():
    """Packages that apt can bring are no obstacle."""
    assert prerequisites.check(GOOD) == []


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    [
        ({"uid": 1000}, "root", "as root"),
        ({"filesystems": frozenset()}, "overlay", "modprobe"),
        ({"namespaces": frozenset({"mnt", "pid", "ipc", "uts"})}, "net namespaces", "CONFIG_NAMESPACES"),
        ({"cgroups": frozenset({"cpu", "pids", "cpuset"})}, "'memory'", "cgroups"),
        ({"bridge_filter": False}, "br_netfilter", "modprobe br_netfilter"),
        ({"disk_gib": 3}, "free disk", "FRAUD_CACHE"),
        ({"cache": Path("/tmp/cache")}, "isn't below /tmp", "FRAUD_CACHE"),
        ({"python": (3, 13)}, "Python 3.11 (this is 3.13)", "python3.11"),
        ({"go": None}, "Go 1.25", "PATH"),
        ({"apt": False}, "Debian packages", "apt-get is not here"),
        ({"networks": ("10.0.0.0/8",)}, "10.0.0.0/8", "ip route del"),
    ],
)
def test_each_missing_thing_is_named_with_its_remedy(change, what, remedy):
    """A person reads what is missing and what to do about it."""
    missing = prerequisites.check(dataclasses.replace(GOOD, **change))
    assert len(missing) == 1 or change.get("networks")
    assert what in missing[0].what
    assert remedy in missing[0].remedy


def test_a_built_node_needs_no_compiler_and_little_disk():
    """With the programs there, Go and the disk for building are not asked for."""
    assert prerequisites.check(dataclasses.replace(GOOD, built=True, go=None, disk_gib=6)) == []


def test_all_that_is_missing_is_told_at_once():
    """Nobody has to run it once for each thing."""
    assert len(prerequisites.check(dataclasses.replace(GOOD, uid=1, go=None, disk_gib=1))) == 3


def test_the_api_servers_certificate_has_every_name():
    """Pods reach it by its Service's names and address, host processes by the node's address."""
    text = pki.extensions(next(one for one in pki.CERTIFICATES if one.name == "apiserver"))
    for name in ("DNS:kubernetes.default.svc", f"IP:{paths.NODE_ADDRESS}", f"IP:{paths.API_SERVICE}"):
        assert name in text


def test_clients_without_a_server_have_no_names():
    """A client's certificate names nothing that it could serve as."""
    assert "subjectAltName" not in pki.extensions(
        next(one for one in pki.CERTIFICATES if one.name == "admin")
    )


def test_kubeconfig_holds_everything():
    """A kubeconfig needs no other file."""
    document = json.loads(pki.kubeconfig("https://a:1", b"ca", b"crt", b"key"))
    assert document["clusters"][0]["cluster"]["certificate-authority-data"] == "Y2E="
    assert document["current-context"] == document["contexts"][0]["name"]


def test_pki_is_accepted_by_openssl(tmp_path):
    """Every leaf verifies against the authority."""
    from fraud_local.shell import run

    pki.create(tmp_path)
    for certificate in pki.CERTIFICATES:
        run("openssl", "verify", "-CAfile", tmp_path / "ca.crt", tmp_path / f"{certificate.name}.crt")
    assert (tmp_path / "admin.kubeconfig").stat().st_mode & 0o077 == 0


def test_kubelet_keeps_pods_under_the_nodes_cgroup():
    """So every process of a Pod is found by its cgroup."""
    document = json.loads(node_config.kubelet())
    assert document["cgroupRoot"] == f"/{paths.CGROUP}"
    assert document["oomScoreAdj"] == 0


def test_volumes_bind_without_a_provisioner():
    """The default class has volumes of its own, as many as asked for."""
    objects = node_config.first_objects(3)
    assert [thing["kind"] for thing in objects].count("PersistentVolume") == 3
    storage = next(thing for thing in objects if thing["kind"] == "StorageClass")
    assert storage["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"


def test_a_recycled_pid_is_not_ours(tmp_path, monkeypatch):
    """A process counts as recorded only while pid and start time both fit."""
    import os

    monkeypatch.setattr(paths, "RUN", tmp_path)
    began = processes.start_time(os.getpid())
    (tmp_path / "x.pid").write_text(f"{os.getpid()} {began}")
    assert processes.recorded("x") == os.getpid()
    (tmp_path / "x.pid").write_text(f"{os.getpid()} 1")
    assert processes.recorded("x") is None


def test_a_property_called_description_survives():
    """Prose goes from a schema; a field of that name is no prose."""
    from fraud_local import crds

    schema = {
        "description": "prose",
        "properties": {"description": {"type": "string", "description": "more"}},
    }
    assert crds.without_descriptions(schema) == {"properties": {"description": {"type": "string"}}}


def test_the_flink_crd_takes_the_version_that_runs():
    """The newest published CRD is older than the operator that it stands for."""
    from fraud_local import crds

    version = {
        "schema": {
            "openAPIV3Schema": {
                "properties": {
                    "spec": {"properties": {"flinkVersion": {"enum": ["v1_20"]}}},
                    "status": {"properties": {}},
                }
            }
        }
    }
    crd = {"spec": {"names": {"kind": "FlinkDeployment"}, "versions": [version]}}
    properties = crds.with_newer_flink(crd)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert properties["spec"]["properties"]["flinkVersion"]["enum"][-1] == "v2_2"
    assert "conditions" in properties["status"]["properties"]


def test_webhooks_call_the_host_process():
    """The Service of a webhook becomes a URL on the node's address, with the node's authority."""
    from fraud_local import operators

    webhook = {"clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/mutate"}}}
    (done,) = operators.by_url(
        [{"metadata": {"creationTimestamp": None}, "webhooks": [webhook]}], "https://10.250.0.1:9443", b"ca"
    )
    assert done["webhooks"][0]["clientConfig"] == {
        "url": "https://10.250.0.1:9443/mutate",
        "caBundle": "Y2E=",
    }


def test_a_node_keeps_one_kind_of_images(tmp_path, monkeypatch):
    """Where development images' mounts are in place, built ones are refused, and the other way round."""
    monkeypatch.setattr(paths, "CONF", tmp_path)
    spec = tmp_path / node.RUNTIME_SPEC
    spec.write_text('{"mounts": [{"destination": "/opt/fraud"}]}')
    node._refuse_others([])
    with pytest.raises(LocalError, match="runs development images: `make down` first"):
        node._refuse_others([tmp_path / "operator.tar"])
    spec.write_text('{"mounts": []}')
    node._refuse_others([tmp_path / "operator.tar"])
    with pytest.raises(LocalError, match="runs built images"):
        node._refuse_others([])
