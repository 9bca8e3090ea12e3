"""What the operator remembers of a detector between passes, so that a deleted child comes back as it was.

Two children can't be derived from the spec: the keys, which are random, and the release pointer, which says how far
the rollout is. An operator that starts anew reads both from the cluster, and where the pointer is gone by then it
goes on from the release that the status names.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, SECRET
from fraud_contracts.config import CONFIG_KEY, RELEASE_KEY, DetectorConfig
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.lineage import LINEAGES_KEY, Lineages
from fraud_contracts.release import Release, parse_release
from fraud_operator import detector_keys
from fraud_operator.desired.documents import secret_data
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.detector_keys import TOKEN_KEY, decoded_keys
from fraud_operator.facts import Facts
from fraud_operator.kube import Kube
from fraud_operator.objects import Json
from fraud_operator.ownership import wrote
from fraud_operator.rollout_state import RolloutPhase, RolloutState

LOG: Final = logging.getLogger(__name__)


@dataclass
class DetectorMemory:
    """By namespace and name, each with the UID: a later namesake begins anew."""

    kube: Kube
    _keys: dict[DetectorKey, tuple[str, dict[str, str]]] = field(default_factory=dict)
    _rollout: dict[DetectorKey, tuple[str, Release, RolloutState]] = field(default_factory=dict)
    _valid_specs: dict[DetectorKey, tuple[str, DetectorSpec]] = field(default_factory=dict)

    def restore(self, detector: Detector, facts: Facts, previous: Mapping[str, Any]) -> Facts:
        """The facts with the rollout as this operator left it, since nobody else writes it, and with what is wrong with the keys.

        Also remembers the keys, and puts those that were damaged back into their Secret.
        """
        key = (detector.namespace, detector.name)
        facts, any_keys = self._restore_keys(detector, facts)
        if not any_keys:
            return facts
        uid, release, state = self._rollout.get(key) or ("", None, RolloutState())
        if uid == detector.uid and release is not None:
            if (facts.release, facts.state) != (release, state):
                data = {"detector": str(detector.identity)}
                LOG.warning("release pointer is not as it was written", extra={"data": data})
            return replace(facts, release=release, state=state)
        return facts if facts.release is not None else self._from_status(detector, facts, previous)

    def _restore_keys(self, detector: Detector, facts: Facts) -> tuple[Facts, bool]:
        """(The facts with what the keys say, whether there are any, be it unusable ones.)"""
        secret = self.kube.get(SECRET, detector.namespace, names.keys(detector.name))
        values = None if secret is None else secret.get("data") or {}
        keys, before = decoded_keys(values or {}), self.keys(detector)
        if before is None:
            has_release = facts.release is not None
            fault = detector_keys.fault(detector.name, values, facts.token_key, has_release=has_release)
            if fault is not None or keys is None:
                return replace(facts, keys_fault=fault), values is not None
        elif values is None:
            keys = before
        elif keys is None or keys[TOKEN_KEY] != before[TOKEN_KEY]:
            keys = {**before, **(keys or {}), TOKEN_KEY: before[TOKEN_KEY]}
            self._put_back(detector, keys)
        self._keys[detector.namespace, detector.name] = detector.uid, keys
        return replace(facts, token_key=detector_keys.token_key_digest(keys)), True

    def _put_back(self, detector: Detector, keys: Mapping[str, str]) -> None:
        """A new token key would match no stored profile, claim or decision; the others may be replaced."""
        LOG.warning("the keys were damaged; put back", extra={"data": {"detector": str(detector.identity)}})
        data = secret_data(keys)
        self.kube.merge(SECRET, detector.namespace, names.keys(detector.name), {"data": data})

    def _from_status(self, detector: Detector, facts: Facts, previous: Mapping[str, Any]) -> Facts:
        """For a pointer deleted while no operator ran: the live version goes on, a candidate begins again."""
        name = (previous.get("release") or {}).get("name")
        body = self.kube.get(BY_KIND["ConfigMap"], detector.namespace, name) if name else None
        text = ((body or {}).get("data") or {}).get(RELEASE_KEY)
        if text is None:
            return facts
        try:
            release = parse_release(text)
        except ValueError:  # of a later version, or damaged: as if there were none
            LOG.warning("release is unreadable", extra={"data": {"detector": str(detector.identity)}})
            return facts
        state = RolloutState(
            phase=RolloutPhase.PROMOTED if release.stable else RolloutPhase.IDLE, stable=release.stable
        )
        return replace(facts, release=release, state=state)

    def keys(self, detector: Detector) -> dict[str, str] | None:
        uid, values = self._keys.get((detector.namespace, detector.name)) or ("", {})
        return values if uid == detector.uid and values else None

    def keep_rollout(self, detector: Detector, release: Release, state: RolloutState) -> None:
        self._rollout[detector.namespace, detector.name] = detector.uid, release, state

    def keep_valid_spec(self, detector: Detector) -> None:
        self._valid_specs[detector.namespace, detector.name] = detector.uid, detector.spec

    def last_valid(self, meta: Json) -> DetectorSpec | None:
        """The last spec of this object that could be built.

        An operator that starts anew reads it from three documents: the release has the policy, its lists with
        tokens, the lineages a feature set that doesn't answer yet, and the configuration all else.
        """
        namespace, name, uid = meta["namespace"], meta["name"], meta.get("uid", "")
        spec_uid, spec = self._valid_specs.get((namespace, name)) or ("", None)
        if spec_uid == uid and spec is not None:
            return spec
        try:
            config = DetectorConfig.model_validate_json(
                self._written(namespace, names.config(name), CONFIG_KEY)
            )
            release = parse_release(self._written(namespace, names.release_pointer(name), RELEASE_KEY))
            lineages = self._written(namespace, names.release_pointer(name), LINEAGES_KEY)
            declared = Lineages.model_validate_json(lineages).wanted if lineages else None
        except ValueError:
            return None
        if config.uid != uid:
            return None
        # Remembered, not read again: the configuration written next may hold a pause of the newest spec.
        spec = config.spec.model_copy(update={"policy": release.policy})
        if declared is not None:
            spec = declared.put_into(spec)
        self._valid_specs[namespace, name] = uid, spec
        return spec

    def _written(self, namespace: str, document: str, key: str) -> str:
        """As we wrote it last; empty where it is gone or a hand has changed it since."""
        body = self.kube.get(BY_KIND["ConfigMap"], namespace, document)
        text = (((body or {}).get("data")) or {}).get(key, "")
        return str(text) if body is not None and wrote(body, "f:data", f"f:{key}") else ""

    def forget(self, namespace: str, name: str) -> None:
        for memory in (self._keys, self._rollout, self._valid_specs):
            memory.pop((namespace, name), None)
