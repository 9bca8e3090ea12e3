"""A batch of feature records in, records to publish out. No Kafka in here; the loop commits what this returns.

Processing a batch again after an abort gives the same decisions: those of the first time are found in the claims.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence

import orjson

from fraud_contracts import metrics
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import Degraded, Reason
from fraud_contracts.records import Source
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_process.instruments import Instruments
from fraud_serving import stored_records
from fraud_serving.clients.blocking_model import BlockingModelClient
from fraud_serving.past_decisions import Ledger, PastDecisions
from fraud_serving.policy import Tally
from fraud_serving.release_in_use import ReleaseInUse
from fraud_serving.ruling import Ruling
from fraud_serving.worker import worker_letters
from fraud_serving.worker.arm_scoring import ArmScorer
from fraud_serving.worker.batch import BatchResult, Incoming, Outgoing, take_claim
from fraud_serving.worker.batch_claims import BatchClaims, ClaimStore
from fraud_serving.worker.batch_metrics import BatchMetrics
from fraud_serving.worker.parity import with_audit
from fraud_serving.worker.past_batches import PastBatches
from fraud_serving.worker.published_ids import DecisionStamp, Publication, PublishedIds

_log = logging.getLogger(__name__)


class BatchProcessor:
    def __init__(
        self,
        config: DetectorConfig,
        tokeniser: Tokeniser,
        cipher: DeadLetterCipher,
        store: ClaimStore,
        ledger: Ledger,
        model: BlockingModelClient,
        instruments: Instruments,
    ) -> None:
        self.instruments, self._cipher = instruments, cipher
        names = compile_detector(config.spec).names
        self.release = ReleaseInUse(config, names, tokeniser, instruments, "stream")
        self.published_ids = PublishedIds()
        # Whether the claims of the last batch couldn't be relied on: Redis was away, or may have lost some.
        self.blind = False
        # The batch committed last, as we were told. A killed broker may yet lose it (docs/decisions/0003), so its claims don't
        # say so yet.
        self._committed = BatchResult()
        self._tally = Tally()
        self._scorer = ArmScorer(config.name, model)
        self._claims = BatchClaims(store, config.identity, instruments)
        self._past = PastBatches(PastDecisions(ledger, instruments, "stream"))
        self._metrics = BatchMetrics(instruments, names)

    def process(self, batch: Sequence[Incoming]) -> BatchResult:
        """Decides what isn't decided, and says what to publish; ``committed`` is to be called once that is done."""
        ruling = self.release.ruling
        assert ruling is not None, "the loop starts after the first release"
        unpublished = self._mark_repeats(batch)
        now = int(time.time() * 1000)
        self._claims.look_up(unpublished)
        doubt = self._claims.doubt(now)
        self.blind = doubt is not None or self._claims.away
        if doubt is not None:
            for found in self._past.find(unpublished, doubt):
                self._claims.unclaimed(found)
        for incoming in unpublished:
            take_claim(incoming)
        undecided = [i for i in unpublished if i.decision is None and not i.repeat and not i.conflict]
        self._decide(ruling, undecided, now)
        return self._results(ruling, batch)

    def _mark_repeats(self, batch: Sequence[Incoming]) -> list[Incoming]:
        """Marks repeats and conflicts among the undecided records; -> those that aren't remembered as published."""
        unpublished: list[Incoming] = []
        # An inline decision in this very batch counts before the stream's: the client acts on it.
        in_batch = {i.id: i.record["hash"] for i in batch if i.record["decision"] is not None}
        for incoming in batch:
            stamp = self.published_ids.get(incoming.id)
            if incoming.record["decision"] is not None:
                incoming.decision = with_audit(incoming.record["decision"], incoming.record)
                if stamp is None:
                    unpublished.append(incoming)
                continue
            hash_before = stamp.hash if stamp is not None else in_batch.get(incoming.id)
            if hash_before is None:
                in_batch[incoming.id] = incoming.record["hash"]
                unpublished.append(incoming)
            elif hash_before == incoming.record["hash"]:
                incoming.repeat = True
            else:
                incoming.conflict = True
        return unpublished

    def _decide(self, ruling: Ruling, undecided: list[Incoming], now: int) -> None:
        """Decides, then claims; where another decision of an id was claimed meanwhile, that one stands."""
        records = [incoming.record for incoming in undecided]
        events = [record["event"] for record in records]
        vectors = [ruling.readable_vector(record["set"], record["vector"]) for record in records]
        for incoming, score in zip(undecided, self._scorer.score(ruling, events, vectors), strict=True):
            case = incoming.case()
            incoming.decision = ruling.judge(case, score, self._tally.counts(now), now)
            self._tally.note(incoming.decision["action"], now)
        self._claims.claim(undecided)
        for incoming in undecided:
            take_claim(incoming)

    def _results(self, ruling: Ruling, batch: Sequence[Incoming]) -> BatchResult:
        """Each id once: its first decision is published, other bodies of it become dead letters."""
        result = BatchResult()
        chosen: list[Incoming] = []
        chosen_stamps: dict[str, DecisionStamp] = {}
        for incoming in batch:
            decision = incoming.decision
            if incoming.repeat or (decision is None and not incoming.conflict):
                result.repeats.append("stream")
                continue
            before = (
                chosen_stamps.get(incoming.id) or self.published_ids.get(incoming.id) or incoming.published
            )
            own = None if decision is None else DecisionStamp(decision["hash"], decision["decided"])
            if own is not None and before is not None and own != before:
                # A claim that holds it must not have it published beside the other.
                result.dropped[incoming.partition].append((incoming.id, own))
            if decision is None or own is None or (before is not None and before.hash != own.hash):
                result.conflicts += 1
                letter = worker_letters.conflict(self._cipher, incoming.record)
                result.outgoing.append(
                    Outgoing("dead-letters", None, incoming.id.encode(), letter, incoming.partition)
                )
            elif before is not None:
                # Published once, whatever else was answered while no claim could be asked for; that is counted.
                result.repeats.append(decision["door"])
                result.superseded += decision["door"] == "inline" and own.decided != before.decided
            else:
                chosen_stamps[incoming.id] = result.published[incoming.partition][incoming.id] = own
                chosen.append(incoming)
        decisions = [incoming.decision for incoming in chosen if incoming.decision is not None]
        result.decisions = self._scorer.add_shadow_scores(ruling, decisions)
        for incoming, decision in zip(chosen, result.decisions, strict=True):
            claimed = decision["door"] == "stream" or incoming.claimed == chosen_stamps[incoming.id]
            if not claimed or Degraded.IDEMPOTENCY in decision["degraded"]:
                result.unclaimed.append(decision)
            value = orjson.dumps(decision)
            record = Outgoing("decisions", incoming.partition, incoming.key, value)
            result.records[decision["id"]] = decision["action"], record
            result.outgoing.append(record)
            if decision["action"] != "approve":
                result.outgoing.append(Outgoing("alerts", incoming.partition, incoming.key, value))
        return result

    def unreadable(self, value: bytes, source: Source, appended: int, error: Exception) -> Outgoing:
        """The dead letter of a record that isn't a feature record."""
        _log.error("unreadable record", extra={"data": {**source, "error": str(error)}})
        self.instruments(metrics.DEAD_LETTERS, reason=str(Reason.INVALID_JSON)).inc()
        event_id = stored_records.find_id(value)
        letter = worker_letters.unreadable(self._cipher, event_id, value, source, appended, error)
        return Outgoing("dead-letters", None, (event_id or "").encode(), letter, source["partition"])

    def committed(self, result: BatchResult, ends: Mapping[int, int] | None = None) -> None:
        """The batch is in the log: remembers its ids, counts it. ``ends``: where its decisions end in each partition, as far as is known."""
        self._settle()
        self._committed = result
        result.ends = dict(ends or {})
        for partition, stamps in result.published.items():
            self.published_ids.add(partition, stamps.items())
        self._metrics.count(result, time.time() * 1000)

    def idle(self) -> None:
        """To be called where there is nothing to process: claims get what they miss, and lose what nobody asks for any more."""
        self._settle()
        self._claims.catch_up()
        self._claims.shrink()

    def _settle(self) -> None:
        """What was committed before now is published for certain: a broker that died since then was noticed."""
        for partition in {**self._committed.published, **self._committed.dropped}:
            self._claims.published(partition, self._committed.publications(partition))
        for partition, end in self._committed.ends.items():
            self._claims.reach(partition, end)
        for decision in self._committed.unclaimed:
            self._claims.unclaimed(decision)
        self._committed = BatchResult()

    def publishes_to(self, topic_id: str) -> None:
        """The id of the topic ``decisions``, empty where a broker has none: claims say where their decisions lie."""
        self._claims.topic_id = topic_id

    def remember(self, partition: int, entries: Collection[Publication], claimed: bool = False) -> None:
        """Ids whose decisions are in the log, committed: a record of one that comes again is a repeat.

        Where they were ``claimed``, a claim that isn't there any more was lost.
        """
        self.published_ids.add(partition, ((one.id, one.stamp) for one in entries))
        self._claims.remembered(partition, entries)
        for one in entries if claimed else ():
            self._claims.expect(partition, one.id, one.stamp)

    def unclaimed_record(self, value: bytes, event_id: str) -> None:
        """A record of ``decisions`` whose claim may be missing."""
        try:
            self._claims.unclaimed(stored_records.read_decision(value, event_id))
        except ValueError as error:
            self.instruments.unreadable("decision", id=event_id, error=str(error))

    def vouch(self, partition: int, start: int, end: int) -> None:
        """Of what comes before ``start`` in ``decisions`` each claim says that it is published; from there to ``end`` all is remembered."""
        self._claims.begin(partition, start, end)

    def vouched(self, partition: int) -> int | None:
        """Up to where each claim says so by now, and no successor needs to look; None where nobody knows."""
        return self._claims.vouched(partition)

    def forget(self, partition: int) -> None:
        """The partition is another worker's now."""
        self.published_ids.forget(partition)
        self._committed.published.pop(partition, None)
        self._committed.dropped.pop(partition, None)
        self._committed.ends.pop(partition, None)
        self._claims.forget(partition)
