"""What wakes a pass for the detectors themselves: their raw events. kopf watches; nothing is decided here."""

from __future__ import annotations

from typing import Any

import kopf

from fraud_contracts import names
from fraud_contracts.child_kinds import DETECTOR
from fraud_operator.indexed import Indexes
from fraud_operator.passes import Passes


def registry(passes: Passes, indexes: Indexes) -> kopf.OperatorRegistry:
    """Handlers bound to one queue, and to the index that its passes read."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)  # type: ignore[untyped-decorator]  # kopf is untyped
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=handlers)  # type: ignore[untyped-decorator]  # kopf is untyped
    async def detector_changed(event: Any, namespace: str | None, name: str | None, **_: Any) -> None:
        index = indexes.of(DETECTOR, namespace)
        if index is None or not namespace or not name:
            return
        body = event["object"]
        # The echo of a status that we wrote ourselves is no reason for a pass.
        if index.drop(body) if event["type"] == "DELETED" else index.put(body):
            passes.ask(namespace, name)

    return handlers


def settings() -> kopf.OperatorSettings:
    """No peering (a Lease decides who acts), no events of kopf's own, no look at other kinds' definitions or at namespaces."""
    out = kopf.OperatorSettings()
    out.peering.standalone = True
    out.posting.enabled = False
    out.scanning.disabled = True
    out.watching.server_timeout = 240
    out.watching.client_timeout = 300
    out.watching.connect_timeout = 5
    out.networking.request_timeout = 15
    out.networking.connect_timeout = 5
    return out
