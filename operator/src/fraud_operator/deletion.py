"""How a detector ends: its streaming job while all that a savepoint needs is there, then its topics, Kafka, the rest.

Each step does what can be done now and says whether anything is left to wait for. All state is in the objects, so
an operator that starts anew goes on where the last one was. Every wait has an end: a finalizer that nobody takes
off would hold a whole namespace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, NAMESPACE, SECRET
from fraud_operator.apply import ApplyReport
from fraud_operator.desired.flink_deployment import SAVEPOINT_ON_DELETION
from fraud_operator.kube import ApiError, Kube, RefusedError, UnknownKindError
from fraud_operator.objects import Json, to_ms
from fraud_operator.ownership import is_ours

# How long a RUNNING job's savepoint may take, and then the job's end without one.
SAVEPOINT_MS: Final = 120_000
RELEASE_MS: Final = 120_000
# How long Strimzi's topic operator may take to let go of the topics.
TOPICS_MS: Final = 120_000
# How long an API server that answers with errors holds up a deletion.
TROUBLE_MS: Final = 600_000
TOPIC_FINALIZER: Final = "strimzi.io/topic-operator"
FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
# What Retain keeps beside the topics and the Secrets, in the order in which Delete takes it.
_KEPT_KINDS: Final = ("Kafka", "KafkaNodePool", "ConfigMap")

EventPoster = Callable[[str, str, bool], None]


def is_terminating(kube: Kube, namespace: str) -> bool:
    """Whether the namespace is being deleted, so that nothing can be made in it any more."""
    try:
        body = kube.get(NAMESPACE, None, namespace)
    except RefusedError:
        return False  # without the right to look, a detector's own deletion is all that there is to go by
    return body is not None and bool(body["metadata"].get("deletionTimestamp"))


def ordered_at(body: Json) -> int | None:
    """When its deletion was asked for, in milliseconds; None where it wasn't."""
    stamp = body["metadata"].get("deletionTimestamp")
    return None if stamp is None else to_ms(str(stamp))


def is_orphaning(kube: Kube, body: Json) -> bool:
    """Whether the deletion is to leave all children where they are.

    The garbage collector takes the owner off each child and then its own mark off the detector, maybe before we
    look. Then a document that normally has an owner, and has none, is the sign.
    """
    meta = body["metadata"]
    if ORPHAN in meta.get("finalizers", []):
        return True
    uid = str(meta["uid"])
    document = kube.get(BY_KIND["ConfigMap"], meta["namespace"], names.config(meta["name"]))
    if document is None or not is_ours(document, uid):
        return False
    return all(owner.get("uid") != uid for owner in document["metadata"].get("ownerReferences") or [])


def end_without_savepoint(kube: Kube, job: Json, now: int, hurry: str = "") -> str:
    """Lets a FlinkDeployment that is being deleted end without a savepoint where none will come.

    Gives a message with the reason, or an empty one where the savepoint is still waited for.

    The Flink operator takes a savepoint of a RUNNING job only, which leaves it FINISHED, and tries again for ever of any
    other. ``hurry`` is a reason not to wait at all.
    """
    if job["spec"].get("flinkConfiguration", {}).get(SAVEPOINT_ON_DELETION) == "false":
        return ""
    state = ((job.get("status") or {}).get("jobStatus") or {}).get("state")
    waited = now - (ordered_at(job) or now)
    if hurry:
        reason = hurry
    elif state not in ("RUNNING", "FINISHED"):
        reason = f"the job is {state or 'not started'}, not RUNNING"
    elif waited >= SAVEPOINT_MS:
        reason = f"none came within {SAVEPOINT_MS // 1000} s"
    else:
        return ""
    meta = job["metadata"]
    change = {"spec": {"flinkConfiguration": {SAVEPOINT_ON_DELETION: "false"}}}
    kube.merge(BY_KIND["FlinkDeployment"], meta["namespace"], meta["name"], change)
    return (
        f"FlinkDeployment {meta['name']} ends without a savepoint: {reason}. Its checkpoints stay in storage"
    )


@dataclass
class Removal:
    """The end of a detector that is being deleted, or whose namespace is, step by step.

    ``post_event`` takes reason, message and whether it is a warning.
    """

    kube: Kube
    body: Json
    terminating: bool
    now: int
    post_event: EventPoster
    report: ApplyReport = field(default_factory=ApplyReport)

    def advance(self) -> bool:
        """Does what can be done now; True once nothing is left to wait for. ``report.problems`` says what can't go.

        ApiError where the API server gives no answer: call it again.
        """
        if not (self._all_goes or self.terminating):
            self._disown_kept()
        # The namespace takes the rest by itself, and maybe our rights to it first.
        gone = self._streams_are_gone() and self._topics_are_gone()
        return gone and (self.terminating or self._rest_is_ordered())

    @property
    def _namespace(self) -> str:
        return str(self.body["metadata"]["namespace"])

    @property
    def _all_goes(self) -> bool:
        return (self.body.get("spec") or {}).get("deletionPolicy") == "Delete"

    def _streams_are_gone(self) -> bool:
        waits = False
        for job in self._list("FlinkDeployment"):
            name = job["metadata"]["name"]
            if ordered_at(job) is None:
                if not self._delete(job):
                    continue
                order = "before all that a savepoint needs: account, rights, documents, Kafka"
                self.post_event("StreamStopping", f"FlinkDeployment {name} is deleted {order}", False)
                again = self.kube.get(BY_KIND["FlinkDeployment"], self._namespace, name)
                if again is None:
                    continue
                job = again
            waits = self._waits_for(job) or waits
        return not waits

    def _waits_for(self, job: Json) -> bool:
        hurry = ""
        if self.terminating:
            hurry = "the namespace is being deleted"
        elif FOREGROUND in self.body["metadata"].get("finalizers", []):
            hurry = "the detector is deleted in the foreground, which takes the job's account and documents at once"
        name = job["metadata"]["name"]
        try:
            message = end_without_savepoint(self.kube, job, self.now, hurry)
            if message:
                self.post_event("NoSavepoint", message, True)
        except RefusedError as error:
            self.report.problems["FlinkDeployment", name] = error.message
        if self._waited(job) < SAVEPOINT_MS + RELEASE_MS:
            return True
        self._report_left_over(job, "is the Flink Kubernetes operator running?")
        return False

    def _topics_are_gone(self) -> bool:
        if not (self._all_goes or self.terminating):
            return True
        fresh = [topic for topic in self._list("KafkaTopic") if ordered_at(topic) is None]
        deleted = [topic for topic in fresh if self._delete(topic)]
        if deleted:
            self.post_event("TopicsDeleted", f"{len(deleted)} KafkaTopics are deleted, before Kafka", False)
        topics = [topic for topic in self._list("KafkaTopic") if ordered_at(topic) is not None]
        waited = min(map(self._waited, topics), default=0)
        why = self._stuck_reason(waited)
        if not topics or not why:
            return not topics
        held = [topic for topic in topics if TOPIC_FINALIZER in topic["metadata"].get("finalizers", [])]
        for topic in held:
            self._release(topic)
        if held:
            self.post_event("FinalizersRemoved", f"{TOPIC_FINALIZER} of {len(held)} KafkaTopics: {why}", True)
            topics = [topic for topic in self._list("KafkaTopic") if ordered_at(topic) is not None]
        if topics and waited < 2 * TOPICS_MS:
            return False
        for topic in topics:
            self._report_left_over(topic, "who put them there?")
        return True

    def _stuck_reason(self, waited: int) -> str:
        """Why Strimzi's topic operator won't take its finalizers off the topics; empty while it still may."""
        if self.terminating:
            return "the namespace takes the topic operator with it"
        if all(ordered_at(kafka) is not None for kafka in self._list("Kafka")):
            return "the topic operator went with Kafka"
        return f"the topic operator keeps them for {waited // 1000} s" if waited >= TOPICS_MS else ""

    def _rest_is_ordered(self) -> bool:
        """Kafka and the documents, under Delete; the owned children go by garbage collection once the detector is gone."""
        if not self._all_goes:
            return True
        for kind in _KEPT_KINDS:
            for child in self._list(kind):
                if ordered_at(child) is None and self._delete(child) and kind == "Kafka":
                    self.post_event("KafkaDeleted", f"Kafka {child['metadata']['name']} is deleted", False)
        for secret in self._kept_secrets():
            self._delete(secret)
        return True

    def _disown_kept(self) -> None:
        """Takes the owner off what Retain keeps; a policy changed while the operator was away leaves one.

        It comes first: afterwards nothing that happens to the detector takes these along.
        """
        release = names.release_pointer(str(self.body["metadata"]["name"]))
        kept = [child for kind in (*_KEPT_KINDS, "KafkaTopic") for child in self._list(kind)]
        kept = [c for c in kept if c["kind"] != "ConfigMap" or c["metadata"]["name"].startswith(release)]
        for child in [*kept, *self._kept_secrets()]:
            meta, uid = child["metadata"], self.body["metadata"]["uid"]
            owners = meta.get("ownerReferences") or []
            others = [owner for owner in owners if owner.get("uid") != uid]
            if len(others) < len(owners):
                change = {"metadata": {"ownerReferences": others, "resourceVersion": meta["resourceVersion"]}}
                try:
                    self.kube.merge(BY_KIND[child["kind"]], meta["namespace"], meta["name"], change)
                except ApiError as error:
                    if error.status != 404:
                        raise

    def _kept_secrets(self) -> list[Json]:
        """The keys, the clients', and what the brokers' images are pulled with: those that are there and ours."""
        name, uid = str(self.body["metadata"]["name"]), str(self.body["metadata"]["uid"])
        own = [one for one in self.body["spec"].get("clients") or [] if "secretRef" not in one]
        clients = [names.client(name, one["name"]) for one in own]
        secrets = [
            self.kube.get(SECRET, self._namespace, secret)
            for secret in (names.keys(name), names.pull_secret(name), *clients)
        ]
        return [secret for secret in secrets if secret is not None and is_ours(secret, uid)]

    def _waited(self, child: Json) -> int:
        """Ms since both were ordered to go: a person may have deleted the child long before the detector."""
        asked = (ordered_at(child), ordered_at(self.body))
        return self.now - max((moment for moment in asked if moment is not None), default=self.now)

    def _list(self, kind: str) -> list[Json]:
        """Our children of a kind, none where it isn't installed; ApiError where the list is refused."""
        uid = str(self.body["metadata"]["uid"])
        try:
            children = self.kube.children(BY_KIND[kind], self._namespace, uid)
        except UnknownKindError:
            return []
        return [child for child in children if is_ours(child, uid)]

    def _delete(self, child: Json) -> bool:
        """Whether it goes; a refusal of the API server becomes a problem, and the child stays."""
        kind, meta = str(child["kind"]), child["metadata"]
        try:
            if self.kube.delete(BY_KIND[kind], meta["namespace"], meta["name"], meta.get("uid")):
                self.report.written.append((kind, meta["name"], "deleted"))
        except RefusedError as error:
            self.report.problems[kind, meta["name"]] = error.message
            return False
        return True

    def _release(self, topic: Json) -> None:
        meta = topic["metadata"]
        others = [finalizer for finalizer in meta["finalizers"] if finalizer != TOPIC_FINALIZER]
        # resourceVersion makes the server refuse it if someone else changed the list meanwhile.
        change = {"metadata": {"finalizers": others, "resourceVersion": meta["resourceVersion"]}}
        try:
            self.kube.merge(BY_KIND["KafkaTopic"], meta["namespace"], meta["name"], change)
        except ApiError as error:
            if error.status not in (404, 409):
                self.report.problems["KafkaTopic", meta["name"]] = error.message

    def _report_left_over(self, child: Json, question: str) -> None:
        kind, meta = str(child["kind"]), child["metadata"]
        held = ", ".join(meta.get("finalizers", [])) or "nothing"
        message = f"still held by {held} after {self._waited(child) // 1000} s; {question}"
        self.report.problems.setdefault((kind, meta["name"]), message)
