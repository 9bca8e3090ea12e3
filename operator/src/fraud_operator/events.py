"""Kubernetes events on the detector, for people: what changed and why."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from typing import Final

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND
from fraud_operator.detector import Detector
from fraud_operator.kube import ApiError, Kube
from fraud_operator.objects import Json, to_timestamp

LOG: Final = logging.getLogger(__name__)


@dataclass
class Recorder:
    kube: Kube

    def post(self, detector: Detector, reason: str, message: str, *, warning: bool = False) -> None:
        meta = {"name": detector.name, "namespace": detector.namespace, "uid": detector.uid}
        self.post_for({"metadata": meta}, reason, message, warning=warning)

    def post_for(self, body: Json, reason: str, message: str, *, warning: bool = False) -> None:
        """An event that can't be written is logged: it never ends a pass."""
        meta, now = body["metadata"], to_timestamp(int(time.time() * 1000))
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{secrets.token_hex(6)}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta.get("uid", ""),
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:1024],
            "source": {"component": names.FIELD_MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self.kube.create(BY_KIND["Event"], event)
        except ApiError as error:
            detector = f"{meta['namespace']}.{meta['name']}"
            data = {"detector": detector, "reason": reason, "message": message, "error": error.message}
            LOG.warning("event not written", extra={"data": data})


def transitions(previous: Json, after: Json) -> list[tuple[str, str]]:
    """Conditions that became true or stopped being true, as a person reads them; none for a detector's first status."""
    before = {c["type"]: c["status"] for c in previous.get("conditions") or []}
    out = []
    for condition in after["conditions"]:
        kind, now_is = condition["type"], condition["status"]
        if (
            kind in ("Progressing", "Paused", "Degraded", "ValidationFailed")
            or before.get(kind, "False") == now_is
            or (kind not in before and now_is == "Unknown")
        ):
            continue
        verb = "became true" if now_is == "True" else "is no longer true"
        out.append((kind if now_is == "True" else f"Not{kind}", f"{kind} {verb}: {condition['message']}"))
    return out
