"""Checks decided vectors against an offline replay: ``python -m fraud_pipelines.audit EVIDENCE_DIR > audit.json``.

Each key's events are applied in the order in which its stage applied them (``saw``: epoch, then seq), starting from the
seed that training's replay of the history wrote. The vector so made must equal the streamed vector bit for bit. An event
whose entities all had a seed is *known*; the share of known events that agree is the figure ``share``.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fraud_contracts.config import DetectorConfig
from fraud_contracts.names import profile_key
from fraud_pipelines.features import FeatureSet, compile_detector

Vector = list[float]


def streamed(decision: dict[str, Any]) -> tuple[list[float | None] | None, dict[str, Any]]:
    """Vector and ``saw`` as the stream made them: the decision's own, unless the inline one differed."""
    other = decision.get("streamed")
    if other:
        return other["vector"], other["saw"]
    return decision["vector"], decision["saw"]


def bits(vector: Iterable[float | None]) -> bytes:
    """The vector's bits, with every null the same NaN."""
    return b"".join(
        struct.pack("<d", float("nan") if value is None or value != value else value) for value in vector
    )


def audit(features: FeatureSet, seeds: dict[str, bytes], decisions: list[dict[str, Any]]) -> dict[str, Any]:
    """Compares; ``share`` is None where no known event was decided with a vector."""
    values: dict[str, dict[str, list[float] | None]] = {decision["id"]: {} for decision in decisions}
    hash6 = features.hash6
    for stage in features.stages:
        of_key: dict[str, list[tuple[int, int, dict[str, Any]]]] = {}
        for decision in decisions:
            token = decision["event"]["entities"].get(stage.entity)
            _, saw = streamed(decision)
            if token is not None and stage.entity in saw:
                of_key.setdefault(token, []).append((saw[stage.entity][0], saw[stage.entity][1], decision))
        for token, events in of_key.items():
            state: bytes | None = seeds.get(profile_key(hash6, stage.entity, token))
            for _, _, decision in sorted(events, key=lambda item: item[:2]):
                made, state, _ = stage.observe(state, decision["event"])
                values[decision["id"]][stage.entity] = made
    known = equal = compared = 0
    differing: list[str] = []
    for decision in decisions:
        vector, _ = streamed(decision)
        if vector is None:
            continue
        compared += 1
        tokens = decision["event"]["entities"]
        is_known = all(
            token is None or profile_key(hash6, entity, token) in seeds for entity, token in tokens.items()
        )
        same = bits(features.vector(decision["event"], values[decision["id"]])) == bits(vector)
        known += is_known
        equal += is_known and same
        if not same:
            differing.append(decision["id"])
    return {
        "share": equal / known if known else None,
        "known": known,
        "compared": compared,
        "without_vector": len(decisions) - compared,
        "differing": len(differing),
        "examples": differing[:5],
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def main() -> None:
    folder = Path(sys.argv[1])
    config = DetectorConfig.model_validate_json((folder / "detector.json").read_bytes())
    features = compile_detector(config.spec)
    seeds = {line["key"]: base64.b64decode(line["profile"]) for line in _lines(folder / "seeds.jsonl.gz")}
    decisions = list(_lines(folder / "decisions.jsonl.gz"))
    json.dump(audit(features, seeds, decisions), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
