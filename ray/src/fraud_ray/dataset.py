"""From history to numbers: recorded vectors or replayed ones, mature rows only, cut by time into train, valid and test.

A decision of the lake keeps the vector that it was made on, and the model learns from that vector. A row of a
file has no vector, and a decision of another feature set has none of use: theirs are computed by replay. The
seeds need a replay of every event in any case, so recorded vectors are compared with replayed ones and the
equal ones counted.

Vectors are cast to float32 here, once: the server computes on float32, so the model learns from it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow
from numpy.typing import NDArray

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.training_end import EndReason
from fraud_pipelines.features import FeatureSet
from fraud_pipelines.labels import Maturity, history_delay
from fraud_pipelines.replay import replay
from fraud_ray.columns import BATCH, codes
from fraud_ray.errors import TrainingError
from fraud_ray.training_history import TrainingHistory

LOG = logging.getLogger(__name__)
SHARES: Final = (0.6, 0.2)  # of the mature rows, by time: train, valid; the rest is test
# Fewer frauds than this in a part can't choose or judge a model.
LEAST_FRAUDS: Final = 5
SeedWriter = Callable[[Iterable[tuple[str, bytes]]], int]


@dataclass(frozen=True)
class Dataset:
    """One row per event, in order of time."""

    names: tuple[str, ...]
    x: NDArray[np.float32]
    y: NDArray[np.int8]
    time: NDArray[np.int64]
    amount: NDArray[np.int64]
    entity: NDArray[np.int32]
    """Numbers of the first entity's tokens, in the tokens' order."""
    fields: dict[str, pyarrow.Array]
    mature: NDArray[np.bool_]
    early_frauds: int
    vectors: dict[str, int] = field(default_factory=dict)
    pattern: pyarrow.Array | None = None
    """Of each row the kind of fraud that its file names, null or "" where it names none."""

    @property
    def digest(self) -> str:
        """Of the numbers that the model is fit on: runs with the same digest learned from the same data."""
        sha256 = hashlib.sha256("\n".join(self.names).encode())
        for part in (self.x, self.y, self.time):
            sha256.update(np.ascontiguousarray(part).data)
        return sha256.hexdigest()


@dataclass(frozen=True)
class TimeSplit:
    """Row numbers of each part. A gap as long as the label delay lies between two parts, so that all labels
    of the earlier one were known when the later one begins; ``shortened``: the history is too short for the
    whole gap.
    """

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    gap_ms: int
    shortened: bool

    def parts(self) -> dict[str, NDArray[np.int64]]:
        return {"train": self.train, "valid": self.valid, "test": self.test}


def rows_of(x: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """These rows: without a copy where they follow each other, as the rows of a part do unless unripe ones lie between them."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return x[rows[0] : rows[-1] + 1]
    return x[rows]


def _recorded(
    features: FeatureSet, history: TrainingHistory, x: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], Counter[str]]:
    """Writes the vectors that were recorded into their rows of ``x``; -> which rows those are, and how many of each kind there are."""
    is_recorded = np.zeros(len(x), np.bool_)
    live = np.flatnonzero(history.decided >= 0)
    counts = Counter({"replayed": len(x) - len(live)})
    if history.recorded is not None:
        own = history.recorded.of_set(features.hash)
        row = np.full(len(own), -1, np.int64)
        row[history.decided[live]] = live
        for decisions, vectors in history.recorded.read(own, x.shape[1]):
            x[row[decisions]] = vectors
            is_recorded[row[decisions]] = True
        counts["recorded"] = int(is_recorded.sum())
        counts["replayed_of_another_set"] = int((~own).sum())
        counts["replayed_for_want_of_one"] = (
            len(live) - counts["recorded"] - counts["replayed_of_another_set"]
        )
    return is_recorded, counts


def _fill(
    vectors: Iterable[list[float]], x: NDArray[np.float32], is_recorded: NDArray[np.bool_]
) -> tuple[int, NDArray[np.bool_]]:
    """Writes replayed vectors into the rows without a recorded one; -> (how many recorded ones equal the replayed, features with
    a value beyond float32).
    """
    equal, beyond = 0, np.zeros(x.shape[1], np.bool_)
    replayed = iter(vectors)
    # A sum beyond float32 becomes infinite and is refused by the caller; rows that aren't written yet hold anything.
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(x), BATCH):
            here = x[start : start + BATCH]
            block = np.empty_like(here)
            for i, vector in enumerate(islice(replayed, len(here))):
                block[i] = vector
            kept = is_recorded[start : start + BATCH]
            same = (block == here) | (np.isnan(block) & np.isnan(here))
            equal += int(same[kept].all(axis=1).sum())
            here[~kept] = block[~kept]
            beyond |= np.isinf(here).any(axis=0)
    for _ in replayed:  # labels that came after the last event
        pass
    return equal, beyond


def build(
    spec: DetectorSpec,
    features: FeatureSet,
    history: TrainingHistory,
    as_of: int,
    epoch: int,
    write_seeds: SeedWriter,
) -> tuple[Dataset, int]:
    """Replays the history; -> its dataset and how many seeds were written (one per key and stage)."""
    assert spec.model.train is not None
    start, count = time.monotonic(), len(history.events)
    pyarrow.default_memory_pool().release_unused()
    x = np.empty((count, len(features.names)), np.float32)
    is_recorded, vectors = _recorded(features, history, x)
    run = replay(features, history.events, history.labels())
    equal, beyond = _fill((vector for _, vector in run), x, is_recorded)
    if vectors["recorded"]:
        vectors["recorded_as_replayed"] = equal
    if beyond.any():
        bad = [features.names[i] for i in np.flatnonzero(beyond)]
        raise TrainingError(EndReason.FEATURE_OVERFLOW, f"values beyond float32 in {', '.join(bad)}")
    seconds = time.monotonic() - start
    LOG.info("features replayed", extra={"data": {"rows": count, "seconds": round(seconds, 1)}})
    seeds = write_seeds(run.profiles(epoch))
    LOG.info("seeds written", extra={"data": {"seeds": seeds}})
    events = history.events
    y = history.fraud.astype(np.int8)
    mature = mature_rows(spec, history, as_of)
    return (
        Dataset(
            names=features.names,
            x=x,
            y=y,
            time=events.time,
            amount=events.amount,
            entity=codes(events.entities[spec.entities[0].name]),
            fields={
                f.name: events.fields[f.name] for f in spec.event.fields if f.name not in spec.event.sensitive
            },
            mature=mature,
            early_frauds=int(y[~mature].sum()),
            vectors={kind: n for kind, n in sorted(vectors.items()) if n or kind == "recorded_as_replayed"},
            pattern=history.pattern,
        ),
        seeds,
    )


def mature_rows(spec: DetectorSpec, history: TrainingHistory, as_of: int) -> NDArray[np.bool_]:
    """A file's row once its source has had time to speak; a decision of the lake once every source has.

    An early fraud report doesn't make its transaction mature: the honest ones of its time would be missing beside it.
    """
    assert spec.model.train is not None
    maturity = Maturity.of(spec.labels)
    times = history.events.time
    of_file = maturity.mature(times, as_of, spec.model.train.history.label_source)
    return np.where(history.decided >= 0, maturity.mature(times, as_of), of_file)


def check_labels(spec: DetectorSpec, history: TrainingHistory, as_of: int) -> int:
    """How many mature fraud labels there are; TrainingError where they are too few to begin."""
    assert spec.model.train is not None
    source = spec.model.train.history.label_source
    mature = mature_rows(spec, history, as_of)
    frauds = int(history.fraud[mature].sum())
    if frauds < spec.model.train.min_labels:
        age = next(s.maturity for s in spec.labels.sources if s.name == source)
        raise TrainingError(
            EndReason.TOO_FEW_LABELS,
            f"{frauds} fraud labels are mature (files' after {age}, maturity of {source}); model.train.minLabels asks for "
            f"{spec.model.train.min_labels}. {int(mature.sum())} of {len(mature)} transactions are mature",
        )
    return frauds


def split(spec: DetectorSpec, data: Dataset) -> TimeSplit:
    """60 % train, 20 % valid, 20 % test of the mature rows by time, with the label delay left out before valid and test."""
    rows = np.flatnonzero(data.mature)
    times = data.time[rows]
    edges = [times[int(len(times) * share)] for share in (SHARES[0], sum(SHARES))]
    wanted = history_delay(spec.entities)
    # A history of days can't spare a week twice; the card says so.
    gap = min(wanted, int(times[-1] - times[0]) // 12)
    time_split = TimeSplit(
        train=rows[times < edges[0] - gap],
        valid=rows[(times >= edges[0]) & (times < edges[1] - gap)],
        test=rows[times >= edges[1]],
        gap_ms=gap,
        shortened=gap < wanted,
    )
    for name, part in time_split.parts().items():
        frauds = int(data.y[part].sum())
        if frauds < LEAST_FRAUDS or frauds == len(part):
            raise TrainingError(
                EndReason.TOO_FEW_LABELS,
                f"the {name} part has {frauds} frauds in {len(part)} transactions; give more history",
            )
    return time_split
