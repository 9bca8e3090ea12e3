"""What a detector names and others make: its stores' Secrets, the platform's logins to image registries, a storage class.

A Pod or a volume whose Secret or class isn't there only waits. So each is looked for, and what lacks is told with its field
and the remedy. A Secret's values are read for the logins, which Pods need in their own namespace, and for where a store listens,
which NetworkPolicies need. The Secret of ``spec.storage`` isn't missed here but in ``buckets``, which needs its values: by the same
rule, before the bucket is asked.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.child_kinds import SECRET, STORAGE_CLASS
from fraud_contracts.config import MLFLOW_LOGIN
from fraud_operator import readiness
from fraud_operator.addresses import fault, secret_addresses, text_of
from fraud_operator.desired.documents import DOCKER_CONFIG
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.facts import Facts, Lacking
from fraud_operator.kube import Kube, RefusedError
from fraud_operator.objects import Json
from fraud_operator.ownership import is_ours
from fraud_operator.settings import Platform

# The platform's own are the same for all detectors, so one look serves them all. Nothing tells when they change.
SHARED_MS: Final = 30_000
# What no header of a request may hold, such as a line break.
NOT_IN_A_HEADER: Final = re.compile(r"[^!-~]")
DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class SecretReference:
    """A field that names a Secret, which must hold all keys of one of ``choices``."""

    field: str
    secret: str
    choices: tuple[tuple[str, ...], ...]


def secret_references(detector: Detector) -> list[SecretReference]:
    stores = detector.spec.stores
    references = []
    for store, reference, key in (
        ("redis", stores.redis, "REDIS_URL"),
        ("postgres", stores.postgres, "POSTGRES_DSN"),
    ):
        if reference is not None:
            path = f"spec.stores.{store}.secretRef"
            references.append(SecretReference(path, reference.secret_ref.name, ((key,),)))
    if stores.mlflow is not None and stores.mlflow.secret_ref is not None:
        username, password, token = MLFLOW_LOGIN
        choices = ((token,), (username, password))
        references.append(
            SecretReference("spec.stores.mlflow.secretRef", stores.mlflow.secret_ref.name, choices)
        )
    return references


def lacking_in(reference: SecretReference, namespace: str, secret: Json | None) -> Lacking | None:
    """What a Secret lacks, that it isn't there, or which of its addresses is none."""
    data: Mapping[str, str] = (secret or {}).get("data") or {}
    absent = [[key for key in keys if not data.get(key)] for keys in reference.choices]
    if secret is not None and not all(absent):
        return _unreadable_in(reference, namespace, secret)
    choices = " or ".join(" and ".join(keys) for keys in absent)
    if secret is None:
        command = f"kubectl -n {namespace} create secret generic {reference.secret}"
        return Lacking(
            "SecretMissing",
            f"{reference.field}: there is no Secret {reference.secret} in {namespace}; make it with {choices}: {command}",
        )
    return Lacking(
        "SecretKeyMissing",
        f"{reference.field}: Secret {reference.secret} in {namespace} lacks {choices}; put it in",
    )


def _unreadable_in(reference: SecretReference, namespace: str, secret: Json) -> Lacking | None:
    for key in (key for keys in reference.choices for key in keys):
        remedy = fault(key, text_of(secret, key))
        if remedy:
            where = f"{reference.field}: {key} of Secret {reference.secret} in {namespace}"
            return Lacking("AddressUnreadable", f"{where} is no address: {remedy}")
    return None


def logins_of(secret: Json) -> dict[str, Any] | None:
    """Registry to login, as Docker writes them; None where the Secret holds none that can be read."""
    try:
        document = json.loads(
            base64.b64decode((secret.get("data") or {}).get(DOCKER_CONFIG, ""), validate=True)
        )
    except ValueError:
        return None
    auths = document.get("auths") if isinstance(document, dict) else None
    return auths if isinstance(auths, dict) and auths else None


def merged_logins(
    platform: Platform, secrets: Mapping[str, Json | None]
) -> tuple[str | None, tuple[Lacking, ...]]:
    """One document of all logins, the first Secret's before the next one's; and what lacks. None where there is no login."""
    logins: dict[str, Any] = {}
    lacking = []
    for i, name in enumerate(platform.pull_secrets):
        where, secret = f"images.pullSecrets[{i}] of the chart", secrets[name]
        command = f"kubectl -n {platform.namespace} create secret docker-registry {name}"
        more = None if secret is None else logins_of(secret)
        if secret is None:
            message = f"there is no Secret {name} in {platform.namespace}; make it: {command}"
            lacking.append(Lacking("PullSecretMissing", f"{where}: {message}"))
        elif more is None:
            message = f"Secret {name} in {platform.namespace} holds no login under {DOCKER_CONFIG}; make it anew: {command}"
            lacking.append(Lacking("PullSecretUnreadable", f"{where}: {message}"))
        else:
            logins = {**more, **logins}
    document = json.dumps({"auths": logins}, sort_keys=True) if logins else None
    return document, tuple(lacking)


def lacking_class(platform: Platform, classes: list[Json]) -> Lacking | None:
    """Of the brokers' volumes: the class that the platform names, else a default one."""
    wanted = platform.kafka.storage_class
    present = sorted(one["metadata"]["name"] for one in classes)
    others = f"there are {', '.join(present)}" if present else "it has none at all"
    if wanted is not None and wanted not in present:
        return Lacking(
            "StorageClassMissing",
            f"the chart names the storage class {wanted} for Kafka's volumes, and the cluster has none of this name ({others}): "
            "make it, or name another one in the chart's values",
        )
    if wanted is None and not any(
        (one["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true" for one in classes
    ):
        return Lacking(
            "StorageClassMissing",
            f"Kafka's volumes want the cluster's default storage class, and none is marked as such ({others}): mark one with the "
            f"annotation {DEFAULT_CLASS}: 'true', or name one in the chart's values",
        )
    return None


@dataclass
class References:
    """``kube`` knows the Secrets that a spec names from when they were last glanced at; the platform's are asked for here."""

    kube: Kube
    _logins: tuple[int, str | None, tuple[Lacking, ...]] = (0, None, ())
    _classes: tuple[int, list[Json] | None] = (0, None)
    _without_logins: set[DetectorKey] = field(default_factory=set)

    def add(self, detector: Detector, facts: Facts) -> Facts:
        """The facts with the platform's logins, the stores' addresses, and all that lacks."""
        document, lacking = self._read_logins(detector.platform, facts.now)
        own = (*self._lacking_secrets(detector), *self._lacking_class(detector, facts))
        addresses = secret_addresses(detector, lambda name: self.kube.get(SECRET, detector.namespace, name))
        return replace(facts, logins=document, lacking=(*lacking, *own), addresses=addresses)

    def leftovers(self, detector: Detector) -> Iterator[Json]:
        """The copy of logins that the platform no longer has. Its settings are read once, so one look a detector is enough."""
        key = (detector.namespace, detector.name)
        if detector.platform.pull_secrets or key in self._without_logins:
            return
        live = self.kube.live.get(SECRET, detector.namespace, names.pull_secret(detector.name))
        if live is not None and is_ours(live, detector.uid):
            yield live
        else:
            self._without_logins.add(key)

    def forget(self, namespace: str, name: str) -> None:
        self._without_logins.discard((namespace, name))

    def _lacking_secrets(self, detector: Detector) -> list[Lacking]:
        looked = [
            lacking_in(one, detector.namespace, self.kube.get(SECRET, detector.namespace, one.secret))
            for one in secret_references(detector)
        ]
        return [one for one in looked if one is not None]

    def _read_logins(self, platform: Platform, now: int) -> tuple[str | None, tuple[Lacking, ...]]:
        if not platform.pull_secrets:
            return None, ()
        until, document, lacking = self._logins
        if now >= until:
            secrets = {
                name: self.kube.live.get(SECRET, platform.namespace, name) for name in platform.pull_secrets
            }
            document, lacking = merged_logins(platform, secrets)
            self._logins = (now + SHARED_MS, document, lacking)
        return document, lacking

    def _lacking_class(self, detector: Detector, facts: Facts) -> list[Lacking]:
        """Nothing once the brokers run: their volumes are there."""
        if not detector.managed_kafka or detector.platform.kafka.ephemeral:
            return []
        if readiness.kafka(detector, facts).usable:
            return []
        until, classes = self._classes
        if facts.now >= until:
            try:
                classes = self.kube.list(STORAGE_CLASS, None)
            except RefusedError:
                classes = None  # an older chart's rights: Strimzi's own message has to do
            self._classes = (facts.now + SHARED_MS, classes)
        lacking = None if classes is None else lacking_class(detector.platform, classes)
        return [] if lacking is None else [lacking]
