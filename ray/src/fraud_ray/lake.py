"""The platform's own decisions and labels, read from the lake: rows to learn from beside the history's files.

A decision carries the vector that it was made on; training learns from that vector. Of each id the first
decision counts, and the label that became known last. Earlier labels still count in features: a feature reads
the label that stood at its time.

A table is read batch by batch, and several times, in one order: first where its rows come from, then the events of those that
count, and their vectors only when there is a matrix to take them.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson
import pyarrow
import pyarrow.compute
from deltalake.exceptions import DeltaError
from numpy.typing import NDArray

from fraud_contracts import lake, lake_snapshot
from fraud_contracts.config import DetectorConfig
from fraud_contracts.lineage import HISTORY
from fraud_contracts.training_end import EndReason
from fraud_ray.columns import EventBuilder, EventColumns, Ints, TextBuilder, first_equal, values
from fraud_ray.cut import Cut
from fraud_ray.errors import TrainingError
from fraud_ray.lake_scan import Places, Scan

LOG = logging.getLogger(__name__)
ReadTo = dict[str, dict[str, int]]
_DECISION: Final = ("set", "degraded", "record")
_LABEL: Final = ("fraud", "known")


@dataclass(frozen=True)
class RecordedVectors:
    """Where the decisions' vectors lie. ``rows`` are the decisions' row numbers in the table, ``sets`` their feature sets.

    ``blind``: decided without profiles. Everybody looks like a new customer then: the decision was made so, but a model must not
    learn it.
    """

    scan: Scan
    rows: Ints
    sets: pyarrow.DictionaryArray
    blind: NDArray[np.bool_]

    def of_set(self, feature_set: str) -> NDArray[np.bool_]:
        """Which decisions are of this feature set."""
        return np.asarray(
            pyarrow.compute.equal(self.sets.dictionary_decode(), feature_set)
            .fill_null(False)
            .to_numpy(zero_copy_only=False),
            np.bool_,
        )

    def read(self, wanted: NDArray[np.bool_], width: int) -> Iterator[tuple[Ints, NDArray[np.float32]]]:
        """(numbers of decisions, their vectors as float32, a null as NaN), batch by batch.

        Of the ``wanted`` ones that weren't blind and have a vector of ``width`` values.
        """
        number = np.full(self.scan.rows, -1, np.int64)
        good = np.flatnonzero(wanted & ~self.blind)
        number[self.rows[good]] = good
        for start, batch in self.scan.batches(("vector",)):
            here = number[start : start + batch.num_rows]
            vectors = batch.column("vector")
            lengths = pyarrow.compute.list_value_length(vectors).fill_null(-1).to_numpy(zero_copy_only=False)
            taken = np.flatnonzero((here >= 0) & (lengths == width))
            if len(taken):
                flat = pyarrow.compute.list_flatten(vectors.take(pyarrow.array(taken)))
                block = flat.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
                with np.errstate(
                    over="ignore"
                ):  # a value beyond float32 becomes infinite, which dataset refuses
                    yield here[taken], block.reshape(len(taken), width).astype(np.float32)


@dataclass
class LakeSnapshot:
    """What was read from the lake at one moment.

    ``label_rows``, ``label_frauds`` and ``label_known`` are every label of these decisions, by number of the decision, in the order of
    ``known``. ``read_to`` and ``digests`` name the rows per table, so that the same rows can be read again.
    """

    events: EventColumns
    recorded: RecordedVectors | None = None
    label_rows: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    label_frauds: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    label_known: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    labels_without_decision: int = 0
    read_to: ReadTo = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def standing(self) -> tuple[NDArray[np.bool_], Ints]:
        """Of each decision whether it is fraud, and since when that is known: by its last label, else honest since its time."""
        fraud, known_at = np.zeros(len(self.events), np.bool_), self.events.time.copy()
        # Of a row that comes several times the last value stays.
        fraud[self.label_rows], known_at[self.label_rows] = self.label_frauds, self.label_known
        return fraud, known_at

    def labelled(self) -> NDArray[np.bool_]:
        """Of each decision whether it has a label."""
        has = np.zeros(len(self.events), np.bool_)
        has[self.label_rows] = True
        return has


def _scan(
    config: DetectorConfig, name: str, upto: Mapping[str, int] | None, snapshot: LakeSnapshot
) -> tuple[Scan, Places] | None:
    """A table as it is now and where its rows come from, or those that a recorded snapshot held; None where there is no table yet.

    Writes the table's ``read_to`` and digest into ``snapshot``.
    """
    uri = lake.table(config.storage_uri, name)
    scan = Scan.open(uri)
    if scan is None:
        if upto:
            raise TrainingError(
                EndReason.SNAPSHOT_GONE, f"{uri} isn't there, but was when the model was made"
            )
        return None
    group, topic = config.identity.group("lake-sink"), config.identity.topic(name)
    manifest = lake_snapshot.manifest(scan.table, name, group, topic, config.kafka.partitions)
    first = next(iter(lake_snapshot.topic_ids(scan.table, topic)), "")
    read_to = manifest["read_to"] if upto is None else dict(upto)
    offsets = lake_snapshot.named(read_to, first)
    places = scan.places(offsets, first)
    if upto is not None and any(manifest["read_to"].get(place, 0) < at for place, at in offsets.items()):
        raise TrainingError(EndReason.SNAPSHOT_GONE, f"{uri} holds less than when the model was made")
    snapshot.read_to[name] = read_to
    snapshot.digests[name] = lake_snapshot.digest(name, len(places), read_to)
    return scan, places


def _left_out(cut: Cut, nouns: Mapping[str, str], place: Mapping[str, Any], appended: int | None) -> bool:
    noun = nouns.get(place.get("topic", ""))
    return noun is not None and cut.leaves_out(noun, place["partition"], place["offset"], appended)


def _decisions(
    config: DetectorConfig, scan: Scan, standing: Ints, nouns: Mapping[str, str], cut: Cut | None
) -> tuple[EventColumns, RecordedVectors]:
    """The decisions of these rows of the table, in their order, without what ``cut`` leaves to the stream."""
    wanted = np.full(scan.rows, -1, np.int64)  # of each row of the table its place among those that stand
    wanted[standing] = np.arange(len(standing))
    builder, sets, blind = EventBuilder(config.spec), TextBuilder(), bytearray()
    rows = array("q")
    for start, whole in scan.batches(_DECISION):
        taken = np.flatnonzero(wanted[start : start + whole.num_rows] >= 0)
        batch = whole.take(pyarrow.array(taken))
        for row, text, feature_set, marks in zip(
            (taken + start).tolist(),
            values(batch.column("record")),
            values(batch.column("set")),
            batch.column("degraded").to_pylist(),
            strict=True,
        ):
            record = orjson.loads(text)
            if cut is None or not _left_out(cut, nouns, record.get("source") or {}, record.get("appended")):
                builder.add(record["event"])
                rows.append(row)
                sets.append(feature_set)
                blind.append(any(str(mark).startswith("profiles") for mark in marks or ()))
        sets.flush()
    if builder.misfits:
        LOG.warning("values of another type than their field has now", extra={"data": builder.misfits})
    events, of_rows, of_sets = builder.columns(), np.array(rows, np.int64), sets.column()
    is_blind = np.array(blind, np.bool_)
    order = np.argsort(wanted[of_rows], kind="stable")
    if (np.diff(order) < 0).any():  # an id whose first row isn't the decision that stands
        events.take(order)
        of_rows, of_sets, is_blind = of_rows[order], of_sets.take(pyarrow.array(order)), is_blind[order]
    return events, RecordedVectors(scan, of_rows, of_sets, is_blind)


def _labels(
    snapshot: LakeSnapshot,
    scan: Scan,
    places: Places,
    as_of: int,
    nouns: Mapping[str, str],
    cut: Cut | None,
) -> None:
    """Writes the labels that were known by ``as_of``, without what ``cut`` leaves to the stream."""
    parts: list[tuple[NDArray[np.bool_], Ints]] = []
    for _, batch in scan.batches(_LABEL):
        parts.append(
            (
                batch.column("fraud").to_numpy(zero_copy_only=False).astype(np.bool_),
                batch.column("known").to_numpy(zero_copy_only=False).astype(np.int64),
            )
        )
    fraud = np.concatenate([np.zeros(0, np.bool_), *(part[0] for part in parts)])[places.rows]
    known = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in parts)])[places.rows]
    kept = known <= as_of
    if cut is not None:
        for i in np.flatnonzero(kept).tolist():
            kept[i] = not _left_out(cut, nouns, places.place(i), places.appended_at(i))
    order = np.flatnonzero(kept)
    order = order[
        np.lexsort((places.offset[order], places.partition[order], places.topic[order], known[order]))
    ]
    count = len(snapshot.events)
    first = first_equal(
        pyarrow.chunked_array([snapshot.events.ids, *places.ids.take(pyarrow.array(order)).chunks]),
        np.concatenate([snapshot.events.hashes, places.hashes[order]]),
    )
    of_decision = first[count:]
    found = of_decision < count
    # The sink may write the decisions' table later than the labels'.
    snapshot.labels_without_decision = int((~found).sum())
    snapshot.label_rows = of_decision[found]
    snapshot.label_frauds, snapshot.label_known = fraud[order][found], known[order][found]


def read(
    config: DetectorConfig, as_of: int, upto: ReadTo | None = None, cut: Cut | None = None
) -> LakeSnapshot:
    """Decisions, and the labels that were known by ``as_of``.

    ``upto``: the ``read_to`` of a recorded snapshot, to read that snapshot's rows. ``cut``: what it leaves to the stream isn't read.
    """
    snapshot = LakeSnapshot(EventBuilder(config.spec).columns())
    nouns = {config.identity.topic(noun): noun for noun in HISTORY}
    try:
        decisions, labels = (
            _scan(config, name, None if upto is None else upto.get(name, {}), snapshot)
            for name in (lake.DECISIONS, lake.LABELS)
        )
    except (DeltaError, OSError) as error:
        raise TrainingError(EndReason.LAKE_UNREADABLE, f"the lake can't be read: {error}") from error
    if decisions is not None:
        scan, places = decisions
        standing = places.standing()
        del decisions, places  # the ids are read again with their events
        snapshot.events, snapshot.recorded = _decisions(config, scan, standing, nouns, cut)
    if labels is not None:
        _labels(snapshot, *labels, as_of, nouns, cut)
    LOG.info(
        "lake read",
        extra={
            "data": {
                "decisions": len(snapshot.events),
                "labels": len(snapshot.label_rows),
                "strays": snapshot.labels_without_decision,
            }
        },
    )
    return snapshot
