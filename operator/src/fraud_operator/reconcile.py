"""One pass over one detector: observe, desired, apply, status. Any event leads here; the order is the whole plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR, SECRET
from fraud_contracts.detector import DeletionPolicy, dump
from fraud_contracts.errors import SpecError, StoreError
from fraud_contracts.lineage import Lineages
from fraud_contracts.release import Release
from fraud_operator import (
    changes,
    deletion,
    named_secrets,
    orders,
    readiness,
    rollout,
    storage_hold,
    training,
)
from fraud_operator import detector as detectors
from fraud_operator.adoption import Adoption
from fraud_operator.announcer import Announcer
from fraud_operator.apply import Applier, ApplyReport
from fraud_operator.clients import Clients
from fraud_operator.desired.child import Child, Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.desired.documents import (
    another_lineage,
    build_config,
    build_release,
    build_release_pointer,
)
from fraud_operator.desired.flink_deployment import build_flink_deployment
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.detector_keys import new_keys, token_key_digest
from fraud_operator.events import Recorder
from fraud_operator.facts import Facts
from fraud_operator.feature_sets import FeatureSets, feature_sets, noted, policy_of
from fraud_operator.finalizer import Finalizer
from fraud_operator.glances import Glance, Glances
from fraud_operator.kube import ApiError, Kube, UnreachableError
from fraud_operator.lineage_keeper import LineageKeeper
from fraud_operator.memory import DetectorMemory
from fraud_operator.objects import Json
from fraud_operator.observe import Observer
from fraud_operator.old_streams import OldStreams
from fraud_operator.ownership import surplus
from fraud_operator.pass_result import PassResult
from fraud_operator.records import kept_records
from fraud_operator.references import References
from fraud_operator.releases import make_release
from fraud_operator.rollout_conditions import beside_note
from fraud_operator.rollout_state import RolloutState
from fraud_operator.settings import Platform


@dataclass
class Reconciler:
    kube: Kube
    platform: Platform
    observer: Observer
    recorder: Recorder
    clock: Callable[[], int] = lambda: int(time.time() * 1000)
    applier: Applier = field(init=False)
    memory: DetectorMemory = field(init=False)
    finalizer: Finalizer = field(init=False)
    references: References = field(init=False)
    clients: Clients = field(init=False)
    glances: Glances = field(init=False)
    lineages: LineageKeeper = field(init=False)
    adoption: Adoption = field(init=False)
    announcer: Announcer = field(init=False)
    # By uid, generation and annotations of the object: the detector, and what is wrong with it.
    _parsed: dict[DetectorKey, tuple[Any, Detector | None, list[SpecError]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.applier = Applier(self.kube)
        self.memory = DetectorMemory(self.kube)
        # What ends a detector must know how things are, not how they were a moment ago.
        self.finalizer = Finalizer(self.kube.live, self.recorder, self._take_logins)
        self.references = References(self.kube)
        self.clients = Clients(self.kube)
        self.glances = Glances(self.kube)
        self.lineages = LineageKeeper(self.kube, self.observer, self.recorder)
        self.old_streams = OldStreams()
        self.adoption = Adoption(self.kube, self.recorder, self.platform.namespace)
        self.announcer = Announcer(self.kube, self.recorder)

    def reconcile(self, namespace: str, name: str) -> PassResult:
        body = self.kube.get(DETECTOR, namespace, name)
        if body is None or self.adoption.is_foreign(body):
            self._forget(namespace, name)
            return PassResult(settled=True, ready=None)
        terminating = deletion.is_terminating(self.kube, namespace)
        if terminating or body["metadata"].get("deletionTimestamp"):
            return self._finalize(namespace, name, terminating)
        previous = body.get("status") or {}
        detector, errors = self._parse(body)
        facts = None
        if detector is not None and not errors:
            self.glances.ask_again(detector, previous, self.clock())
            errors = self._reserved(detector)
        if detector is not None and not errors:
            facts = self._observe(detector)
            errors = changes.check(detector, facts.children)
        if errors or detector is None or facts is None:
            detector = self._last_valid(body, previous)
            if detector is None:
                return self.announcer.refuse(body, errors, previous, self.clock())
            facts = self._observe(detector)
        else:
            self.memory.keep_valid_spec(detector)
        self.adoption.adopt(body)
        # Where this platform or this operator's version refuses the last valid spec too, nothing is changed.
        refused = errors and (
            detectors.check(detector) or self._reserved(detector) or changes.check(detector, facts.children)
        )
        holds = detector.spec.paused or bool(refused)
        facts = self.references.add(detector, self.memory.restore(detector, facts, previous))
        facts = replace(facts, orders=orders.of(body))
        facts = self.clients.add(detector, facts, self.memory.keys(detector))
        report = ApplyReport()
        sets = feature_sets(detector, facts.lineages, facts.state)
        facts = self.observer.measure(sets, facts)
        if not holds:
            facts = self.lineages.take(sets, facts)
            sets = feature_sets(detector, facts.lineages, facts.state)
        sets, facts = (self._hold if holds else self._act)(sets, facts, report)
        self._end_streams(detector, facts, report)
        if not holds:
            self.old_streams.look(sets.answering, facts, self.observer.bucket)
        told = replace(facts.beside, note=beside_note(sets, facts), declared=detector.feature_set)
        facts = replace(facts, beside=told)
        return self.announcer.publish(sets.answering, body, facts, report, previous, errors)

    def glance(self, namespace: str, name: str) -> Glance:
        """Whether what sends no events isn't as the last pass found it: Secrets, the bucket, a Kafka of the user's own."""
        glance = self.glances.look(namespace, name)
        return glance._replace(differs=self.observer.turned(namespace, name) or glance.differs)

    def _reserved(self, detector: Detector) -> list[SpecError]:
        """What is wrong with the Secrets that the spec names; before anything is asked with what they hold."""
        self.glances.keep(detector)
        return named_secrets.check(detector, lambda name: self.kube.get(SECRET, detector.namespace, name))

    def _observe(self, detector: Detector) -> Facts:
        """What is so of the detector but for how far its streams are."""
        self.glances.keep(detector)
        return replace(self.observer.observe(detector, self.clock()), lineages=self.lineages.of(detector))

    def _finalize(self, namespace: str, name: str, terminating: bool) -> PassResult:
        self.observer.kafkas.forget((namespace, name))  # which would make topics again
        body = self.kube.live.get(DETECTOR, namespace, name)
        result = PassResult(settled=True, ready=None)
        if body is not None:
            result = self.finalizer.advance(body, terminating, self.clock())
        if result.ready is None:
            self._forget(namespace, name)
        return result

    def _take_logins(self, body: Json) -> list[str]:
        """Takes a deleted detector's logins out of the platform's stores; -> what is left over."""
        identity = names.Identity(body["metadata"]["namespace"], body["metadata"]["name"])
        return self.observer.logins.remove(identity, self.platform.stores)

    def _parse(self, body: Json) -> tuple[Detector | None, list[SpecError]]:
        """Once for each spec: compiling its rules is what a settled pass would spend most of its time on."""
        meta = body["metadata"]
        key = (meta["namespace"], meta["name"])
        version = (meta["uid"], meta["generation"], meta.get("annotations"))
        parsed = self._parsed.get(key)
        if parsed is None or parsed[0] != version:
            parsed = self._parsed[key] = version, *detectors.read(body, self.platform)
        return parsed[1], list(parsed[2])

    def _last_valid(self, body: Json, previous: Json) -> Detector | None:
        """The detector with the last spec that could be built; its generation is behind the object's.

        A pause, also of the rollout alone, and Retain are taken from the newest spec all the same: they can do no harm, whatever
        else is wrong in it.
        """
        meta, newest = body["metadata"], body.get("spec") or {}
        spec = self.memory.last_valid(meta)
        if spec is None:
            return None
        careful: Json = {"paused": True} if newest.get("paused") is True else {}
        steps = newest.get("rollout")
        if isinstance(steps, dict) and steps.get("paused") is True:
            careful["rollout"] = spec.rollout.model_copy(update={"paused": True})
        if newest.get("deletionPolicy") == DeletionPolicy.RETAIN:
            careful["deletion_policy"] = DeletionPolicy.RETAIN
        generation = min(previous.get("observedGeneration", 0), meta.get("generation", 1) - 1)
        document = {
            "metadata": {**meta, "generation": generation},
            "spec": dump(spec.model_copy(update=careful)),
        }
        return Detector.parse(document, self.platform)

    def _act(self, sets: FeatureSets, facts: Facts, report: ApplyReport) -> tuple[FeatureSets, Facts]:
        """Decides and applies. Gives the sets and the facts with the new rollout, so that the status is this pass's."""
        detector, declared = sets.answering, sets.declared
        handed_over = self.lineages.is_ready(sets, facts)
        known = readiness.rollout_facts(
            detector, facts, declared.feature_set, handed_over=handed_over, returns=sets.returns
        )
        state, actions = rollout.decide(facts.state, known, facts.now)
        lineages = self.lineages.hand_over(sets, facts, state, known)
        sets = feature_sets(declared, lineages, state)
        detector, lineages = sets.answering, noted(lineages, sets)
        keys = None if facts.keys_fault else self.memory.keys(detector) or new_keys()
        policy = policy_of(sets, facts.release, keys or self.memory.keys(detector))
        release = make_release(detector, sets.state(state), facts.release, policy)
        wanted = replace(
            _wanted(sets, facts, lineages, release, state),
            training_revision=self._training(sets, facts, report),
            keys=keys,
            token_key=token_key_digest(keys) if keys else facts.token_key,
        )
        children = build_children(detector, wanted)
        waiting = [child for child in children if self._waits(child, sets, facts)]
        for child in children:
            if child not in waiting and not _lacks_its_lineage(child, detector, report):
                self._apply(child, facts, report)
        keep = (*kept_records(detector, facts), *storage_hold.kept(waiting, facts.children))
        left = surplus(facts.children, detector.uid, children, keep)
        for child_left in (*left, *self.references.leftovers(detector)):
            self.applier.delete(child_left, detector.uid, report)
        self._keep(detector, lineages, release, state)
        for action in actions:
            self._carry_out(detector, action, report)
        held = () if facts.storage.ready else storage_hold.changed(waiting, facts.children)
        facts = replace(facts, state=state, release=release, lineages=lineages)
        return sets, replace(facts, missing=facts.missing | report.missing, held=held)

    def _hold(self, sets: FeatureSets, facts: Facts, report: ApplyReport) -> tuple[FeatureSets, Facts]:
        """While paused a version may be taken back and a hand-over called off or ended, and nothing else: only the release
        documents change, and whether streaming jobs stand still. The live policy stays.
        """
        detector = sets.answering
        if facts.release is None:
            return sets, facts
        state, actions = rollout.back(facts.state, readiness.rollout_facts(detector, facts), facts.now)
        lineages = self.lineages.hand_over(sets, facts, state, None)
        if state == facts.state and lineages == facts.lineages:
            return sets, facts
        sets = feature_sets(sets.declared, lineages, state)
        release = facts.release
        if actions:
            release = make_release(sets.answering, sets.state(state), release, release.policy)
        wanted = _wanted(sets, facts, lineages, release, state)
        children = [*build_release(sets.answering, wanted), *build_release_pointer(sets.answering, wanted)]
        if lineages != facts.lineages:
            # Who died in the pass of the switch may have left the document the other set's.
            documents = [
                one
                for one in build_config(sets.answering, wanted)
                if another_lineage(one, facts.child(one.kind, one.name))
            ]
            jobs = [*documents, *build_flink_deployment(sets.answering, wanted)]
            children += [job for job in jobs if facts.child(job.kind, job.name) is not None]
        for child in children:
            self._apply(child, facts, report)
        if report.problems or report.conflicts:
            return sets, facts  # the next pass tries again
        self._keep(detector, lineages, release, state)
        for action in actions:
            self._carry_out(detector, action, report)
        return sets, replace(facts, state=state, release=release, lineages=lineages)

    def _keep(self, detector: Detector, lineages: Lineages, release: Release, state: RolloutState) -> None:
        self.memory.keep_rollout(detector, release, state)
        self.lineages.keep(detector, lineages)

    def _apply(self, child: Child, facts: Facts, report: ApplyReport) -> None:
        if child.kind in facts.missing:
            return  # its API isn't installed; the next pass's list shows when it is
        self.applier.apply(child, facts.child(child.kind, child.name), report)

    def _waits(self, child: Child, sets: FeatureSets, facts: Facts) -> bool:
        """Whether a child waits for the storage, or for what the streaming job is to begin with."""
        live = facts.child(child.kind, child.name)
        if child.kind in ("FlinkDeployment", "RayJob"):
            one = child.name == sets.answering.streaming_job or (
                child.kind == "RayJob" and sets.trains is sets.answering
            )
            if facts.lineage_waits if one else facts.beside.waits:
                return True
        still = child.kind == "FlinkDeployment" and child.body["spec"]["job"]["state"] == "suspended"
        if still and live is None:
            return True  # the Flink operator refuses to make one that stands still
        if child.kind == "Secret" and not facts.storage.ready:  # Secrets aren't listed
            live = self.kube.get(BY_KIND[child.kind], child.body["metadata"]["namespace"], child.name)
        return storage_hold.waits(child, live, facts.storage)

    def _end_streams(self, detector: Detector, facts: Facts, report: ApplyReport) -> None:
        """One that can't read its state goes; those that are being deleted end without a savepoint where none can be taken."""
        for (kind, name), child in facts.children.items():
            if kind == "FlinkDeployment" and name in facts.unreadable_jobs:
                self.applier.delete(child, detector.uid, report)
            if kind != "FlinkDeployment" or deletion.ordered_at(child) is None:
                continue
            try:
                message = deletion.end_without_savepoint(self.kube, child, facts.now)
            except UnreachableError:
                raise
            except ApiError as error:
                if error.status != 404:
                    report.problems[kind, name] = error.message
                continue
            if message:
                report.written.append((kind, name, "changed"))
                self.recorder.post(detector, "NoSavepoint", message, warning=True)

    def _forget(self, namespace: str, name: str) -> None:
        self._parsed.pop((namespace, name), None)
        self.applier.forget(namespace, name)
        self.memory.forget(namespace, name)
        self.lineages.forget(namespace, name)
        self.old_streams.forget(namespace, name)
        self.observer.forget(namespace, name)
        self.references.forget(namespace, name)
        self.clients.forget(namespace, name)
        self.glances.forget(namespace, name)
        self.kube.forget(DETECTOR, namespace, name)

    def _training(self, sets: FeatureSets, facts: Facts, report: ApplyReport) -> str | None:
        """The revision whose RayJob is wanted; None also after a failed one was deleted to be made anew."""
        detector = sets.trains
        if facts.revision is None or detector is None:
            return None
        job = readiness.training_job(detector, facts)
        if job is None and facts.models.trained is not None:
            return None
        if training.due_again(training.outcome(job), facts.now) and job is not None:
            self.applier.delete(job, detector.uid, report)
            return None
        return facts.revision

    def _carry_out(self, detector: Detector, action: rollout.RolloutAction, report: ApplyReport) -> None:
        if isinstance(action, rollout.PostEvent):
            self.recorder.post(detector, action.reason, action.message, warning=action.warning)
            return
        name = action.model
        self.kube.check_lead()
        try:
            self.observer.registry(detector).set_champion(name, action.version)
        except StoreError as error:
            report.problems["Model", name] = f"champion isn't set: {error}"
            return
        self.recorder.post(detector, "Champion", f"champion of {name} is version {action.version}")


def _wanted(
    sets: FeatureSets, facts: Facts, lineages: Lineages, release: Release, state: RolloutState
) -> Wanted:
    """What decides the children, but for training and keys."""
    return Wanted(
        release=release,
        state=state,
        training_revision=None,
        token_key=facts.token_key,
        copies=facts.copies,
        logins=facts.logins,
        storage_keys=facts.storage.keys,
        stores=facts.stores.addresses,
        addresses=facts.addresses,
        clients=facts.clients,
        kafka_authority=facts.kafka_authority,
        lineages=lineages,
        beside=sets.built,
        trains=sets.trains,
    )


def _lacks_its_lineage(child: Child, detector: Detector, report: ApplyReport) -> bool:
    """Whether a streaming job would begin though its lineage isn't kept: a later operator would take it for another."""
    pointer = "ConfigMap", names.release_pointer(detector.name)
    return child.kind == "FlinkDeployment" and (pointer in report.problems or pointer in report.conflicts)
