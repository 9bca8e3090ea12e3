"""The Secrets of a Kafka that the Strimzi stand-in makes: authorities, and certificates of nodes and operators. Names and keys are Strimzi's.

One that is there and still fits is kept; one that somebody deletes is made anew at the next reconciliation, which restarts the brokers.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fraud_local import strimzi_pki as pki
from fraud_local.api_client import ApiClient, Json
from fraud_local.strimzi_objects import component, thing
from fraud_local.strimzi_pki import KeyPair

# What a certificate was made of: who vouches, and under which hosts.
MADE_OF = "fraud-platform.local/made-of"
OPERATORS = ("entity-topic-operator", "entity-user-operator", "cluster-operator")


def cluster_authority(cluster: str) -> str:
    """Secret with the certificate of the authority that vouches for brokers; clients mount it."""
    return f"{cluster}-cluster-ca-cert"


def operator_certificates(cluster: str, operator: str) -> str:
    return f"{cluster}-{operator}-certs"


def _file(operator: str) -> str:
    """What an operator's files are called: both entity operators' alike."""
    return "cluster-operator" if operator == "cluster-operator" else "entity-operator"


def encoded(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}


def decoded(secret: Json | None) -> dict[str, str]:
    """A Secret's values; none of one that isn't there."""
    data: Mapping[str, str] = (secret or {}).get("data") or {}
    return {key: base64.b64decode(text).decode() for key, text in data.items()}


def client_certificates(kube: ApiClient, namespace: str, cluster: str, operator: str) -> dict[str, str]:
    """For librdkafka: what an operator shows the brokers' inner listeners, and whom it trusts there. KeyError before they are made."""
    own = decoded(kube.get("v1", "Secret", namespace, operator_certificates(cluster, operator)))
    authority = decoded(kube.get("v1", "Secret", namespace, cluster_authority(cluster)))
    name = _file(operator)
    return {
        "security.protocol": "SSL",
        "ssl.ca.pem": authority["ca.crt"],
        "ssl.certificate.pem": own[f"{name}.crt"],
        "ssl.key.pem": own[f"{name}.key"],
    }


@dataclass(frozen=True)
class SecretMaker:
    kube: ApiClient
    kafka: Json

    def make(self, hosts: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Makes what lacks for nodes whose Pods have these names and hosts; gives by Pod a digest of its certificates."""
        cluster = self.kafka["metadata"]["name"]
        authority = self._authority(f"{cluster}-cluster-ca", "cluster-ca v0")
        self._authority(f"{cluster}-clients-ca", "clients-ca v0")
        for operator in OPERATORS:
            name = "cluster-operator" if operator == "cluster-operator" else f"{cluster}-{operator}"
            self._vouched(operator_certificates(cluster, operator), _file(operator), name, authority)
        return {
            pod: _digest(self._vouched(pod, pod, f"{cluster}-kafka", authority, own).certificate)
            for pod, own in hosts.items()
        }

    def _authority(self, name: str, subject: str) -> KeyPair:
        key, certificate = self._get(name), self._get(f"{name}-cert")
        if key.get("ca.key") and certificate.get("ca.crt"):
            return KeyPair(key["ca.key"], certificate["ca.crt"])
        pair = pki.authority(subject)
        self._apply(name, {"ca.key": pair.key})
        self._apply(f"{name}-cert", {"ca.crt": pair.certificate})
        return pair

    def _vouched(
        self, secret: str, file: str, name: str, authority: KeyPair, hosts: Sequence[str] = ()
    ) -> KeyPair:
        live = self.kube.get("v1", "Secret", self.kafka["metadata"]["namespace"], secret)
        made_of, values = _digest(authority.certificate, *hosts), decoded(live)
        annotations = (live or {}).get("metadata", {}).get("annotations") or {}
        if annotations.get(MADE_OF) == made_of and f"{file}.key" in values and f"{file}.crt" in values:
            return KeyPair(values[f"{file}.key"], values[f"{file}.crt"])
        pair = pki.vouched(authority, name, hosts)
        self._apply(secret, {f"{file}.key": pair.key, f"{file}.crt": pair.certificate}, made_of)
        return pair

    def _get(self, name: str) -> dict[str, str]:
        return decoded(self.kube.get("v1", "Secret", self.kafka["metadata"]["namespace"], name))

    def _apply(self, name: str, values: Mapping[str, str], made_of: str = "") -> None:
        secret = thing(
            self.kafka,
            "v1",
            "Secret",
            name,
            component(self.kafka, "kafka"),
            type="Opaque",
            data=encoded(values),
        )
        if made_of:
            secret["metadata"]["annotations"] = {MADE_OF: made_of}
        self.kube.apply(secret)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
