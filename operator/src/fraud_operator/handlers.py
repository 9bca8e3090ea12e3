"""What wakes a pass: raw events of detectors and of their children. kopf watches; nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import kopf

from fraud_contracts import names
from fraud_operator.kube import BY_KIND
from fraud_operator.passes import Passes

# Children whose status we wait for. The others are looked after by the resync: watching each ConfigMap or Service of a
# cluster costs more than a child's absence for some seconds.
WATCHED: Final = (
    "Kafka", "KafkaTopic", "FlinkDeployment", "RayJob", "InferenceService", "Deployment", "StatefulSet",
)  # fmt: skip


def registry(passes: Passes) -> kopf.OperatorRegistry:
    """Handlers bound to one queue; kopf waits by itself for kinds that aren't installed yet."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)  # type: ignore[untyped-decorator]
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=handlers)  # type: ignore[untyped-decorator]
    async def detector_changed(namespace: str | None, name: str | None, **_: Any) -> None:
        if namespace and name:
            passes.ask(namespace, name)

    for kind in (BY_KIND[name] for name in WATCHED):
        group, _, version = kind.api_version.rpartition("/")

        @kopf.on.event(group, version, kind.plural, labels={names.UID_LABEL: kopf.PRESENT}, registry=handlers)  # type: ignore[untyped-decorator]
        async def child_changed(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
            owner = labels.get(names.DETECTOR_LABEL)
            if namespace and owner:
                passes.ask(namespace, owner)

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
