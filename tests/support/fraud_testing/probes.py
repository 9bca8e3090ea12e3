"""Who knocks at whom: Pods with the labels of everybody in the table of who reaches whom, at each other and at what really runs.

Each listens at all ports of the table, so that what isn't running now (a predictor, a training) is tried, too. What they find is
compared with the table, not with the policies that were made from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_contracts.names import Identity
from fraud_operator.desired import reach
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.network import ENGINE_LABELS
from fraud_operator.desired.reach import Outside, Part, Party
from fraud_operator.settings import NetworkSettings
from fraud_testing.held import Held
from fraud_testing.probe_pods import LABEL, PLATFORM, SECONDS, Probe, run

if TYPE_CHECKING:  # the operator's tests have no fraud_local
    from fraud_local.demo.kubectl import Kubectl

FOREIGN: Final = "probe-foreign"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
# One that no line names beside those of the table; a Pod that isn't root can't listen at DNS's.
UNUSED_PORT: Final = 6123
PORTS: Final = sorted(
    {way.port for way in reach.WAYS if way.port is not None and way.port != reach.DNS_PORT} | {UNUSED_PORT}
)
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
print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
"""


@dataclass(frozen=True)
class Target:
    """``party`` is None where no policy of ours selects it; ``forged`` and ``detector`` as with a probe.

    ``listens``: whether somebody does at this port, so that an open way shows.
    """

    name: str
    host: str
    port: int
    party: Party | None
    forged: Component | None = None
    detector: str = ""
    listens: bool = True


def at(probe: Probe, host: str, port: int) -> Target:
    party = probe.party if isinstance(probe.party, Component | Part) else None
    return Target(f"{probe.namespace}/{probe.name}", host, port, party, probe.forged, probe.detector)


def component_labels(detector: str, component: Component) -> tuple[tuple[str, str], ...]:
    return (names.DETECTOR_LABEL, detector), (names.COMPONENT_LABEL, COMPONENTS[component].label)


def component_probes(identity: Identity, held: Mapping[Component, Held]) -> list[Probe]:
    """One in the place of each component of a detector, with what its Pods hold."""
    return [
        Probe(
            COMPONENTS[one].label,
            identity.namespace,
            component_labels(identity.name, one),
            one,
            detector=str(identity),
            held=held.get(one, Held()),
        )
        for one in Component
    ]


def other_probes(identity: Identity) -> list[Probe]:
    """In everybody else's place; beside them a stranger, and labels of a component in another namespace, and of another detector."""
    network = NetworkSettings()
    made = []
    for part in Part:
        labels = ((INSTANCE_LABEL, PLATFORM), (names.COMPONENT_LABEL, part.value))
        made.append(Probe(f"platform-{part.value}", PLATFORM, labels, part))
    upload = ((names.DETECTOR_LABEL, identity.name), (names.COMPONENT_LABEL, reach.UPLOAD_LABEL))
    made.append(Probe("upload", identity.namespace, upload, Outside.UPLOAD))
    engines = ((Outside.FLINK_OPERATOR, network.flink_operator), (Outside.RAY_OPERATOR, network.ray_operator))
    made += [Probe("engine", where, tuple(ENGINE_LABELS[one].items()), one) for one, where in engines]
    worker = Component.WORKER
    made.append(Probe("stranger", FOREIGN, ()))
    made.append(Probe("forger", FOREIGN, component_labels(identity.name, worker), forged=worker))
    another = component_labels("another", worker)
    made.append(Probe("other-detector", identity.namespace, another, forged=worker))
    made.append(Probe("neighbour", identity.namespace, ()))
    return made


def expected(source: Probe, target: Target) -> bool:
    """What the table says. A line between a detector and the platform is for any detector's labels, one between components for those
    of one detector; the doors are for everybody.
    """
    bound = isinstance(source.party, Component | Part) and source.party is not Part.OPERATOR
    apart = bool(source.detector and target.detector) and source.detector != target.detector
    seen = target.party or (target.forged if isinstance(source.party, Part) else None)
    goes = not bound or any(source.party in way.sources for way in _ways(seen, target.port))
    if apart and isinstance(target.party, Component):
        return False
    free = target.party is None or target.party in (Outside.API_SERVER, Outside.DNS)
    believed = {Outside.CLIENTS} | (set() if apart else {source.party})
    if isinstance(target.party, Part):
        believed |= {source.party, source.forged}
    return goes and (free or any(believed & set(way.sources) for way in _ways(target.party, target.port)))


def _ways(target: Party | None, port: int) -> list[reach.Way]:
    return [way for way in reach.ways_to(target) if way.port in (None, port)] if target is not None else []


def targets(kube: Kubectl, identity: Identity, addresses: Mapping[Probe, str]) -> list[Target]:
    """Every port of every probe; then what really runs: Pods, a broker, the trial's stores by their Services, API server and DNS."""
    every = [at(probe, address, port) for probe, address in addresses.items() for port in PORTS]
    every += live_targets(_pods(kube, identity.namespace), str(identity))
    every += live_targets(_pods(kube, PLATFORM), str(identity))
    for store in (Part.REDIS, Part.POSTGRES, Part.MLFLOW, Part.OBJECTS, Part.PROMETHEUS):
        port = reach.ways_to(store)[0].port
        assert port is not None
        every.append(Target(store.value, _service(kube, PLATFORM, f"{PLATFORM}-{store.value}"), port, store))
    brokers = kube.get("-n", identity.namespace, "service", f"{names.kafka(identity.name)}-kafka-bootstrap")
    if brokers:
        host = brokers["spec"]["clusterIP"]
        every.append(Target("kafka", host, names.KAFKA_PORT, Outside.KAFKA, detector=str(identity)))
    every.append(Target("API server", _service(kube, "default", "kubernetes"), 443, Outside.API_SERVER))
    every.append(Target("DNS", _service(kube, "kube-system", "kube-dns"), reach.DNS_PORT, Outside.DNS))
    return every


def live_targets(pods: list[dict[str, Any]], detector: str) -> list[Target]:
    """The ports of the table at Pods of the detector and of the platform that run; each listens at its own that it declares."""
    made = []
    for pod in pods:
        meta = pod["metadata"]
        party = _party(meta, detector)
        conditions = pod["status"].get("conditions") or []
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        if party is None or LABEL in meta["labels"] or meta.get("deletionTimestamp") or not ready:
            continue
        declared = {
            port["containerPort"] for one in pod["spec"]["containers"] for port in one.get("ports") or []
        }
        own = detector if isinstance(party, Component) else ""
        name, host = f"{meta['namespace']}/{meta['name']}", pod["status"]["podIP"]
        listening = declared & {way.port for way in reach.ways_to(party)}
        made += [Target(name, host, port, party, None, own, port in listening) for port in PORTS]
    return made


def _party(meta: dict[str, Any], detector: str) -> Party | None:
    """Whose Pod it is by its labels; None of one that isn't this detector's and not the platform's."""
    labels = meta.get("labels") or {}
    label = labels.get(names.COMPONENT_LABEL)
    if f"{meta['namespace']}.{labels.get(names.DETECTOR_LABEL)}" == detector:
        return next((one for one in Component if COMPONENTS[one].label == label), None)
    own = meta["namespace"] == PLATFORM and labels.get(INSTANCE_LABEL) == PLATFORM
    return Part(label) if own and label in set(Part) else None


def _pods(kube: Kubectl, namespace: str) -> list[dict[str, Any]]:
    pods: list[dict[str, Any]] = kube.get("-n", namespace, "pods").get("items") or []
    return pods


def _service(kube: Kubectl, namespace: str, name: str) -> str:
    return str(kube.get("-n", namespace, "service", name)["spec"]["clusterIP"])


def differing(kube: Kubectl, identity: Identity, addresses: Mapping[Probe, str]) -> tuple[int, list[str]]:
    """How many ways were tried, and those that are open or closed against the table once all policies are in force."""
    every = targets(kube, identity, addresses)
    places = json.dumps([(target.host, target.port) for target in every])
    deadline = time.monotonic() + SECONDS

    def wrong(source: Probe) -> list[str]:
        """Of one source; asked again while an enforcer may not know of a new Pod yet."""
        own = addresses[source]
        while True:
            answers = run(kube, source, _KNOCK, stdin=places, quick=True)
            left = [
                f"{source.namespace}/{source.name} → {target.name} {target.port}: {'open' if is_open else 'closed'}"
                for target, is_open in zip(every, answers, strict=True)
                if target.host != own and is_wrong(is_open, source, target)
            ]
            if not left or time.monotonic() > deadline:
                return left

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(wrong, addresses))
    return len(every) * len(addresses), [line for lines in results for line in lines]


def is_wrong(is_open: bool, source: Probe, target: Target) -> bool:
    """Whether a way is open against the table, or closed though somebody listens there.

    Not from one Pod of a party to another: kube-router asks a policy's lines for both directions, so what it lets in from everybody its
    own Pods may send to each other, too. They hold the same.
    """
    if (
        is_open
        and source.party is not None
        and (source.party, source.detector) == (target.party, target.detector)
    ):
        return False
    return not expected(source, target) if is_open else target.listens and expected(source, target)
