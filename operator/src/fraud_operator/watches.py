"""Watches of the children: one thread a kind, asking for objects with our label alone, each keeping an index.

kopf could watch them, too. But one watch of its that is refused (a right taken away, a kind uninstalled) ends all of them with
the operator, and what is deleted while a watch is down is never told. A thread here fails by itself, goes on where it was or
lists anew, and finds what is gone. Secrets are not watched: the operator may get them by name only, so they are glanced at.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from fraud_contracts import names
from fraud_contracts.background import thread
from fraud_contracts.child_kinds import CRD, DETECTOR, LISTED_KINDS, NAMESPACE, POD, Kind
from fraud_operator.desired.workloads import WORKLOADS
from fraud_operator.index import Index, News, Place
from fraud_operator.indexed import Indexes
from fraud_operator.kube import ApiError, Kube, UnknownKindError
from fraud_operator.objects import Json

LOG: Final = logging.getLogger(__name__)
# A watch ends and goes on after this time.
SECONDS: Final = 240
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0
# A kind that isn't installed is looked for when its definition appears; this is for an operator that may not see definitions.
UNKNOWN_PAUSE: Final = 60.0
# kopf watches the detectors themselves. It tells of none that was deleted while its watch was down, so they are listed so often.
SWEEP: Final = 200.0
GONE: Final = 410
# So many detectors that something happened to are remembered by an operator that stands by.
NEWS_KEPT: Final = 1_000
_DATA_PATH: Final = ",".join(workload.label for workload in WORKLOADS if workload.data_path)
# Whoever is asked which release it uses.
PODS: Final = f"{names.DETECTOR_LABEL},{names.COMPONENT_LABEL} in ({_DATA_PATH})"
Ask = Callable[[str, str], None]


@dataclass
class Watch:
    """Of one kind, in one namespace or all. ``news`` gets namespace, name and detector's label of each object that changed.

    ``turned`` is called when the kind appears or disappears.
    """

    kube: Kube
    kind: Kind
    namespace: str | None
    selector: str
    index: Index
    news: Callable[[str, str, str], None]
    turned: Callable[[], None]
    stop: threading.Event
    # Set once it is known what there is, or that it can't be known.
    tried: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        pause, warned = FIRST_PAUSE, False
        while not self.stop.is_set():
            try:
                version = self._list()
                pause, warned = FIRST_PAUSE, False
                self._follow(version)
                continue
            except UnknownKindError:
                self._lose()
                self._await_definition()
            except ApiError as error:
                if not warned:
                    LOG.warning("watch broke", extra={"data": {"kind": self.kind.kind, "error": str(error)}})
                    warned = True
            except Exception:
                # What a broken stream may hold is anyone's guess; without this thread a kind would go unwatched.
                LOG.exception("watch failed", extra={"data": {"kind": self.kind.kind}})
            self.tried.set()
            self.stop.wait(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _list(self) -> str:
        """Takes all that there is; the version to go on from."""
        appeared, first = self.index.unknown, not self.tried.is_set()
        version, changed = self.index.replace(self.kube.pages(self.kind, self.namespace, self.selector))
        self.tried.set()
        if appeared:
            self.turned()
        elif not first:
            for one in changed:
                self.news(*one)
        return version

    def _follow(self, version: str) -> None:
        """Until the version is too old to go on from."""
        pause = FIRST_PAUSE
        while not self.stop.is_set():
            choice = {"labelSelector": self.selector, "resourceVersion": version}
            try:
                for event, body in self.kube.watch(self.kind, self.namespace, choice, SECONDS):
                    pause, version = FIRST_PAUSE, str(body["metadata"]["resourceVersion"])
                    self._take(event, body, version)
            except UnknownKindError:
                raise
            except ApiError as error:
                if error.status == GONE:
                    return
                LOG.info("watch goes on", extra={"data": {"kind": self.kind.kind, "error": str(error)}})
                self.stop.wait(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    def _take(self, event: str, body: Json, version: str) -> None:
        if event == "BOOKMARK":
            self.index.heard(version)
        elif self.index.drop(body) if event == "DELETED" else self.index.put(body):
            self._tell(body)

    def _tell(self, body: Json) -> None:
        meta = body["metadata"]
        owner = (meta.get("labels") or {}).get(names.DETECTOR_LABEL, "")
        self.news(str(meta.get("namespace", "")), str(meta["name"]), str(owner))

    def _lose(self) -> None:
        """The API server has no such kind."""
        if not self.index.unknown:
            self.index.clear(unknown=True)
            if self.tried.is_set():
                self.turned()
        self.tried.set()

    def _await_definition(self) -> None:
        """Until the kind's definition is there: each change of it is a reason to try again."""
        try:
            for event, _ in self.kube.watch(
                CRD, None, {"fieldSelector": f"metadata.name={self.kind.resource}"}, SECONDS
            ):
                if event in ("ADDED", "MODIFIED") or self.stop.is_set():
                    return
        except ApiError as error:
            LOG.info("definition not seen", extra={"data": {"kind": self.kind.kind, "error": str(error)}})
            self.stop.wait(UNKNOWN_PAUSE)


class Tail(Watch):
    """Brings what happens from now on, and keeps nothing of it."""

    def _list(self) -> str:
        version, _ = next(self.kube.pages(self.kind, self.namespace, size=1))
        self.tried.set()
        return version

    def _take(self, event: str, body: Json, version: str) -> None:
        if event != "BOOKMARK":
            self._tell(body)


@dataclass
class Watches:
    """``ask`` is called from the threads with the namespace and name of a detector that something happened to.

    ``watch`` is how children are watched. Without rights that are ``cluster_scoped`` no namespace can be watched: each pass asks for its
    own.
    """

    kube: Kube
    namespaces: Sequence[str]
    ask: Ask
    indexes: Indexes
    cluster_scoped: bool = True
    watch: type[Watch] = Watch
    _watches: list[Watch] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begins; nobody is asked for before something happens."""
        for scope in self._scopes:
            for kind in LISTED_KINDS:
                self._add(kind, scope, names.UID_LABEL, Index(), self._child_changed)
            pods = Index(group_label=names.DETECTOR_LABEL, keep=_pod)
            self._add(POD, scope, PODS, pods, self._child_changed)
        if self.cluster_scoped:
            self._add(NAMESPACE, None, "", Index(whole=True, keep=_metadata), self._namespace_changed)
        for watch in self._watches:
            thread(f"watch {watch.kind.plural}", watch.run)

    def ask_for_all(self, seconds: float, first: Sequence[Place] = ()) -> None:
        """Asks for each detector, these ``first``, once it is known what there is of them, or ``seconds`` have passed.

        A kind that can't be listed is asked for in each pass until it can. ApiError where the detectors themselves can't be.
        """
        self.known(seconds)
        indexes = [(scope, self.indexes.add(DETECTOR, scope, Index())) for scope in self._scopes]
        for scope, detectors in indexes:
            self._list_detectors(scope, detectors)
        there = dict.fromkeys(self._detectors())
        for place in dict.fromkeys((*(one for one in first if one in there), *there)):
            self._ask(*place)
        for scope, detectors in indexes:
            thread("sweep", partial(self._sweep, scope, detectors))

    def known(self, seconds: float) -> bool:
        """Waits so long until it is known of each kind what there is, or that it can't be known; -> whether it is."""
        end = time.monotonic() + seconds
        return all(watch.tried.wait(max(0.0, end - time.monotonic())) for watch in self._watches)

    def stop(self) -> None:
        self._stop.set()

    def _add(
        self,
        kind: Kind,
        namespace: str | None,
        selector: str,
        index: Index,
        news: Callable[[str, str, str], None],
    ) -> None:
        self.indexes.add(kind, namespace, index)
        self._watches.append(
            self.watch(self.kube, kind, namespace, selector, index, news, self._ask_all, self._stop)
        )

    def _child_changed(self, namespace: str, name: str, owner: str) -> None:
        if owner:
            self._ask(namespace, owner)

    def _namespace_changed(self, _: str, name: str, owner: str) -> None:
        """A namespace that is being deleted takes its detectors along."""
        for place in self._detectors():
            if place[0] == name:
                self._ask(*place)

    def _ask_all(self) -> None:
        for place in self._detectors():
            self._ask(*place)

    def _ask(self, namespace: str, name: str) -> None:
        if not self._stop.is_set():
            self.ask(namespace, name)

    @property
    def _scopes(self) -> Sequence[str | None]:
        return self.namespaces or (None,)

    def _detectors(self) -> list[Place]:
        indexes = [self.indexes.of(DETECTOR, scope) for scope in self._scopes]
        return [place for index in indexes if index is not None for place in index.places()]

    def _sweep(self, scope: str | None, index: Index) -> None:
        pause = SWEEP
        while not self._stop.wait(pause):
            try:
                for namespace, name, _ in self._list_detectors(scope, index):
                    self._ask(namespace, name)
                pause = SWEEP
            except ApiError as error:
                LOG.info("sweep failed", extra={"data": {"error": str(error)}})
                pause = LONGEST_PAUSE

    def _list_detectors(self, scope: str | None, index: Index) -> set[News]:
        """-> those that changed, or aren't there any more."""
        return index.replace(self.kube.pages(DETECTOR, scope))[1]


@dataclass
class Standby:
    """What an operator does that another one leads: it watches, to know what happened last once it leads itself.

    Its predecessor may not have lived to see that, so of many detectors these are to come first. Nothing else is kept: what there is,
    a new leader lists, since a watch may have been silent for minutes before it is found to be dead.
    """

    kube: Kube
    namespaces: Sequence[str]
    # The last one last.
    _news: dict[Place, None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _watches: Watches = field(init=False)

    def __post_init__(self) -> None:
        self._watches = Watches(self.kube, self.namespaces, self._note, Indexes(), False, Tail)

    def start(self) -> None:
        self._watches.start()

    def knows(self, seconds: float) -> bool:
        """Waits so long until it sees what happens from then on; -> whether it does."""
        return self._watches.known(seconds)

    @property
    def news(self) -> list[Place]:
        """The detectors that something happened to, the last one first."""
        with self._lock:
            return list(reversed(self._news))

    def stop(self) -> None:
        self._watches.stop()

    def _note(self, namespace: str, name: str) -> None:
        with self._lock:
            self._news.pop((namespace, name), None)
            self._news[namespace, name] = None
            if len(self._news) > NEWS_KEPT:
                del self._news[next(iter(self._news))]


def _metadata(body: Json) -> Json:
    """Of a namespace, whether it is being deleted is all that is asked."""
    kept = ("name", "resourceVersion", "deletionTimestamp")
    return {"metadata": {key: value for key, value in body["metadata"].items() if key in kept}}


def _pod(body: Json) -> Json:
    """Whose it is, and where it answers."""
    meta, status = body["metadata"], body.get("status") or {}
    return {
        "metadata": {key: value for key, value in meta.items() if key != "managedFields"},
        "status": {key: status[key] for key in ("phase", "podIP") if key in status},
    }
