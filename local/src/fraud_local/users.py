"""KafkaUser objects to real users, as Strimzi's user operator does it, by Kafka's own admin interface."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from fraud_local.api_client import Json

TIMEOUT = 15.0
# Strimzi's.
ITERATIONS = 4096
_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "cluster": ResourceType.BROKER,
    "transactionalId": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {one.name.replace("_", "").lower(): one for one in AclOperation}


def bindings(user: str, rules: Iterable[Json]) -> set[AclBinding]:
    """The rules of ``spec.authorization.acls`` as Kafka keeps them: one for each operation."""
    whole = set()
    for rule in rules:
        resource = rule["resource"]
        prefixed = resource.get("patternType") == "prefix"
        for operation in rule["operations"]:
            whole.add(
                AclBinding(
                    _RESOURCES[resource["type"]],
                    resource.get("name", "kafka-cluster"),
                    ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL,
                    f"User:{user}",
                    rule.get("host", "*"),
                    _OPERATIONS[operation.lower()],
                    AclPermissionType.DENY if rule.get("type") == "deny" else AclPermissionType.ALLOW,
                )
            )
    return whole


class Users:
    """One cluster's users. ``settings`` are librdkafka's."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._admin = AdminClient({**settings, "socket.timeout.ms": 10_000, "logger": None})

    def names(self) -> set[str]:
        """All that have a password."""
        return set(self._admin.describe_user_scram_credentials(request_timeout=TIMEOUT).result())

    def set_password(self, user: str, password: str) -> None:
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
        self._alter(UserScramCredentialUpsertion(user, info, password.encode()))

    def allow(self, user: str, wanted: set[AclBinding]) -> None:
        """What the user may do from now on, and nothing else."""
        present = set(self._admin.describe_acls(_all_of(user), request_timeout=TIMEOUT).result())
        if wanted - present:
            for future in self._admin.create_acls(list(wanted - present)).values():
                future.result()
        surplus = [_exactly(binding) for binding in present - wanted]
        if surplus:
            for future in self._admin.delete_acls(surplus).values():
                future.result()

    def remove(self, user: str) -> None:
        self._alter(UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512))
        self.allow(user, set())

    def _alter(self, change: UserScramCredentialUpsertion | UserScramCredentialDeletion) -> None:
        for future in self._admin.alter_user_scram_credentials([change]).values():
            future.result()


def _all_of(user: str) -> AclBindingFilter:
    return AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        f"User:{user}",
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )


def _exactly(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )
