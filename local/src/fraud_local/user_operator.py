"""Acts as the user operator that Strimzi's entity operator runs: KafkaUser objects to users of a real cluster, with their Secrets.

A password is what the user's Secret holds, whoever wrote it; one that lacks is made. So a Secret that is deleted or changed is another
password, in Kafka within seconds. A user whose KafkaUser is gone loses password and rights; no finalizer waits for that.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException

from fraud_local import strimzi_objects as objects
from fraud_local import strimzi_status as statuses
from fraud_local.api_client import ApiClient, ApiServerError, Json
from fraud_local.entity_operator import ClusterKey, Connections, by_cluster
from fraud_local.strimzi_brokers import SCRAM_MODULE
from fraud_local.strimzi_secrets import decoded, encoded
from fraud_local.users import Users, bindings

logger = logging.getLogger("user-operator")
# Strimzi's own: a full look at a user that has not changed; a changed generation or Secret is seen in the next pass.
USER_INTERVAL = 120.0
PASSWORD_LENGTH = 32
KIND_LABEL = "strimzi.io/kind"
_LETTERS = string.ascii_letters + string.digits
# By namespace and name.
Secrets = dict[tuple[str, str], Json]


@dataclass
class ReconciledUser:
    """A user that is as its KafkaUser wants it: a digest of what was asked for, and since when (s)."""

    digest: str
    at: float


class UserOperator:
    """Its memory ends with the process, as the original's does with its Pod."""

    def __init__(self, kube: ApiClient, connect: Callable[[dict[str, Any]], Users] = Users) -> None:
        self._kube = kube
        self._connections = Connections(kube, "user", connect)
        self._reconciled: dict[ClusterKey, dict[str, ReconciledUser]] = {}

    def once(self, now: float) -> None:
        users = self._kube.list(objects.API, "KafkaUser")
        staying = [user for user in users if not user["metadata"].get("deletionTimestamp")]
        clusters = by_cluster(staying, self._reconciled)
        # In one request, since it is made every few seconds.
        secrets_made = self._kube.list("v1", "Secret", selector=f"{KIND_LABEL}=KafkaUser") if clusters else []
        present = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in secrets_made}
        for key, own in clusters.items():
            environment = self._connections.environment(key)
            if environment is None:
                self._reconciled.pop(key, None)
                self._connections.forget(key)
                continue
            try:
                self._cluster(key, own, self._connections.get(key, environment), present, now)
            except (KafkaException, KeyError) as error:
                self._warn("Kafka does not answer", key, error)
                self._connections.forget(key)
            except ApiServerError as error:
                # A namespace that ends takes no new Secret; other clusters' users are seen to all the same.
                self._warn("a user waits", key, error)

    @staticmethod
    def _warn(message: str, key: ClusterKey, error: Exception) -> None:
        logger.warning(message, extra={"data": {"cluster": "/".join(key), "error": str(error)}})

    def _cluster(
        self, key: ClusterKey, own: list[Json], connection: Users, present: Secrets, now: float
    ) -> None:
        wanted = {user["metadata"]["name"] for user in own}
        reconciled = self._reconciled.get(key)
        if reconciled is None:
            # What was deleted while nobody looked is found by its password.
            reconciled = {name: ReconciledUser("", now) for name in connection.names()}
            self._reconciled[key] = reconciled
        for name in reconciled.keys() - wanted:
            connection.remove(name)
            reconciled.pop(name, None)
        for user in own:
            self._wanted(connection, user, present, reconciled, now)

    def _wanted(
        self,
        connection: Users,
        user: Json,
        present: Secrets,
        reconciled: dict[str, ReconciledUser],
        now: float,
    ) -> None:
        meta, spec = user["metadata"], user["spec"]
        authentication = spec.get("authentication") or {}
        if authentication.get("type") != objects.SCRAM or "password" in authentication or "quotas" in spec:
            message = f"the local stand-in has {objects.SCRAM} only, with passwords of its own and no quotas"
            self._write(user, [statuses.condition("Ready", "False", "InvalidResourceException", message)])
            return
        password = self._password(user, present)
        acls = (spec.get("authorization") or {}).get("acls") or []
        digest = hashlib.sha256(json.dumps([password, acls], sort_keys=True).encode()).hexdigest()
        before = reconciled.get(meta["name"])
        seen = (user.get("status") or {}).get("observedGeneration") == meta["generation"]
        if seen and before is not None and before.digest == digest and now - before.at < USER_INTERVAL:
            return
        connection.set_password(meta["name"], password)
        connection.allow(meta["name"], bindings(meta["name"], acls))
        self._write(user, [statuses.condition("Ready", "True")])
        reconciled[meta["name"]] = ReconciledUser(digest, now)

    def _password(self, user: Json, present: Secrets) -> str:
        """That of the user's Secret, which is made where it lacks; ``present`` are those that were made here."""
        meta = user["metadata"]
        name, namespace = meta["name"], meta["namespace"]
        secret = present.get((namespace, name)) or self._kube.get("v1", "Secret", namespace, name)
        password = decoded(secret).get("password") or "".join(
            secrets.choice(_LETTERS) for _ in range(PASSWORD_LENGTH)
        )
        jaas = f'{SCRAM_MODULE} required username="{name}" password="{password}";'
        data = encoded({"password": password, "sasl.jaas.config": jaas})
        if secret is None or secret.get("data") != data:
            self._kube.apply(
                objects.thing(user, "v1", "Secret", name, _labels(user), type="Opaque", data=data)
            )
        return password

    def _write(self, user: Json, conditions: list[Json]) -> None:
        name = user["metadata"]["name"]
        status = {"conditions": conditions, "observedGeneration": user["metadata"]["generation"]}
        if conditions[0]["status"] == "True":
            status |= {"username": name, "secret": name}
        statuses.write(self._kube, user, status)


def _labels(user: Json) -> dict[str, str]:
    own, name = user["metadata"].get("labels") or {}, user["metadata"]["name"]
    return {
        **{key: value for key, value in own.items() if not key.startswith(objects.APP)},
        KIND_LABEL: "KafkaUser",
        f"{objects.APP}name": "strimzi-user-operator",
        f"{objects.APP}instance": name,
        f"{objects.APP}part-of": f"strimzi-{name}",
        f"{objects.APP}managed-by": "strimzi-user-operator",
    }
