"""What the platform gives every detector: images, default stores and storage. The chart writes it, once per operator.

Images and the like come as a mounted JSON file, addresses that hold passwords as environment variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from fraud_contracts import object_store
from fraud_contracts.config import MLFLOW_TRACKING_URI, POSTGRES_DSN, REDIS_URL
from fraud_operator.store_login import login_in

PLATFORM_ENV: Final = "FRAUD_PLATFORM"
PLATFORM_PATH: Final = "/etc/fraud/platform/platform.json"
# Not AWS's bare names: the operator's client reads those by itself, and would fill the gaps of a detector's Secret from them.
STORAGE_PREFIX: Final = "STORAGE_"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Images(_Part):
    """Full names with a tag. The doors, the predictor, the sinks and the console share one environment and so one image."""

    flink: str = "fraud-platform/flink:dev"
    ray: str = "fraud-platform/ray:dev"
    serving: str = "fraud-platform/serving:dev"
    sinks: str = "fraud-platform/serving:dev"
    console: str = "fraud-platform/serving:dev"


class FlinkSettings(_Part):
    version: str = "v2_2"
    jar: str = "local:///opt/flink/opt/flink-python.jar"
    python: str = "python"
    job: str = "/opt/fraud/flink/src/fraud_flink/job.py"
    checkpoint_interval: str = "5s"
    role: str = "fraud-platform-flink"


class RaySettings(_Part):
    version: str = "2.60.0"
    deadline_seconds: int = 7200


class KafkaSettings(_Part):
    """``ephemeral`` keeps a broker's data in its Pod: for a trial only."""

    ephemeral: bool = False
    storage_class: str | None = None


class Scheduling(_Part):
    """For every Pod of every detector: ``tolerations`` as Kubernetes writes them."""

    tolerations: tuple[dict[str, str | int], ...] = ()
    priority_class: str = ""


class NetworkSettings(_Part):
    """Who beside the platform reaches detectors, and where they reach the API server.

    ``clients`` are peers as a NetworkPolicy writes them, of the decision service and the console; empty lets in everybody.
    ``monitoring`` is the namespace of a Prometheus other than the trial's; ``flink_operator`` and ``ray_operator`` are those of the
    two operators. Empty ``api_server_cidrs`` are all addresses.
    """

    clients: tuple[dict[str, Any], ...] = ()
    monitoring: str = ""
    flink_operator: str = "flink-operator"
    ray_operator: str = "ray-operator"
    api_server_ports: tuple[int, ...] = (443, 6443)
    api_server_cidrs: tuple[str, ...] = ()


class StoreAddresses(_Part):
    """Defaults for detectors whose ``spec.stores`` leaves one out; empty where the platform has none.

    They log in as who makes the detectors' logins, MLflow's where there is a login in it. ``redis_ca`` and ``postgres_ca`` are certificates of authorities (PEM);
    empty where everybody knows who certified the server, or where it has no TLS.
    """

    redis_url: str = ""
    redis_ca: str = ""
    postgres_dsn: str = ""
    postgres_ca: str = ""
    mlflow_tracking_uri: str = ""

    @property
    def mlflow_admin(self) -> str:
        """MLflow's address where there is a login in it, which makes the detectors'; empty where it asks for none."""
        return self.mlflow_tracking_uri if login_in(self.mlflow_tracking_uri) else ""


_UNITS: Final = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")


class TrialServers(_Part):
    """The trial stores that speak TLS: their host names, by what the names of their keys in ``secret`` begin with.

    ``volume`` is the size of each one's volume, as Kubernetes writes it; empty where their data live and die with their Pods.
    """

    secret: str = ""
    hosts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    volume: str = ""

    @property
    def volume_bytes(self) -> int | None:
        match = _QUANTITY.fullmatch(self.volume)
        return None if match is None or match[2] not in _UNITS else int(float(match[1]) * _UNITS[match[2]])


class StorageSettings(_Part):
    """Of detectors whose spec names no storage: ``uri``, and ``credentials`` by AWS's names for the environment.

    ``secret`` names the user's Secret that they come from; empty where they are the trial store's, or where
    ``account_annotations`` give a service account a role with the store instead. ``node_folder`` is the folder of each node below
    which ``file://`` storage may lie; empty where no detector may have such. ``role_region`` is where a role's bucket lies, as the
    operator's own environment has it; empty where keys open the store.
    """

    uri: str = ""
    secret: str = ""
    credentials: dict[str, str] = Field(default_factory=dict)
    account_annotations: dict[str, str] = Field(default_factory=dict)
    node_folder: str = ""
    role_region: str = ""


class Platform(_Part):
    """``pull_secrets`` name Secrets in ``namespace`` from which images of detectors are pulled. ``release`` is helm's name.

    Not ``cluster_scoped``: the operator has rights in the namespaces that it watches, and nowhere else.
    """

    namespace: str = "fraud-platform"
    release: str = "fraud-platform"
    cluster_scoped: bool = True
    images: Images = Field(default_factory=Images)
    image_pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    scheduling: Scheduling = Field(default_factory=Scheduling)
    serving_runtime: str = "fraud-predictor"
    storage_container: str = "fraud-mlflow"
    prometheus_url: str = ""
    monitor_labels: dict[str, str] = Field(default_factory=dict)
    flink: FlinkSettings = Field(default_factory=FlinkSettings)
    ray: RaySettings = Field(default_factory=RaySettings)
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    stores: StoreAddresses = Field(default_factory=StoreAddresses)
    servers: TrialServers = Field(default_factory=TrialServers)


def load_platform(environ: Mapping[str, str] | None = None) -> Platform:
    """The mounted file named by FRAUD_PLATFORM with what the environment has of the stores; FileNotFoundError if it isn't there."""
    env = os.environ if environ is None else environ
    platform = Platform.model_validate_json(Path(env.get(PLATFORM_ENV, PLATFORM_PATH)).read_bytes())
    stores = StoreAddresses(
        redis_url=env.get(REDIS_URL, ""),
        redis_ca=env.get("REDIS_CA_CERT", ""),
        postgres_dsn=env.get(POSTGRES_DSN, ""),
        postgres_ca=env.get("POSTGRES_CA_CERT", ""),
        mlflow_tracking_uri=env.get(MLFLOW_TRACKING_URI, ""),
    )
    given = {key: env.get(STORAGE_PREFIX + key, "") for key in object_store.KEYS}
    credentials = {key: value for key, value in given.items() if value}
    region = "" if credentials else env.get(object_store.REGION, "")
    storage = platform.storage.model_copy(update={"credentials": credentials, "role_region": region})
    return platform.model_copy(update={"stores": stores, "storage": storage})
