"""Pods that knock at each other and at what really runs, each with the labels of somebody in the table of who reaches whom.

None is ever Ready, so no Service sends it traffic. Each listens at all ports of the table, so that what isn't running now (a predictor,
a training) is tried, too. What they find is compared with the table, not with the policies that were made from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_local.demo.kubectl import Kubectl
from fraud_operator.desired import reach
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.network import ENGINE_LABELS
from fraud_operator.desired.reach import Outside, Part, Party
from fraud_operator.settings import NetworkSettings

PLATFORM: Final = "fraud-platform"
FOREIGN: Final = "probe-foreign"
LABEL: Final = "fraudplatform.dev/probe"
# One that no line names beside those of the table; a Pod that isn't root can't listen at DNS's.
UNUSED_PORT: Final = 6123
PORTS: Final = sorted(
    {way.port for way in reach.WAYS if way.port is not None and way.port != reach.DNS_PORT} | {UNUSED_PORT}
)
SECONDS: Final = 60
_LISTEN: Final = """
import json, socket, sys, time
kept = [socket.create_server(("", port), backlog=1000) for port in json.loads(sys.argv[1])]
time.sleep(900)
"""
_KNOCK: Final = """
import asyncio, json, sys
async def opens(host, port):
    try:
        async with asyncio.timeout(3):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
async def main(places):
    return await asyncio.gather(*(opens(*place) for place in places))
print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
"""


@dataclass(frozen=True)
class Probe:
    """``party`` is whose labels it has where they count, ``forged`` the component whose labels it has elsewhere."""

    name: str
    namespace: str
    labels: tuple[tuple[str, str], ...]
    party: Party | None = None
    forged: Component | None = None


@dataclass(frozen=True)
class Target:
    """``party`` is None where no policy of ours selects it; ``forged`` as with a probe."""

    name: str
    host: str
    port: int
    party: Party | None
    forged: Component | None = None


def at(probe: Probe, host: str, port: int) -> Target:
    party = probe.party if isinstance(probe.party, Component | Part) else None
    return Target(f"{probe.namespace}/{probe.name}", host, port, party, probe.forged)


def probes(detector: str, namespace: str) -> list[Probe]:
    """One of everybody; beside them a stranger, one with a component's labels in another namespace, and another detector's."""
    network = NetworkSettings()

    def of_detector(component: Component, name: str = detector) -> tuple[tuple[str, str], ...]:
        return (names.DETECTOR_LABEL, name), (names.COMPONENT_LABEL, COMPONENTS[component].label)

    made = [Probe(COMPONENTS[one].label, namespace, of_detector(one), one) for one in Component]
    for part in Part:
        labels = (("app.kubernetes.io/instance", PLATFORM), (names.COMPONENT_LABEL, part.value))
        made.append(Probe(f"platform-{part.value}", PLATFORM, labels, part))
    upload = ((names.DETECTOR_LABEL, detector), (names.COMPONENT_LABEL, reach.UPLOAD_LABEL))
    made.append(Probe("upload", namespace, upload, Outside.UPLOAD))
    engines = ((Outside.FLINK_OPERATOR, network.flink_operator), (Outside.RAY_OPERATOR, network.ray_operator))
    made += [Probe("engine", where, tuple(ENGINE_LABELS[one].items()), one) for one, where in engines]
    worker = Component.WORKER
    made.append(Probe("stranger", FOREIGN, ()))
    made.append(Probe("forger", FOREIGN, of_detector(worker), forged=worker))
    made.append(Probe("other-detector", namespace, of_detector(worker, "another"), forged=worker))
    made.append(Probe("neighbour", namespace, ()))
    return made


def expected(source: Probe, target: Target) -> bool:
    """What the table says. A line between a detector and the platform is for any detector's labels; the doors are for everybody."""
    bound = isinstance(source.party, Component | Part) and source.party is not Part.OPERATOR
    seen = target.party or (target.forged if isinstance(source.party, Part) else None)
    goes = not bound or any(source.party in way.sources for way in _ways(seen, target.port))
    free = target.party is None or target.party in (Outside.API_SERVER, Outside.DNS)
    believed = {source.party, Outside.CLIENTS} | (
        {source.forged} if isinstance(target.party, Part) else set()
    )
    return goes and (free or any(believed & set(way.sources) for way in _ways(target.party, target.port)))


def _ways(target: Party | None, port: int) -> list[reach.Way]:
    return [way for way in reach.ways_to(target) if way.port in (None, port)] if target is not None else []


def _manifest(probe: Probe, image: str) -> dict[str, Any]:
    container = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-S", "-c", _LISTEN, json.dumps(PORTS)],
        "readinessProbe": {"tcpSocket": {"port": 1}, "initialDelaySeconds": 3600},
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
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
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


@contextmanager
def running(kube: Kubectl, made: list[Probe]) -> Iterator[dict[Probe, str]]:
    """The address of each. They go at the end, and so does each namespace that was made for them."""
    operator = kube.get("-n", PLATFORM, "deployment", f"{PLATFORM}-operator")
    image = operator["spec"]["template"]["spec"]["containers"][0]["image"]
    present = set(kube.kubectl("get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}").split())
    namespaces = dict.fromkeys(probe.namespace for probe in made)
    own = [namespace for namespace in namespaces if namespace not in present]
    items = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in own]
    try:
        kube.kubectl("apply", "-f", "-", stdin=_list(items))
        for namespace in own:
            # A Pod is refused until its namespace has this account.
            kube.kubectl("-n", namespace, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
        kube.kubectl("apply", "-f", "-", stdin=_list(_manifest(probe, image) for probe in made))
        for namespace in namespaces:
            running_pods = "--for=jsonpath={.status.phase}=Running"
            kube.kubectl("-n", namespace, "wait", running_pods, "pod", "-l", LABEL, f"--timeout={SECONDS}s")
        pods = kube.get("pods", "-A", "-l", LABEL)["items"]
        addresses = {
            (pod["metadata"]["namespace"], pod["metadata"]["name"]): str(pod["status"]["podIP"])
            for pod in pods
        }
        yield {probe: addresses[probe.namespace, f"probe-{probe.name}"] for probe in made}
    finally:
        for namespace in namespaces:
            kube.kubectl("-n", namespace, "delete", "pod", "-l", LABEL, "--ignore-not-found", "--wait=false")
        for namespace in own:
            # Gone before it may be made again.
            kube.kubectl("delete", "namespace", namespace, "--ignore-not-found", f"--timeout={SECONDS}s")


def _list(items: Iterable[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)})


def targets(kube: Kubectl, detector: str, namespace: str, addresses: dict[Probe, str]) -> list[Target]:
    """Every port of every probe; then what really runs: a broker, the trial's stores by their Services, API server and DNS."""
    found = [at(probe, address, port) for probe, address in addresses.items() for port in PORTS]
    for store in (Part.REDIS, Part.POSTGRES, Part.MLFLOW, Part.OBJECTS, Part.PROMETHEUS):
        port = reach.ways_to(store)[0].port
        assert port is not None
        found.append(Target(store.value, _service(kube, PLATFORM, f"{PLATFORM}-{store.value}"), port, store))
    brokers = kube.get("-n", namespace, "service", f"{names.kafka(detector)}-kafka-bootstrap")
    if brokers:
        own_port = int(names.kafka_bootstrap(detector, namespace).rpartition(":")[2])
        found.append(Target("kafka", brokers["spec"]["clusterIP"], own_port, Outside.KAFKA))
    found.append(Target("API server", _service(kube, "default", "kubernetes"), 443, Outside.API_SERVER))
    found.append(Target("DNS", _service(kube, "kube-system", "kube-dns"), reach.DNS_PORT, Outside.DNS))
    return found


def _service(kube: Kubectl, namespace: str, name: str) -> str:
    return str(kube.get("-n", namespace, "service", name)["spec"]["clusterIP"])


def differing(kube: Kubectl, detector: str, namespace: str) -> tuple[int, list[str]]:
    """How many ways were tried, and those that are open or closed against the table once all policies are in force."""
    with running(kube, probes(detector, namespace)) as addresses:
        every = targets(kube, detector, namespace, addresses)
        places = json.dumps([(target.host, target.port) for target in every])
        deadline = time.monotonic() + SECONDS

        def wrong(source: Probe) -> list[str]:
            """Of one source; asked again while an enforcer may not know of a new Pod yet."""
            own = addresses[source]
            while True:
                command = ("exec", f"probe-{source.name}", "--", "python", "-S", "-c", _KNOCK, places)
                answers = json.loads(kube.kubectl("-n", source.namespace, *command))
                left = [
                    f"{source.namespace}/{source.name} → {target.name} {target.port}: {'open' if is_open else 'closed'}"
                    for target, is_open in zip(every, answers, strict=True)
                    if target.host != own and is_open != expected(source, target)
                ]
                if not left or time.monotonic() > deadline:
                    return left

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(wrong, addresses))
    return len(every) * len(addresses), [line for lines in results for line in lines]
