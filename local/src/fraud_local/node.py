"""This machine becomes a one-node cluster: control plane, containerd, kubelet, network, DNS, images.

Everything runs in one network namespace; containerd has a mount namespace of its own, in which all Pod mounts lie, so
they go with it. Host processes reach the API at 10.250.0.1 and Services through two routes. Standard library only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fraud_local import build, down, images, node_config, paths, pki, processes
from fraud_local.shell import CommandError, LocalError, run, say, wait_for

BIN = paths.NODE_BIN
VOLUME_COUNT = 24
RUNTIME_SPEC = "base-spec.json"
# 503 where the last pass over all NetworkPolicies failed.
NETPOL_HEALTH = "http://127.0.0.1:10258/"
PROCESSES = (
    "etcd", "containerd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "netpol",
    "coredns",
)  # fmt: skip


def kubectl(*arguments: str | Path, stdin: str | None = None) -> str:
    return run(
        *processes.joining([BIN / "kubectl", f"--kubeconfig={paths.KUBECONFIG}", *arguments]), stdin=stdin
    )


def succeeds(*arguments: str | Path) -> bool:
    try:
        kubectl(*arguments)
    except CommandError:
        return False
    return True


def answers(url: str) -> bool:
    """Whether a host process inside the node's network answers 200."""
    code = "import sys, urllib.request as u; sys.exit(u.urlopen(sys.argv[1], timeout=2).status != 200)"
    inside = ("nsenter", f"--net={processes.NETNS_FILE}", "env", "no_proxy=*")
    try:
        run(*inside, sys.executable, "-S", "-c", code, url)
    except CommandError:  # not up yet; wait_for says so in the end
        return False
    return True


def is_up() -> bool:
    """Whether a whole node runs: every process, NetworkPolicies are enforced, and the API says Ready."""
    if any(processes.recorded(name) is None for name in PROCESSES) or not answers(NETPOL_HEALTH):
        return False
    return succeeds("wait", "--for=condition=Ready", f"node/{paths.NODE}", "--timeout=2s")


def up(archives: Sequence[Path] = ()) -> None:
    """A Ready node with DNS and images; one that is up is left as it is, half a one is taken away first.

    Without ``archives`` its images are development images, filled by mounts; with them they are those, and nothing is mounted.
    """
    if is_up():
        _refuse_others(archives)
        load_images(archives)
        say("the node is up already")
        return
    if down.leftovers():
        say("taking away what an earlier node left ...")
        down.down()
    _folders()
    pki.create(paths.PKI)
    _configuration(images.mounts() if not archives else {})
    say("certificates and configuration: done")
    processes.make_cgroups()
    _network()
    _control_plane()
    _kubelet(archives)
    _network_policies()
    _first_objects()


def _folders() -> None:
    for name in (
        "cd",
        "cni/net.d",
        "cni/ipam",
        "kubelet",
        "podlogs",
        "kubelet-plugins",
        "conf",
        "log",
        "run",
    ):
        (paths.STATE / name).mkdir(parents=True, exist_ok=True)
    (paths.STATE / "etcd").mkdir(mode=0o700, exist_ok=True)
    for folder in (paths.VOLUMES / f"{number:02d}" for number in range(VOLUME_COUNT)):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # whichever user's Pod gets the volume
    # Mount sources must be there when a Pod starts, whatever has been built.
    for folder in (paths.FLINK_HOME, paths.ENVS, paths.KAFKA_LIBS):
        folder.mkdir(parents=True, exist_ok=True)


def _refuse_others(archives: Sequence[Path]) -> None:
    """LocalError where the node that is up has images of the other kind, as its Pods would be mixed."""
    mounted = paths.POD_CLONE in (paths.CONF / RUNTIME_SPEC).read_text()
    if mounted == bool(archives):
        kind = "development" if mounted else "built"
        raise LocalError(f"the node that is up runs {kind} images: `make down` first")


def _configuration(mounts: Mapping[str, str]) -> None:
    conf = paths.CONF
    (conf / "containerd.toml").write_text(node_config.containerd())
    (paths.STATE / "cni" / "net.d" / "10-bridge.conflist").write_text(node_config.network())
    (conf / "kubelet.yaml").write_text(node_config.kubelet())
    (conf / "kube-proxy.yaml").write_text(node_config.kube_proxy())
    (conf / "Corefile").write_text(node_config.corefile())
    (conf / "resolv.conf").write_text(node_config.resolver())
    (conf / "resolv-host.conf").write_text(node_config.host_resolver())
    default = json.loads(run("ctr", "oci", "spec"))
    (conf / RUNTIME_SPEC).write_text(json.dumps(images.runtime_spec(default, mounts)))


def _network() -> None:
    run("ip", "netns", "add", paths.NETNS)
    run("ip", "link", "add", paths.HOST_LINK, "type", "veth", "peer", "name", paths.NODE_LINK)
    run("ip", "link", "set", paths.NODE_LINK, "netns", paths.NETNS)
    run("ip", "addr", "add", f"{paths.HOST_ADDRESS}/24", "dev", paths.HOST_LINK)
    run("ip", "link", "set", paths.HOST_LINK, "up")
    inside = ("ip", "-n", paths.NETNS)
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "addr", "add", f"{paths.NODE_ADDRESS}/24", "dev", paths.NODE_LINK)
    run(*inside, "link", "set", paths.NODE_LINK, "up")
    run(*inside, "route", "add", "default", "via", paths.HOST_ADDRESS)
    # The bridge's own traffic, too, passes iptables, where NetworkPolicies are enforced.
    run(
        "nsenter", f"--net={processes.NETNS_FILE}", "sysctl", "-qw", "net.ipv4.ip_forward=1",
        "net.ipv4.conf.all.route_localnet=1", "net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1",
    )  # fmt: skip
    # A browser on this machine reaches Services and Pods by their addresses, as NetworkPolicies let it; the routes go with the link.
    for network in (paths.SERVICE_NETWORK, paths.POD_NETWORK):
        run("ip", "route", "replace", network, "via", paths.NODE_ADDRESS, "dev", paths.HOST_LINK)


def _control_plane() -> None:
    keys, address = paths.PKI, paths.NODE_ADDRESS
    processes.start(
        "etcd",
        [
            BIN / "etcd", "--data-dir", paths.STATE / "etcd", "--listen-client-urls", "http://127.0.0.1:2379",
            "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380",
            "--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "default=http://127.0.0.1:2380",
            # The state lives no longer than the node, so there is nothing to keep over a power cut.
            "--unsafe-no-fsync",
        ],
    )  # fmt: skip
    # Private first: on machines whose mounts are shared, Pod mounts would otherwise appear outside too.
    mounts = 'mount --make-rshared /; exec "$@"'
    processes.start(
        "containerd",
        [
            "unshare", "--mount", "--propagation", "private", "sh", "-ec", mounts, "sh",
            "containerd", "--config", paths.CONF / "containerd.toml",
        ],
    )  # fmt: skip
    processes.start(
        "kube-apiserver",
        [
            BIN / "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", f"--bind-address={address}",
            f"--advertise-address={address}", "--secure-port=6443", f"--tls-cert-file={keys}/apiserver.crt",
            f"--tls-private-key-file={keys}/apiserver.key", f"--client-ca-file={keys}/ca.crt",
            f"--kubelet-certificate-authority={keys}/ca.crt", f"--kubelet-client-certificate={keys}/apiserver-kubelet.crt",
            f"--kubelet-client-key={keys}/apiserver-kubelet.key", "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={keys}/service-account.pub",
            f"--service-account-signing-key-file={keys}/service-account.key", "--authorization-mode=Node,RBAC",
            f"--service-cluster-ip-range={paths.SERVICE_NETWORK}", "--allow-privileged=true",
            "--enable-admission-plugins=NodeRestriction",
        ],
    )  # fmt: skip

    def ready() -> bool:
        for name in ("etcd", "kube-apiserver", "containerd"):
            processes.require_alive(name)
        return succeeds("get", "--raw", "/readyz")

    wait_for("the API server is ready", ready, 90)
    say("API server: ready")
    for name, extra in (
        (
            "kube-controller-manager",
            [
                f"--service-account-private-key-file={keys}/service-account.key", f"--root-ca-file={keys}/ca.crt",
                "--use-service-account-credentials=true", f"--cluster-signing-cert-file={keys}/ca.crt",
                f"--cluster-signing-key-file={keys}/ca.key", "--allocate-node-cidrs=false",
            ],
        ),
        ("kube-scheduler", []),
    ):  # fmt: skip
        config = f"{keys}/{name.removeprefix('kube-')}.kubeconfig"
        shared = [f"--{kind}kubeconfig={config}" for kind in ("", "authentication-", "authorization-")]
        processes.start(
            name, [BIN / name, *shared, "--leader-elect=false", "--bind-address=127.0.0.1", *extra]
        )


def _kubelet(archives: Sequence[Path]) -> None:
    wait_for("containerd listens", paths.CONTAINERD_SOCKET.is_socket, 30)
    load_images(archives)
    containerd = processes.recorded("containerd")
    # In containerd's mount namespace: volumes must be mounted where containers are made.
    processes.start(
        "kubelet",
        [
            "nsenter", "-t", str(containerd), "-m", BIN / "kubelet", f"--config={paths.CONF}/kubelet.yaml",
            f"--kubeconfig={paths.PKI}/kubelet.kubeconfig", f"--root-dir={paths.STATE}/kubelet",
            f"--hostname-override={paths.NODE}", f"--node-ip={paths.NODE_ADDRESS}", f"--cert-dir={paths.PKI}",
        ],
    )  # fmt: skip
    processes.start("kube-proxy", [BIN / "kube-proxy", f"--config={paths.CONF}/kube-proxy.yaml"])

    def registered() -> bool:
        processes.require_alive("kubelet")
        return succeeds("get", "node", paths.NODE)

    wait_for("the node is registered", registered, 60)
    kubectl("wait", "--for=condition=Ready", f"node/{paths.NODE}", "--timeout=90s")
    say("node: Ready")


def _network_policies() -> None:
    """Enforced before there is a Pod, by kube-router's controller, which writes iptables' rules and their sets."""
    inside = ("nsenter", f"--net={processes.NETNS_FILE}")
    # Pods have no IPv6 but the addresses of their links, which no NetworkPolicy knows.
    for rule in ("-P FORWARD DROP", "-A INPUT -i lo -j ACCEPT", "-P INPUT DROP"):
        run(*inside, "ip6tables", *rule.split())
    processes.start(
        "netpol",
        [
            BIN / "netpol", f"--kubeconfig={paths.KUBECONFIG}", f"--node={paths.NODE}",
            f"--services={paths.SERVICE_NETWORK}",
        ],
    )  # fmt: skip

    def enforced() -> bool:
        processes.require_alive("netpol")
        return answers(NETPOL_HEALTH)

    wait_for("NetworkPolicies are enforced", enforced, 60)
    say("NetworkPolicies: enforced")


def _first_objects() -> None:
    processes.start("coredns", [BIN / "coredns", "-conf", paths.CONF / "Corefile"])
    document = {"apiVersion": "v1", "kind": "List", "items": node_config.first_objects(VOLUME_COUNT)}
    kubectl("apply", "-f", "-", stdin=json.dumps(document))
    # A Pod created before its namespace has this account is refused.
    wait_for("the default service account is there", lambda: succeeds("get", "serviceaccount", "default"), 30)
    processes.require_alive("coredns")
    say("DNS, volumes, default service account: done")


def load_images(archives: Sequence[Path]) -> None:
    """Import the images that containerd lacks or has in an older form: the development images, or those of ``archives``."""
    build.image_archives()
    import_images([paths.IMAGES / "pause.tar", *archives] if archives else sorted(paths.IMAGES.glob("*.tar")))
    say(f"{'built' if archives else 'development'} images: imported")


def import_images(archives: Sequence[Path]) -> None:
    """Those that containerd lacks or has in an older form."""
    ctr = ("ctr", "-a", str(paths.CONTAINERD_SOCKET), "-n", "k8s.io")
    for archive in archives:
        stamp = paths.RUN / f"image-{archive.stem}"
        state = archive.stat()
        key = f"{archive} {state.st_size} {state.st_mtime_ns}"
        if not stamp.exists() or stamp.read_text() != key:
            run(*ctr, "images", "import", archive)
            stamp.write_text(key)


if __name__ == "__main__":
    from fraud_local.shell import main

    def _command() -> None:
        with down.exclusive():
            up()

    main(_command)
