"""Which login a detector's Secret gets to each store: made before it is written, kept, rotated, and told where it can't be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fraud_contracts.config import MLFLOW_READER_URI, MLFLOW_TRACKING_URI
from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_operator import postgres_logins, redis_logins
from fraud_operator.detector import Detector
from fraud_operator.facts import StoresFact
from fraud_operator.store_login import (
    GRACE_SECONDS,
    LoginRefusedError,
    StoreAdmin,
    StoreLogin,
    login_in,
    new_login,
    others,
)
from fraud_operator.store_logins import STORES, StoreLogins
from fraud_testing.healthy import conditions_of, healthy_facts, make_detector
from fraud_testing.store_logins import AtOnce

IDENTITY = Identity("n", "d")
START = 1_764_000_000


@dataclass
class Stores:
    """Two stores of which one writes down what is asked of it; ``fault`` is how it answers."""

    fault: Exception | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    # Whether the last one that was asked for is the only one that Pods use.
    settled: bool = False
    removed: list[str] = field(default_factory=list)
    now: float = 0.0
    secret: dict[str, str] = field(default_factory=dict)
    logins: StoreLogins = field(init=False)

    def __post_init__(self) -> None:
        self.logins = self.fresh()

    def fresh(self) -> StoreLogins:
        """As an operator that has just started has them."""
        stores = tuple(replace(store, ensure=self.ensure, remove=self.remove) for store in STORES)
        return StoreLogins(stores, lambda: self.now, lambda: START + self.now, AtOnce())

    def ensure(self, admin: StoreAdmin, detector: Detector, login: StoreLogin, settled: bool) -> None:
        if self.fault is not None:
            raise self.fault
        self.asked.append((admin.address, login.user))
        self.settled = settled

    def remove(self, admin: StoreAdmin, identity: Identity) -> None:
        if self.fault is not None:
            raise self.fault
        self.removed.append(admin.address)

    def look(self, **spec: Any) -> StoresFact:
        """A pass: what the fact says is then in the Secret."""
        fact = self.logins.look(make_detector(**spec), self.secret)
        self.secret = dict(fact.addresses)
        return fact


def test_a_detector_gets_logins_of_its_own_and_keeps_them() -> None:
    """Neither address has the platform's login; later passes and a restarted operator change nothing."""
    stores = Stores()
    fact = stores.look()
    redis, postgres = stores.secret["REDIS_URL"], stores.secret["POSTGRES_DSN"]
    assert fact.ready and fact.problems == ()
    assert redis.startswith(f"redis://n.d_{START:08x}:") and redis.endswith("@r")
    assert f"user={IDENTITY.database_logins}{START:08x}" in postgres and "host=p" in postgres
    stores.now = 1000
    stores.look()
    stores.logins = stores.fresh()
    assert stores.look().ready
    assert (stores.secret["REDIS_URL"], stores.secret["POSTGRES_DSN"]) == (redis, postgres)


def test_what_earlier_versions_shared_gives_way_to_an_own_login() -> None:
    """Until its own login is there the detector keeps the address that it has; then the platform's goes out of its Secret."""
    stores = Stores(
        fault=StoreError("redis", "away"),
        secret={"REDIS_URL": "redis://:shared@r", "POSTGRES_DSN": "postgresql://fraud:shared@p"},
    )
    assert not stores.look().ready
    assert stores.secret["REDIS_URL"] == "redis://:shared@r"
    stores.fault, stores.now = None, 100
    assert stores.look().ready
    assert "shared" not in str(stores.secret)


def test_an_address_taken_out_of_the_secret_is_followed_by_another_login() -> None:
    """Only the one that was taken out changes, and its successor is made before it is written."""
    stores = Stores()
    stores.look()
    before = dict(stores.secret)
    stores.look()
    del stores.secret["REDIS_URL"]
    stores.now = 50
    stores.fault = StoreError("redis", "away")
    assert "REDIS_URL" not in stores.look().addresses
    stores.fault, stores.now = None, 60
    stores.look()
    assert stores.secret["REDIS_URL"].startswith(f"redis://n.d_{START + 50:08x}:")
    assert stores.secret["POSTGRES_DSN"] == before["POSTGRES_DSN"]


def test_an_address_changed_by_hand_is_put_back() -> None:
    """A slip in the Secret is no rotation."""
    stores = Stores()
    stores.look()
    before = dict(stores.secret)
    stores.look()
    stores.secret["REDIS_URL"] = "redis://elsewhere"
    stores.look()
    assert stores.secret == before


def test_a_login_is_looked_at_again_and_stays_where_its_store_is_away() -> None:
    """A Redis that forgot it is told again after a minute, a PostgreSQL after five; one that is away takes no address out of the Secret."""
    stores = Stores()
    stores.look()
    before, asked = dict(stores.secret), len(stores.asked)
    stores.look()
    assert len(stores.asked) == asked
    for now, more in ((60, 1), (300, 3)):
        stores.now = now
        stores.look()
        assert len(stores.asked) == asked + more
    stores.now, stores.fault = 1000, StoreError("redis", "away")
    fact = stores.look()
    assert not fact.ready and stores.secret == before


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (StoreError("redis", "timed out"), "StoreUnreachable", ("stores.redisUrl", "timed out", "see to it")),
        (LoginRefusedError("redis", "NOPERM"), "LoginRefused", ("stores.redisUrl", "NOPERM", "spec.stores.redis.secretRef")),
        (RuntimeError("ours"), "CheckFailed", ("stores.redisUrl", "log")),
    ],
)  # fmt: skip
def test_what_keeps_a_login_from_being_made_is_told(
    fault: Exception, reason: str, words: tuple[str, ...]
) -> None:
    """StoresReady names the field and the remedy, and Degraded repeats it."""
    stores = Stores(fault=fault)
    fact = stores.look()
    detector = make_detector()
    conditions = conditions_of(detector, replace(healthy_facts(detector), stores=fact))
    assert (conditions["StoresReady"]["status"], conditions["StoresReady"]["reason"]) == ("False", reason)
    assert all(word in conditions["StoresReady"]["message"] for word in words)
    assert conditions["Degraded"]["message"].startswith("StoresReady: ")


OWN = {"redis": {"secretRef": {"name": "r"}}, "postgres": {"secretRef": {"name": "p"}}}


def test_a_store_that_the_spec_names_is_asked_for_no_login() -> None:
    """Of two own stores nobody is asked for one."""
    stores = Stores()
    assert stores.look(stores=OWN) == StoresFact({}, (), ready=True) and stores.asked == []


def test_a_detector_with_a_store_of_its_own_keeps_no_login_to_the_platforms() -> None:
    """They go once its Secret has been without them for the grace; a store that is away is asked again, one that did it isn't."""
    stores = Stores()
    stores.look()
    stores.look()
    # Paused: the Secret keeps what Pods go on with.
    for stores.now in (1000.0, 2000.0):
        stores.logins.look(make_detector(stores=OWN), stores.secret)
    assert stores.removed == []
    stores.look(stores=OWN)
    stores.look(stores=OWN)
    stores.now += GRACE_SECONDS - 1
    stores.look(stores=OWN)
    assert stores.removed == []
    stores.now, stores.fault = 3000.0, StoreError("redis", "away")
    stores.look(stores=OWN)
    stores.fault = None
    for stores.now in (3001.0, 3010.0, 4000.0):
        stores.look(stores=OWN)
    assert sorted(stores.removed) == ["postgresql://p", "redis://r"]
    before = len(stores.asked)
    assert stores.look().ready and len(stores.asked) == before + 2


def test_a_deleted_detectors_logins_go() -> None:
    """Of each store of the platform's, whatever it used last; what can't be taken away is named, with the store."""
    stores = Stores()
    stores.look(stores=OWN)
    platform = make_detector().platform.stores
    assert stores.logins.remove(IDENTITY, platform) == []
    assert stores.removed == ["redis://r", "postgresql://p"]
    stores.fault = StoreError("redis", "timed out")
    redis, postgres = stores.logins.remove(IDENTITY, platform)
    assert "n.d_*" in redis and "Redis" in redis and "PostgreSQL" in postgres


def test_predecessors_go_once_the_secret_has_had_the_successor_for_the_grace() -> None:
    """Counted from when this operator saw it there: not from its making, nor over a time in which the Secret had another one."""
    stores = Stores()
    stores.look()
    stores.look()
    before = dict(stores.secret)
    # A paused detector, of which the operator writes nothing.
    stores.secret = {}
    stores.logins.look(make_detector(), {})
    for stores.now in (1000.0, 2000.0, 3000.0):
        stores.logins.look(make_detector(), {})
        assert not stores.settled
    stores.look()
    assert stores.secret != before
    stores.now = 4000.0
    stores.look()
    stores.now += GRACE_SECONDS - 1
    stores.look()
    assert not stores.settled
    # By hand the former one is put back, and for a moment Pods have it.
    after, stores.secret = dict(stores.secret), dict(before)
    stores.look()
    assert stores.secret == after
    stores.now += 1000
    stores.look()
    assert not stores.settled
    stores.now += GRACE_SECONDS
    stores.look()
    assert stores.settled
    stores.logins, stores.settled = stores.fresh(), False
    for more in (0, GRACE_SECONDS - 1):
        stores.now += more
        stores.look()
        assert not stores.settled
    stores.now += 400
    stores.look()
    assert stores.settled


def test_an_mlflow_that_asks_for_logins_gets_one_for_training_and_one_for_predictors() -> None:
    """Where the platform's address has a login; rules alone need neither, and a model of others' no training's."""
    stores = Stores()
    spec: dict[str, Any] = {"train": {"history": {"path": "h"}}}
    wanted = {
        "train": ({"train": spec["train"]}, {MLFLOW_TRACKING_URI, MLFLOW_READER_URI}),
        "registered": ({"registered": {"name": "theirs", "alias": "live"}}, {MLFLOW_READER_URI}),
        "none": ({"none": {}}, set()),
    }
    for name, (model, keys) in wanted.items():
        plain = make_detector(model=model)
        addresses = replace(plain, name=name).platform.stores.model_copy(
            update={"mlflow_tracking_uri": "http://fraud:p@m:5000"}
        )
        one = replace(plain, name=name, platform=plain.platform.model_copy(update={"stores": addresses}))
        fact = stores.logins.look(one, {})
        assert {key for key in fact.addresses if key.startswith("MLFLOW")} == keys
        assert all(fact.addresses[key].startswith(f"http://n.{name}_") for key in keys)
        assert "fraud:p" not in str(fact.addresses)
        assert one.mlflow_uri == "http://m:5000"
        assert not {key for key in stores.logins.look(plain, {}).addresses if key.startswith("MLFLOW")}


def test_earlier_logins_are_looked_for_once_where_that_lists_all_users() -> None:
    """Of MLflow: when Pods have had the time to read the new one, and not again until there is another."""
    seen: list[bool] = []
    now = [0.0]
    (store,) = (
        replace(one, wanted=lambda _: True, ensure=lambda *asked: seen.append(asked[-1]))
        for one in STORES
        if one.key == MLFLOW_TRACKING_URI
    )
    logins = StoreLogins((store,), lambda: now[0], lambda: START + now[0], AtOnce())
    secret: dict[str, str] = {}
    for later in (0, 100, GRACE_SECONDS, 100, 100):
        now[0] += later
        secret = dict(logins.look(make_detector(), secret).addresses)
    assert seen == [False, False, True, False, False]


def test_only_the_detectors_own_logins_are_its_others() -> None:
    """Neither another detector's, nor what is named otherwise."""
    login = new_login("n.d_", START)
    former = f"n.d_{START - 5:08x}"
    users = [former, login.user, f"n.d_e_{START - 5:08x}", f"n.d_x_{START - 5:08x}", "n.d_admin"]
    assert others("n.d_", users, login) == [former]


def test_addresses_are_read_as_they_are_written() -> None:
    """Whatever else the platform's address has, its host, database and settings stay."""
    login = StoreLogin("n.d_00000001", "p@ss:word/%")
    for admin in (
        "redis://:x@h:6380/2",
        "rediss://u:p@h/0",
        "redis://h",
        "redis+sentinel://u:p@a,b:1/main/0?nodes=c,d",
    ):
        written = redis_logins.address(admin, login)
        assert login_in(written) == login
        assert written.partition("@")[2] == admin.rpartition("@")[2].removeprefix("redis://")
    written = redis_logins.address("redis://h:1/0?username=admin&db=3&pass%77ord=secret&health=1", login)
    assert login_in(written) == login and written.endswith("@h:1/0?db=3&health=1")
    for admin in (
        "postgresql://a:b@h1:1,h2:2/db?sslmode=require",
        "host=h1,h2 port=1,2 dbname=db user=a sslmode=require",
    ):
        written = postgres_logins.address(admin, login)
        assert postgres_logins.read(written) == login
        assert {"host=h1,h2", "port=1,2", "dbname=db", "sslmode=require"} <= set(written.split())
    assert login_in("redis://:shared@h") is None and login_in("redis://h") is None
    assert postgres_logins.read("postgresql://h/d") is None and postgres_logins.read("no dsn") is None
