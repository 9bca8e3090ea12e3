"""Stands in for the Flink operator, which is in no package registry: real Flink clusters, the operator's statuses.

    python -m fraud_local.flink_standin        on the local node, started by fraud_local.operators

Each FlinkDeployment is looked after by one thread, since stopping with a savepoint takes its time. What must survive a
restart of this process is in the resource's status, written before the step that relies on it.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import requests

from fraud_contracts import log
from fraud_local import flink_objects as objects
from fraud_local import flink_status as statuses
from fraud_local.api_client import ApiClient, ApiServerError, Json
from fraud_local.flink_rest import FlinkError, JobManager

logger = logging.getLogger("flink-standin")
API = "flink.apache.org/v1beta1"
FINALIZER = "flinkdeployments.flink.apache.org/finalizer"
INTERVAL = 2.0
SAVEPOINT_TIMEOUT = 120.0
GONE_TIMEOUT = 90.0
# The operator looks at a deployment that is well once a minute: a JobManager that is back by then was never away.
UNANSWERED = 60.0
TERMINAL = ("FINISHED", "CANCELED", "FAILED")
EXCEPTIONS = "org.apache.flink.kubernetes.operator.exception."
BROKEN = (
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "CreateContainerError",
    "CreateContainerConfigError",
)
ON = "kubernetes.operator."


def now_ms() -> int:
    return int(time.time() * 1000)


class FlinkStandin:
    def __init__(self, kube: ApiClient) -> None:
        self._kube = kube
        self._running: dict[str, Future[None]] = {}
        self._unanswered: dict[str, float] = {}
        self._pool = ThreadPoolExecutor(8)

    def run(self) -> None:
        while True:
            try:
                for fd in self._kube.list(API, "FlinkDeployment"):
                    uid = fd["metadata"]["uid"]
                    if uid not in self._running or self._running[uid].done():
                        self._running[uid] = self._pool.submit(self._guarded, fd)
            except (ApiServerError, requests.RequestException) as error:
                logger.warning("the API server did not answer", extra={"data": {"error": str(error)}})
            time.sleep(INTERVAL)

    def _guarded(self, fd: Json) -> None:
        try:
            rest = JobManager(fd["metadata"]["name"], fd["metadata"]["namespace"])
            Deployment(self._kube, fd, rest, self._unanswered).reconcile()
        except (ApiServerError, requests.RequestException, FlinkError) as error:
            logger.warning(
                "a pass failed and is repeated",
                extra={"data": {"name": fd["metadata"]["name"], "error": str(error)}},
            )
        except Exception:
            logger.exception("a pass failed", extra={"data": {"name": fd["metadata"]["name"]}})


class Deployment:
    """One pass over one FlinkDeployment. ``unanswered``: since when (s) a JobManager that was ready hasn't answered, by uid."""

    def __init__(self, kube: ApiClient, fd: Json, rest: JobManager, unanswered: dict[str, float]) -> None:
        self._kube, self._fd, self._rest, self._unanswered = kube, fd, rest, unanswered
        self._name, self._namespace = fd["metadata"]["name"], fd["metadata"]["namespace"]
        self._status = copy.deepcopy(fd.get("status") or {}) or statuses.initial()

    def reconcile(self) -> None:
        meta, spec = self._fd["metadata"], self._fd["spec"]
        if meta.get("deletionTimestamp"):
            if FINALIZER in meta.get("finalizers", []):
                self._clean_up()
            return
        if FINALIZER not in meta.get("finalizers", []):
            self._kube.set_finalizers(self._fd, [*meta.get("finalizers", []), FINALIZER])
            return  # its resourceVersion has changed; the next pass goes on
        last = statuses.last_spec(self._status)
        reason = objects.validate(self._name, spec)
        if reason:
            self._write(statuses.with_error(self._status, f"{EXCEPTIONS}ReconciliationException", reason))
            if last is None:
                return
            spec = last  # a refused spec changes nothing; what runs is looked after as before
        reconciliation = self._status.get("reconciliationStatus") or {}
        if last is None:
            self._begin(spec, (spec.get("job") or {}).get("initialSavepointPath"), first=True)
        elif reconciliation.get("state") == "UPGRADING":
            self._finish_upgrade(spec)
        elif objects.comparable(last) != objects.comparable(spec):
            self._upgrade(last, spec)
        elif running(last):
            before = (self._status.get("jobStatus") or {}).get("state")
            self._observe(last)
            self._recover(last, before)

    # Rolling out

    def _begin(self, spec: Json, savepoint: str | None, first: bool = False) -> None:
        """Start the job of ``spec`` from ``savepoint``, under a new job id, written down before anything is created."""
        if not running(spec):
            self._write(statuses.with_spec(self._status, self._fd, spec, "DEPLOYED", now_ms(), first))
            return
        if first:  # there is no job yet, so it has no state
            status = statuses.with_job(self._status, now_ms(), upgradeSavepointPath=savepoint)
            self._write(statuses.with_spec(status, self._fd, spec, "UPGRADING", now_ms(), first))
        job = {"jobId": uuid.uuid4().hex, "state": "RECONCILING", "upgradeSavepointPath": savepoint}
        status = statuses.with_job(self._status, now_ms(), **job)
        if savepoint is None:
            status["jobStatus"].pop("upgradeSavepointPath", None)
        status["jobManagerDeploymentStatus"] = "DEPLOYING"
        self._write(statuses.with_spec(status, self._fd, spec, "DEPLOYED", now_ms(), first))
        self._apply(spec)

    def _apply(self, spec: Json) -> None:
        job = self._status["jobStatus"]
        for thing in objects.build(self._fd, spec, job["jobId"], job.get("upgradeSavepointPath")):
            self._kube.apply(thing)

    def _upgrade(self, last: Json, spec: Json) -> None:
        """Take the state out of what runs, then take it down; the next step starts the new spec from that state."""
        savepoint = self._status.get("jobStatus", {}).get("upgradeSavepointPath")
        if running(last):
            try:
                savepoint = self._take_state(last, spec)
            except FlinkError as error:
                kind = f"{EXCEPTIONS}UpgradeFailureException"
                self._write(statuses.with_error(self._status, kind, str(error)))
                return
        status = statuses.with_job(
            self._status,
            now_ms(),
            upgradeSavepointPath=savepoint,
            state="FINISHED" if running(last) else None,
        )
        if savepoint is None:
            status["jobStatus"].pop("upgradeSavepointPath", None)
        self._write(statuses.with_spec(status, self._fd, spec, "UPGRADING", now_ms(), first=False))
        self._finish_upgrade(spec)

    def _take_state(self, last: Json, spec: Json) -> str | None:
        """Path of the state to go on from; None for a stateless job."""
        mode = spec["job"].get("upgradeMode", "stateless")
        job_id = self._status["jobStatus"]["jobId"]
        if mode == "stateless":
            return None
        try:
            job = self._rest.job(job_id)
        except (requests.RequestException, FlinkError):
            job = None
        if job is None:
            if self._status.get("jobManagerDeploymentStatus") == "READY":
                raise FlinkError(
                    "the JobManager does not answer, so the newest state is not known; tried again"
                )
            # Never got as far as running: it goes on from where it was to start from.
            earlier: str | None = self._status["jobStatus"].get("upgradeSavepointPath")
            return earlier
        if mode == "savepoint" and job["state"] == "RUNNING":
            folder = objects.savepoint_folder(last)
            if folder is None:
                raise FlinkError("no savepoint folder is configured")
            self._event("stopping with a savepoint")
            form = objects.savepoint_form(last)
            return self._rest.stop_with_savepoint(job_id, folder, form, SAVEPOINT_TIMEOUT)
        # Finished by a stop of an earlier pass, or not healthy enough for a savepoint: the newest checkpoint is its state.
        return self._rest.latest_state(job_id) or self._status["jobStatus"].get("upgradeSavepointPath")

    def _finish_upgrade(self, spec: Json) -> None:
        self._take_down()
        status = {**self._status, "jobManagerDeploymentStatus": "MISSING"}
        self._write(statuses.finished(status))
        self._begin(spec, self._status["jobStatus"].get("upgradeSavepointPath"))

    def _take_down(self) -> None:
        """Both Deployments and the records of high availability; returns when no Pod is left to write state."""
        for component in ("jobmanager", "taskmanager"):
            self._kube.delete(
                "apps/v1", "Deployment", self._namespace, objects.deployment_name(self._name, component)
            )
        deadline = time.monotonic() + GONE_TIMEOUT
        selector = ",".join(f"{key}={value}" for key, value in objects.labels(self._name).items())
        while self._kube.list("v1", "Pod", self._namespace, selector):
            if time.monotonic() > deadline:
                raise FlinkError(f"Pods of {self._name} do not end")
            time.sleep(0.5)
        records = self._kube.list(
            "v1", "ConfigMap", self._namespace, f"app={self._name},configmap-type=high-availability"
        )
        # The leader's record may lack the labels; left behind, it makes the next JobManager wait for its lease to end.
        for name in {
            objects.leader_record(self._name),
            *(str(record["metadata"]["name"]) for record in records),
        }:
            self._kube.delete("v1", "ConfigMap", self._namespace, name)

    # Deletion

    def _clean_up(self) -> None:
        """As the operator does it: a savepoint that is wanted and not to be had keeps the finalizer, and is tried again."""
        last = statuses.last_spec(self._status)
        if last is not None and running(last):
            try:
                self._observe(last)
            except (requests.RequestException, FlinkError) as error:
                self._event("not observed before deletion", error=str(error))
            self._stop(last)
        self._take_down()
        self._kube.set_finalizers(
            self._fd, [one for one in self._fd["metadata"]["finalizers"] if one != FINALIZER]
        )
        self._unanswered.pop(self._fd["metadata"]["uid"], None)
        self._event("deleted")

    def _stop(self, last: Json) -> None:
        """Stops the job with a savepoint where its settings ask for one; those of the operator count as they are now."""
        now = objects.user_config(self._fd["spec"])
        config = objects.user_config(last) | {key: now[key] for key in now if key.startswith(ON)}
        state = self._status.get("jobStatus", {}).get("state")
        if config.get(f"{ON}job.savepoint-on-deletion") != "true" or state in TERMINAL:
            return
        if state != "RUNNING" or self._status.get("jobManagerDeploymentStatus") != "READY":
            raise FlinkError(f"Unexpected job status: {state}")
        folder = objects.savepoint_folder(last)
        if folder is None:
            raise FlinkError("Savepoint Error: no savepoint folder is configured")
        job_id, form = self._status["jobStatus"]["jobId"], objects.savepoint_form(last)
        path = self._rest.stop_with_savepoint(job_id, folder, form, SAVEPOINT_TIMEOUT)
        # Before the rest is taken down: a pass after this one finds the job ended, and asks for no savepoint.
        self._write(statuses.with_job(self._status, now_ms(), upgradeSavepointPath=path, state="FINISHED"))
        self._event("stopped with a savepoint before deletion", path=path)

    # Observing

    def _observe(self, spec: Json) -> None:
        deployment = self._kube.get("apps/v1", "Deployment", self._namespace, self._name)
        pods = ((deployment or {}).get("status") or {}).get("availableReplicas", 0)
        available = pods > 0 and self._rest.answers()
        job = self._rest.job(self._status["jobStatus"].get("jobId", "")) if available else None
        if job is not None:
            self._unanswered.pop(self._fd["metadata"]["uid"], None)
        elif deployment is not None and self._may_be_back():
            return
        status = copy.deepcopy(self._status)
        status["taskManager"] = {
            "labelSelector": f"component=taskmanager,app={self._name}",
            "replicas": objects.task_managers(spec),
        }
        before = status.get("jobManagerDeploymentStatus")
        if not available:
            self._write(self._away(spec, deployment, status))
            return
        if before not in ("DEPLOYED_NOT_READY", "READY"):
            status["jobManagerDeploymentStatus"] = "DEPLOYED_NOT_READY"
            self._write(statuses.finished(status))
            return
        status["jobManagerDeploymentStatus"] = "READY"
        status["clusterInfo"] = self._rest.cluster_info() | objects.cluster_resources(spec)
        if job is None:
            if statuses.first_deployment(self._status) and not statuses.was_stable(self._status):
                return  # it is being submitted
            status = statuses.with_job(status, now_ms(), state="RECONCILING")
            self._write(statuses.with_text(status, "Job Not Found"))
            return
        status = statuses.with_job(
            status, now_ms(), state=job["state"], jobName=job["name"], startTime=str(job["start-time"])
        )
        if job["state"] == "FAILED":
            failed, *causes = self._rest.failure(job["jid"])
            status = statuses.with_error(status, "org.apache.flink.util.SerializedThrowable", failed, causes)
        self._write(status)

    def _away(self, spec: Json, deployment: Json | None, status: Json) -> Json:
        """The status of a JobManager that isn't there or doesn't answer, and why where that is known."""
        broken = self._broken(deployment)
        state = "MISSING" if deployment is None else "ERROR" if broken else "DEPLOYING"
        status = statuses.with_job(
            {**status, "jobManagerDeploymentStatus": state}, now_ms(), state="RECONCILING"
        )
        if broken:
            return statuses.with_error(status, f"{EXCEPTIONS}DeploymentFailedException", broken)
        if deployment is None and statuses.was_stable(status) and objects.highly_available(spec):
            record = objects.leader_record(self._name)
            if self._kube.get("v1", "ConfigMap", self._namespace, record) is None:
                kind = f"{EXCEPTIONS}UpgradeFailureException"
                return statuses.with_error(status, kind, statuses.NO_RECORDS)
        return status

    def _may_be_back(self) -> bool:
        """Whether a JobManager that was ready, or its job, hasn't been away long enough for anybody to have noticed."""
        if self._status.get("jobManagerDeploymentStatus") != "READY" or not statuses.was_stable(self._status):
            return False
        since = self._unanswered.setdefault(self._fd["metadata"]["uid"], time.monotonic())
        return time.monotonic() - since < UNANSWERED

    def _broken(self, deployment: Json | None) -> str | None:
        """What keeps the JobManager's Pod from being made or started; None while it is only slow."""
        for condition in (deployment or {}).get("status", {}).get("conditions") or []:
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                return str(condition.get("message", ""))
        for pod in self._kube.list("v1", "Pod", self._namespace, f"app={self._name},component=jobmanager"):
            for container in pod.get("status", {}).get("containerStatuses", []):
                waiting = container.get("state", {}).get("waiting") or {}
                if waiting.get("reason") in BROKEN:
                    return f"[{waiting['reason']}] {waiting.get('message', '')}".strip()
        return None

    def _recover(self, spec: Json, before: str | None) -> None:
        """What the operator, or Flink itself in native mode, makes anew: a lost JobManager, lost TaskManagers, a failed job.

        A failed job is found FAILED for as long as the operator takes to end its Pods; ``before`` is its state at the last pass.
        """
        status = self._status
        if status["jobManagerDeploymentStatus"] == "MISSING":
            if status["lifecycleState"] == "FAILED":
                return  # there is nothing to go on from
            self._event("the JobManager's Deployment is gone, and is made again")
            self._write(statuses.finished({**status, "jobManagerDeploymentStatus": "DEPLOYING"}))
            self._apply(spec)
            return
        workers = objects.deployment_name(self._name, "taskmanager")
        if self._kube.get("apps/v1", "Deployment", self._namespace, workers) is None:
            self._apply(spec)
        job = status["jobStatus"]
        restart = objects.user_config(spec).get(f"{ON}job.restart.failed") == "true"
        if (
            job.get("state") == before == "FAILED"
            and restart
            and status["jobManagerDeploymentStatus"] == "READY"
        ):
            self._event("restarting the failed job from its newest state")
            path = self._rest.latest_state(job["jobId"]) or job.get("upgradeSavepointPath")
            status = statuses.with_job(status, now_ms(), upgradeSavepointPath=path)
            self._write(statuses.with_spec(status, self._fd, spec, "UPGRADING", now_ms(), first=False))
            self._finish_upgrade(spec)

    def _write(self, status: Json) -> None:
        before = self._fd.get("status") or {}
        if status != before:
            self._kube.set_status(self._fd, status)
            if _brief(status) != _brief(before):
                self._event("status", **_brief(status))
        self._fd["status"] = copy.deepcopy(status)
        self._status = status

    def _event(self, message: str, **data: Any) -> None:
        logger.info(message, extra={"data": {"name": self._name, "namespace": self._namespace, **data}})


def running(spec: Json) -> bool:
    return bool((spec.get("job") or {}).get("state", "running") == "running")


def _brief(status: Json) -> dict[str, Any]:
    return {
        "lifecycle": status.get("lifecycleState"),
        "job": (status.get("jobStatus") or {}).get("state"),
        "jobmanager": status.get("jobManagerDeploymentStatus"),
    }


if __name__ == "__main__":
    log.setup()
    threading.current_thread().name = "main"
    FlinkStandin(ApiClient("flink-standin")).run()
