"""Who vouches for a detector's brokers, and when its Pods must be made anew for it. Pure.

A client of Kafka reads once whom it trusts, when it is made. Strimzi renews the brokers' authority a month before it ends, and a process
that is older than that would reach no broker from then on. So templates of Pods name each authority but the first: that one appears while
the first Pods are being made, and naming it would make all of them twice. The configuration remembers which it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from fraud_contracts import names
from fraud_operator.desired.child import KafkaAuthority
from fraud_operator.detector import Detector
from fraud_operator.facts import KafkaFact
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.objects import ChildKey, Json
from fraud_operator.ownership import wrote

# Where a child has the template of its Pods.
_TEMPLATES: Final = {"Deployment": "template", "FlinkDeployment": "podTemplate"}
# This machine's own authorities: nothing that a Secret has brought.
PUBLIC: Final = "public"


def kafka_authority(
    detector: Detector, target: KafkaTarget | KafkaFact | None, children: Mapping[ChildKey, Json]
) -> KafkaAuthority:
    """From what the Secrets say now and the children bear; without a Secret that can be read all stays as it is."""
    first, later = _first(detector, children), _later(children)
    seen = _seen(target)
    if seen not in ("", PUBLIC) and (later or first not in ("", seen)):
        later = seen
    return KafkaAuthority(first or seen, later)


def _seen(target: KafkaTarget | KafkaFact | None) -> str:
    """A digest, the same however the certificates are broken into lines; empty where nothing is to be known."""
    if not isinstance(target, KafkaTarget) or target.login is None:
        return ""
    text = "".join(target.login.authority.split())
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else PUBLIC


def _first(detector: Detector, children: Mapping[ChildKey, Json]) -> str:
    """As we wrote it."""
    config, key = children.get(("ConfigMap", names.config(detector.name))), names.FIRST_AUTHORITY_ANNOTATION
    if config is None or not wrote(config, "f:metadata", "f:annotations", f"f:{key}"):
        return ""
    return str(config["metadata"]["annotations"][key])


def _later(children: Mapping[ChildKey, Json]) -> str:
    for kind, name in sorted(children):
        if kind in _TEMPLATES:
            template = children[kind, name].get("spec", {}).get(_TEMPLATES[kind]) or {}
            annotations = (template.get("metadata") or {}).get("annotations") or {}
            if names.KAFKA_AUTHORITY_ANNOTATION in annotations:
                return str(annotations[names.KAFKA_AUTHORITY_ANNOTATION])
    return ""
