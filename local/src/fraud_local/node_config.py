"""Configuration of the node's components, as text. Pure: paths and addresses in, documents out. Standard library only.

Several values exist because root of a machine may lack capabilities: out-of-memory scores and connection tracking limits
are never lowered or raised, so that the node also starts inside a container or a small virtual machine.
"""

from __future__ import annotations

import json
from typing import Any

from fraud_local import paths


def containerd() -> str:
    """Own root, state and socket; every Pod gets the bind mounts, but for RuntimeClass ``plain``."""
    home = paths.STATE / "cd"
    return f"""version = 2
root = "{home}/root"
state = "{home}/state"
[grpc]
  address = "{paths.CONTAINERD_SOCKET}"
[debug]
  address = "{home}/debug.sock"
  level = "info"
[ttrpc]
  address = "{paths.CONTAINERD_SOCKET}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{home}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:3.9"
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{paths.CONF}/base-spec.json"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.plain]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.plain.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{paths.STATE}/cni/net.d"
"""


def network() -> str:
    """Pods on one bridge. No masquerading: Pods have no way out of the node, and need none."""
    ranges = [[{"subnet": paths.POD_NETWORK}]]
    ipam = {
        "type": "host-local",
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{paths.STATE}/cni/ipam",
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": ipam,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    return json.dumps({"cniVersion": "0.4.0", "name": "node", "plugins": [bridge, ports]}, indent=1)


def kubelet() -> str:
    document: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{paths.CGROUP}",
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{paths.CONTAINERD_SOCKET}",
        "address": paths.NODE_ADDRESS,
        "healthzBindAddress": "127.0.0.1",
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": f"{paths.PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{paths.PKI}/kubelet.crt",
        "tlsPrivateKeyFile": f"{paths.PKI}/kubelet.key",
        "clusterDNS": [paths.DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{paths.CONF}/resolv.conf",
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": ["pods"],
        "evictionHard": {
            "memory.available": "200Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi", "nodefs.inodesFree": "1%",
        },
        # Images come by import alone: what is collected could not be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "imageMinimumGCAge": "24h",
        "maxPods": 200,
        "syncFrequency": "10s",
        "podLogsDir": f"{paths.STATE}/podlogs",
        "volumePluginDir": f"{paths.STATE}/kubelet-plugins",
        "serializeImagePulls": False,
    }  # fmt: skip
    return json.dumps(document, indent=1)


def kube_proxy() -> str:
    untracked = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": paths.POD_NETWORK,
        "clientConnection": {"kubeconfig": f"{paths.PKI}/kube-proxy.kubeconfig"},
        "hostnameOverride": paths.NODE,
        "oomScoreAdj": 0,
        "bindAddress": "0.0.0.0",
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": untracked,
    }
    return json.dumps(document, indent=1)


def corefile() -> str:
    return f""".:53 {{
    bind {paths.NODE_ADDRESS}
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {paths.KUBECONFIG}
        pods insecure
    }}
    cache 5
}}
"""


def resolver() -> str:
    return f"nameserver {paths.NODE_ADDRESS}\n"


def host_resolver() -> str:
    """For host processes inside the node's network, so that they find Services as Pods do."""
    return f"nameserver {paths.NODE_ADDRESS}\nsearch svc.cluster.local cluster.local\noptions ndots:3\n"


def first_objects(volumes: int) -> list[dict[str, Any]]:
    """DNS behind its usual Service, the class without bind mounts, and volumes for claims."""
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    labels = {"kubernetes.io/service-name": "kube-dns"}
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": paths.DNS_SERVICE, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports,
            "metadata": {"name": "kube-dns-host", "namespace": "kube-system", "labels": labels},
            "endpoints": [{"addresses": [paths.NODE_ADDRESS], "conditions": {"ready": True}}],
        },
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "plain"}, "handler": "plain"},
        {
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "kubernetes.io/no-provisioner",
            # As kind's class. Of a claim that is bound at once the scheduler is told by an event, and one that it misses leaves the
            # Pod pending for minutes (kubernetes#87145).
            "volumeBindingMode": "WaitForFirstConsumer",
            "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        },
    ]  # fmt: skip
    for number in range(volumes):
        spec = {
            "capacity": {"storage": "200Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "local",
            "hostPath": {"path": f"{paths.VOLUMES}/{number:02d}", "type": "Directory"},
        }
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"local-{number:02d}"},
                "spec": spec,
            }
        )
    return objects
