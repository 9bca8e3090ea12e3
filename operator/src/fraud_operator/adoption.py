"""Which platform looks after a detector: the first that made children of it, which writes its namespace on the detector.

A cluster may have two platforms, as where templates are rendered outside of it and the chart can't look. Both would set each
other's children without end, so the second leaves a detector alone; of its status, too, which the first one writes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

from fraud_contracts import names
from fraud_operator.events import Recorder
from fraud_operator.finalizer import set_finalizer
from fraud_operator.kube import Kube
from fraud_operator.objects import Json

LOG: Final = logging.getLogger(__name__)


@dataclass
class Adoption:
    """``namespace`` is our platform's. ``_told`` are the detectors of others, by uid, of which there was an event already."""

    kube: Kube
    recorder: Recorder
    namespace: str
    _told: set[str] = field(default_factory=set)

    def is_foreign(self, body: Json) -> bool:
        """Whether another platform looks after the detector; an event says so once, with what to do."""
        meta = body["metadata"]
        owner = _owner(body)
        if owner in ("", self.namespace):
            self._told.discard(str(meta["uid"]))
            return False
        if meta["uid"] not in self._told:
            self._told.add(str(meta["uid"]))
            command = f"kubectl -n {meta['namespace']} annotate {names.PLURAL} {meta['name']} {names.PLATFORM_ANNOTATION}-"
            message = (
                f"the platform in {owner} looks after it, so the one in {self.namespace} leaves it alone: give each its namespaces by "
                f"the chart's operator.watchNamespaces or, where the other one is gone, hand it over: {command}"
            )
            self.recorder.post_for(body, "ForeignOperator", message, warning=True)
            data = {"detector": f"{meta['namespace']}.{meta['name']}", "platform": owner}
            LOG.warning("another platform's detector", extra={"data": data})
        return True

    def adopt(self, body: Json) -> None:
        """Before the first child. ConflictError where the detector was changed since it was read, as by another platform's."""
        if _owner(body) != self.namespace or names.FINALIZER not in body["metadata"].get("finalizers", []):
            annotations = {names.PLATFORM_ANNOTATION: self.namespace}
            set_finalizer(self.kube, body, present=True, annotations=annotations)


def _owner(body: Json) -> str:
    return str((body["metadata"].get("annotations") or {}).get(names.PLATFORM_ANNOTATION, ""))
