"""Watches of the children: one thread a kind, asking for objects with our label alone.

kopf watches every object of a kind and sorts out what is ours afterwards, which in a large cluster is most of the work;
the API server can do that. Secrets are not watched: the operator may get them by name only, so passes look at them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from fraud_contracts import names
from fraud_contracts.background import thread
from fraud_contracts.child_kinds import LISTED_KINDS, Kind
from fraud_operator.kube import ApiError, Kube

LOG: Final = logging.getLogger(__name__)
# A watch ends and starts anew after this time, and each start tells of all that is there: nothing stays missed for longer.
SECONDS: Final = 240
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0
Ask = Callable[[str, str], None]


@dataclass
class Watches:
    """``ask`` is called from the threads with the namespace and name of the detector that a child belongs to."""

    kube: Kube
    namespaces: Sequence[str]
    ask: Ask
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        for kind in LISTED_KINDS:
            for namespace in self.namespaces or (None,):
                thread(f"watch {kind.plural}", partial(self._follow, kind, namespace))

    def stop(self) -> None:
        self._stop.set()

    def _follow(self, kind: Kind, namespace: str | None) -> None:
        pause, warned = FIRST_PAUSE, False
        while not self._stop.is_set():
            try:
                for _, child in self.kube.watch(kind, namespace, names.UID_LABEL, SECONDS):
                    pause, warned = FIRST_PAUSE, False
                    self._notify(child["metadata"])
            except ApiError as error:
                # A kind that isn't installed yet (404), an API server that restarts: each ends by itself.
                if not warned:
                    LOG.warning("watch broke", extra={"data": {"kind": kind.kind, "error": str(error)}})
                    warned = True
            except Exception:
                # What a broken stream may hold is anyone's guess; without this thread a kind would go unwatched.
                LOG.exception("watch failed", extra={"data": {"kind": kind.kind}})
            if self._stop.wait(pause):
                return
            pause = min(LONGEST_PAUSE, pause * 2)

    def _notify(self, meta: dict[str, object]) -> None:
        labels = meta.get("labels")
        owner = labels.get(names.DETECTOR_LABEL) if isinstance(labels, dict) else None
        if isinstance(owner, str) and not self._stop.is_set():
            self.ask(str(meta["namespace"]), owner)
