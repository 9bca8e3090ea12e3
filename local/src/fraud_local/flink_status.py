"""The status of a FlinkDeployment, as the Flink operator writes it. Pure.

The stored spec is the stand-in's memory too: it compares the wanted spec with it, as the operator does.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from fraud_local.api_client import Json, stamp

# What the operator says where a lost JobManager has left no records of high availability to go on from.
NO_RECORDS = (
    "HA metadata is not available to restore from last state."
    "It is possible that the job has finished or terminally failed, or the configmaps have been deleted."
)

# kubernetes.operator.exception.throwable.list.max.count
CAUSES = 2


def initial() -> Json:
    return {
        "jobManagerDeploymentStatus": "MISSING",
        "jobStatus": {},
        "lifecycleState": "CREATED",
        "reconciliationStatus": {"state": "UPGRADING", "reconciliationTimestamp": 0},
        "clusterInfo": {},
    }


def last_spec(status: Json) -> Json | None:
    """The spec that was reconciled last; None before the first time."""
    text = (status.get("reconciliationStatus") or {}).get("lastReconciledSpec")
    return json.loads(text)["spec"] if text else None


def with_spec(status: Json, fd: Json, spec: Json, state: str, now_ms: int, first: bool) -> Json:
    """The status once ``spec`` is being rolled out (UPGRADING) or has been (DEPLOYED)."""
    new = copy.deepcopy(status)
    meta = {
        "apiVersion": fd["apiVersion"],
        "metadata": {"generation": fd["metadata"]["generation"]},
        "firstDeployment": first,
    }
    text = json.dumps({"spec": spec, "resource_metadata": meta}, separators=(",", ":"), sort_keys=True)
    new["reconciliationStatus"] = {
        **(status.get("reconciliationStatus") or {}),
        "lastReconciledSpec": text,
        "reconciliationTimestamp": now_ms,
        "state": state,
    }
    new["observedGeneration"] = fd["metadata"]["generation"]
    new.pop("error", None)
    return finished(new)


def with_job(status: Json, now_ms: int, **changes: Any) -> Json:
    """The status with a changed job; the time moves only when its state does."""
    new = copy.deepcopy(status)
    job = {
        **(new.get("jobStatus") or {}),
        **{key: value for key, value in changes.items() if value is not None},
    }
    if job.get("state") != (status.get("jobStatus") or {}).get("state"):
        job["updateTime"] = str(now_ms)
    new["jobStatus"] = job
    return finished(new)


def with_error(status: Json, kind: str, message: str, causes: Sequence[str] = ()) -> Json:
    """An exception in the operator's form: JSON in a string, with as many of its causes as the operator keeps."""
    known = [{"type": kind, "message": cause, "additionalMetadata": {}} for cause in causes[:CAUSES]]
    text = json.dumps({"type": kind, "message": message, "additionalMetadata": {}, "throwableList": known})
    return with_text(status, text)


def with_text(status: Json, error: str) -> Json:
    """An error that is no exception: the operator writes its text as it is."""
    return finished({**copy.deepcopy(status), "error": error})


def first_deployment(status: Json) -> bool:
    """Whether the spec that was reconciled last is the first one of all."""
    text = (status.get("reconciliationStatus") or {}).get("lastReconciledSpec")
    return bool(text and json.loads(text)["resource_metadata"]["firstDeployment"])


def finished(status: Json) -> Json:
    """Stable spec, lifecycle and the Running condition follow from the rest."""
    new = copy.deepcopy(status)
    reconciliation = new.get("reconciliationStatus") or {}
    job = new.get("jobStatus") or {}
    if reconciliation.get("state") == "DEPLOYED" and job.get("state") == "RUNNING":
        reconciliation["lastStableSpec"] = reconciliation.get("lastReconciledSpec")
        new.pop("error", None)
    new["lifecycleState"] = lifecycle(new)
    if job.get("state"):
        new["conditions"] = [_running(new)]
    return new


def lifecycle(status: Json) -> str:
    """CREATED, UPGRADING, DEPLOYED, STABLE, SUSPENDED or FAILED."""
    reconciliation = status.get("reconciliationStatus") or {}
    spec = last_spec(status)
    if spec is None:
        return "FAILED" if status.get("error") else "CREATED"
    if reconciliation.get("state") == "UPGRADING":
        return "UPGRADING"
    if (spec.get("job") or {}).get("state") == "suspended":
        return "SUSPENDED"
    if (status.get("jobStatus") or {}).get("state") == "FAILED":
        return "FAILED"
    if status.get("jobManagerDeploymentStatus") == "MISSING" and NO_RECORDS in (status.get("error") or ""):
        return "FAILED"
    return "STABLE" if was_stable(status) else "DEPLOYED"


def was_stable(status: Json) -> bool:
    """Whether the spec that was reconciled last has run once."""
    reconciliation = status.get("reconciliationStatus") or {}
    last = reconciliation.get("lastReconciledSpec")
    return last is not None and bool(reconciliation.get("lastStableSpec") == last)


def _running(status: Json) -> Json:
    state = str((status.get("jobStatus") or {}).get("state"))
    condition = {
        "type": "Running",
        "status": "True" if state == "RUNNING" else "False",
        "reason": state.capitalize(),
        "message": f"Job status {state}",
    }
    for old in status.get("conditions") or []:
        if all(old.get(key) == value for key, value in condition.items()):
            return dict(old)
    update = (status.get("jobStatus") or {}).get("updateTime") or "0"
    return {**condition, "lastTransitionTime": stamp(int(update) * 10**6)}
