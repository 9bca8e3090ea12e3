"""Kills every process of the platform in turn, while traffic runs, and notes how long each was away.

A fault is SIGKILL of a Pod's container, found by its id in this machine's cgroups, so no process is ever chosen by its
name; the API server of the native node is a recorded process. The object store is only held up. The next fault comes when the last victim is Ready again,
the detector too, and ``QUIET`` seconds have passed. The streaming job is also deleted as an object, by hand.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fraud_contracts import names
from fraud_contracts.errors import FraudError
from fraud_local import processes
from fraud_local.demo.kubectl import Kubectl, KubectlError

QUIET = 15.0
PATIENCE = 240.0
API_SERVER = "kube-apiserver"
# A restart by hand comes as late as a supervisor's would.
API_PAUSE = 3.0
# An object store that is far away comes back by itself, but not at once.
STORE_PAUSE = 20.0


class ChaosError(FraudError):
    """A fault could not be made, or what it hit didn't come back."""


@dataclass(frozen=True)
class PodKill:
    """A fault: SIGKILL of every container of the Pods of ``namespace`` whose name begins with ``prefix``.

    ``alone``: of the first of these Pods only, where there are several; else there is no such fault.
    """

    name: str
    namespace: str
    prefix: str
    alone: bool = False


def faults(detector: str, namespace: str, platform: str, flink: str) -> list[PodKill]:
    """What is killed, in order; ``flink`` is the FlinkDeployment's name. The others come after: object store, FLUSHALL, the job's object, API server."""
    brokers = f"{detector}-{names.kafka_node_pool(detector)}-"
    own = (
        ("taskmanager", f"{flink}-taskmanager-"),
        ("jobmanager", f"{flink}-"),
        ("broker", brokers),
    )
    shared = (("redis", f"{platform}-redis-"), ("postgresql", f"{platform}-postgres-"))
    rest = (
        ("predictor", f"{names.predictor(names.inference_service(detector, 'a'))}-"),
        ("decision service", f"{names.decision_service(detector)}-"),
        ("worker", f"{names.worker(detector)}-"),
        *((f"{store} sink", f"{names.sink(detector, store)}-") for store in ("profile", "ledger", "lake")),
    )
    return [
        *(PodKill(name, namespace, prefix) for name, prefix in own),
        PodKill("one broker of several", namespace, brokers, alone=True),
        *(PodKill(name, platform, prefix) for name, prefix in shared),
        *(PodKill(name, namespace, prefix) for name, prefix in rest),
        PodKill("operator", platform, f"{platform}-operator-"),
    ]


def container_ids(pod: dict[str, Any]) -> list[str]:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return [status.get("containerID", "").rpartition("//")[2] for status in statuses if status.get("ready")]


def members(ids: list[str], proc: Path = Path("/proc")) -> list[int]:
    """Processes of this machine that run in one of these containers."""
    pids = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if any(one and one in text for one in ids):
            pids.append(int(entry.name))
    return pids


class Chaos:
    """Runs all faults. ``done`` holds one entry per fault: name, when it came, when all was Ready again (UTC ms)."""

    def __init__(
        self, kube: Kubectl, detector: str, namespace: str, platform: str, say: Callable[[str], None]
    ) -> None:
        self._kube, self._detector, self._namespace, self._platform = kube, detector, namespace, platform
        self._say = say
        self._flink = self._deleted = ""
        self._patience = PATIENCE
        self.done: list[dict[str, Any]] = []

    def run(self) -> None:
        status = self._kube.get("-n", self._namespace, "flinkdeployments.flink.apache.org")
        deployments = [item["metadata"]["name"] for item in status.get("items", [])]
        flink = [name for name in deployments if name.startswith(f"{self._detector}-f-")]
        if len(flink) != 1:
            raise ChaosError(f"expected one FlinkDeployment of {self._detector}, found {flink}")
        self._flink = flink[0]
        self._settle("before the first fault")
        for fault in faults(self._detector, self._namespace, self._platform, self._flink):
            before = self._pods(fault)
            if not before:
                raise ChaosError(f"no ready Pod of {fault.namespace} begins with {fault.prefix}")
            if fault.alone and len(before) == 1:
                continue
            victims = before[:1] if fault.alone else before
            self._fault(
                fault.name,
                partial(self._kill, fault, victims),
                partial(self._back, fault, len(before), victims),
            )
        self._fault("object store", self._hold_objects, lambda: True)
        self._fault("FLUSHALL", self._flush, self._profiles_complete)
        self._fault("streaming job deleted", self._delete_job, self._job_is_another)
        if processes.recorded(API_SERVER) is not None:
            self._fault("API server", self._kill_api_server, self._api_ready)
        else:
            system = PodKill("API server", "kube-system", API_SERVER)
            before = self._pods(system)
            self._fault(system.name, partial(self._kill, system, before), self._api_ready)

    def _fault(self, name: str, hit: Callable[[], None], back: Callable[[], bool]) -> None:
        entry: dict[str, Any] = {"fault": name, "at": int(time.time() * 1000)}
        self._say(f"  fault: {name}")
        hit()
        self._wait(name, back)
        self._wait(name, self._whole)
        # The detector may look Ready until a loss is noticed, so what counts is since when it has stayed so.
        entry["ready"] = self._settle(name)
        entry["seconds"] = round((entry["ready"] - entry["at"]) / 1000, 1)
        self._say(f"  {name}: Ready again after {entry['seconds']} s")
        entry["until"] = int(time.time() * 1000)
        self.done.append(entry)

    def _settle(self, what: str) -> int:
        """``QUIET`` seconds in which the detector stays Ready; a victim may fall twice. -> since when, in UTC ms."""
        since, began = time.monotonic(), time.time()
        until = since + PATIENCE
        while time.monotonic() - since < QUIET:
            time.sleep(1)
            if not self._whole():
                since, began = time.monotonic(), time.time()
            if time.monotonic() > until:
                raise ChaosError(f"{what}: the detector isn't Ready for {QUIET:.0f} s on end")
        return int(began * 1000)

    def _wait(self, what: str, reached: Callable[[], bool]) -> None:
        until = time.monotonic() + self._patience
        while not reached():
            if time.monotonic() > until:
                raise ChaosError(f"{what}: not within {self._patience:.0f} s")
            time.sleep(0.5)

    # Pods -----------------------------------------------------------------------------------------------------------

    def _pods(self, fault: PodKill) -> list[dict[str, Any]]:
        """Ready Pods of a fault. A JobManager's prefix is also its TaskManagers': the longer name is told apart."""
        items = self._kube.get("-n", fault.namespace, "pods").get("items", [])
        pods = [item for item in items if item["metadata"]["name"].startswith(fault.prefix)]
        if not fault.prefix.endswith("-taskmanager-"):
            pods = [item for item in pods if f"{fault.prefix}taskmanager-" not in item["metadata"]["name"]]
        return [
            item
            for item in pods
            if item.get("status", {}).get("phase") == "Running"
            and not item["metadata"].get("deletionTimestamp")
            and len(container_ids(item)) == len(item["spec"]["containers"])
        ]

    def _kill(self, fault: PodKill, pods: list[dict[str, Any]]) -> None:
        victims = members([one for pod in pods for one in container_ids(pod)])
        if not victims:
            raise ChaosError(
                f"{fault.name}: none of its containers' processes is on this machine; CHAOS=1 needs root on the node"
            )
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it went with its parent

    def _hold_objects(self) -> None:
        """The object store answers nothing for a while: a trial's data would go with its Pod, so it isn't killed."""
        fault = PodKill("object store", self._platform, f"{self._platform}-objects-")
        victims = members([one for pod in self._pods(fault) for one in container_ids(pod)])
        if not victims:
            raise ChaosError(f"no process of a Pod {fault.prefix}… is on this machine")
        try:
            for pid in victims:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(STORE_PAUSE)
        finally:
            for pid in victims:
                os.kill(pid, signal.SIGCONT)

    def _back(self, fault: PodKill, count: int, victims: list[dict[str, Any]]) -> bool:
        """As many Ready Pods as before, and none of their containers one of those that were killed."""
        try:
            now = self._pods(fault)
        except KubectlError:
            return False
        old = {one for pod in victims for one in container_ids(pod)}
        return len(now) >= count and not any(one in old for pod in now for one in container_ids(pod))

    def _whole(self) -> bool:
        """The detector is Ready with its model, and every task of its streaming job runs: status follows some seconds late."""
        jobs = f"/api/v1/namespaces/{self._namespace}/services/{self._flink}-rest:8081/proxy/jobs/overview"
        try:
            overview = json.loads(self._kube.kubectl("get", "--raw", jobs))["jobs"]
            detector = self._kube.get("-n", self._namespace, f"{names.PLURAL}.{names.GROUP}", self._detector)
        except KubectlError:
            return False
        running = [
            job
            for job in overview
            if job["state"] == "RUNNING" and job["tasks"]["running"] == job["tasks"]["total"]
        ]
        conditions = detector.get("status", {}).get("conditions", [])
        true = {c["type"] for c in conditions if c["status"] == "True"}
        return bool(running) and {"Ready", "ModelLive"} <= true

    def _job_uid(self) -> str:
        job = self._kube.get("-n", self._namespace, "flinkdeployments.flink.apache.org", self._flink)
        return str(job.get("metadata", {}).get("uid", ""))

    def _delete_job(self) -> None:
        """By hand, as a person would: with the savepoint that its operator takes first."""
        self._deleted = self._job_uid()
        self._kube.kubectl("-n", self._namespace, "delete", "flinkdeployment", self._flink, "--wait=false")

    def _job_is_another(self) -> bool:
        """It is there again under its name, so in the lineage that it had."""
        try:
            return self._job_uid() not in ("", self._deleted)
        except KubectlError:
            return False

    # Redis and the API server ---------------------------------------------------------------------------------------

    def _redis(self, command: str) -> str:
        ask = f'REDISCLI_AUTH="$(cat /tmp/password)" redis-cli --tls --insecure {command}'
        return self._kube.kubectl(
            "-n", self._platform, "exec", f"deploy/{self._platform}-redis", "--", "sh", "-c", ask
        )

    def _flush(self) -> None:
        if "OK" not in self._redis("FLUSHALL"):
            raise ChaosError("FLUSHALL was refused")

    def _profiles_complete(self) -> bool:
        """The profile sink has written every profile again and said so."""
        pattern = names.Identity(self._namespace, self._detector).redis_complete("*")
        try:
            return bool(self._redis(f"--scan --pattern '{pattern}'").strip())
        except KubectlError:
            return False

    def _kill_api_server(self) -> None:
        """The native node has no supervisor: what ran is started again as it was."""
        pid = processes.recorded(API_SERVER)
        assert pid is not None
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
        os.kill(pid, signal.SIGKILL)
        time.sleep(API_PAUSE)
        processes.start(API_SERVER, command)

    def _api_ready(self) -> bool:
        try:
            return "ok" in self._kube.kubectl("get", "--raw", "/readyz")
        except KubectlError:
            return False

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.done, indent=1))
