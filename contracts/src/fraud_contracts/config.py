"""The detector document: what each data-path process is told, as one mounted JSON file.

The operator writes it into the ConfigMap ``names.config``; a process reads it once at start, since a change in it
changes the Pod template's hash and so restarts the Pod. What may change while a process runs is in the release.
Secrets come as environment variables (SECRET_KEYS) and files (STORE_KEYS, KAFKA_LOGIN_PATH), never in this document.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.feature_set import hash6
from fraud_contracts.names import Identity, stream

CONFIG_ENV: Final = "FRAUD_CONFIG"
CONFIG_PATH: Final = "/etc/fraud/config/detector.json"
CONFIG_KEY: Final = "detector.json"
RELEASE_ENV: Final = "FRAUD_RELEASE"
RELEASE_PATH: Final = "/etc/fraud/release/release.json"
RELEASE_KEY: Final = "release.json"
# What clients of Kafka log in with, as files: fraud_process.kafka names them.
KAFKA_LOGIN_PATH: Final = "/etc/fraud/kafka"
# Beside the document, for a managed Kafka: what Strimzi's Secrets don't say.
KAFKA_MECHANISM_KEY: Final = "kafka-mechanism"
SECRET_KEYS: Final = ("TOKEN_KEY", "DEAD_LETTER_KEY")
# The stores' addresses with their logins: files in a folder, each by its key's name, since they change while a process runs.
REDIS_URL: Final = "REDIS_URL"
POSTGRES_DSN: Final = "POSTGRES_DSN"
MLFLOW_TRACKING_URI: Final = "MLFLOW_TRACKING_URI"
# The same server, with a login that may read the detector's model and no more.
MLFLOW_READER_URI: Final = "MLFLOW_READER_URI"
STORE_KEYS: Final = (REDIS_URL, POSTGRES_DSN, MLFLOW_TRACKING_URI, MLFLOW_READER_URI)
# What MLflow's client logs in with, each as a variable; in the Secret of a detector's own MLflow, and in Pods as files of these names.
MLFLOW_LOGIN: Final = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
STORES_ENV: Final = "FRAUD_STORES"
STORES_PATH: Final = "/etc/fraud/stores"
# In a store's Secret: the certificate of the authority by which the server's own is verified, where it is none that everybody knows.
CA_CERT: Final = "CA_CERT"


def ca_cert(key: str) -> str:
    """The file with the authority's certificate of the store whose address is ``key``; beside the address."""
    return f"{key}.{CA_CERT}"


# Where a process listens, unless the environment says otherwise.
HTTP_PORT_ENV: Final = "FRAUD_HTTP_PORT"
HTTP_PORT: Final = 8080
METRICS_PORT_ENV: Final = "FRAUD_METRICS_PORT"
METRICS_PORT: Final = 9090
FLINK_METRICS_PORT: Final = 9249

# Upper bound of one raw transaction, bytes. Larger ones are refused (413) or dead-lettered with their first bytes.
MAX_EVENT_BYTES: Final = 65_536


class Mounted(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaAddress(Mounted):
    """``login``: the folder with the files that clients log in with, over TLS; None where the listener asks for nothing."""

    bootstrap_servers: str
    partitions: Annotated[int, Field(ge=1)]
    replicas: Annotated[int, Field(ge=1)] = 1
    login: str | None = None


class DetectorConfig(Mounted):
    """``namespace``, ``name``, the whole spec, and what the operator resolved.

    ``epoch`` is the generation of the lineage that the state of ``feature_set`` is of. ``decided`` is the stream whose feature records
    are decided, where that is another one.
    ``token_key`` is the digest of the key that the detector's stored tokens were made with: a process that has another one
    would take every card for a new one, so it must not start.
    """

    namespace: str
    name: str
    uid: str
    spec: DetectorSpec
    feature_set: str
    epoch: int = 1
    decided: str | None = None
    kafka: KafkaAddress
    storage_uri: str
    token_key: str | None = None

    @property
    def identity(self) -> Identity:
        return Identity(self.namespace, self.name)

    @property
    def hash6(self) -> str:
        return hash6(self.feature_set)

    @property
    def stream(self) -> str:
        return stream(self.hash6, self.epoch)

    def to_json(self) -> str:
        """Canonical text: the same document gives the same bytes, so its hash can sit in a Pod template."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=1)


def load_config(environ: Mapping[str, str] | None = None) -> DetectorConfig:
    """Reads the mounted document named by FRAUD_CONFIG; FileNotFoundError or ValidationError say what is wrong."""
    path = Path((os.environ if environ is None else environ).get(CONFIG_ENV, CONFIG_PATH))
    return DetectorConfig.model_validate_json(path.read_bytes())
