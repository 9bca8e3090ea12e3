"""Which login each detector has to the platform's Redis, PostgreSQL and MLflow: made, looked after, rotated and taken away.

A detector's Secret ``<name>-stores`` holds its own logins and never the platform's. What there is of a login is in that Secret and
in the store: it is taken from the Secret, made in the store on a thread of its own, and only then written. Taken out of the Secret,
it is followed by another one. What came before it goes once this operator has seen it in the Secret for long enough. A pass reads
how things were last.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final

from fraud_contracts.config import MLFLOW_READER_URI, MLFLOW_TRACKING_URI, POSTGRES_DSN, REDIS_URL
from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_operator import mlflow_logins, postgres_logins, redis_logins
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.facts import Lacking, StoresFact
from fraud_operator.settings import StoreAddresses
from fraud_operator.store_login import (
    GRACE_SECONDS,
    LoginRefusedError,
    StoreAdmin,
    StoreLogin,
    is_login,
    login_in,
    new_login,
    with_login,
)

LOG: Final = logging.getLogger(__name__)
# A pass waits so long for a detector's first logins, which saves it a second pass where the stores are near.
_MOMENT: Final = 1.0
FIRST_RETRY: Final = 5.0
LONGEST_RETRY: Final = 60.0


_Ensure = Callable[[StoreAdmin, Detector, StoreLogin, bool], None]


@dataclass(frozen=True)
class Store:
    """``part`` is its name in ``spec.stores``, ``value`` the chart's value with the platform's address.

    ``wanted``: whether a detector needs a login to the platform's. A login that was right is looked at again after ``again``
    seconds: the store may have forgotten it. ``sweep_once``: earlier ones are looked for once, since that lists all users.
    """

    key: str
    title: str
    part: str
    value: str
    wanted: Callable[[Detector], bool]
    admin: Callable[[StoreAddresses], StoreAdmin]
    prefix: Callable[[Identity], str]
    read: Callable[[str], StoreLogin | None]
    address: Callable[[str, StoreLogin], str]
    ensure: _Ensure
    remove: Callable[[StoreAdmin, Identity], None]
    again: float
    sweep_once: bool = False


def _by_identity(ensure: Callable[[StoreAdmin, Identity, StoreLogin, bool], None]) -> _Ensure:
    def for_detector(admin: StoreAdmin, detector: Detector, login: StoreLogin, settled: bool) -> None:
        ensure(admin, detector.identity, login, settled)

    return for_detector


def _mlflow_admin(addresses: StoreAddresses) -> StoreAdmin:
    return StoreAdmin(addresses.mlflow_admin)


def _uses_mlflow(detector: Detector) -> bool:
    return detector.spec.stores.mlflow is None and bool(detector.platform.stores.mlflow_admin)


STORES: Final = (
    Store(
        REDIS_URL,
        "Redis",
        "redis",
        "stores.redisUrl",
        lambda detector: detector.spec.stores.redis is None,
        lambda addresses: StoreAdmin(addresses.redis_url, addresses.redis_ca),
        lambda identity: identity.redis_logins,
        login_in,
        redis_logins.address,
        _by_identity(redis_logins.ensure),
        redis_logins.remove,
        # One without an ACL file has forgotten it after a restart.
        again=60.0,
    ),
    Store(
        POSTGRES_DSN,
        "PostgreSQL",
        "postgres",
        "stores.postgresDsn",
        lambda detector: detector.spec.stores.postgres is None,
        lambda addresses: StoreAdmin(addresses.postgres_dsn, addresses.postgres_ca),
        lambda identity: identity.database_logins,
        postgres_logins.read,
        postgres_logins.address,
        _by_identity(postgres_logins.ensure),
        postgres_logins.remove,
        # Only one that was put back to an earlier state has.
        again=300.0,
    ),
    Store(
        MLFLOW_TRACKING_URI,
        "MLflow",
        "mlflow",
        "stores.mlflowTrackingUri",
        lambda detector: _uses_mlflow(detector) and detector.spec.model.train is not None,
        _mlflow_admin,
        lambda identity: identity.mlflow_writers,
        login_in,
        with_login,
        mlflow_logins.ensure_writer,
        mlflow_logins.remove_writers,
        # The trial's begins without users when its Pod is made anew.
        again=60.0,
        sweep_once=True,
    ),
    Store(
        MLFLOW_READER_URI,
        "MLflow",
        "mlflow",
        "stores.mlflowTrackingUri",
        lambda detector: _uses_mlflow(detector) and detector.spec.model.none is None,
        _mlflow_admin,
        lambda identity: identity.mlflow_readers,
        login_in,
        with_login,
        mlflow_logins.ensure_reader,
        mlflow_logins.remove_readers,
        again=60.0,
        sweep_once=True,
    ),
)


@dataclass
class _Asking:
    """What one store is asked for one detector. ``since``: the moment from which on the Secret has been as it is to be."""

    since: float | None = None
    due: float = 0.0
    pause: float = FIRST_RETRY
    running: Future[None] | None = None

    @property
    def idle(self) -> bool:
        return self.running is None or self.running.done()

    def see(self, right: bool, now: float) -> None:
        """``right``: the Secret is as it is to be now."""
        self.since = (now if self.since is None else self.since) if right else None

    def settled(self, now: float) -> bool:
        """Whether Pods have had the time to read the Secret."""
        return self.since is not None and now >= self.since + GRACE_SECONDS

    def postpone(self, now: float) -> None:
        self.due, self.pause = now + self.pause, min(LONGEST_RETRY, self.pause * 2)


@dataclass(kw_only=True)
class _Keeping(_Asking):
    """One detector's login to one store. ``good``: the store has it; ``written``: so has the Secret; ``alone``: no earlier one is left."""

    login: StoreLogin
    good: bool = False
    written: bool = False
    alone: bool = False
    problem: Lacking | None = None


@dataclass
class _Leaving(_Asking):
    """A detector that has a store of its own now. ``done``: it has no login to the platform's any more."""

    done: bool = False


@dataclass
class StoreLogins:
    """Safe to use from several threads. ``clock`` is in seconds, ``wall`` in UTC seconds."""

    stores: tuple[Store, ...] = STORES
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    # None: each store has one of its own, so that none waits for another that gives no answer.
    pool: Executor | None = None
    _kept: dict[tuple[DetectorKey, str], _Keeping] = field(default_factory=dict)
    _left: dict[tuple[DetectorKey, str], _Leaving] = field(default_factory=dict)
    _pools: dict[str, Executor] = field(default_factory=dict)
    # Reentrant: a pool may run what it is given at once.
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def look(self, detector: Detector, secret: Mapping[str, str]) -> StoresFact:
        """``secret`` is what the detector's Secret holds now, decoded; the fact has what it is to hold, and what is wrong."""
        wanted = [store for store in self.stores if store.wanted(detector)]
        kept = {store.key: self._look(store, detector, secret.get(store.key, "")) for store in wanted}
        for store in self.stores:
            if store not in wanted:
                self._leave(store, detector, in_secret=store.key in secret)
        begun = [
            one.running for one in kept.values() if one.running is not None and not (one.good or one.written)
        ]
        if begun:
            wait(begun, _MOMENT)
        with self._lock:
            addresses = {
                store.key: store.address(store.admin(detector.platform.stores).address, kept[store.key].login)
                if kept[store.key].good
                else secret.get(store.key, "")
                for store in wanted
            }
            # Two logins to one store lack the same.
            problems = tuple(dict.fromkeys(one.problem for one in kept.values() if one.problem is not None))
            ready = all(one.good for one in kept.values()) and not problems
            return StoresFact({key: value for key, value in addresses.items() if value}, problems, ready)

    def remove(self, identity: Identity, addresses: StoreAddresses) -> list[str]:
        """Takes the logins of a detector that is gone out of the platform's stores; -> what couldn't be, in words. Takes seconds.

        Also where it has a store of its own now: it may have had the platform's before.
        """
        problems = []
        for store in self.stores:
            if not store.admin(addresses).address:
                continue
            try:
                store.remove(store.admin(addresses), identity)
            except StoreError as error:
                names = f"{store.prefix(identity)}*"
                problems.append(f"its login {names} of {store.title} is left over: {error}")
        self.forget(identity.namespace, identity.name)
        return problems

    def forget(self, namespace: str, name: str) -> None:
        with self._lock:
            for store in self.stores:
                self._kept.pop(((namespace, name), store.key), None)
                self._left.pop(((namespace, name), store.key), None)

    def _look(self, store: Store, detector: Detector, address: str) -> _Keeping:
        key, prefix = (detector.namespace, detector.name), store.prefix(detector.identity)
        stored = store.read(address)
        if stored is not None and not is_login(prefix, stored.user):
            stored = None  # the platform's own, as earlier versions shared it
        with self._lock:
            one = self._kept.get((key, store.key))
            if one is None:
                login = stored or new_login(prefix, int(self.wall()))
                one = self._kept[key, store.key] = _Keeping(login=login, written=stored is not None)
            elif stored is None and one.written and not address:
                # Somebody took it out of the Secret, to have another one.
                one = self._kept[key, store.key] = _Keeping(login=new_login(prefix, int(self.wall())))
            one.written = one.written or stored == one.login
            one.see(stored == one.login, self.clock())
            left = self._left.get((key, store.key), _Leaving())
            if left.idle:
                self._left.pop((key, store.key), None)
                if one.idle and self.clock() >= one.due:
                    one.running = self._pool(store).submit(self._ensure, store, detector, one)
            return one

    def _pool(self, store: Store) -> Executor:
        """Asked for under the lock."""
        if self.pool is None and store.part not in self._pools:
            self._pools[store.part] = ThreadPoolExecutor(4, f"{store.part}-login")
        return self._pools[store.part] if self.pool is None else self.pool

    def _leave(self, store: Store, detector: Detector, in_secret: bool) -> None:
        """Once since the operator's start, when its Pods no longer have the platform's address."""
        key = ((detector.namespace, detector.name), store.key)
        with self._lock:
            self._kept.pop(key, None)
            left, now = self._left.setdefault(key, _Leaving()), self.clock()
            left.see(not in_secret, now)
            due = left.idle and left.settled(now) and now >= left.due
            if due and not left.done and store.admin(detector.platform.stores).address:
                left.running = self._pool(store).submit(self._part, store, detector, left)

    def _part(self, store: Store, detector: Detector, left: _Leaving) -> None:
        data = {"detector": str(detector.identity), "store": store.key}
        done = False
        try:
            store.remove(store.admin(detector.platform.stores), detector.identity)
            done = True
        except StoreError as error:
            LOG.warning("login is left over", extra={"data": {**data, "error": str(error)}})
        except Exception:
            LOG.exception("login broke", extra={"data": data})
        finally:
            with self._lock:
                left.done = done
                left.postpone(self.clock())

    def _ensure(self, store: Store, detector: Detector, one: _Keeping) -> None:
        admin = store.admin(detector.platform.stores)
        problem: Lacking | None = _broken(store)
        sweeps = one.settled(self.clock()) and not (one.alone and store.sweep_once)
        try:
            store.ensure(admin, detector, one.login, sweeps)
            problem = None
        except LoginRefusedError as error:
            problem = _refused(store, error)
        except StoreError as error:
            problem = _away(store, error)
        except Exception:
            # A fault of ours must neither pass for an answer nor make every pass ask again.
            LOG.exception(
                "login broke", extra={"data": {"detector": str(detector.identity), "store": store.key}}
            )
        finally:
            with self._lock:
                one.problem, one.good = problem, one.good or problem is None
                one.alone = one.alone or (sweeps and problem is None)
                if problem is None:
                    one.due, one.pause = self.clock() + store.again, FIRST_RETRY
                else:
                    one.postpone(self.clock())


def _refused(store: Store, error: Any) -> Lacking:
    remedy = (
        f"give that login the rights that docs/stores.md lists, or the detector a {store.title} of its own "
        f"in spec.stores.{store.part}.secretRef"
    )
    message = f"{store.value} of the chart: {store.title} makes no login for the detector ({error}): {remedy}"
    return Lacking("LoginRefused", message)


def _away(store: Store, error: Any) -> Lacking:
    message = (
        f"{store.value} of the chart: {store.title} gives no answer ({error}): see to it; it is asked again"
    )
    return Lacking("StoreUnreachable", message)


def _broken(store: Store) -> Lacking:
    message = f"{store.value} of the chart: no login could be made; the operator's log says why"
    return Lacking("CheckFailed", message)
