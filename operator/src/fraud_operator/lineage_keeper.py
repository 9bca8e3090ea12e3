"""Keeps a detector's lineages: as this operator left them, else as they lie beside the release; asks what ``lineage.decide`` goes by.

Storage and Kafka are asked only where a streaming job is to be made anew.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Final

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND
from fraud_contracts.lineage import LINEAGES_KEY, Lineages
from fraud_operator import deletion, readiness
from fraud_operator.buckets import Bucket
from fraud_operator.child_status import unreadable_state
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.events import Recorder
from fraud_operator.facts import Facts
from fraud_operator.kube import Kube
from fraud_operator.lineage import LineageFacts, StoredState, decide, furthest, remade
from fraud_operator.objects import Json
from fraud_operator.observe import Observer
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
    _ran: set[DetectorKey] = field(default_factory=set)

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

    def take(self, detector: Detector, facts: Facts) -> tuple[Detector, Facts]:
        """Both with the lineage that the streaming job is to be of from now on."""
        jobs = [
            job
            for (kind, _), body in facts.children.items()
            if kind == "FlinkDeployment" and (job := stream_job(detector.name, body)) is not None
        ]
        lineages = taken_up(facts.lineages, detector.feature_set, jobs)
        detector, facts = detector.with_lineage(lineages), replace(facts, lineages=lineages)
        step = decide(lineages, detector.feature_set, self._facts(detector, facts), facts.now)
        if step.told is not None:
            reason, message, warning = step.told
            self.recorder.post(detector, reason, message, warning=warning)
        self._kept[detector.namespace, detector.name] = detector.uid, step.lineages
        facts = replace(
            facts,
            lineages=step.lineages,
            lineage_waits=step.waits,
            unseeded=step.unseeded,
            unreadable_job=detector.streaming_job if step.ends else "",
        )
        return detector.with_lineage(step.lineages), facts

    def forget(self, namespace: str, name: str) -> None:
        """Drops what is remembered of a detector that is gone."""
        self._kept.pop((namespace, name), None)
        self._ran.discard((namespace, name))

    def _facts(self, detector: Detector, facts: Facts) -> LineageFacts:
        sources, lineage = self.observer.sources, detector.lineage
        topics, offer = sources.topics(detector, facts), facts.models.seeds
        job = self._job(detector, facts)
        exists = job is not None or "FlinkDeployment" in facts.missing
        known = LineageFacts(exists, topics=topics)
        if job is not None:
            ending, live = deletion.ordered_at(job) is not None, stream_job(detector.name, job)
            why, made_from = unreadable_state(job), live.made_from if live is not None else None
            known = replace(known, ending=ending, made_from=made_from, unreadable=why)
        self._forget_states(detector, exists)
        trained = facts.models.trained is not None
        known = replace(known, trained=trained, seeds=offer, taken=facts.lags.seeds == 0)
        goes_on = lineage is None or not remade(lineage, topics)
        if exists and goes_on and (offer is None or lineage is None or lineage.seeded):
            return known
        known = replace(known, stored=self._stored_state(detector))
        if known.stored is None:
            return known
        in_use, newest = facts.lineages.in_use, known.stored.newest
        if in_use is None and not newest:
            return known
        if detector.managed_kafka and topics is None and in_use is not None and not in_use.topics:
            # They have never been there while its job was, so nothing was ever read.
            return replace(known, committed={}, topics={}, held={})
        target, _ = self.observer.kafka(detector)
        if target is None or not readiness.kafka_usable(detector, facts):
            return known
        reader = self.observer.warming.reader
        # What any of them has committed, it has written; where the document is older than the storage, only that knows the last one.
        streams = {newest, in_use.stream if in_use is not None else ""} - {""}
        committed = furthest([sources.committed(detector, one, target, reader) for one in sorted(streams)])
        return replace(known, committed=committed, held=sources.held(detector, target, reader))

    def _forget_states(self, detector: Detector, exists: bool) -> None:
        """Once a job has gone since the last pass, the storage is asked anew."""
        key = (detector.namespace, detector.name)
        if exists:
            self._ran.add(key)
        elif key in self._ran:
            self._ran.discard(key)
            self.observer.states.forget(key)

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
