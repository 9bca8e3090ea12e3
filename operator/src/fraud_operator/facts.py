"""What was observed in one pass, as plain data. ``readiness`` judges them, ``conditions`` and ``status`` put them into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fraud_contracts.lineage import Lineages
from fraud_contracts.release import Release
from fraud_contracts.training_end import TrainingFailure
from fraud_operator.addresses import Address
from fraud_operator.capacity import CapacityFact
from fraud_operator.desired.child import ClientKeys, KafkaAuthority
from fraud_operator.lineage import SeedsOffer
from fraud_operator.objects import Json
from fraud_operator.orders import Orders
from fraud_operator.registry import Version
from fraud_operator.rollout import Gate
from fraud_operator.rollout_state import RolloutState


@dataclass(frozen=True)
class Lags:
    """Records that a consumer hasn't committed yet; None where that couldn't be read. ``written`` counts all seeds."""

    seeds: int | None = None
    profiles: int | None = None
    written: int | None = None


# Of a StorageFact: its store is away, and nothing is known to be wrong with the bucket or its keys.
UNREACHABLE: Final = "Unreachable"


@dataclass(frozen=True)
class StorageFact:
    """Whether the detector's storage will do; ``ready`` is None while that isn't known yet.

    ``keys`` is a digest that other keys change, to restart with them what uses the storage; empty where no keys open it.
    """

    ready: bool | None
    reason: str
    message: str
    keys: str = ""


@dataclass(frozen=True)
class KafkaFact:
    """Whether a Kafka of the user's own will do; ``ready`` is None while that isn't known yet. ``flawed``: it will, but for ``message``.

    ``topics``: the ids of those that a streaming job reads, by noun.
    """

    ready: bool | None
    reason: str
    message: str
    flawed: bool = False
    topics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Replica:
    """A replica of the data path and the release that it says it uses; None where it gave no answer."""

    pod: str
    release: str | None


@dataclass(frozen=True)
class Models:
    """``problem`` says why nothing is resolved, as (reason, message); ``failure`` why the wanted training made no model.

    ``trained`` is the version that it made, ``seeds`` what it wrote for a streaming job to begin with.
    """

    resolved: Version | None = None
    problem: tuple[str, str] | None = None
    champion: str | None = None
    trained: str | None = None
    seeds: SeedsOffer | None = None
    failure: TrainingFailure | None = None


@dataclass(frozen=True)
class Lacking:
    """Something that the spec or the chart names and that isn't there: a condition's reason, and field with remedy."""

    reason: str
    message: str


@dataclass(frozen=True)
class StoresFact:
    """``addresses``: what the detector's Secret is to hold of the platform's stores, by key. ``ready``: each has its own login."""

    addresses: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Lacking, ...] = ()
    ready: bool = False


@dataclass(frozen=True)
class Beside:
    """Of the streaming job beside the one that answers. ``waits`` and ``unseeded`` as in ``Facts``; ``behind``: records of its inputs that it
    hasn't read for good, None where nobody says. ``note``: how it is with that job, in words. ``declared``:
    the spec's feature set, where it isn't the one that answers.
    """

    waits: str = ""
    unseeded: str = ""
    lags: Lags = field(default_factory=Lags)
    behind: int | None = None
    note: str = ""
    declared: str = ""


@dataclass(frozen=True)
class Facts:
    """``children`` are the detector's own, by (kind, name); ``missing`` the kinds that the API server doesn't know.

    ``token_key`` is the digest that the release pointer has; ``keys_fault`` says why the Secret gives no keys, as (reason, message).
    ``logins`` are the platform's, to image registries, as one document; None where there are none. ``addresses`` are those of
    the stores whose Secret the spec names, by store. ``held`` names the live children whose change waits for the storage.
    ``orders``: who set what the rollout obeys. ``lineage_waits``: why the streaming job can't be made yet; empty where it can.
    ``unreadable_jobs``: streaming jobs that can't read what they were made from and are to go.
    ``unseeded``: why it doesn't begin with the seeds of training; empty where it does, or where there are none. Both are of the job that
    answers; ``beside`` tells of another one.
    """

    now: int
    children: Mapping[tuple[str, str], Json] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    release: Release | None = None
    state: RolloutState = field(default_factory=RolloutState)
    token_key: str | None = None
    keys_fault: tuple[str, str] | None = None
    copies: int | None = None
    revision: str | None = None
    storage: StorageFact = StorageFact(None, "Checking", "the storage was not looked at yet")
    stores: StoresFact = field(default_factory=StoresFact)
    kafka: KafkaFact = KafkaFact(None, "Checking", "the brokers were not asked yet")
    models: Models = field(default_factory=Models)
    lags: Lags = field(default_factory=Lags)
    replicas: tuple[Replica, ...] = ()
    gates: tuple[Gate, ...] = ()
    logins: str | None = None
    addresses: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    lacking: tuple[Lacking, ...] = ()
    held: tuple[str, ...] = ()
    orders: Orders = field(default_factory=Orders)
    clients: ClientKeys = field(default_factory=ClientKeys)
    kafka_authority: KafkaAuthority = field(default_factory=KafkaAuthority)
    lineages: Lineages = field(default_factory=Lineages)
    lineage_waits: str = ""
    unreadable_jobs: frozenset[str] = frozenset()
    unseeded: str = ""
    beside: Beside = field(default_factory=Beside)
    capacity: CapacityFact = field(default_factory=CapacityFact)

    def child(self, kind: str, name: str) -> Json | None:
        return self.children.get((kind, name))
