"""A detector on a live cluster, as whoever changes its credentials sees it: Secrets, Pods, what is mounted in them, conditions."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fraud_contracts import names
from fraud_local.demo.kubectl import Kubectl, KubectlError
from fraud_testing.kafka import wait_for

PLATFORM: Final = "fraud-platform"
OPERATOR: Final = f"{PLATFORM}-operator"
STORES: Final = f"{PLATFORM}-stores"
# The kubelet brings a changed Secret into a Pod within a minute or two; Pods are started anew in less.
SOON: Final = 240.0
# Each look is a process on the machine that the cluster runs on.
PAUSE: Final = 2.0


def within(seconds: float, what: str, condition: Any) -> Any:
    """What the condition gives once that is true; a cluster that gives no answer is asked again."""

    def look() -> Any:
        try:
            return condition()
        except KubectlError:
            return None

    return wait_for(look, seconds, what, PAUSE)


@dataclass(frozen=True)
class Live:
    kube: Kubectl
    name: str
    namespace: str

    def body(self) -> dict[str, Any]:
        return self.kube.get("-n", self.namespace, f"{names.PLURAL}.{names.GROUP}", self.name)

    # Secrets ---------------------------------------------------------------------------------------------------------

    def secret(self, name: str, namespace: str = "") -> dict[str, str]:
        """Its entries in plain; none where it isn't there."""
        data = self.kube.get("-n", namespace or self.namespace, "secret", name).get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def put(self, name: str, entries: Mapping[str, str], namespace: str = "") -> None:
        self._patch(name, namespace, "merge", {"stringData": dict(entries)})

    def take(self, name: str, entries: Iterable[str], namespace: str = "") -> None:
        """Takes entries out, as the pages say it."""
        removals = [{"op": "remove", "path": f"/data/{entry}"} for entry in entries]
        self._patch(name, namespace, "json", removals)

    def _patch(self, name: str, namespace: str, kind: str, patch: Any) -> None:
        # By a file, so that no command line shows a key.
        self.kube.kubectl(
            "-n", namespace or self.namespace, "patch", "secret", name, f"--type={kind}", "--patch-file=/dev/stdin",
            stdin=json.dumps(patch),
        )  # fmt: skip

    def replaced(self, name: str, before: Mapping[str, str], entries: Iterable[str], namespace: str = "") -> dict[str, str]:  # fmt: skip
        """The Secret once each of these entries is there again with another value."""

        def look() -> dict[str, str] | None:
            now = self.secret(name, namespace)
            return now if all(now.get(entry, before[entry]) != before[entry] for entry in entries) else None

        done: dict[str, str] = within(SOON, f"other values in {name}", look)
        return done

    # Pods ------------------------------------------------------------------------------------------------------------

    def pods(self, component: str) -> list[str]:
        """Of one component of the detector, those that run."""
        selector = f"{names.DETECTOR_LABEL}={self.name},{names.COMPONENT_LABEL}={component}"
        running = "--field-selector=status.phase=Running"
        items = self.kube.get("-n", self.namespace, "pods", "-l", selector, running).get("items", [])
        return [item["metadata"]["name"] for item in items]

    def lives(self) -> dict[str, tuple[str, int]]:
        """Of each Pod that goes on, the detector's, its brokers' and the platform's: its UID and its restarts."""
        found = {}
        for namespace, selector in (
            (self.namespace, f"{names.DETECTOR_LABEL}={self.name}"),
            (self.namespace, f"strimzi.io/cluster={names.kafka(self.name)}"),
            (PLATFORM, f"app.kubernetes.io/instance={PLATFORM}"),
        ):
            for item in self.kube.get("-n", namespace, "pods", "-l", selector).get("items", []):
                meta, status = item["metadata"], item.get("status", {})
                over = status.get("phase") in ("Succeeded", "Failed") or meta.get("deletionTimestamp")
                if over or meta["labels"].get(names.COMPONENT_LABEL) == "training":
                    continue
                restarts = sum(one["restartCount"] for one in status.get("containerStatuses", []))
                found[f"{namespace}/{meta['name']}"] = (meta["uid"], restarts)
        return found

    def run_in(self, target: str, program: str, *arguments: str, stdin: str = "") -> str:
        """What a program of ``in_pods`` prints in a Pod, or in one of a workload's, such as deployment/payments-console."""
        command = ("exec", "-i", target, "--", "python", "-c", program, *arguments)
        return self.kube.kubectl("-n", self.namespace, *command, stdin=stdin, timeout=300).strip()

    def in_store(self, store: str, script: str, stdin: str = "") -> str:
        """What a shell script prints in the Pod of one of the trial's stores."""
        command = ("exec", "-i", f"deployment/{PLATFORM}-{store}", "--", "sh", "-c", script)
        return self.kube.kubectl("-n", PLATFORM, *command, stdin=stdin).strip()

    def holds(self, component: str, file: str, value: str) -> bool:
        """Whether all Pods of a component have the value in a mounted file by now."""
        texts = [
            self.kube.kubectl("-n", self.namespace, "exec", pod, "--", "cat", file)
            for pod in self.pods(component)
        ]
        return bool(texts) and all(text == value for text in texts)

    def restart_operator(self) -> None:
        """As the pages say it; returns once the new one is ready."""
        self.kube.kubectl("-n", PLATFORM, "rollout", "restart", "deployment", OPERATOR)
        self.kube.kubectl(
            "-n", PLATFORM, "rollout", "status", "deployment", OPERATOR, "--timeout=240s", timeout=260
        )

    # Conditions ------------------------------------------------------------------------------------------------------

    def conditions(self) -> dict[str, tuple[str, str]]:
        """Status and reason by type."""
        conditions = self.body().get("status", {}).get("conditions", [])
        return {one["type"]: (one["status"], one["reason"]) for one in conditions}

    def whole(self) -> bool:
        """All that a detector that works says, of the spec that it has now."""
        body = self.body()
        status = body.get("status", {})
        true = {one["type"] for one in status.get("conditions", []) if one["status"] == "True"}
        wanted = {
            "Ready",
            "KeysReady",
            "StoresReady",
            "StorageReady",
            "KafkaReady",
            "StreamingReady",
            "ServingReady",
        }
        return wanted <= true and status.get("observedGeneration") == body["metadata"]["generation"]

    def settle(self) -> None:
        """Returns once it is whole and no Pod of it is to come any more."""
        within(SOON, f"{self.namespace}/{self.name} to be whole again", self.whole)
        deployments = ("deployments", "-l", f"{names.DETECTOR_LABEL}={self.name}")
        for one in (deployments, ("statefulset", names.worker(self.name))):
            arguments = ("rollout", "status", *one, f"--timeout={SOON:.0f}s")
            self.kube.kubectl("-n", self.namespace, *arguments, timeout=SOON + 30)
