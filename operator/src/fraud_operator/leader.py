"""Which of several operators acts: the one that holds a Lease. The others stand by and take it once it is no longer renewed.

Nobody compares clocks of two machines: who stands by counts from when it last saw the Lease change, and the holder stops writing
before that time can have passed. Why a Lease and not kopf's peering: docs/decisions/0008-watching-and-leading.md.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from fraud_contracts.background import thread
from fraud_contracts.child_kinds import LEASE
from fraud_operator.kube import ApiError, ConflictError, Kube
from fraud_operator.objects import Json

LOG: Final = logging.getLogger(__name__)
# A Lease that stayed as it was for so long may be taken.
LEASE_SECONDS: Final = 8
# The holder renews it so often, and writes nothing once so much time has passed since it last did.
RENEW_SECONDS: Final = 1.5
WRITE_SECONDS: Final = 6.0
# Who stands by looks so often.
LOOK_SECONDS: Final = 1.0
# After a failure.
RETRY_SECONDS: Final = 0.5
# Connecting, answering: a renewal that takes longer is as good as none.
TIMEOUT: Final = (1.0, 4.0)
POD_ENV: Final = "POD_NAME"


def lease_name(namespaces: Sequence[str]) -> str:
    """Of the operators that watch these namespaces, or all: operators for others are no rivals."""
    if not namespaces:
        return "fraud-operator"
    scope = hashlib.sha256("\n".join(sorted(namespaces)).encode()).hexdigest()[:8]
    return f"fraud-operator-{scope}"


def identity() -> str:
    """The Pod's name: a container that is started anew goes on at once with the Lease that it held. Elsewhere, the process."""
    return os.environ.get(POD_ENV) or f"{socket.gethostname()}_{os.getpid()}"


@dataclass
class Leader:
    """``elected`` is called once, from the thread that renews; ``deposed``, with a name, if another has held the Lease since.
    ``stands_by`` is called once before, if another holds it.

    ``kube`` must answer in time or not at all: TIMEOUT, and a single try.
    """

    kube: Kube
    namespace: str
    name: str
    identity: str
    elected: Callable[[], object]
    deposed: Callable[[str], object]
    stands_by: Callable[[], object] = lambda: None
    clock: Callable[[], float] = time.monotonic
    # Who holds the Lease, as last seen; empty before the first look.
    holder: str = ""
    _writes_until: float = float("-inf")
    # The Lease's resourceVersion while it is ours, so that a renewal is one request.
    _version: str = ""
    # How often the Lease had changed hands when it became ours; None before that.
    _term: int | None = None
    # The Lease's version while another holds it, and when it was first seen.
    _others: tuple[str, float] = ("", 0.0)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def leads(self) -> bool:
        """Whether it may write. False also between a renewal that failed and the next that succeeds."""
        return self.clock() < self._writes_until and not self._stop.is_set()

    def start(self) -> None:
        self._thread = thread("lease", self._run)

    def resign(self) -> None:
        """Writes no more, and lets another take the Lease at once."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(sum(TIMEOUT))
        if not self._version:
            return
        try:
            self._write(self._version, {"holderIdentity": None})
        except ApiError as error:
            LOG.info("lease not given back", extra={"data": self._data(str(error))})

    def _run(self) -> None:
        failed = False
        while not self._stop.is_set():
            asked = self.clock()
            try:
                self.look()
                failed = False
            except ApiError as error:
                if not failed:
                    LOG.warning("lease can't be looked after", extra={"data": self._data(str(error))})
                failed = True
            pause = RENEW_SECONDS if self._version else LOOK_SECONDS
            self._stop.wait(RETRY_SECONDS if failed else max(0.0, asked + pause - self.clock()))

    def look(self) -> None:
        """Renews the Lease, takes it if it is free, or notes whose it is. ApiError where the API server gives no answer."""
        asked = self.clock()
        if self._version and self._claim(asked, self._version, {}):
            return
        asked, lease = self.clock(), self.kube.get(LEASE, self.namespace, self.name)
        if lease is None:
            self._make(asked)
            return
        spec, version = lease.get("spec") or {}, str(lease["metadata"]["resourceVersion"])
        term, holder = int(spec.get("leaseTransitions") or 0), str(spec.get("holderIdentity") or "")
        if self._term is not None and (term != self._term or holder not in ("", self.identity)):
            self.deposed(holder or "another operator")
            return
        if self._others[0] != version:
            self._others = version, asked
        if holder == self.identity:
            self._claim(asked, version, {})
        elif not holder or asked - self._others[1] >= spec.get("leaseDurationSeconds", LEASE_SECONDS):
            self._claim(asked, version, {"leaseTransitions": term + 1, "acquireTime": _now()})
        else:
            if not self.holder:
                self.stands_by()
            self.holder = holder

    def _make(self, asked: float) -> None:
        meta = {"name": self.name, "namespace": self.namespace}
        spec = {"leaseTransitions": self._term or 0, "acquireTime": _now(), **self._hold()}
        body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta, "spec": spec}
        try:
            lease = self.kube.create(LEASE, body)
        except ConflictError:
            LOG.info("another made the lease", extra={"data": self._data()})
        else:
            self._take(asked, lease)

    def _claim(self, asked: float, version: str, change: Json) -> bool:
        """False where someone wrote the Lease meanwhile, or it is gone."""
        try:
            self._take(asked, self._write(version, {**change, **self._hold()}))
        except ApiError as error:
            if not isinstance(error, ConflictError) and error.status != 404:
                raise
            self._version = ""
            return False
        return True

    def _take(self, asked: float, lease: Json) -> None:
        """The Lease is ours from the moment at which it was asked for."""
        self._version, self.holder = str(lease["metadata"]["resourceVersion"]), self.identity
        self._writes_until = asked + WRITE_SECONDS
        first, self._term = self._term is None, int(lease["spec"].get("leaseTransitions") or 0)
        if first:
            LOG.info("leads", extra={"data": self._data()})
            self.elected()

    def _hold(self) -> Json:
        return {"holderIdentity": self.identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": _now()}

    def _write(self, version: str, spec: Json) -> Json:
        # resourceVersion makes the server refuse it if someone else wrote it meanwhile.
        change = {"metadata": {"resourceVersion": version}, "spec": spec}
        return self.kube.merge(LEASE, self.namespace, self.name, change)

    def _data(self, error: str = "") -> Json:
        where = f"{self.namespace}/{self.name}"
        return {"lease": where, "identity": self.identity, **({"error": error} if error else {})}


def _now() -> str:
    """As a Lease's times are written: with microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
