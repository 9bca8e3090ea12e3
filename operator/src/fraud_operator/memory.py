"""What a running operator knows of a detector beside what the cluster holds, so that a deleted child comes back as it was.

Two children can't be derived from the spec: the keys, which are random, and the release pointer, which says how far the
rollout is. Everything here is a help: an operator that starts anew reads both from the cluster, and where the pointer is
gone by then it goes on from the release that the status names.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND
from fraud_contracts.config import CONFIG_KEY, RELEASE_KEY, SECRET_KEYS, DetectorConfig
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.release import Release, parse_release
from fraud_operator.apply import wrote
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts
from fraud_operator.kube import Kube
from fraud_operator.objects import Json
from fraud_operator.rollout_state import RolloutPhase, RolloutState

LOG: Final = logging.getLogger(__name__)
Key = tuple[str, str]
SECRET: Final = BY_KIND["Secret"]
TOKEN: Final = "TOKEN_KEY"  # noqa: S105 - the name of a key, not the key

SHORTEST: Final = 16


@dataclass
class Memory:
    """By namespace and name. ``_keys`` and ``_rollout`` hold the detector's UID too: a namesake made later begins anew."""

    kube: Kube
    _keys: dict[Key, tuple[str, dict[str, str]]] = field(default_factory=dict)
    _rollout: dict[Key, tuple[str, Release, RolloutState]] = field(default_factory=dict)
    _versions: dict[Key, dict[str, str | None]] = field(default_factory=dict)
    _valid: dict[Key, tuple[str, DetectorSpec]] = field(default_factory=dict)

    def fill(self, detector: Detector, facts: Facts, previous: Mapping[str, Any]) -> Facts:
        """The facts, with the rollout as this operator left it: nobody else writes it. Takes note of the Secrets."""
        key = (detector.namespace, detector.name)
        found = self._look(*key)
        self._versions[key] = {name: _version(secret) for name, secret in found.items()}
        values = (found[names.keys(detector.name)] or {}).get("data") or {}
        known, before = _decoded(values), self.keys(detector)
        if before is not None and values and (known is None or known[TOKEN] != before[TOKEN]):
            known = {**before, **(known or {}), TOKEN: before[TOKEN]}
            self._put_back(detector, known)
        if known is not None:
            self._keys[key] = detector.uid, known
        if not facts.has_keys and self.keys(detector) is None:
            return facts
        uid, release, state = self._rollout.get(key) or ("", None, RolloutState())
        if uid == detector.uid and release is not None:
            if (facts.release, facts.state) != (release, state):
                told = {"detector": str(detector.identity)}
                LOG.warning("release pointer is not as it was written", extra={"data": told})
            return replace(facts, release=release, state=state)
        return facts if facts.release is not None else self._from_status(detector, facts, previous)

    def _put_back(self, detector: Detector, known: Mapping[str, str]) -> None:
        """The other two may be replaced; with another token key no stored profile, claim or decision would ever match."""
        LOG.warning("the keys were damaged; put back", extra={"data": {"detector": str(detector.identity)}})
        data = {name: base64.b64encode(value.encode()).decode() for name, value in known.items()}
        self.kube.merge(SECRET, detector.namespace, names.keys(detector.name), {"data": data})

    def _from_status(self, detector: Detector, facts: Facts, previous: Mapping[str, Any]) -> Facts:
        """Of a pointer deleted while no operator ran: what was live goes on; what was on its way begins again."""
        name = (previous.get("release") or {}).get("name")
        body = self.kube.get(BY_KIND["ConfigMap"], detector.namespace, name) if name else None
        text = ((body or {}).get("data") or {}).get(RELEASE_KEY)
        if text is None:
            return facts
        release = parse_release(text)
        state = RolloutState(
            phase=RolloutPhase.PROMOTED if release.stable else RolloutPhase.IDLE, stable=release.stable
        )
        return replace(facts, release=release, state=state)

    def keys(self, detector: Detector) -> dict[str, str] | None:
        uid, values = self._keys.get((detector.namespace, detector.name)) or ("", {})
        return values if uid == detector.uid and values else None

    def keep(self, detector: Detector, release: Release, state: RolloutState) -> None:
        self._rollout[detector.namespace, detector.name] = detector.uid, release, state

    def note(self, detector: Detector) -> None:
        """This spec could be built."""
        self._valid[detector.namespace, detector.name] = detector.uid, detector.spec

    def last_valid(self, meta: Json) -> DetectorSpec | None:
        """The last spec of this object that could be built, read from the documents that it made by an operator that starts anew.

        Those hold it whole: the policy's lists, with tokens, stand in the release, all else in the configuration.
        """
        namespace, name, uid = meta["namespace"], meta["name"], meta.get("uid", "")
        noted, spec = self._valid.get((namespace, name)) or ("", None)
        if noted == uid and spec is not None:
            return spec
        try:
            config = DetectorConfig.model_validate_json(
                self._written(namespace, names.config(name), CONFIG_KEY)
            )
            release = parse_release(self._written(namespace, names.release_pointer(name), RELEASE_KEY))
        except ValueError:
            return None
        if config.uid != uid:
            return None
        # Read once: what the newest spec holds back, though it can't be built, is written into the configuration next.
        spec = config.spec.model_copy(update={"policy": release.policy})
        self._valid[namespace, name] = uid, spec
        return spec

    def _written(self, namespace: str, document: str, key: str) -> str:
        """As we wrote it last; empty where it is gone or a hand has changed it since."""
        found = self.kube.get(BY_KIND["ConfigMap"], namespace, document)
        text = (((found or {}).get("data")) or {}).get(key, "")
        return str(text) if found is not None and wrote(found, "f:data", f"f:{key}") else ""

    def secrets_differ(self, namespace: str, name: str) -> bool:
        known = self._versions.get((namespace, name))
        if known is None:
            return False
        return {n: _version(secret) for n, secret in self._look(namespace, name).items()} != known

    def forget(self, namespace: str, name: str) -> None:
        for known in (self._keys, self._rollout, self._versions, self._valid):
            known.pop((namespace, name), None)

    def _look(self, namespace: str, name: str) -> dict[str, Json | None]:
        wanted = (names.keys(name), names.stores(name))
        return {secret: self.kube.get(SECRET, namespace, secret) for secret in wanted}


def _decoded(values: Mapping[str, str]) -> dict[str, str] | None:
    """The three keys in plain; None where one is missing or the token key is no key."""
    try:
        known = {name: base64.b64decode(values[name]).decode() for name in SECRET_KEYS}
        return known if len(bytes.fromhex(known[TOKEN])) >= SHORTEST else None
    except (KeyError, ValueError):
        return None


def _version(secret: Json | None) -> str | None:
    return None if secret is None else str(secret["metadata"].get("resourceVersion"))
