"""The detector's finalizer: put on before the first child, taken off once nothing is left to wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fraud_contracts import names
from fraud_contracts.child_kinds import DETECTOR
from fraud_operator import deletion
from fraud_operator.events import Recorder
from fraud_operator.kube import ApiError, Kube, UnreachableError
from fraud_operator.objects import Json
from fraud_operator.pass_result import PassResult


def set_finalizer(
    kube: Kube, body: Json, *, present: bool, annotations: Mapping[str, str] | None = None
) -> None:
    """Changes the detector and the metadata in ``body``; ``annotations`` are added to it by the same write."""
    meta = body["metadata"]
    others = [f for f in meta.get("finalizers", []) if f != names.FINALIZER]
    wanted = [*others, names.FINALIZER] if present else others
    # resourceVersion makes the server refuse it if someone else changed the list meanwhile.
    patch: Json = {"metadata": {"finalizers": wanted, "resourceVersion": meta["resourceVersion"]}}
    if annotations:
        patch["metadata"]["annotations"] = dict(annotations)
    after = kube.merge(DETECTOR, meta["namespace"], meta["name"], patch)
    body["metadata"] = after["metadata"]


@dataclass
class Finalizer:
    kube: Kube
    recorder: Recorder
    # Takes the detector's logins out of stores that outlive it; -> what is left over, in words.
    take_logins: Callable[[Json], list[str]] = lambda _: []
    # Since when the API server has answered a detector's deletion with errors, by uid.
    _troubled: dict[str, int] = field(default_factory=dict)

    def advance(self, body: Json, terminating: bool, now: int) -> PassResult:
        """One step of a detector's end; what can't be deleted gets an event."""
        meta = body["metadata"]
        if names.FINALIZER not in meta.get("finalizers", []):
            return PassResult(settled=True, ready=False)
        if not terminating and not meta.get("deletionTimestamp"):
            return PassResult(settled=False, ready=False)  # a namesake, made since the one that was to go

        def post_event(reason: str, message: str, warning: bool) -> None:
            self.recorder.post_for(body, reason, message, warning=warning)

        uid = str(meta["uid"])
        removal = deletion.Removal(self.kube, body, terminating, now, post_event)
        problems = removal.report.problems
        try:
            if not terminating and deletion.is_orphaning(self.kube, body):
                message = "deleted with --cascade=orphan: all children stay as they are, and the streaming job goes on running"
                post_event("Orphaned", message, True)
                return self._let_go(body)
            if not removal.advance():
                self._troubled.pop(uid, None)
                return PassResult(settled=False, ready=False, written=tuple(removal.report.written))
        except UnreachableError:
            raise
        except ApiError as error:
            if now - self._troubled.setdefault(uid, now) < deletion.TROUBLE_MS:
                raise
            problems[names.KIND, meta["name"]] = f"its children can't be looked after: {error.message}"
        for (kind, name), text in problems.items():
            post_event("NotDeleted", f"{kind} {name} is left over: {text}", True)
        for text in self.take_logins(body):
            post_event("NotDeleted", text, True)
        return self._let_go(body, tuple(removal.report.written))

    def _let_go(self, body: Json, written: tuple[tuple[str, str, str], ...] = ()) -> PassResult:
        set_finalizer(self.kube, body, present=False)
        self._troubled.pop(str(body["metadata"]["uid"]), None)
        return PassResult(settled=True, ready=None, written=written)
