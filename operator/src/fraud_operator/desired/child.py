"""What all children have in common: the object itself, its metadata, and what beside the spec decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.clients import ClientsDocument
from fraud_contracts.detector import Component
from fraud_contracts.lineage import Lineages
from fraud_contracts.release import Release
from fraud_operator.addresses import Address
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.detector import Detector
from fraud_operator.objects import Json
from fraud_operator.rollout_state import RolloutState

# Strimzi's, on all that it makes for a Kafka.
CLUSTER_LABEL: Final = "strimzi.io/cluster"


@dataclass(frozen=True)
class Child:
    """A desired object. ``once`` is written only where it isn't there: it holds what must never change again.

    One that ``needs_storage`` is neither made nor changed before the storage will do.
    """

    body: Json
    once: bool = False
    needs_storage: bool = False

    @property
    def kind(self) -> str:
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])


@dataclass(frozen=True)
class ClientKeys:
    """``document`` is what the doors are told; ``made`` holds by client the data of the Secrets that are the operator's to make."""

    document: ClientsDocument = field(default_factory=ClientsDocument)
    made: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class KafkaAuthority:
    """Digests of who vouches for the brokers: whom the operator saw ``first``, and ``later`` whom it has seen since.

    Empty before there is one. What Pods read when they were made is either: the first makes no others, each later one does.
    """

    first: str = ""
    later: str = ""


@dataclass(frozen=True)
class Wanted:
    """What beside the spec decides the children. ``keys`` are those of the detector; None where they are lost.

    ``token_key`` is the digest of the key that stored tokens were made with, as it also is where the keys are lost.
    ``copies`` is how many of each record its Kafka was made for; None where there is none yet. ``logins`` to image registries
    are a document as Docker writes it; None where there are none. ``storage_keys`` is a digest that the storage's keys change.
    ``stores`` has the detector's own logins to the platform's stores, as addresses by their keys.
    ``addresses`` are those of the stores whose Secret the spec names, by store.
    ``beside`` is the detector with the feature set of the streaming job beside the one that answers, ``trains`` with that of a training;
    None where there is no such job, and where training is for what answers.
    """

    release: Release
    state: RolloutState
    training_revision: str | None
    keys: Mapping[str, str] | None = None
    token_key: str | None = None
    copies: int | None = None
    logins: str | None = None
    storage_keys: str = ""
    stores: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    clients: ClientKeys = field(default_factory=ClientKeys)
    kafka_authority: KafkaAuthority = field(default_factory=KafkaAuthority)
    lineages: Lineages = field(default_factory=Lineages)
    beside: Detector | None = None
    trains: Detector | None = None


def kafka_annotations(wanted: Wanted, component: Component) -> dict[str, str]:
    """Of the template of Pods that speak to Kafka: a client reads once whom it trusts, so another authority is other Pods."""
    later = wanted.kafka_authority.later
    return {names.KAFKA_AUTHORITY_ANNOTATION: later} if later and COMPONENTS[component].kafka else {}


def storage_annotations(wanted: Wanted) -> dict[str, str]:
    """Of the template of Pods that read the storage's keys from their environment: other keys are other Pods."""
    return {names.STORAGE_KEYS_ANNOTATION: wanted.storage_keys} if wanted.storage_keys else {}


def labels(detector: Detector, component: str) -> dict[str, str]:
    """Of a Pod; a subset of them selects it."""
    return {
        "app.kubernetes.io/name": "fraud-detector",
        "app.kubernetes.io/instance": detector.name,
        names.PART_OF_LABEL: names.PART_OF,
        "app.kubernetes.io/managed-by": names.FIELD_MANAGER,
        names.COMPONENT_LABEL: component,
        names.DETECTOR_LABEL: detector.name,
    }


def selector(detector: Detector, component: str) -> dict[str, str]:
    return {names.DETECTOR_LABEL: detector.name, names.COMPONENT_LABEL: component}


def any_pod(detector: Detector) -> Json:
    """Selects the Pods of all components. The detector's label alone would select Strimzi's Pods, which bear a copy of it."""
    return {
        "matchLabels": {names.DETECTOR_LABEL: detector.name},
        "matchExpressions": [
            {
                "key": names.COMPONENT_LABEL,
                "operator": "In",
                "values": sorted(defaults.label for defaults in COMPONENTS.values()),
            }
        ],
    }


def broker_selector(detector: Detector) -> dict[str, str]:
    """What finds the brokers' Pods of a managed Kafka: labels of Strimzi's own."""
    name = names.kafka(detector.name)
    return {CLUSTER_LABEL: name, "strimzi.io/name": f"{name}-kafka"}


def metadata(
    detector: Detector,
    name: str,
    component: str,
    *,
    owned: bool = True,
    more_labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """``owned`` children go with the detector; the others are kept or deleted by its deletionPolicy."""
    meta: Json = {
        "name": name,
        "namespace": detector.namespace,
        "labels": {**labels(detector, component), names.UID_LABEL: detector.uid, **(more_labels or {})},
    }
    if annotations:
        meta["annotations"] = dict(annotations)
    if owned:
        meta["ownerReferences"] = [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": detector.name,
                "uid": detector.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    return meta


def child(
    api_version: str,
    kind: str,
    meta: Json,
    *,
    once: bool = False,
    needs_storage: bool = False,
    **rest: Any,
) -> Child:
    """``rest`` are the object's other fields, in the order in which they are written."""
    body: Json = {"apiVersion": api_version, "kind": kind, "metadata": meta, **rest}
    return Child(body, once, needs_storage)
