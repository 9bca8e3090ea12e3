"""The JobManager's REST interface, as far as the stand-in asks it."""

from __future__ import annotations

import time
from typing import Any

import requests

TIMEOUT = 10
# Characters of an exception's text that the operator keeps.
TEXT = 2000


def causes(trace: str) -> list[str]:
    """The exceptions of a Java stack trace, the outermost first, without their frames."""
    return [line.removeprefix("Caused by: ")[:TEXT] for line in trace.splitlines() if line[:1].strip()]


class FlinkError(Exception):
    """The JobManager refused or failed; its text says why."""


class JobManager:
    """One JobManager by its REST Service; RequestException when it can't be reached."""

    def __init__(self, name: str, namespace: str) -> None:
        self._base = f"http://{name}-rest.{namespace}.svc.cluster.local:8081"
        self._session = requests.Session()
        self._session.trust_env = False

    def _get(self, path: str) -> Any:
        answer = self._session.get(self._base + path, timeout=TIMEOUT)
        if answer.status_code >= 400:
            raise FlinkError(f"{path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def answers(self) -> bool:
        try:
            self._get("/overview")
        except (requests.RequestException, FlinkError):
            return False
        return True

    def job(self, job_id: str) -> dict[str, Any] | None:
        """The job's line of the overview: jid, name, start-time, state; None while it is not submitted."""
        jobs = self._get("/jobs/overview")["jobs"]
        return next((job for job in jobs if job["jid"] == job_id), None)

    def cluster_info(self) -> dict[str, str]:
        config = self._get("/config")
        return {
            "flink-version": str(config["flink-version"]),
            "flink-revision": str(config["flink-revision"]),
        }

    def failure(self, job_id: str) -> list[str]:
        """Why a job failed: the exception and its causes, each with its class."""
        exceptions = self._get(f"/jobs/{job_id}/exceptions")
        entries = (exceptions.get("exceptionHistory") or {}).get("entries") or []
        if not entries:
            return ["unknown"]
        return causes(str(entries[0].get("stacktrace") or entries[0].get("exceptionName")))

    def latest_state(self, job_id: str) -> str | None:
        """Path of the newest checkpoint or savepoint that the job has completed or was started from."""
        latest = self._get(f"/jobs/{job_id}/checkpoints").get("latest") or {}
        candidates = []
        for kind in ("completed", "savepoint", "restored"):
            one = latest.get(kind)
            if one and one.get("external_path"):
                candidates.append((one["id"], one["external_path"]))
        return str(max(candidates)[1]) if candidates else None

    def stop_with_savepoint(self, job_id: str, folder: str, form: str, timeout: float) -> str:
        """Stop the job after a savepoint; its path. FlinkError if that fails, and then the job runs on."""
        answer = self._session.post(
            f"{self._base}/jobs/{job_id}/stop",
            json={"targetDirectory": folder, "drain": False, "formatType": form},
            timeout=TIMEOUT,
        )
        if answer.status_code >= 400:
            raise FlinkError(f"stop with savepoint was refused: {answer.text[:500]}")
        trigger = answer.json()["request-id"]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            savepoint = self._get(f"/jobs/{job_id}/savepoints/{trigger}")
            if savepoint["status"]["id"] == "COMPLETED":
                operation = savepoint.get("operation") or {}
                if "location" in operation:
                    return str(operation["location"])
                raise FlinkError(
                    str((operation.get("failure-cause") or {}).get("stack-trace", "savepoint failed"))[:2000]
                )
            time.sleep(0.5)
        raise FlinkError(f"the savepoint took longer than {timeout:.0f} s")
