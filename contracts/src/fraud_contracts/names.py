"""Every name that leaves a process, made in one place: topics, groups, Redis keys, child objects.

External names carry the detector's identity ``<namespace>.<name>``, so two detectors never read each other's payments.
Child objects live in the detector's namespace and carry its name alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

GROUP: Final = "fraudplatform.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "FraudDetector"
PLURAL: Final = "frauddetectors"
FIELD_MANAGER: Final = "fraud-operator"
FINALIZER: Final = f"{GROUP}/finalizer"
UID_LABEL: Final = f"{GROUP}/detector-uid"
DETECTOR_LABEL: Final = f"{GROUP}/detector"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
TRAIN_ANNOTATION: Final = f"{GROUP}/train"
APPROVE_ANNOTATION: Final = f"{GROUP}/approve"
ABORT_ANNOTATION: Final = f"{GROUP}/abort"
ROLLBACK_ANNOTATION: Final = f"{GROUP}/rollback"
# On a release: who ordered it first.
ORDERED_ANNOTATION: Final = f"{GROUP}/ordered"
# On a detector: the namespace of the platform that looks after it.
PLATFORM_ANNOTATION: Final = f"{GROUP}/platform"
PART_OF_LABEL: Final = "app.kubernetes.io/part-of"
PART_OF: Final = "fraud-platform"
SLOT_LABEL: Final = f"{GROUP}/slot"
TRAINING_REVISION_LABEL: Final = f"{GROUP}/training-revision"
# On Pod templates: what a running process has read once, document, storage's keys and brokers' authority, and which model version a
# predictor was made for.
CONFIG_HASH_ANNOTATION: Final = f"{GROUP}/config-hash"
STORAGE_KEYS_ANNOTATION: Final = f"{GROUP}/storage-keys"
KAFKA_AUTHORITY_ANNOTATION: Final = f"{GROUP}/kafka-authority"
MODEL_VERSION_ANNOTATION: Final = f"{GROUP}/model-version"
# On the configuration: the authority of the brokers that was there first.
FIRST_AUTHORITY_ANNOTATION: Final = f"{GROUP}/first-kafka-authority"
# On Pods: whether, at which port and at which path Prometheus finds metrics.
SCRAPE_ANNOTATION: Final = "prometheus.io/scrape"
SCRAPE_PORT_ANNOTATION: Final = "prometheus.io/port"
SCRAPE_PATH_ANNOTATION: Final = "prometheus.io/path"

TOPICS: Final = (
    "transactions",
    "accepted",
    "label-reports",
    "labels",
    "seeds",
    "features",
    "profiles",
    "dead-letters",
    "decisions",
    "alerts",
)

# The places of a detector's predictors: one InferenceService each.
Slot = Literal["a", "b"]
SLOTS: Final[tuple[Slot, ...]] = get_args(Slot)

# The one listener of a managed Kafka: TLS, SCRAM users.
KAFKA_PORT: Final = 9093

MAX_NAME: Final = 30
MAX_NAMESPACE: Final = 63


@dataclass(frozen=True)
class Identity:
    """A detector's namespace and name; ``str`` gives the prefix of every external name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> Identity:
        """The inverse of ``str``; a namespace holds no dot, so the first one divides."""
        namespace, _, name = text.partition(".")
        if not namespace or not name:
            raise ValueError(f"{text!r} is not an identity: write <namespace>.<name>")
        return cls(namespace, name)

    def topic(self, noun: str) -> str:
        """Kafka topic of a noun in TOPICS."""
        if noun not in TOPICS:
            raise ValueError(f"{noun!r} is no topic; one of {', '.join(TOPICS)}")
        return f"{self}.{noun}.v1"

    def group(self, consumer: str) -> str:
        """Consumer group (also transactional id prefix) of a component."""
        return f"{self}.{consumer}"

    def features_group(self, stream: str, *, silent: bool = False) -> str:
        """Consumer group of the Flink job of a lineage, by what ``stream`` gives; a silent job has another, so that what the first has read is written."""
        return self.group(f"features.{stream}{'.silent' if silent else ''}")

    def transactional_id(self, partition: int) -> str:
        """What the worker that has this partition of ``features`` writes under, where it is its lowest."""
        return self.group(f"worker-{partition}")

    def redis_claim(self, event_id: str) -> str:
        return f"{self}:claim:{event_id}"

    @property
    def redis_due(self) -> str:
        """Redis sorted set: keys of claims that still hold the whole decision, by when it was published (UTC ms)."""
        return f"{self}:due"

    @property
    def redis_whole(self) -> str:
        """Redis mark: since when no claim has been lost."""
        return f"{self}:whole"

    def redis_witness(self, process: str) -> str:
        """Redis count of what one process has written of claims: where Redis lost some of it, the count is lower."""
        return f"{self}:witness:{process}"

    def redis_profile(self, key: str) -> str:
        """Redis key of a profile; ``key`` is what profile_key gives."""
        return f"{self}:profile:{key}"

    def redis_pending(self, key: str) -> str:
        """Redis sorted set of events, by arrival, that the profile of ``key`` may lack."""
        return f"{self}:pending:{key}"

    def redis_complete(self, hash6: str) -> str:
        """Redis mark: every profile of this set has been written; a miss means a new key, not a lost one."""
        return f"{self}:complete:{hash6}"

    def redis_written(self, hash6: str) -> str:
        """Redis set of the partitions of ``profiles`` written so far; all of them make the set complete."""
        return f"{self}:written:{hash6}"

    def redis_progress(self, hash6: str) -> str:
        """Redis hash: per partition of ``profiles`` the offset after the last one written. What Redis loses, it loses too."""
        return f"{self}:progress:{hash6}"

    def redis_applied(self, hash6: str) -> str:
        """Redis hash: per partition of ``profiles`` how far the stream's sources are in the profiles written of it."""
        return f"{self}:applied:{hash6}"

    @property
    def model(self) -> str:
        """Registered model in MLflow."""
        return str(self)

    @property
    def experiment(self) -> str:
        """MLflow experiment of the training runs."""
        return f"{self}.training"

    @property
    def mlflow_writers(self) -> str:
        """What the name of each MLflow user begins with that its training registers as; a stamp follows."""
        return f"{self}_training_"

    @property
    def mlflow_readers(self) -> str:
        """What the name of each MLflow user begins with that its predictors fetch models as; a stamp follows."""
        return f"{self}_reader_"

    @property
    def database_schema(self) -> str:
        """PostgreSQL schema: lower case, no dot or dash, at most 63 bytes; a hash keeps two identities apart."""
        plain = f"fraud_{self.namespace}_{self.name}".replace("-", "_")
        return f"{plain[:54]}_{self._digest(8)}"

    @property
    def database_owner(self) -> str:
        """PostgreSQL role that owns the schema; nobody logs in as it."""
        return self.database_schema

    @property
    def database_logins(self) -> str:
        """What each PostgreSQL login begins with; a stamp of 8 follows. No owner's first word: a detector may be named after another's digest."""
        plain = f"login_{self.namespace}_{self.name}".replace("-", "_")
        return f"{plain[:37]}_{self._digest(16)}_"

    def _digest(self, length: int) -> str:
        return hashlib.sha256(str(self).encode()).hexdigest()[:length]

    @property
    def redis_logins(self) -> str:
        """What the name of each of its Redis users begins with; a stamp follows."""
        return f"{self}_"

    @property
    def redis_keys(self) -> str:
        """Pattern of all its Redis keys, and of no other detector's."""
        return f"{self}:*"


_STREAM: Final = re.compile(r"([0-9a-f]{6})(?:-([1-9][0-9]{0,8}))?")


def stream(hash6: str, generation: int) -> str:
    """What the streaming job of a lineage is told from others by: in its name, its group, its folder in the storage."""
    return hash6 if generation == 1 else f"{hash6}-{generation}"


def parse_stream(text: str) -> tuple[str, int] | None:
    """(hash6, generation), the inverse of ``stream``; None of what isn't one."""
    match = _STREAM.fullmatch(text)
    return None if match is None else (match[1], int(match[2] or 1))


def profile_key(hash6: str, entity: str, token: str) -> str:
    """Key of one entity's profile in one feature set: Kafka key of profiles, tail of the Redis key."""
    return f"{hash6}:{entity}:{token}"


class SeedKey(NamedTuple):
    """What the key of a seed says. ``run`` is what ``training_run`` gives; empty in one of an older version."""

    hash6: str
    run: str
    entity: str
    token: str

    @property
    def profile(self) -> str:
        return profile_key(self.hash6, self.entity, self.token)


def training_run(revision: str, as_of: int) -> str:
    """What tells the seeds of one run from those of another, also of a try of the same revision that failed: 8 characters."""
    return hashlib.sha256(f"{revision}@{as_of}".encode()).hexdigest()[:8]


def seed_key(profile: str, run: str) -> str:
    """Kafka key of the seed for a profile's key, which a run of training writes."""
    hash6, _, rest = profile.partition(":")
    return f"{hash6}@{run}:{rest}"


def parse_seed_key(key: str) -> SeedKey:
    """The inverse of ``seed_key``; what isn't there is empty."""
    set_and_run, _, rest = key.partition(":")
    hash6, _, run = set_and_run.partition("@")
    entity, _, token = rest.partition(":")
    return SeedKey(hash6, run, entity, token)


def kafka(detector: str) -> str:
    return detector


def kafka_node_pool(detector: str) -> str:
    """Strimzi's Pods are ``<cluster>-<pool>-<n>``, a DNS label: a hash keeps the pool short and its own."""
    return f"nodes-{hashlib.sha256(detector.encode()).hexdigest()[:6]}"


def kafka_topic(detector: str, noun: str) -> str:
    return f"{detector}-{noun}"


def kafka_bootstrap(detector: str, namespace: str) -> str:
    """Address of a managed Kafka's listener, as Strimzi names the Service."""
    return f"{kafka(detector)}-kafka-bootstrap.{namespace}.svc:{KAFKA_PORT}"


def kafka_user(detector: str, part: str) -> str:
    """KafkaUser of a component, by its label, or of the ``operator``; also of the Secret that Strimzi makes with its password."""
    return f"{detector}-kafka-{part}"


def kafka_authority(detector: str) -> str:
    """Secret that Strimzi makes, with the certificate of who vouches for a managed Kafka's brokers."""
    return f"{kafka(detector)}-cluster-ca-cert"


def flink_deployment(detector: str, stream: str) -> str:
    """``stream`` is what ``stream`` gives."""
    return f"{detector}-f-{stream}"


def stream_folder(storage_uri: str, stream: str) -> str:
    """Where a streaming job keeps its checkpoints and savepoints."""
    return f"{storage_uri}/flink/{stream}"


def ray_job(detector: str, revision: str) -> str:
    """RayJob of a training revision, of which the first 8 characters count."""
    return f"{ray_job_prefix(detector)}{revision[:8]}"


def ray_job_prefix(detector: str) -> str:
    """What the name of each of its RayJobs begins with."""
    return f"{detector}-train-"


def inference_service(detector: str, slot: str) -> str:
    """KServe InferenceService of a slot, one of ``SLOTS``."""
    if slot not in SLOTS:
        raise ValueError(f"{slot!r} is no slot; {' or '.join(SLOTS)}")
    return f"{detector}-{slot}"


def predictor(inference_service: str) -> str:
    """Deployment and Service that KServe makes of an InferenceService in Standard mode."""
    return f"{inference_service}-predictor"


def predictors(inference_service: str) -> str:
    """Headless Service of an InferenceService's Pods."""
    return f"{inference_service}-pods"


def decision_service(detector: str) -> str:
    return f"{detector}-decision"


def worker(detector: str) -> str:
    return f"{detector}-worker"


def sink(detector: str, store: str) -> str:
    """Deployment of a sink; store is ``profile``, ``ledger`` or ``lake``."""
    if store not in ("profile", "ledger", "lake"):
        raise ValueError(f"{store!r} is no sink; profile, ledger or lake")
    return f"{detector}-{store}-sink"


def console(detector: str) -> str:
    return f"{detector}-console"


def service_account(detector: str, component: str) -> str:
    return f"{detector}-{component}"


def config(detector: str) -> str:
    """ConfigMap with the detector document."""
    return f"{detector}-config"


def stream_config(detector: str, stream: str) -> str:
    """ConfigMap with the document of a streaming job beside the one that answers, and of a training for it."""
    return f"{config(detector)}-{stream}"


def keys(detector: str) -> str:
    """Secret with TOKEN_KEY and DEAD_LETTER_KEY; of a detector from before there were clients also its API_KEY."""
    return f"{detector}-keys"


def client(detector: str, client: str) -> str:
    """Secret with the keys of a client of the API, where its spec names no other."""
    return f"{detector}-client-{client}"


def clients(detector: str) -> str:
    """Secret with the hashes of all clients' keys, which decision service and console mount."""
    return f"{detector}-clients"


def stores(detector: str) -> str:
    """Secret with the platform's addresses of the stores that the spec leaves out."""
    return f"{detector}-stores"


def pull_secret(detector: str) -> str:
    """Secret with the platform's logins to image registries, which a Pod needs in its own namespace."""
    return f"{detector}-pull"


def release_pointer(detector: str) -> str:
    """The one ConfigMap that the data path watches."""
    return f"{detector}-release"


def release(detector: str, digest: str) -> str:
    """An immutable ConfigMap with the release of a digest, of which the first 8 characters count."""
    return f"{release_prefix(detector)}{digest[:8]}"


def release_prefix(detector: str) -> str:
    """What the name of each of its releases begins with."""
    return f"{detector}-release-"


def network_policy(detector: str, part: str) -> str:
    return f"{detector}-{part}"


def pod_monitor(detector: str) -> str:
    return detector


def kafka_pod_monitor(detector: str) -> str:
    return f"{detector}-kafka"
