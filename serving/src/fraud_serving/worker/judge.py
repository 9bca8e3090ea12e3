"""A batch of feature records in, records to publish out. No Kafka in here; the loop commits what this returns.

Judging a batch again after an abort gives the same decisions: those of the first time are found in the claims.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from fraud_contracts import metrics, names
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import Degraded, Reason, StoreError
from fraud_contracts.records import Decision, Source
from fraud_contracts.release import ModelPackage
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_pipelines.sealing import Sealer
from fraud_process.instruments import Instruments
from fraud_serving import reading
from fraud_serving.clients.blocking_model import BlockingModelClient
from fraud_serving.cooldown import COOL_DOWN, CoolDown
from fraud_serving.policy import Tally
from fraud_serving.release_in_use import ReleaseInUse
from fraud_serving.ruling import Arm, Case, Prediction, RoutedScore, Ruling
from fraud_serving.worker import letters
from fraud_serving.worker.claiming import Claiming, ClaimStore
from fraud_serving.worker.incoming import Incoming
from fraud_serving.worker.parity import Samples, audited
from fraud_serving.worker.recent import Known, Recent

# A candidate is on trial, and all decisions of a batch wait for it: it gets less time, and is left alone for longer.
CANDIDATE_SECONDS, CANDIDATE_COOL_DOWN = 1.0, 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing:
    noun: str
    partition: int | None
    key: bytes
    value: bytes


@dataclass(slots=True)
class Judged:
    """What to publish, and what to remember and count once it is committed.

    ``dropped`` are other decisions of published ids; ``unsure`` are published ones that aren't known to be in their claims.
    """

    out: list[Outgoing] = field(default_factory=list)
    known: dict[int, dict[str, Known]] = field(default_factory=lambda: defaultdict(dict))
    dropped: dict[int, list[tuple[str, Known]]] = field(default_factory=lambda: defaultdict(list))
    unsure: list[Decision] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    conflicts: int = 0
    superseded: int = 0


class Judge:
    def __init__(
        self,
        config: DetectorConfig,
        tokeniser: Tokeniser,
        sealer: Sealer,
        store: ClaimStore,
        model: BlockingModelClient,
        instruments: Instruments,
    ) -> None:
        self.config, self._sealer = config, sealer
        self._model, self.instruments = model, instruments
        columns = compile_detector(config.spec).names
        self._samples = Samples(columns)
        self.release = ReleaseInUse(config, columns, tokeniser, instruments, "stream")
        self.recent = Recent()
        # The batch told as committed last. A killed broker may yet lose it (docs/decisions/0003), so its claims don't say so yet.
        self._told = Judged()
        self._tally = Tally()
        self._cool_down = CoolDown(failures=1)
        self._claiming = Claiming(store, config.identity, instruments, self._cool_down)

    def judge(self, batch: Sequence[Incoming]) -> Judged:
        ruling = self.release.ruling
        assert ruling is not None, "the loop starts after the first release"
        now = int(time.time() * 1000)
        unknown = self._sort_out(batch)
        self._claiming.look_up(unknown)
        for incoming in unknown:
            self._take_claim(incoming)
        undecided = [i for i in unknown if i.decision is None and not i.repeat and not i.conflict]
        self._decide(ruling, undecided, now)
        return self._publish(ruling, batch)

    def make_up(self) -> None:
        """Called where there is nothing to judge."""
        self._settle()
        self._claiming.make_up()

    def _sort_out(self, batch: Sequence[Incoming]) -> list[Incoming]:
        """Marks repeats and conflicts among the undecided records; -> those that aren't remembered as published."""
        unknown: list[Incoming] = []
        # An inline decision in this very batch counts before the stream's: the client acts on it.
        in_batch = {i.id: i.record["hash"] for i in batch if i.record["decision"] is not None}
        for incoming in batch:
            known = self.recent.get(incoming.id)
            if incoming.record["decision"] is not None:
                incoming.decision = audited(incoming.record["decision"], incoming.record)
                if known is None:
                    unknown.append(incoming)
                continue
            hash_before = known.hash if known is not None else in_batch.get(incoming.id)
            if hash_before is None:
                in_batch[incoming.id] = incoming.record["hash"]
                unknown.append(incoming)
            elif hash_before == incoming.record["hash"]:
                incoming.repeat = True
            else:
                incoming.conflict = True
        return unknown

    def _take_claim(self, incoming: Incoming) -> None:
        """An id that was claimed before: its decision stands, whichever door made it, and is published once.

        What the inline door answered stands as well, unless another decision of the id is published already.
        """
        claim = incoming.claim
        if claim is None or incoming.decision is not None:
            return
        if claim.hash != incoming.record["hash"]:
            incoming.conflict = True
        elif claim.published:
            incoming.repeat = True
        elif claim.decision["door"] == "inline":
            incoming.decision = audited(claim.decision, incoming.record)
        else:
            incoming.decision = claim.decision

    def _decide(self, ruling: Ruling, undecided: list[Incoming], now: int) -> None:
        for incoming, score in zip(undecided, self._scores(ruling, undecided), strict=True):
            record = incoming.record
            case = Case(
                record["event"],
                record["hash"],
                record["set"],
                record["vector"],
                record["saw"],
                "stream",
                incoming.degraded,
                record["source"],
                record["appended"],
            )
            incoming.decision = ruling.judge(case, score, self._tally.counts(now), now)
            self._tally.note(incoming.decision["action"], now)
        self._claiming.claim(undecided)
        for incoming in undecided:
            self._take_claim(incoming)

    def _scores(self, ruling: Ruling, undecided: list[Incoming]) -> list[RoutedScore]:
        """What the candidate doesn't score the stable model does."""
        routes = [ruling.route(incoming.record["event"]) for incoming in undecided]
        vectors = [ruling.readable_vector(i.record["set"], i.record["vector"]) for i in undecided]
        predictions: list[Prediction | None] = [None] * len(undecided)
        arms: tuple[Arm, ...] = ("candidate", "stable")
        for arm in arms:
            asked = [i for i, route in enumerate(routes) if route.arm == arm and vectors[i] is not None]
            package = routes[asked[0]].package if asked else None
            if package is None:
                continue
            answered = self._ask(ruling, package, [vectors[i] or [] for i in asked])
            if answered is not None:
                for i, prediction in zip(asked, answered, strict=True):
                    predictions[i] = prediction
            elif arm == "candidate":
                for i in asked:
                    routes[i] = ruling.without_candidate(routes[i])
        return [RoutedScore(*pair) for pair in zip(routes, predictions, strict=True)]

    def _ask(
        self, ruling: Ruling, package: ModelPackage, rows: list[list[float | None]], explain: bool = True
    ) -> list[Prediction] | None:
        slot, service = f"predictor {package.slot}", names.inference_service(self.config.name, package.slot)
        on_trial = package is ruling.candidate
        if not self._cool_down.ready(slot, time.monotonic()):
            return None
        try:
            predictions = self._model.score(
                package, service, rows, explain, CANDIDATE_SECONDS if on_trial else None
            )
        except StoreError as error:
            _log.warning("store failed", extra={"data": {"store": slot, "error": error.message}})
            self._cool_down.failed(slot, time.monotonic(), CANDIDATE_COOL_DOWN if on_trial else COOL_DOWN)
            return None
        self._cool_down.answered(slot)
        return predictions

    def _publish(self, ruling: Ruling, batch: Sequence[Incoming]) -> Judged:
        judged = Judged()
        chosen: list[Incoming] = []
        fresh: dict[str, Known] = {}
        for incoming in batch:
            decision = incoming.decision
            if incoming.repeat or (decision is None and not incoming.conflict):
                judged.repeats.append("stream")
                continue
            known = fresh.get(incoming.id) or self.recent.get(incoming.id) or incoming.published
            own = None if decision is None else Known(decision["hash"], decision["decided"])
            if own is not None and known is not None and own != known:
                # A claim that holds it must not have it published beside the other.
                judged.dropped[incoming.partition].append((incoming.id, own))
            if decision is None or (known is not None and known.hash != decision["hash"]):
                judged.conflicts += 1
                letter = letters.conflict(self._sealer, incoming.record)
                judged.out.append(Outgoing("dead-letters", None, incoming.id.encode(), letter))
                continue
            if known is not None:
                # Published once, whatever else was answered while no claim could be asked for; that is counted.
                judged.repeats.append(decision["door"])
                judged.superseded += decision["door"] == "inline" and decision["decided"] != known.decided
                continue
            assert own is not None
            fresh[incoming.id] = judged.known[incoming.partition][incoming.id] = own
            sure = decision["door"] == "stream" or incoming.claimed == own
            if not sure or Degraded.IDEMPOTENCY in decision["degraded"]:
                judged.unsure.append(decision)
            chosen.append(incoming)
        self._shadow(ruling, chosen)
        for incoming in chosen:
            decision = incoming.decision
            assert decision is not None
            value = orjson.dumps(decision)
            judged.decisions.append(decision)
            judged.out.append(Outgoing("decisions", incoming.partition, incoming.key, value))
            if decision["action"] != "approve":
                judged.out.append(Outgoing("alerts", incoming.partition, incoming.key, value))
        return judged

    def _shadow(self, ruling: Ruling, chosen: list[Incoming]) -> None:
        """The other arm's score of the vector that was decided on, into the same record."""
        asked: dict[Arm, list[Decision]] = defaultdict(list)
        packages: dict[Arm, ModelPackage] = {}
        for incoming in chosen:
            decision = incoming.decision
            if decision is None or decision["vector"] is None or decision["set"] != self.config.feature_set:
                continue
            other = ruling.shadow_arm(decision["arm"])
            if other is not None and not (decision.get("shadow") or {}).get("arm"):
                asked[other[0]].append(decision)
                packages[other[0]] = other[1]
        for arm, decisions in asked.items():
            package = packages[arm]
            scores = self._ask(ruling, package, [d["vector"] or [] for d in decisions], explain=False)
            for decision, score in zip(decisions, scores or (), strict=False):
                mapped = ruling.map_score(package, score.probability)
                shadow: dict[str, Any] = {
                    **(decision.get("shadow") or {}),
                    "arm": arm,
                    "model_version": score.model_version,
                    "model_digest": score.model_digest,
                    "probability": score.probability,
                    "score": mapped,
                    "action": ruling.policy.band(mapped).value.lower(),
                }
                decision["shadow"] = shadow

    def unreadable(self, value: bytes, source: Source, appended: int, error: Exception) -> Outgoing:
        """The dead letter of a record that isn't a feature record."""
        _log.error("unreadable record", extra={"data": {**source, "error": str(error)}})
        self.instruments(metrics.DEAD_LETTERS, reason=str(Reason.INVALID_JSON)).inc()
        event_id = reading.any_id(value)
        letter = letters.unreadable(self._sealer, event_id, value, source, appended, error)
        return Outgoing("dead-letters", None, (event_id or "").encode(), letter)

    def remember(self, partition: int, entries: Collection[tuple[str, Known]]) -> None:
        """Ids whose decisions are in the log, committed: a record of one that comes again is a repeat."""
        self.recent.add(partition, entries)
        self._claiming.published(partition, entries)

    def forget(self, partition: int) -> None:
        """The partition is another worker's now."""
        self.recent.forget(partition)
        self._told.known.pop(partition, None)
        self._told.dropped.pop(partition, None)
        self._claiming.forget(partition)

    def _settle(self) -> None:
        """What was told as committed before now is published for certain: a broker that died since then was noticed."""
        for partition, known in self._told.known.items():
            self._claiming.published(partition, known.items())
        for partition, dropped in self._told.dropped.items():
            self._claiming.published(partition, dropped)
        for decision in self._told.unsure:
            self._claiming.unclaimed(decision)
        self._told = Judged()

    def committed(self, judged: Judged) -> None:
        """The batch is in the log: remember its ids, count it."""
        now, count = time.time() * 1000, self.instruments
        self._settle()
        self._told = judged
        for partition, known in judged.known.items():
            self.recent.add(partition, known.items())
        for door in judged.repeats:
            count(metrics.REPEATS, door=door).inc()
        if judged.conflicts:
            count(metrics.CONFLICTS, door="stream").inc(judged.conflicts)
            count(metrics.DEAD_LETTERS, reason=str(Reason.ID_REUSED)).inc(judged.conflicts)
        if judged.superseded:
            count(metrics.SUPERSEDED).inc(judged.superseded)
        for decision in judged.decisions:
            if "parity" in decision:
                count(metrics.PARITY, result=decision["parity"]).inc()
                self._samples.note(decision)
            if decision["door"] == "inline":
                continue  # counted where it was made
            count(
                metrics.DECISIONS, door="stream", action=decision["action"], arm=decision["arm"] or "none"
            ).inc()
            for mark in decision["degraded"]:
                count(metrics.DEGRADED, door="stream", degraded=mark).inc()
            appended = decision.get("appended")
            if appended is not None:
                count(metrics.STREAM_SECONDS).observe(max(0.0, now - appended) / 1000)
