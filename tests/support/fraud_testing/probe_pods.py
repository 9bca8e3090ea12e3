"""Pods that stand in everybody's place in a cluster, listen where others would, and run what a test asks of them.

None is ever Ready, so no Service sends it traffic.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fraud_contracts.detector import Component
from fraud_operator.desired.reach import Party
from fraud_operator.objects import Json
from fraud_testing.held import Held

if TYPE_CHECKING:  # the operator's tests have no fraud_local
    from fraud_local.demo.kubectl import Kubectl

PLATFORM: Final = "fraud-platform"
LABEL: Final = "fraudplatform.dev/probe"
SECONDS: Final = 60
_LISTEN: Final = """
import json, socket, sys, time
kept = [socket.create_server(("", port), backlog=1000) for port in json.loads(sys.argv[1])]
time.sleep(1800)
"""


@dataclass(frozen=True)
class Probe:
    """``party`` is whose labels it has where they count, ``forged`` the component whose labels it has elsewhere.

    ``detector`` is that of a component, as <namespace>.<name>; ``held`` what its Pod has of Secrets and tokens.
    """

    name: str
    namespace: str
    labels: tuple[tuple[str, str], ...]
    party: Party | None = None
    forged: Component | None = None
    detector: str = ""
    held: Held = field(default_factory=Held, compare=False)


def object_list(items: Iterable[Json]) -> str:
    """Several objects as one document for kubectl."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)})


def manifest(probe: Probe, image: str, ports: Sequence[int]) -> Json:
    """Its Pod, which Pod Security's level restricted admits. It ends with the test, or by itself."""
    held = probe.held
    token = {} if held.token is None else {"automountServiceAccountToken": held.token}
    container = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-S", "-c", _LISTEN, json.dumps(ports)],
        "env": [{"name": "HOME", "value": "/tmp"}, *held.variables],
        "envFrom": list(held.whole_secrets),
        "volumeMounts": [{"name": "probe-tmp", "mountPath": "/tmp"}, *held.mounts],
        "readinessProbe": {"tcpSocket": {"port": 1}, "initialDelaySeconds": 3600},
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "384Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"probe-{probe.name}",
            "namespace": probe.namespace,
            "labels": {**dict(probe.labels), LABEL: "true"},
        },
        "spec": {
            "serviceAccountName": held.account,
            **token,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "probe-tmp", "emptyDir": {}}, *held.volumes],
        },
    }


@contextmanager
def running(kube: Kubectl, probes: list[Probe], ports: Sequence[int]) -> Iterator[dict[Probe, str]]:
    """The address of each. They go at the end, and so does each namespace that was made for them."""
    operator = kube.get("-n", PLATFORM, "deployment", f"{PLATFORM}-operator")
    image = operator["spec"]["template"]["spec"]["containers"][0]["image"]
    present = set(kube.kubectl("get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}").split())
    namespaces = dict.fromkeys(probe.namespace for probe in probes)
    own = [namespace for namespace in namespaces if namespace not in present]
    items: list[Json] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in own
    ]
    try:
        if items:
            kube.kubectl("apply", "-f", "-", stdin=object_list(items))
        for namespace in own:
            # A Pod is refused until its namespace has this account.
            kube.kubectl("-n", namespace, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
        pods = object_list(manifest(probe, image, ports) for probe in probes)
        kube.kubectl("apply", "-f", "-", stdin=pods)
        for namespace in namespaces:
            started = "--for=jsonpath={.status.phase}=Running"
            timeout = f"--timeout={2 * SECONDS}s"
            kube.kubectl("-n", namespace, "wait", started, "pod", "-l", LABEL, timeout, timeout=3 * SECONDS)
        listed = kube.get("pods", "-A", "-l", LABEL)["items"]
        addresses = {
            (pod["metadata"]["namespace"], pod["metadata"]["name"]): str(pod["status"]["podIP"])
            for pod in listed
        }
        yield {probe: addresses[probe.namespace, f"probe-{probe.name}"] for probe in probes}
    finally:
        for namespace in namespaces:
            kube.kubectl("-n", namespace, "delete", "pod", "-l", LABEL, "--ignore-not-found", "--wait=false")
        for namespace in own:
            # Gone before it may be made again.
            kube.kubectl("delete", "namespace", namespace, "--ignore-not-found", f"--timeout={SECONDS}s")


def run(
    kube: Kubectl, probe: Probe, program: str, *arguments: str, stdin: str = "", quick: bool = False
) -> Any:
    """What a Python program prints in its Pod, as JSON; ``quick``: it needs the standard library only."""
    python = ("python", *(["-S"] if quick else []), "-c", program, *arguments)
    command = ("exec", "-i", f"probe-{probe.name}", "--", *python)
    # Far more than it takes: a demo may have both processors meanwhile.
    return json.loads(kube.kubectl("-n", probe.namespace, *command, stdin=stdin, timeout=5 * SECONDS))
