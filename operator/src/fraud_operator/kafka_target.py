"""A detector's Kafka as the operator itself reaches it: address and login, or what is wrong with them. Pure."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fraud_contracts import names
from fraud_operator.desired.documents import decoded
from fraud_operator.desired.kafka_login import AUTHORITY_KEY, MANAGED_MECHANISM, SECRET_KEYS
from fraud_operator.desired.kafka_users import OPERATOR
from fraud_operator.detector import Detector
from fraud_operator.facts import KafkaFact
from fraud_operator.objects import Json
from fraud_operator.references import SecretReference, lacking_in
from fraud_process.kafka import (
    AUTHORITY,
    MECHANISM,
    MECHANISMS,
    PASSWORD,
    USERNAME,
    KafkaLogin,
    client_settings,
)

SECRET_FIELD: Final = "spec.kafka.external.secretRef"  # noqa: S105 - a field's path
ADDRESS_FIELD: Final = "spec.kafka.external.bootstrapServers"
# The stream's Java client reads user and password between quotes.
_BROKEN: Final = re.compile(r'[\x00-\x1f\x7f"\\]')


@dataclass(frozen=True)
class KafkaTarget:
    """``owner`` says for people whose login it is."""

    bootstrap: str
    login: KafkaLogin | None = None
    owner: str = ADDRESS_FIELD

    def settings(self) -> dict[str, Any]:
        """For librdkafka."""
        return client_settings(self.bootstrap, self.login)


def kafka_secrets(detector: Detector) -> list[str]:
    """The Secrets that the operator's own login is made of: the one that the spec names, or Strimzi's."""
    if detector.managed_kafka:
        return [names.kafka_user(detector.name, OPERATOR), names.kafka_authority(detector.name)]
    return [] if detector.kafka_secret is None else [detector.kafka_secret]


def kafka_target(detector: Detector, secrets: Mapping[str, Json | None]) -> KafkaTarget | KafkaFact:
    """``secrets`` are those of ``kafka_secrets`` as the API server has them; a fact where nothing can be asked with them."""
    if detector.managed_kafka:
        return _managed(detector, secrets)
    name = detector.kafka_secret
    if name is None:
        return KafkaTarget(detector.bootstrap)
    secret = secrets.get(name)
    lacking = lacking_in(
        SecretReference(SECRET_FIELD, name, (tuple(SECRET_KEYS.values()),)), detector.namespace, secret
    )
    if lacking is not None:
        return KafkaFact(False, lacking.reason, lacking.message)
    data = decoded((secret or {}).get("data") or {})
    owner = f"{SECRET_FIELD}: Secret {name} in {detector.namespace}"
    values = {file: data[key] for file, key in SECRET_KEYS.items()}
    authority = data.get(AUTHORITY_KEY, "")
    fault = _fault(values, authority)
    if fault is not None:
        return KafkaFact(False, fault[0], f"{owner}: {fault[1]}")
    login = KafkaLogin(values[USERNAME], values[PASSWORD], values[MECHANISM], authority)
    return KafkaTarget(detector.bootstrap, login, owner)


def _managed(detector: Detector, secrets: Mapping[str, Json | None]) -> KafkaTarget | KafkaFact:
    user, authority = kafka_secrets(detector)
    password = decoded((secrets.get(user) or {}).get("data") or {}).get(PASSWORD)
    certificate = decoded((secrets.get(authority) or {}).get("data") or {}).get(AUTHORITY)
    if not (password and certificate and _is_readable(certificate)):
        return KafkaFact(None, "Checking", "Strimzi has made no login for the operator yet")
    login = KafkaLogin(user, password, MANAGED_MECHANISM, certificate)
    return KafkaTarget(detector.bootstrap, login, f"Secret {user} in {detector.namespace}")


def _fault(values: Mapping[str, str], authority: str) -> tuple[str, str] | None:
    """Reason and message of the first value that no client can use."""
    for file, value in values.items():
        if _BROKEN.search(value):
            message = f"{SECRET_KEYS[file]} has a line break, a quote or a backslash: put it in without one, as printf and not echo writes it"
            return "SecretKeyBroken", message
    if values[MECHANISM] not in MECHANISMS:
        message = f"{SECRET_KEYS[MECHANISM]} is {values[MECHANISM][:40]!r}: write {', '.join(MECHANISMS[:-1])} or {MECHANISMS[-1]}"
        return "MechanismUnknown", message
    if authority and not _is_readable(authority):
        return "SecretKeyBroken", f"{AUTHORITY_KEY} holds no certificate that can be read: put it in as PEM"
    return None


def _is_readable(authority: str) -> bool:
    try:
        ssl.create_default_context(cadata=authority)
    except (ssl.SSLError, ValueError):
        return False
    return True
