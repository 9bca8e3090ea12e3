"""Checks decided vectors against the engine, offline: ``python -m fraud_pipelines.audit EVIDENCE_DIR > audit.json``.

**The rule.** A vector says, per entity, the set of events and labels that its stage had applied before it (``saw``: epoch,
seq, digest). The audit finds that set in the evidence, applies it to the seed that training's replay wrote, then looks with
the event. What comes out must equal the recorded vector bit for bit; a difference is *differing* and must be 0. It finds
the set by following digests from emission to emission of the topic ``features``, and where an emission is lacking (a
stage had applied an event whose record a kill swallowed; an inline vector had seen pending events) by solving for the
events and labels between two digests (``sets_seen``). So nothing depends on the order in which a stage applied its events,
which may differ between the first time and the one after a restore, and vectors of both doors are checked, stale ones too.

**Emitted twice.** After a restore the stream emits records again, perhaps with other values. They are counted by their
source (topic, partition, offset), and the first emission must be the one that was decided on: ``first_emission``.

**Unreproducible** is a vector whose set isn't in the evidence; it is counted with why, and is no agreement: ``share`` is
the part of the *known* events (those whose entities all had a seed) whose streamed vector was made again.

The folder holds detector.json and, as one JSON object a line, seeds, decisions, features and labels (.jsonl.gz).
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fraud_contracts.config import DetectorConfig
from fraud_contracts.names import profile_key
from fraud_pipelines.features import FeatureSet, compile_detector
from fraud_pipelines.sets_seen import KeyStates, Look, Place, name_of

Record = dict[str, Any]
Vector = Sequence[float | None]
EXAMPLES = 5


def bits(vector: Iterable[float | None]) -> bytes:
    """The vector's bits, with every null the same NaN."""
    return b"".join(
        struct.pack("<d", float("nan") if value is None or value != value else value) for value in vector
    )


def vectors(decision: Record) -> Iterator[tuple[str, Vector | None, Mapping[str, Any]]]:
    """(door, vector, saw): the one decided on, and the streamed one where that is another."""
    other = decision.get("streamed")
    door = decision.get("door", "stream")
    if other:
        yield "inline", decision["vector"], decision["saw"]
        yield "stream", other["vector"], other["saw"]
    else:
        # An inline vector that equals the streamed one stands for both.
        yield (
            "inline" if door == "inline" and decision.get("parity") == "none" else "stream",
            decision["vector"],
            decision["saw"],
        )


def place(saw: Sequence[Any]) -> Place:
    return int(saw[2], 16), int(saw[1])


def source(record: Record) -> tuple[Any, ...] | None:
    found = record.get("source")
    return None if not found else (found["topic"], found["partition"], found["offset"])


class Audit:
    """``features`` are the records of that topic with their place ``at``; without them each decision is its emission."""

    def __init__(
        self,
        engine: FeatureSet,
        seeds: Mapping[str, Sequence[bytes]],
        decisions: Sequence[Record],
        features: Sequence[Record] = (),
        labels: Sequence[Record] = (),
    ) -> None:
        self._engine, self._seeds = engine, seeds
        mine = [record for record in features if record["set"] == engine.hash]
        self._decisions = [one for one in decisions if one.get("set", engine.hash) == engine.hash]
        self._other_set = len(decisions) - len(self._decisions)
        self._features = sorted(mine, key=lambda one: one["at"][1:])
        self._labels = sorted(labels, key=lambda one: one["at"])
        self._values: dict[tuple[str, str, Place, int], Any] = {}  # entity, token, place, event -> values
        self._lost: dict[tuple[str, str, Place], str] = {}
        self._solved = 0

    def _replay(self) -> None:
        """Makes every state that a record or a decision looked at."""
        for stage in self._engine.stages:
            entity = stage.entity
            looks: dict[str, list[Look]] = defaultdict(list)

            def note(event: Record, saw: Mapping[str, Any], applied: bool) -> None:
                if entity in saw:  # noqa: B023  # called within this turn only
                    look = Look(place(saw[entity]), event, applied)  # noqa: B023
                    looks[event["entities"][entity]].append(look)  # noqa: B023

            for record in self._features:
                note(record["event"], record["saw"], not record["repeat"])
            for decision in self._decisions:
                for door, _, saw in vectors(decision):
                    note(decision["event"], saw, door == "stream" and not self._features)
            labels: dict[str, list[Record]] = defaultdict(list)
            for label in self._labels:
                token = label["entities"].get(entity)
                if token is not None:
                    labels[token].append(label)
            for token, mine in looks.items():
                seeds = self._seeds.get(profile_key(self._engine.hash6, entity, token), ())
                states = KeyStates(stage, seeds, mine, labels.get(token, ()))
                self._solved += states.solved
                for (at, name), values in states.values.items():
                    self._values[entity, token, at, name] = values
                for at, why in states.lost.items():
                    self._lost[entity, token, at] = why

    def _made(self, event: Record, saw: Mapping[str, Any]) -> list[float] | str:
        """The vector that the engine makes of what ``saw`` names, or why it can't be made."""
        values: dict[str, Any] = {}
        for entity, token in event["entities"].items():
            if token is None or entity not in saw:
                continue
            at = place(saw[entity])
            why = self._lost.get((entity, token, at))
            if why is not None:
                return f"{entity}: {why}"
            values[entity] = self._values[entity, token, at, name_of(event)]
        return self._engine.vector(event, values)

    def _known(self, event: Record) -> bool:
        hash6 = self._engine.hash6
        return all(
            token is None or profile_key(hash6, entity, token) in self._seeds
            for entity, token in event["entities"].items()
        )

    def run(self) -> dict[str, Any]:
        self._replay()
        counts: Counter[str] = Counter()
        lost: Counter[str] = Counter()
        differing: list[str] = []
        unreproducible: list[str] = []
        for decision in self._decisions:
            event = decision["event"]
            known = self._known(event)
            for door, vector, saw in vectors(decision):
                if vector is None:
                    counts["without_vector"] += 1
                    continue
                counts["known"] += known and door == "stream"
                made = self._made(event, saw)
                if isinstance(made, str):
                    lost[made] += 1
                    unreproducible.append(decision["id"])
                    continue
                counts["compared"] += 1
                if bits(made) == bits(vector):
                    counts["equal"] += 1
                    counts["known_equal"] += known and door == "stream"
                else:
                    differing.append(decision["id"])
        known_count = counts["known"]
        return {
            "share": counts["known_equal"] / known_count if known_count else None,
            "known": known_count,
            "compared": counts["compared"],
            "equal": counts["equal"],
            "differing": len(differing),
            "examples": differing[:EXAMPLES],
            "unreproducible": len(unreproducible),
            "why": dict(lost),
            "unreproducible_examples": unreproducible[:EXAMPLES],
            "without_vector": counts["without_vector"],
            "other_feature_set": self._other_set,
            "sets_solved": self._solved,
            "labels": len(self._labels),
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
        stands: Counter[str] = Counter()
        for decision in self._decisions:
            found = first.get(source(decision) or ())
            *_, (_, vector, _) = vectors(decision)
            if found is None:
                stands["unknown"] += 1
            else:
                stands["kept" if bits(found["vector"] or ()) == bits(vector or ()) else "other"] += 1
        return {
            "emitted": len(self._features),
            "emitted_twice": again,
            "emitted_twice_with_other_values": other,
            "runs": len({record["run"] for record in self._features}),
            "first_emission": dict(stands),
        }


def audit(
    engine: FeatureSet,
    seeds: Mapping[str, Sequence[bytes]],
    decisions: Sequence[Record],
    features: Sequence[Record] = (),
    labels: Sequence[Record] = (),
) -> dict[str, Any]:
    """Compares; ``share`` is None where no known event was decided with a vector."""
    return Audit(engine, seeds, decisions, features, labels).run()


def _lines(path: Path) -> Iterator[Record]:
    if not path.exists():
        return
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def main() -> None:
    folder = Path(sys.argv[1])
    config = DetectorConfig.model_validate_json((folder / "detector.json").read_bytes())
    engine = compile_detector(config.spec)
    seeds: dict[str, list[bytes]] = defaultdict(list)
    for line in _lines(folder / "seeds.jsonl.gz"):
        if line["key"].startswith(f"{engine.hash6}:"):
            seeds[line["key"]].append(base64.b64decode(line["profile"]))
    decisions = list(_lines(folder / "decisions.jsonl.gz"))
    features = list(_lines(folder / "features.jsonl.gz"))
    labels = list(_lines(folder / "labels.jsonl.gz"))
    json.dump(audit(engine, seeds, decisions, features, labels), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
