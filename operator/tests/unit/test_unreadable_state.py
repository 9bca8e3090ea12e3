"""A savepoint or checkpoint that can't be read: its job goes, each one is tried once, and the detector's stream goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts import names
from fraud_contracts.child_kinds import DETECTOR
from fraud_contracts.lineage import LINEAGES_KEY, Lineage, Lineages
from fraud_operator.buckets import CHECKED, Buckets
from fraud_operator.child_status import unreadable_state
from fraud_operator.events import Recorder
from fraud_operator.lineage import LineageFacts, StoredState, decide
from fraud_operator.objects import Json
from fraud_operator.observe import Observer
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform, StorageSettings
from fraud_operator.stored_states import StoredStates
from fraud_testing.healthy import SPEC, STORES
from fraud_testing.memory_cluster import Cluster
from fraud_testing.store_logins import willing

A = "a" * 64
TOPICS = {"transactions": "t1", "accepted": "a1", "labels": "l1", "seeds": "s1"}
NEW, OLD = "s3://b/chk-9", "s3://b/chk-8"
START = "org.apache.flink.runtime.client.JobInitializationException: Could not start the JobMaster."
# What Flink 2.2.1 says of each; the Flink operator keeps the outermost and two causes.
ROLLBACK = f"Failed to rollback to checkpoint/savepoint {NEW}. Cannot map checkpoint/savepoint state for operator 5 to the new program"
CAUSES = {
    "gone": f"java.io.FileNotFoundException: Cannot find checkpoint or savepoint file/directory '{NEW}' on file system 's3'.",
    "cut": "java.io.EOFException",
    "not one": "java.io.IOException: Unexpected magic number. This can have multiple reasons: (1) You are trying",
    "of another job": f"java.lang.IllegalStateException: {ROLLBACK}",
}


def failed(cause: str, **changes: Any) -> Json:
    """The status of a job that failed as it was made, as the Flink operator writes it."""
    texts = [f"java.util.concurrent.CompletionException: java.lang.RuntimeException: {cause}", cause]
    causes = [{"type": "org.apache.flink.util.SerializedThrowable", "message": text} for text in texts]
    error = {"type": "org.apache.flink.util.SerializedThrowable", "message": START, "throwableList": causes}
    return {
        "lifecycleState": "FAILED",
        "jobManagerDeploymentStatus": "READY",
        "jobStatus": {"state": "FAILED"},
        "reconciliationStatus": {"state": "DEPLOYED", "lastReconciledSpec": "{}"},
        "error": json.dumps(error),
        **changes,
    }


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_flinks_words_are_known(cause: str) -> None:
    """The innermost cause is told, without the words around it."""
    assert unreadable_state({"status": failed(cause)}).endswith(cause)


@pytest.mark.parametrize(
    "status",
    [
        failed("com.amazonaws.SdkClientException: Unable to execute HTTP request: connection refused"),
        failed("java.io.EOFException", reconciliationStatus={"lastStableSpec": "{}"}),
        failed("java.io.EOFException", lifecycleState="DEPLOYED", jobStatus={"state": "RECONCILING"}),
        failed("x", error="Job Not Found"),
        failed("x", error=None),
        failed("x", error="[1]"),
        {},
    ],
    ids=["store away", "has run", "not failed", "plain text", "no error", "no object", "new"],
)
def test_nothing_else_is_taken_for_it(status: Json) -> None:
    """A job that has run fails for other reasons, and a store that is away gives the state back."""
    assert unreadable_state({"status": status}) == ""
    assert unreadable_state(None) == ""


def after(*lineages: Lineage) -> Lineages:
    known = Lineages(detector="n.d")
    for lineage in lineages:
        known = known.using(lineage)
    return known


FIRST = Lineage(feature_set=A, generation=1, topics=TOPICS)
MADE = FIRST.model_copy(update={"restored": NEW})


def gone(*paths: str, **facts: Any) -> LineageFacts:
    return LineageFacts(
        **{
            "job": False,
            "stored": StoredState(paths, ("aaaaaa",), 1),
            "committed": {},
            "topics": TOPICS,
            **facts,
        }
    )


def test_it_is_kept_told_and_its_job_ends() -> None:
    """Before anything is deleted the document knows the path; while the job is on its way out, nothing more is told."""
    broken = LineageFacts(job=True, topics=TOPICS, made_from=NEW, unreadable="cut off")
    step = decide(after(MADE), A, broken, 0)
    assert step.lineages.in_use == MADE.model_copy(update={"unreadable": (NEW,)})
    assert step.ends and step.waits and step.lineages.in_use.refused
    assert step.told is not None and step.told[0] == "StateUnreadable" and step.told[2]
    assert "cut off" in step.told[1] and "next older" in step.told[1]
    again = decide(step.lineages, A, LineageFacts(job=True, ending=True, topics=TOPICS, made_from=NEW), 0)
    assert again.ends and again.waits and again.told is None and again.lineages == step.lineages


def test_the_next_older_one_is_tried() -> None:
    """In the same generation; what is no longer in the storage needn't be remembered."""
    known = MADE.model_copy(update={"unreadable": ("s3://b/chk-1", NEW)})
    step = decide(after(known), A, gone(NEW, OLD), 0)
    assert step.lineages.in_use == MADE.model_copy(update={"restored": OLD, "unreadable": (NEW,)})
    assert step.told is not None and step.told[0] == "StateRestored"


def test_where_none_is_left_a_generation_begins() -> None:
    """Also where the job before it has committed nothing: it isn't made from the same path again."""
    step = decide(after(MADE.model_copy(update={"unreadable": (NEW,)})), A, gone(NEW), 0)
    in_use = step.lineages.in_use
    assert in_use is not None and (in_use.generation, in_use.restored, in_use.unreadable) == (2, None, ())
    assert step.told is not None and step.told[0] == "StateLost" and "can be read" in step.told[1]


def test_a_document_of_before_has_none() -> None:
    """It still parses."""
    old = '{"detector": "n.d", "highest": 1, "known": [{"feature_set": "a", "generation": 1}]}'
    in_use = Lineages.model_validate_json(old).in_use
    assert in_use is not None and in_use.unreadable == () and not in_use.refused


@given(st.integers(0, 10), st.sets(st.integers(0, 9)), st.booleans())
def test_each_is_tried_once_and_then_a_job_runs(count: int, readable: set[int], committed: bool) -> None:
    """Whatever can be read: no path comes twice, and it ends with a job that runs, from a path or anew."""
    paths = tuple(f"s3://b/chk-{9 - at}" for at in range(count))
    lineages, tried = after(FIRST), []
    facts = gone(*paths, committed={"accepted": {0: 9}} if committed else {})
    for _ in range(count + 1):
        lineages = decide(lineages, A, facts, 0).lineages
        in_use = lineages.in_use
        assert in_use is not None
        if in_use.restored is None or in_use.restored in {f"s3://b/chk-{one}" for one in readable}:
            break
        tried.append(in_use.restored)
        broken = LineageFacts(job=True, topics=TOPICS, made_from=in_use.restored, unreadable="cut off")
        lineages = decide(lineages, A, broken, 0).lineages
    else:
        raise AssertionError("it goes on for ever")
    assert tried == list(paths[: len(tried)]) and len(set(tried)) == len(tried)


class Operated:
    """A detector whose storage holds two checkpoints of its job, seen by an operator that starts anew before each pass."""

    def __init__(self) -> None:
        self.kube, self.stored = Cluster(), StoredState()
        meta = {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "1", "generation": 1}
        spec = {
            **SPEC,
            "model": {"none": {}},
            "storage": {"uri": "s3://bank/fraud", "secretRef": {"name": "mine"}},
        }
        keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "a2V5")
        self.kube.objects["Secret", "mine"] = {"metadata": {"name": "mine"}, "data": keys}
        self.kube.objects[DETECTOR.kind, "d"] = {"metadata": meta, "spec": spec}

    def ready(self) -> Json:
        """StreamingReady after a pass."""
        observer = Observer(
            self.kube,
            buckets=Buckets(lambda *_: CHECKED),
            logins=willing(),
            states=StoredStates(lambda *_: self.stored),
        )
        platform = Platform(storage=StorageSettings(), stores=STORES)
        Reconciler(self.kube, platform, observer, Recorder(self.kube)).reconcile("n", "d")
        conditions = self.kube.objects[DETECTOR.kind, "d"]["status"]["conditions"]
        return next(c for c in conditions if c["type"] == "StreamingReady")

    def job(self) -> tuple[str, Json] | None:
        found = [
            (name, body) for (kind, name), body in self.kube.objects.items() if kind == "FlinkDeployment"
        ]
        assert len(found) < 2
        return found[0] if found else None

    def made_from(self) -> str | None:
        job = self.job()
        return None if job is None else job[1]["spec"]["job"].get("initialSavepointPath")

    def lineages(self) -> Lineages:
        data = self.kube.objects["ConfigMap", names.release_pointer("d")]["data"]
        return Lineages.model_validate_json(data[LINEAGES_KEY])


def test_passes_go_from_one_to_the_next_and_then_begin_anew() -> None:
    """By whole passes of operators that remember nothing: the document alone carries it."""
    world = Operated()
    world.ready()
    job = world.job()
    assert job is not None and world.made_from() is None
    first = job[0]
    del world.kube.objects["FlinkDeployment", first]
    world.stored = StoredState((NEW, OLD), (first.removeprefix("d-f-"),), 1)
    for path in (NEW, OLD):
        world.ready()
        job = world.job()
        assert job is not None and (job[0], world.made_from()) == (first, path)
        job[1]["status"] = failed(CAUSES["cut"])
        ready = world.ready()
        assert (ready["reason"], ready["status"]) == ("StateUnreadable", "False")
        assert path in ready["message"] and world.job() is None
    assert world.ready()["reason"] != "StateUnreadable"
    assert world.lineages().highest == 2
    job = world.job()
    assert job is not None and (job[0], world.made_from()) == (f"{first}-2", None)
    reasons = [body["reason"] for (kind, _), body in world.kube.objects.items() if kind == "Event"]
    assert reasons.count("StateUnreadable") == 2
    assert reasons.count("StateRestored") == 2 and reasons.count("StateLost") == 1
