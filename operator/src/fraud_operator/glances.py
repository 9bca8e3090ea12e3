"""Whether the Secrets that passes read are still as the last pass found them.

No event tells of a Secret: the operator may get them by name, and neither list nor watch them. So a pass reads those of its detector
as they were last seen, and they are glanced at in between, each detector's in its turn; one that differs leads to a pass. Where there are
many detectors a turn takes minutes, so a pass itself asks for those that something waits for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fraud_contracts import names
from fraud_contracts.child_kinds import SECRET
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.kafka_target import kafka_secrets
from fraud_operator.kube import Kube
from fraud_operator.named_secrets import named_secrets
from fraud_operator.objects import Json

# Milliseconds from one question for a Secret that is waited for to the next: a quarter of the time that it has been, ...
SHORTEST: Final = 3_000
LONGEST: Final = 60_000
# ... by the part of the spec that names it, until this condition is true.
_UNTIL: Final = {
    "storage": "StorageReady",
    "kafka": "KafkaReady",
    "stores": "ReferencesFound",
    "clients": "ReferencesFound",
}


class Glance(NamedTuple):
    """``requests`` is what it cost the API server."""

    differs: bool
    requests: int


def secrets_of(detector: Detector) -> list[str]:
    """The Secrets in its namespace that a pass reads: the detector's own, and those that its spec names."""
    pull = [names.pull_secret(detector.name)] if detector.platform.pull_secrets else []
    named = [secret for _, secret in named_secrets(detector)]
    own = [names.keys(detector.name), names.stores(detector.name), names.clients(detector.name)]
    clients = [detector.client_secret(client) for client in detector.spec.clients]
    kafka = kafka_secrets(detector)
    return sorted({*own, *pull, *named, *clients, *kafka})


def waited_for(detector: Detector, previous: Json) -> set[str]:
    """The Secrets by which a condition of the ``previous`` status may come true: made, or put right."""
    states = {one["type"]: one for one in previous.get("conditions") or []}
    named = [(field.split(".")[1].partition("[")[0], secret) for field, secret in named_secrets(detector)]
    secrets = {secret for part, secret in named if states.get(_UNTIL[part], {}).get("status") != "True"}
    if states.get("ModelResolved", {}).get("reason") == "LoginRefused":
        secrets |= {secret for part, secret in named if part == "stores"}
    if states.get("FeaturesWarm", {}).get("reason") == "LagUnknown":
        secrets |= set(kafka_secrets(detector))
    return secrets


@dataclass
class Glances:
    """``_seen`` holds by detector the resourceVersions of its Secrets, None of one that isn't there.

    ``_waits`` holds, of those that are waited for, since when they are and when they were last asked for.
    """

    kube: Kube
    _seen: dict[DetectorKey, dict[str, str | None]] = field(default_factory=dict)
    _waits: dict[DetectorKey, dict[str, tuple[int, int]]] = field(default_factory=dict)

    def keep(self, detector: Detector) -> None:
        """Before a pass reads them: notes how its Secrets are. One that it didn't read so far is asked for."""
        key = (detector.namespace, detector.name)
        before, seen = self._seen.get(key, {}), {}
        for secret in secrets_of(detector):
            read = self.kube.get if secret in before else self.kube.refresh
            seen[secret] = _version(read(SECRET, detector.namespace, secret))
        self._drop(detector.namespace, before.keys() - seen.keys())
        self._seen[key] = seen

    def ask_again(self, detector: Detector, previous: Json, now: int) -> None:
        """Before ``keep``: asks for the Secrets that are waited for, often at first, and once a minute in the end."""
        key = (detector.namespace, detector.name)
        before = self._waits.get(key, {})
        waits = {one: before.get(one, (now, now)) for one in waited_for(detector, previous)}
        for secret, (since, asked) in waits.items():
            if now - asked >= min(LONGEST, max(SHORTEST, (now - since) // 4)):
                self.kube.refresh(SECRET, detector.namespace, secret)
                waits[secret] = since, now
        self._waits[key] = waits

    def look(self, namespace: str, name: str) -> Glance:
        """Whether a Secret of the detector was made, changed or deleted since its last pass; ApiError where one can't be read."""
        seen = self._seen.get((namespace, name), {})
        now = {secret: _version(self.kube.refresh(SECRET, namespace, secret)) for secret in seen}
        return Glance(now != seen, len(now))

    def forget(self, namespace: str, name: str) -> None:
        """Of a detector that is gone. Another one that reads the same Secret asks for it once more."""
        self._waits.pop((namespace, name), None)
        self._drop(namespace, self._seen.pop((namespace, name), {}).keys())

    def _drop(self, namespace: str, secrets: Iterable[str]) -> None:
        for secret in secrets:
            self.kube.forget(SECRET, namespace, secret)


def _version(secret: Json | None) -> str | None:
    return None if secret is None else str(secret["metadata"].get("resourceVersion"))
