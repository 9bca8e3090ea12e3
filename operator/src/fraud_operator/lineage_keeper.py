"""Keeps a detector's lineages: as this operator left them, else as they lie beside the release; asks what ``lineage.decide`` goes by.

Storage and Kafka are asked only where a streaming job is to be made anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND
from fraud_contracts.lineage import LINEAGES_KEY, HandOverStep, Lineages, Positions
from fraud_operator import child_status, deletion, hand_over, readiness
from fraud_operator.buckets import Bucket
from fraud_operator.child_status import unreadable_state
from fraud_operator.detector import Detector, DetectorKey, unreadable
from fraud_operator.events import Recorder
from fraud_operator.facts import Facts, Lags
from fraud_operator.feature_sets import FeatureSets, feature_sets
from fraud_operator.hand_over import HandOverFacts, Still
from fraud_operator.kube import Kube
from fraud_operator.lineage import (
    LineageFacts,
    LineageStep,
    StoredState,
    decide,
    decide_beside,
    furthest,
    remade,
)
from fraud_operator.objects import Json
from fraud_operator.observe import Observer
from fraud_operator.rollout import RolloutFacts
from fraud_operator.rollout_state import RolloutState
from fraud_operator.stream_jobs import stream_job, taken_up

LOG: Final = logging.getLogger(__name__)


@dataclass
class LineageKeeper:
    kube: Kube
    observer: Observer
    recorder: Recorder
    # With the UID: a later namesake reads them anew.
    _kept: dict[DetectorKey, tuple[str, Lineages]] = field(default_factory=dict)
    # Those whose streaming job was there at the last pass.
    _ran: set[tuple[DetectorKey, str]] = field(default_factory=set)
    # Of those that hand over: what this operator has seen by itself; another one looks for as long.
    _still: dict[DetectorKey, Still] = field(default_factory=dict)

    def of(self, detector: Detector) -> Lineages:
        """Those of now. The release pointer, in which they lie, may outlive a detector, and a later namesake goes on with them."""
        uid, kept = self._kept.get((detector.namespace, detector.name)) or ("", None)
        if uid == detector.uid and kept is not None:
            return kept
        identity = str(detector.identity)
        pointer = names.release_pointer(detector.name)
        body = self.kube.get(BY_KIND["ConfigMap"], detector.namespace, pointer) or {}
        text = (body.get("data") or {}).get(LINEAGES_KEY)
        try:
            stored = None if text is None else Lineages.model_validate_json(text)
        except ValueError as error:
            LOG.warning(
                "lineages are unreadable", extra={"data": {"detector": identity, "error": str(error)}}
            )
            stored = None
        if stored is not None and stored.detector != identity:
            LOG.warning(
                "lineages are of another", extra={"data": {"detector": identity, "of": stored.detector}}
            )
            stored = None
        return stored or Lineages(detector=identity)

    def take(self, sets: FeatureSets, facts: Facts) -> Facts:
        """The facts with the lineages that the streaming jobs are to be of from now on."""
        declared = sets.declared
        jobs = [
            job
            for (kind, _), body in facts.children.items()
            if kind == "FlinkDeployment" and (job := stream_job(declared.name, body)) is not None
        ]
        lineages = taken_up(facts.lineages, sets.answering.feature_set, jobs)
        if lineages != facts.lineages:
            facts = replace(facts, lineages=lineages)
            sets = feature_sets(declared, lineages, facts.state)
        answering, beside, own = sets.answering, sets.beside, declared.feature_set
        known = self._facts(answering, facts, facts.lags, trains=answering.feature_set == own)
        step = decide(facts.lineages, answering.feature_set, known, facts.now)
        self._tell(answering, step)
        unreadable_jobs = {answering.streaming_job} if step.ends else set()
        facts = replace(facts, lineages=step.lineages, lineage_waits=step.waits, unseeded=step.unseeded)
        if beside is not None:
            known = self._facts(beside, facts, facts.beside.lags, trains=beside.feature_set == own)
            step = decide_beside(facts.lineages, beside.feature_set, known, facts.now)
            self._tell(answering, step)
            unreadable_jobs |= {beside.streaming_job} if step.ends else set()
            facts = replace(
                facts,
                lineages=step.lineages,
                beside=replace(facts.beside, waits=step.waits, unseeded=step.unseeded),
            )
        self.keep(answering, facts.lineages)
        return replace(facts, unreadable_jobs=frozenset(unreadable_jobs))

    def hand_over(
        self, sets: FeatureSets, facts: Facts, state: RolloutState, rollout_facts: RolloutFacts | None
    ) -> Lineages:
        """The lineages with the hand-over a step further. Without ``rollout_facts``, as in a pause, nothing is handed over: what can be called off is."""
        lineages, answering, beside = facts.lineages, sets.answering, sets.built
        target, live = None, state.stable.feature_set if state.stable is not None else None
        if rollout_facts is not None:
            other = beside.feature_set if beside is not None else None
            target = hand_over.target(
                state, rollout_facts, answering.feature_set, sets.declared.feature_set, other
            )
        if target is None and lineages.hand_over is None:
            return lineages
        after = hand_over.follow(lineages, self._hand_over_facts(sets, facts, target, live), facts.now)
        told = hand_over.told(lineages, after)
        if told:
            self.recorder.post(answering, *told, warning=False)
        return after

    def is_ready(self, sets: FeatureSets, facts: Facts) -> bool:
        """Whether all is done but the switch to the set beside."""
        if sets.built is None:
            return False
        jobs = _jobs(sets, facts)
        return hand_over.is_ready(facts.lineages, sets.built.feature_set, frozenset(jobs), _stopped(jobs))

    def keep(self, detector: Detector, lineages: Lineages) -> None:
        """As they are from now on."""
        self._kept[detector.namespace, detector.name] = detector.uid, lineages

    def _tell(self, detector: Detector, step: LineageStep) -> None:
        if step.told is not None:
            reason, message, warning = step.told
            self.recorder.post(detector, reason, message, warning=warning)

    def _hand_over_facts(
        self, sets: FeatureSets, facts: Facts, target: str | None, live: str | None
    ) -> HandOverFacts:
        """Kafka is asked for what the present step goes by only."""
        answering, beside = sets.answering, sets.built
        step = facts.lineages.hand_over.step if facts.lineages.hand_over is not None else None
        jobs = _jobs(sets, facts)
        known = HandOverFacts(
            target=target,
            live=live,
            warm=beside is not None and readiness.beside_warm(beside, facts)[0],
            present=frozenset(jobs),
            running=frozenset(one for one, job in jobs.items() if child_status.flink(job, facts.now).usable),
            stopped=_stopped(jobs),
            settled=readiness.worker_settled(answering, facts),
        )
        if step is HandOverStep.READY and facts.release is not None:
            other = beside is not None and unreadable(answering.spec, sets.declared.spec.policy)
            return replace(known, policy=facts.release.policy if other else None)
        target_kafka, _ = self.observer.kafka(answering)
        if target_kafka is None or not readiness.kafka_usable(answering, facts):
            self._still.pop((answering.namespace, answering.name), None)
            return known
        sources, reader = self.observer.sources, self.observer.beside.reader
        if step is HandOverStep.ALIGNING:
            known = replace(known, held=sources.held(answering, target_kafka, reader))
        elif step in (HandOverStep.PASSING, HandOverStep.STOPPING):
            committed = sources.committed(answering, answering.stream, target_kafka, reader)
            known = replace(known, committed=committed, still=self._seen(answering, facts, known, committed))
        elif step is HandOverStep.DRAINING:
            known = replace(known, undecided=sources.undecided(answering, target_kafka, reader))
        return known

    def _seen(
        self, answering: Detector, facts: Facts, known: HandOverFacts, committed: Positions | None
    ) -> Still | None:
        """Since when the job that answers stands where it stands, as far as this operator has seen."""
        assert facts.lineages.hand_over is not None
        ends, key = facts.lineages.hand_over.ends, (answering.namespace, answering.name)
        runs = committed is not None and answering.epoch in known.running
        seen = hand_over.still(
            self._still.pop(key, None), hand_over.short_of(committed or {}, ends) if runs else None, facts.now
        )
        if seen is not None:
            self._still[key] = seen
        return seen

    def forget(self, namespace: str, name: str) -> None:
        """Drops what is remembered of a detector that is gone."""
        self._still.pop((namespace, name), None)
        self._kept.pop((namespace, name), None)
        self._ran = {one for one in self._ran if one[0] != (namespace, name)}

    def _facts(self, detector: Detector, facts: Facts, lags: Lags, *, trains: bool) -> LineageFacts:
        """``trains``: training is for this feature set, and so are its seeds."""
        sources, lineage = self.observer.sources, detector.lineage
        topics, offer = sources.topics(detector, facts), facts.models.seeds if trains else None
        job = self._job(detector, facts)
        exists = job is not None or "FlinkDeployment" in facts.missing
        known = LineageFacts(exists, topics=topics)
        if job is not None:
            ending, live = deletion.ordered_at(job) is not None, stream_job(detector.name, job)
            why, made_from = unreadable_state(job), live.made_from if live is not None else None
            known = replace(known, ending=ending, made_from=made_from, unreadable=why)
        self._forget_states(detector, exists)
        trained = trains and facts.models.trained is not None
        known = replace(known, trained=trained, seeds=offer, taken=lags.seeds == 0)
        goes_on = lineage is None or not remade(lineage, topics)
        if exists and goes_on and (offer is None or lineage is None or lineage.seeded):
            return known
        known = replace(known, stored=self._stored_state(detector))
        if known.stored is None:
            return known
        in_use = facts.lineages.in_use
        if in_use is None and not known.stored.streams:
            return known
        if detector.managed_kafka and topics is None and in_use is not None and not in_use.topics:
            # They have never been there while its job was, so nothing was ever read.
            return replace(known, committed={}, topics={}, held={})
        target, _ = self.observer.kafka(detector)
        if target is None or not readiness.kafka_usable(detector, facts):
            return known
        reader = self.observer.warming.reader
        # Where the document is older than the storage, only that knows the last ones.
        since = known.stored.since(0 if in_use is None else in_use.generation)
        streams = since | ({in_use.stream} if in_use is not None else set())
        committed = furthest([sources.committed(detector, one, target, reader) for one in sorted(streams)])
        return replace(known, committed=committed, held=sources.held(detector, target, reader))

    def _forget_states(self, detector: Detector, exists: bool) -> None:
        """Once a job has gone since the last pass, the storage is asked anew."""
        key = (detector.namespace, detector.name), detector.stream
        if exists:
            self._ran.add(key)
        elif key in self._ran:
            self._ran.discard(key)
            self.observer.states.forget(*key)

    def _job(self, detector: Detector, facts: Facts) -> Json | None:
        """What was just made may not be among the children yet."""
        if "FlinkDeployment" in facts.missing:
            return None
        kind, name = BY_KIND["FlinkDeployment"], detector.streaming_job
        listed = facts.child("FlinkDeployment", name)
        return listed if listed is not None else self.kube.live.get(kind, detector.namespace, name)

    def _stored_state(self, detector: Detector) -> StoredState | None:
        """Nothing is found in a folder of one node, which the operator doesn't see."""
        bucket = self.observer.bucket(detector)
        if not isinstance(bucket, Bucket):
            return StoredState() if bucket.ready else None
        bucket = replace(bucket, uri=detector.storage_uri)
        return self.observer.states.look((detector.namespace, detector.name), bucket, detector.stream)


def _stopped(jobs: Mapping[int, Json]) -> frozenset[int]:
    return frozenset(one for one, job in jobs.items() if child_status.flink_stopped(job))


def _jobs(sets: FeatureSets, facts: Facts) -> dict[int, Json]:
    """The streaming jobs that are there and aren't being deleted, by generation."""
    views = [view for view in (sets.answering, sets.built) if view is not None]
    found = {view.epoch: facts.child("FlinkDeployment", view.streaming_job) for view in views}
    return {
        epoch: job for epoch, job in found.items() if job is not None and deletion.ordered_at(job) is None
    }
