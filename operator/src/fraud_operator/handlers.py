"""What wakes a pass for the detectors themselves: their raw events. kopf watches; nothing is decided here."""

from __future__ import annotations

from typing import Any

import kopf

from fraud_contracts import names
from fraud_operator.passes import Passes


def registry(passes: Passes) -> kopf.OperatorRegistry:
    """Handlers bound to one queue; kopf waits by itself for a kind that isn't installed yet."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)  # type: ignore[untyped-decorator]  # kopf is untyped
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=handlers)  # type: ignore[untyped-decorator]  # kopf is untyped
    async def detector_changed(namespace: str | None, name: str | None, **_: Any) -> None:
        if namespace and name:
            passes.ask(namespace, name)

    return handlers


def settings() -> kopf.OperatorSettings:
    """No peering (the chart runs one replica, Recreate), no events of kopf's own, watches that end and start anew."""
    out = kopf.OperatorSettings()
    out.peering.standalone = True
    out.posting.enabled = False
    out.watching.server_timeout = 240
    out.watching.client_timeout = 300
    out.watching.connect_timeout = 5
    out.networking.request_timeout = 15
    out.networking.connect_timeout = 5
    return out
