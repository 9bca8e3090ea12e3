"""The Secrets that a spec names, and which it may not name: the operator's own, and the platform's.

These hold what whoever writes a spec may not have: another detector's keys, logins, or the object store's keys of the platform, which
open each detector's folder. Pods get what a spec names, so such a spec is refused whole, before anything is read for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fraud_contracts import names
from fraud_contracts.errors import SpecError
from fraud_operator import kafka_target, storage
from fraud_operator.desired.kafka_users import kafka_parts
from fraud_operator.detector import Detector
from fraud_operator.objects import Json
from fraud_operator.ownership import bears_our_manager

_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
_REMEDY: Final = "name one that you made for this field, without the operator's labels"


def named_secrets(detector: Detector) -> list[tuple[str, str]]:
    """Field and Secret, of all fields that name one."""
    spec = detector.spec
    stores, external = spec.stores, spec.kafka.external
    references = [
        ("spec.stores.redis.secretRef", stores.redis.secret_ref if stores.redis else None),
        ("spec.stores.postgres.secretRef", stores.postgres.secret_ref if stores.postgres else None),
        ("spec.stores.mlflow.secretRef", stores.mlflow.secret_ref if stores.mlflow else None),
        (kafka_target.SECRET_FIELD, external.secret_ref if external else None),
        (storage.SECRET_FIELD, detector.storage_reference),
        *((f"spec.clients[{i}].secretRef", client.secret_ref) for i, client in enumerate(spec.clients)),
    ]
    return [(field, reference.name) for field, reference in references if reference is not None]


def check(detector: Detector, read: Callable[[str], Json | None]) -> list[SpecError]:
    """The fields that name a reserved Secret; ``read`` gives one of the detector's namespace by its name."""
    reserved = _reserved_names(detector)
    return [
        SpecError(field, f"Secret {name} is the operator's or the platform's: {_REMEDY}")
        for field, name in named_secrets(detector)
        if name in reserved or _is_the_operators(read(name))
    ]


def _reserved_names(detector: Detector) -> set[str]:
    """The detector's own, whoever made them; in the platform's namespace also the platform's, which people make for it."""
    own = {make(detector.name) for make in (names.keys, names.stores, names.clients, names.pull_secret)}
    own |= {detector.client_secret(client) for client in detector.spec.clients if client.secret_ref is None}
    if detector.managed_kafka:
        own |= {names.kafka_user(detector.name, part) for part in kafka_parts()}
    platform = detector.platform
    if detector.namespace == platform.namespace:
        own |= {names.stores(platform.release), platform.storage.secret, *platform.pull_secrets}
    return own


def _is_the_operators(secret: Json | None) -> bool:
    """Whether it bears one of our marks. A copy that bears one too is refused for it, which is the safe side."""
    if secret is None:
        return False
    labels = secret["metadata"].get("labels") or {}
    ours = names.UID_LABEL in labels or labels.get(_MANAGED_BY) == names.FIELD_MANAGER
    return ours or bears_our_manager(secret)
