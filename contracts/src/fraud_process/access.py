"""Who may ask: keys of the mounted clients document, their scopes, and how often each may be used.

The file is looked at again once a second while somebody asks, so a key that is added or taken away needs no restart. Where it
can't be read, what was read last goes on holding.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from fraud_contracts import metrics
from fraud_contracts.clients import CLIENTS_ENV, CLIENTS_PATH, ClientAccess, ClientsDocument, hash_key
from fraud_contracts.detector_clients import Scope
from fraud_contracts.errors import Access, ForbiddenError, RateLimitedError, UnauthenticatedError
from fraud_process.instruments import Instruments

LOOK_SECONDS: Final = 1.0
_ADMITTED: Final = "admitted"
_RESULTS: Final = (_ADMITTED, str(Access.FORBIDDEN), str(Access.RATE_LIMITED))
_log = logging.getLogger(__name__)


class TokenBucket:
    """``rate`` requests a second, a second's worth of them at once. Times are in seconds."""

    def __init__(self, rate: int, now: float) -> None:
        self.rate, self._level, self._then = rate, float(rate), now

    def take(self, now: float) -> float:
        """0 where a request may pass, else the time after which one may."""
        self._level = min(float(self.rate), self._level + (now - self._then) * self.rate)
        self._then = now
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self.rate


class KeyState(StrEnum):
    """MISSING: no document was read yet, so nobody is let in. STALE: an earlier one holds, since the file can't be read."""

    MISSING = "missing"
    STALE = "stale"
    CURRENT = "current"


class _Grant(NamedTuple):
    """What a key opens as one client's."""

    client: ClientAccess
    bucket: TokenBucket | None


class KeyCheck:
    """Of one process; may be used from several threads. ``clock`` is monotonic, in seconds.

    A key is looked up by its hash, which nobody can steer towards another's: how long it takes tells nothing about keys.
    """

    def __init__(
        self, path: Path, instruments: Instruments, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._instruments, self._clock = path, instruments, clock
        self._grants: dict[str, tuple[_Grant, ...]] = {}
        self._names: frozenset[str] = frozenset()
        self._stamp: object = None
        self._due = -math.inf
        self._lock = threading.Lock()
        self._state = KeyState.MISSING
        instruments.show(metrics.CLIENT_REQUESTS, metrics.CLIENTS_STALE)

    @property
    def state(self) -> KeyState:
        """As of the last second: looks at the file where nobody has asked since."""
        self._look(self._clock())
        return self._state

    def admit(self, key: bytes, scope: Scope) -> None:
        """Returns where the key opens the scope now; else raises one of ``AccessError``."""
        now = self._clock()
        self._look(now)
        grants = self._grants.get(hash_key(key))
        if grants is None:
            raise UnauthenticatedError
        grant = next((grant for grant in grants if grant.client.opens(scope)), None)
        if grant is None:
            name = grants[0].client.name
            self._count(name, str(Access.FORBIDDEN))
            raise ForbiddenError(name, scope)
        client, bucket = grant
        if bucket is not None:
            with self._lock:
                wait = bucket.take(now)
            if wait > 0:
                self._count(client.name, str(Access.RATE_LIMITED))
                raise RateLimitedError(client.name, bucket.rate, math.ceil(wait))
        self._count(client.name, _ADMITTED)

    def _count(self, client: str, result: str) -> None:
        self._instruments(metrics.CLIENT_REQUESTS, client=client, result=result).inc()

    def _look(self, now: float) -> None:
        """Reads the file if it was changed; the stamp of a broken one is kept, too, so that it is told of once."""
        if now < self._due:
            return
        with self._lock:
            self._due = now + LOOK_SECONDS
            problem = ""
            try:
                state = self._path.stat()
                stamp: object = (state.st_ino, state.st_mtime_ns, state.st_size)
                if stamp == self._stamp:
                    return
                self._take(ClientsDocument.model_validate_json(self._path.read_bytes()), now)
            except OSError as error:
                stamp = problem = str(error)
            except ValidationError as error:
                problem = "; ".join(
                    f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                    for fault in error.errors(include_input=False)
                )
            if stamp != self._stamp:
                self._tell(problem)
            self._stamp = stamp

    def _take(self, document: ClientsDocument, now: float) -> None:
        """A key's bucket stays as full as it is while its client's limit stays."""
        before = {(g.client.name, key): g.bucket for key, grants in self._grants.items() for g in grants}
        grants: dict[str, tuple[_Grant, ...]] = {}
        for client in document.clients:
            rate = client.requests_per_second
            for key in client.hashes:
                bucket = before.get((client.name, key))
                if rate is None:
                    bucket = None
                elif bucket is None or bucket.rate != rate:
                    bucket = TokenBucket(rate, now)
                grants[key] = (*grants.get(key, ()), _Grant(client, bucket))
        clients = frozenset(client.name for client in document.clients)
        for gone in self._names - clients:
            for result in _RESULTS:
                self._instruments.forget(metrics.CLIENT_REQUESTS, client=gone, result=result)
        self._grants, self._names = grants, clients

    def _tell(self, problem: str) -> None:
        if not problem:
            self._state = KeyState.CURRENT
        elif self._state is KeyState.CURRENT:
            self._state = KeyState.STALE
        self._instruments(metrics.CLIENTS_STALE).set(1 if problem else 0)
        data = {"file": str(self._path), "clients": len(self._names), "keys": len(self._grants)}
        if problem:
            _log.error(
                "clients' keys can't be read; the last ones hold", extra={"data": data | {"error": problem}}
            )
        else:
            _log.info("clients' keys read", extra={"data": data})


def mounted_keys(instruments: Instruments, environ: Mapping[str, str] | None = None) -> KeyCheck:
    """Over the file that the operator mounts, or that FRAUD_CLIENTS names."""
    path = (os.environ if environ is None else environ).get(CLIENTS_ENV, CLIENTS_PATH)
    return KeyCheck(Path(path), instruments)
