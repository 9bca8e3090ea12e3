"""Checks decided vectors against the engine, offline: ``python -m fraud_pipelines.audit EVIDENCE_DIR > audit.json``.

**The rule.** A vector names, per entity, the set of events and labels that its stage had applied before it (``saw``: epoch,
seq, digest). The audit applies that set to the seed that training's replay wrote and computes the event's vector from the
result. It must equal the recorded one bit for bit; the number of those that are *differing* must be 0.

``state_reconstruction`` finds the set in the evidence. It follows digests from emission to emission of the topic
``features``. Where an emission is missing (a stage had applied an event whose record a kill swallowed, or an inline vector
had seen pending events), it solves for the events and labels between two digests. So nothing depends on the order in which
a stage applied its events, which may be another one after a restore. Vectors of both doors are checked, stale ones too.

**Lineages.** A history may span several: without seeds, begun with the seeds of a training, of another feature set and back. A job takes
in silence what the one before it has decided; those events are in evidence by that one's records, also where they are of another set.
Which seeds and which events a state is of follows from its digest, so seeds of any training may lie in the folder.

**Emitted twice.** After a restore the stream emits records again, perhaps with other values. They are counted by their id and
source (topic, partition, offset; a topic made anew has others at the same offsets), and the first emission must be the one that was decided on: ``first_emission``.

**Frozen** is an approval without a mark on a state that lacked, longer than ``policy.fallback.staleness`` and some seconds, its key's newest event.

**Unreproducible** is a vector whose set isn't in the evidence. It is counted by its reason and doesn't count as equal:
``share`` is the part of the *known* events (those whose entities all had a seed) whose streamed vector came out equal.

The folder holds detector.json and, as one JSON object a line, seeds, decisions, features and labels (.jsonl.gz). Where it has lineages.json, as
the operator keeps it, the vectors of every feature set in there are compared.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from fraud_contracts import durations
from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.lineage import Lineages
from fraud_contracts.names import parse_seed_key, profile_key
from fraud_pipelines.event_rows import Origin
from fraud_pipelines.features import FeatureSet, compile_detector
from fraud_pipelines.state_reconstruction import Lookup, StateId, StateReconstruction, hash_of

Record = dict[str, Any]
Vector = Sequence[float | None]
EXAMPLES = 5
# A replica knows how far the profiles are to some seconds.
SLACK_MS = 5_000
STALENESS_MS = 10_000 + SLACK_MS


def bits(vector: Iterable[float | None]) -> bytes:
    """The vector's bits, with every null the same NaN."""
    return b"".join(
        struct.pack("<d", float("nan") if value is None or value != value else value) for value in vector
    )


class Seen(NamedTuple):
    """A vector of a decision, and what it was made from. ``door``: inline, or stream."""

    door: str
    set: str
    vector: Vector | None
    saw: Mapping[str, Any]


def vectors(decision: Record) -> Iterator[Seen]:
    """The one decided on, and the streamed one where that is another."""
    other, door = decision.get("streamed"), decision.get("door", "stream")
    own = decision["set"], decision["vector"], decision["saw"]
    if other:
        yield Seen("inline", *own)
        yield Seen("stream", other["set"], other["vector"], other["saw"])
    else:
        # An inline vector that equals the streamed one stands for both.
        yield Seen("inline" if door == "inline" and decision.get("parity") == "none" else "stream", *own)


def state_id(saw: Sequence[Any]) -> StateId:
    return int(saw[2], 16), int(saw[1])


def origin(record: Record) -> Origin:
    """Where a record's event came from, as far as that is known."""
    found = record.get("source")
    if not found:
        return Origin()
    return Origin(found["topic"], found["partition"], record.get("appended", 0), found["offset"])


def source(record: Record) -> tuple[Any, ...] | None:
    found, event = record.get("source"), record.get("event") or record
    return None if not found else (found["topic"], found["partition"], found["offset"], event.get("id"))


class SetAudit:
    """Of the vectors of one feature set. ``features`` are the records of that topic with their place ``at``; without them each decision is its emission."""

    def __init__(
        self,
        engine: FeatureSet,
        seeds: Mapping[str, Sequence[bytes]],
        decisions: Sequence[Record],
        features: Sequence[Record] = (),
        labels: Sequence[Record] = (),
        staleness_ms: int = STALENESS_MS,
    ) -> None:
        self._staleness_ms = staleness_ms
        self._engine, self._seeds, self._decisions = engine, seeds, decisions
        mine = [record for record in features if record["set"] == engine.hash]
        self._seen = [
            (decision, one) for decision in decisions for one in vectors(decision) if one.set == engine.hash
        ]
        self._features = sorted(mine, key=lambda one: one["at"][1:])
        declared = {name for name, _ in engine.spec.fields}
        known = [
            (record.get("event"), origin(record))
            for record in (*features, *decisions)
            if record.get("set") != engine.hash
        ]
        # An event that lacks a field which this set declares may have had it.
        self._others = [(event, of) for event, of in known if event and declared <= event["fields"].keys()]
        self._labels = sorted(labels, key=lambda one: one["at"])
        self._values: dict[tuple[str, str, StateId, int], Any] = {}  # entity, token, state, event -> values
        self._lost: dict[tuple[str, str, StateId], str] = {}
        self._newest: dict[tuple[str, str, StateId], int] = {}  # when the newest event of a state took place
        self._solved = 0

    def _replay(self) -> None:
        """Reconstructs every state that a record's or a decision's vector saw."""
        for stage in self._engine.stages:
            entity = stage.entity
            lookups: dict[str, list[Lookup]] = defaultdict(list)

            def note(record: Record, saw: Mapping[str, Any], applied: bool) -> None:
                if entity in saw:  # noqa: B023  # called within this turn only
                    event, epoch = record["event"], int(saw[entity][0])  # noqa: B023
                    lookup = Lookup(state_id(saw[entity]), event, applied, epoch, origin(record))  # noqa: B023
                    lookups[event["entities"][entity]].append(lookup)  # noqa: B023

            for record in self._features:
                note(record, record["saw"], not record["repeat"])
            inline: dict[str, set[StateId]] = defaultdict(set)
            for decision, one in self._seen:
                note(decision, one.saw, one.door == "stream" and not self._features)
                if one.door == "inline" and entity in one.saw:
                    inline[decision["event"]["entities"][entity]].add(state_id(one.saw[entity]))
            labels: dict[str, list[Record]] = defaultdict(list)
            for label in self._labels:
                token = label["entities"].get(entity)
                if token is not None:
                    labels[token].append(label)
            others: dict[str, list[tuple[Record, Origin]]] = defaultdict(list)
            for event, of in self._others:
                others[event["entities"].get(entity) or ""].append((event, of))
            for token, mine in lookups.items():
                seeds = self._seeds.get(profile_key(self._engine.hash6, entity, token), ())
                reconstruction = StateReconstruction(
                    stage, seeds, mine, labels.get(token, ()), others.get(token, ())
                )
                self._solved += reconstruction.solved
                for (at, name), values in reconstruction.values.items():
                    self._values[entity, token, at, name] = values
                for at, why in reconstruction.lost.items():
                    self._lost[entity, token, at] = why
                for at in inline[token] - reconstruction.lost.keys():
                    self._newest[entity, token, at] = reconstruction.newest(at)

    def _recompute(self, event: Record, saw: Mapping[str, Any]) -> list[float] | str:
        """The vector that the engine computes from the states that ``saw`` names, or why it can't."""
        values: dict[str, Any] = {}
        for entity, token in event["entities"].items():
            if token is None or entity not in saw:
                continue
            at = state_id(saw[entity])
            why = self._lost.get((entity, token, at))
            if why is not None:
                return f"{entity}: {why}"
            values[entity] = self._values[entity, token, at, hash_of(event)]
        return self._engine.vector(event, values)

    def _is_frozen(self, decision: Record, saw: Mapping[str, Any]) -> bool:
        """Whether an approval without a mark stands on a state that lacked the key's newest events, longer than it may."""
        if decision.get("action") != "approve" or any(
            mark.startswith("profiles") for mark in decision["degraded"]
        ):
            return False
        until = decision["decided"] - self._staleness_ms
        for entity, token in decision["event"]["entities"].items():
            if token is None or entity not in saw:
                continue
            newest = self._newest.get((entity, token, state_id(saw[entity])))
            appended, times = self._accepted[entity, token]
            at = bisect_left(appended, until)
            if newest is not None and at and times[at - 1] > newest:
                return True
        return False

    @cached_property
    def _accepted(self) -> Mapping[tuple[str, str], tuple[list[int], list[int]]]:
        """By entity and token: when each event was appended, in order, and the latest time of those up to it."""
        found: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        for decision in self._decisions:
            for entity, token in decision["event"]["entities"].items():
                if token is not None:
                    found[entity, token].append((decision["appended"], decision["event"]["time"]))
        return {
            key: ([at for at, _ in sorted(some)], list(accumulate((time for _, time in sorted(some)), max)))
            for key, some in found.items()
        }

    def _has_seeds(self, event: Record) -> bool:
        """Whether each entity of the event had a seed; the result calls such an event *known*."""
        hash6 = self._engine.hash6
        return all(
            token is None or profile_key(hash6, entity, token) in self._seeds
            for entity, token in event["entities"].items()
        )

    def run(self) -> dict[str, Any]:
        """Counts, and ids of decisions: those of several sets add up."""
        self._replay()
        counts: Counter[str] = Counter()
        lost: Counter[str] = Counter()
        differing: list[str] = []
        frozen: list[str] = []
        unreproducible: list[str] = []
        for decision, one in self._seen:
            event = decision["event"]
            seeded = self._has_seeds(event) and one.door == "stream"
            if one.vector is None:
                counts["without_vector"] += 1
                continue
            counts["known"] += seeded
            if one.door == "inline" and self._is_frozen(decision, one.saw):
                frozen.append(decision["id"])
            recomputed = self._recompute(event, one.saw)
            if isinstance(recomputed, str):
                lost[recomputed] += 1
                unreproducible.append(decision["id"])
                continue
            counts["compared"] += 1
            if bits(recomputed) == bits(one.vector):
                counts["equal"] += 1
                counts["known_equal"] += seeded
            else:
                differing.append(decision["id"])
        return {
            "known": counts["known"],
            "known_equal": counts["known_equal"],
            "compared": counts["compared"],
            "equal": counts["equal"],
            "differing": len(differing),
            "examples": differing,
            "frozen": len(frozen),
            "frozen_examples": frozen,
            "unreproducible": len(unreproducible),
            "why": lost,
            "unreproducible_examples": unreproducible,
            "without_vector": counts["without_vector"],
            "sets_solved": self._solved,
            **self._emissions(),
        }

    def _emissions(self) -> dict[str, Any]:
        """How often the stream emitted, and whether decisions stand on first emissions."""
        first: dict[tuple[Any, ...], Record] = {}
        again = other = 0
        for record in self._features:
            if first.setdefault(source(record) or (), record) is not record:
                again += 1
                other += bits(record["vector"] or ()) != bits(first[source(record) or ()]["vector"] or ())
        first_emissions: Counter[str] = Counter()
        for decision in self._decisions:
            *_, one = vectors(decision)
            if one.set != self._engine.hash:
                continue
            emission = first.get(source(decision) or ())
            if emission is None:
                first_emissions["unknown"] += 1
            else:
                first_emissions[
                    "kept" if bits(emission["vector"] or ()) == bits(one.vector or ()) else "other"
                ] += 1
        return {
            "emitted": len(self._features),
            "emitted_twice": again,
            "emitted_twice_with_other_values": other,
            "first_emission": first_emissions,
        }


def audit(
    engines: Sequence[FeatureSet],
    seeds: Mapping[str, Sequence[bytes]],
    decisions: Sequence[Record],
    features: Sequence[Record] = (),
    labels: Sequence[Record] = (),
    staleness_ms: int = STALENESS_MS,
) -> dict[str, Any]:
    """Compares the vectors of these feature sets; ``share`` is None where no known event was decided with a vector.

    ``other_feature_set`` counts those of other sets.
    """
    found: dict[str, Any] = {}
    for engine in engines:
        of_set = SetAudit(engine, seeds, decisions, features, labels, staleness_ms).run()
        found = {name: found[name] + value if found else value for name, value in of_set.items()}
    hashes = {engine.hash for engine in engines}
    known = found["known"]
    return {
        "share": found["known_equal"] / known if known else None,
        **found,
        "examples": found["examples"][:EXAMPLES],
        "frozen_examples": found["frozen_examples"][:EXAMPLES],
        "unreproducible_examples": found["unreproducible_examples"][:EXAMPLES],
        "other_feature_set": sum(
            one.set not in hashes for decision in decisions for one in vectors(decision)
        ),
        "labels": len(labels),
        "runs": len({record["run"] for record in features}),
    }


def _lines(path: Path) -> Iterator[Record]:
    if not path.exists():
        return
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _specs(folder: Path, spec: DetectorSpec) -> Iterator[DetectorSpec]:
    """The detector's, with each feature set that it has had."""
    yield spec
    path = folder / "lineages.json"
    if path.exists():
        for lineage in Lineages.model_validate_json(path.read_bytes()).known:
            if lineage.declared is not None:
                yield lineage.declared.put_into(spec)


def main() -> None:
    folder = Path(sys.argv[1])
    spec = DetectorConfig.model_validate_json((folder / "detector.json").read_bytes()).spec
    engines = {engine.hash: engine for engine in map(compile_detector, _specs(folder, spec))}
    seeds: dict[str, list[bytes]] = defaultdict(list)
    for line in _lines(folder / "seeds.jsonl.gz"):
        seeds[parse_seed_key(line["key"]).profile].append(base64.b64decode(line["profile"]))
    decisions = list(_lines(folder / "decisions.jsonl.gz"))
    features = list(_lines(folder / "features.jsonl.gz"))
    labels = list(_lines(folder / "labels.jsonl.gz"))
    staleness = durations.to_ms(spec.policy.fallback.staleness) + SLACK_MS
    found = audit(list(engines.values()), seeds, decisions, features, labels, staleness)
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
