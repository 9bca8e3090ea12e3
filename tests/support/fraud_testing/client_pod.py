"""The Pod of ``client_load``: a client of a detector's API within the cluster, told what to do and asked what it saw by kubectl exec."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.config import HTTP_PORT
from fraud_local.demo.kubectl import Kubectl
from fraud_testing import client_load
from fraud_testing.client_load import FOLDER
from fraud_testing.kafka import wait_for

NAME: Final = "rotation-client"
PLACE: Final = "/opt/client"
SECONDS: Final = 120.0
# Each look is a process on a machine that others measure on.
PAUSE: Final = 1.0
# Statuses of requests by one key, each over a connection of its own: a Service leads them to all its Pods.
# Asks by one key, each time over a connection of its own: a Service leads them to all its Pods.
_KNOCK: Final = """
import http.client, json, sys
key, statuses = sys.stdin.read(), []
for _ in range(int(sys.argv[3])):
    link = http.client.HTTPConnection(sys.argv[1], timeout=10)
    link.request("GET", sys.argv[2], headers={"X-API-Key": key})
    statuses.append(link.getresponse().status)
    link.close()
print(json.dumps(statuses))
"""


def objects(
    name: str, namespace: str, spec: Mapping[str, Any], image: str, rate: int, run: str
) -> list[dict[str, Any]]:
    """The program as a ConfigMap, and the Pod that runs it. Its image is the decision service's, which has what it imports."""
    meta = {"name": NAME, "namespace": namespace, "labels": {"app.kubernetes.io/name": NAME}}
    program = Path(client_load.__file__)
    doors = {"url": names.decision_service(name), "console": names.console(name)}
    command = [
        "python", f"{PLACE}/{program.name}", *(f"--{door}=http://{host}:{HTTP_PORT}" for door, host in doors.items()),
        f"--rate={rate}", f"--spec={PLACE}/spec.json", f"--run={run}",
    ]  # fmt: skip
    container = {
        "name": "client",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "volumeMounts": [{"name": "program", "mountPath": PLACE}, {"name": "tmp", "mountPath": "/tmp"}],
        "resources": {
            "requests": {"cpu": "50m", "memory": "96Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod_spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "program", "configMap": {"name": NAME}}, {"name": "tmp", "emptyDir": {}}],
    }
    data = {program.name: program.read_text(), "spec.json": json.dumps(spec)}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data},
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod_spec},
    ]


@dataclass
class ClientPod:
    """``keys`` are the key that it has for each scope."""

    kube: Kubectl
    detector: str
    namespace: str
    run: str
    keys: dict[str, str]

    def start(self, spec: Mapping[str, Any], rate: int) -> None:
        """Returns once payments are decided. One that an earlier run left goes first."""
        self.remove()
        decision = self.kube.get("-n", self.namespace, "deployment", names.decision_service(self.detector))
        image = decision["spec"]["template"]["spec"]["containers"][0]["image"]
        items = objects(self.detector, self.namespace, spec, image, rate, self.run)
        self.kube.kubectl(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        )
        self._kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", f"--timeout={SECONDS:.0f}s")
        self._exec("mkdir", "-p", str(FOLDER))
        self.move(self.keys)
        wait_for(
            lambda: self.status()["counts"].get(client_load.DECIDE.path), SECONDS, "a first decision", PAUSE
        )

    def move(self, keys: Mapping[str, str]) -> None:
        """Gives it other keys; returns once it asks by these."""
        self.keys = {**self.keys, **keys}
        text = json.dumps(self.keys)
        self._exec("sh", "-c", f"cat > {FOLDER}/keys.part && mv {FOLDER}/keys.part {FOLDER}/{client_load.KEYS}", stdin=text)  # fmt: skip
        digest = hashlib.sha256(text.encode()).hexdigest()
        wait_for(lambda: self.status().get("keys") == digest, SECONDS, "the client to take its keys", PAUSE)

    def status(self) -> dict[str, Any]:
        """What it has counted so far; nothing is counted before it has keys."""
        text = self._exec("sh", "-c", f"cat {FOLDER}/{client_load.STATUS} 2> /dev/null || echo '{{}}'")
        status: dict[str, Any] = {"counts": {}, "degraded": {}, **json.loads(text)}
        return status

    def failures(self) -> list[dict[str, Any]]:
        """Every attempt that got no 2xx since the start."""
        return [json.loads(line) for line in self._exec("cat", f"{FOLDER}/{client_load.FAILURES}").splitlines()]  # fmt: skip

    def statuses(self, host: str, path: str, key: str, times: int = 20) -> Counter[int]:
        """What a service answers to a key."""
        text = self._exec("python", "-S", "-c", _KNOCK, f"{host}:{HTTP_PORT}", path, str(times), stdin=key)  # fmt: skip
        return Counter(json.loads(text))

    def finish(self) -> list[dict[str, Any]]:
        """Ends the load; -> every answer to a payment."""
        self._exec("touch", str(FOLDER / client_load.STOP))
        wait_for(lambda: self.status().get("done"), SECONDS, "the last answer", PAUSE)
        packed = base64.b64decode(self._exec("base64", str(FOLDER / client_load.ANSWERS)))
        return [json.loads(line) for line in gzip.decompress(packed).splitlines()]

    def remove(self) -> None:
        self._kubectl("delete", f"pod/{NAME}", f"configmap/{NAME}", "--ignore-not-found", "--timeout=60s")

    def _exec(self, *command: str, stdin: str | None = None) -> str:
        return self._kubectl("exec", "-i", NAME, "--", *command, stdin=stdin or "")

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.kube.kubectl("-n", self.namespace, *arguments, stdin=stdin)
