"""What a model learns from before there are vectors: payments of the files and of the lake, as columns in order of time.

The vectors that the lake recorded aren't here: ``dataset`` reads them straight into its matrix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from fraud_contracts.detector import DetectorSpec
from fraud_ray.columns import BATCH, EventBuilder, EventColumns, Ints, first_equal
from fraud_ray.lake import LakeSnapshot, RecordedVectors


@dataclass
class TrainingHistory:
    """Events in order of time; of each whether it is fraud and since when that is known (UTC ms).

    ``pattern``: the kind of fraud that a file names, "" where it names none. ``decided``: the row of ``recorded`` that an event of
    the lake was decided on, -1 for an event of the files, whose vector is computed by replay. ``told``: labels beside the frauds
    of the files, in the order in which they apply where they became known at once: (event, fraud, known at).
    """

    events: EventColumns
    fraud: NDArray[np.bool_]
    known_at: Ints
    pattern: pyarrow.DictionaryArray
    decided: Ints
    told: tuple[Ints, NDArray[np.bool_], Ints]
    recorded: RecordedVectors | None = None
    lake: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, spec: DetectorSpec) -> TrainingHistory:
        nothing = np.zeros(0, np.int64)
        return cls(
            EventBuilder(spec).columns(),
            np.zeros(0, np.bool_),
            nothing,
            pyarrow.array([], pyarrow.large_string()).dictionary_encode(),
            nothing,
            (nothing, np.zeros(0, np.bool_), nothing),
        )

    def labels(self) -> Iterator[dict[str, Any]]:
        """Labels as the stream would have had them, by the time they were known: the files' frauds, and all of the lake's."""
        of_files = np.flatnonzero(self.fraud & (self.decided < 0))
        rows, frauds, known_at = (
            np.concatenate(parts)
            for parts in zip(
                (of_files, np.ones(len(of_files), np.bool_), self.known_at[of_files]), self.told, strict=True
            )
        )
        order = np.argsort(known_at, kind="stable")
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            for event, fraud, known in zip(
                self.events.batch(rows[batch]), frauds[batch].tolist(), known_at[batch].tolist(), strict=True
            ):
                yield {
                    "id": event["id"],
                    "time": event["time"],
                    "entities": event["entities"],
                    "fraud": fraud,
                    "known": known,
                }

    def keys(self) -> int:
        """How many states a replay holds: the different values of each entity."""
        return sum(len(column.dictionary) for column in self.events.entities.values())

    def add_lake(self, lake: LakeSnapshot) -> None:
        """Adds the events that the platform decided; the snapshot's own are gone afterwards.

        Of an id that files and lake both hold, the lake's event counts; its label is the lake's where the
        lake has one, else the files'.
        """
        decisions, both = len(lake.events), 0
        if decisions:
            both = self._merge(lake)
        self.lake = {
            "decisions": decisions,
            "in_files_too": both,
            "labels": len(lake.label_rows),
            "labels_without_decision": lake.labels_without_decision,
            "snapshot": lake.digests,
        }

    def _merge(self, lake: LakeSnapshot) -> int:
        """-> how many of the decisions the files hold, too."""
        files, decided = len(self.events), len(lake.events)
        fraud, known_at = lake.standing()
        labelled = lake.labelled()
        self.events.append(lake.events)
        first = first_equal(pyarrow.chunked_array([self.events.ids]), self.events.hashes)
        of_file = first[files:]  # of each decision its payment's row in the files, or its own number
        both = np.flatnonzero(of_file < files)
        here = of_file[both]
        # Only the files have this label, and the features count it, too.
        theirs = both[~labelled[both] & self.fraud[here]]
        fraud[theirs], known_at[theirs] = True, self.known_at[of_file[theirs]]
        known_at[both] = np.where(labelled[both], known_at[both], self.known_at[here])
        # A decision takes the place of the same payment in the files: where times are equal, the order is that of places.
        at = np.arange(files + decided)
        at[here] = files + both
        at = np.delete(at, files + both)
        at = at[np.argsort(self.events.time[at], kind="stable")]
        self.events.take(at)
        self.fraud = np.concatenate([self.fraud, fraud])[at]
        self.known_at = np.concatenate([self.known_at, known_at])[at]
        patterns = np.full(files + decided, -1, np.int64)
        patterns[:files] = np.arange(files)
        patterns[files + both] = here
        self.pattern = self.pattern.take(pyarrow.array(patterns[at], mask=patterns[at] < 0))
        self.decided = np.where(at < files, -1, at - files)
        row = np.empty(decided, np.int64)
        live = np.flatnonzero(self.decided >= 0)
        row[self.decided[live]] = live
        self.told = (
            np.concatenate([row[theirs], row[lake.label_rows]]),
            np.concatenate([np.ones(len(theirs), np.bool_), lake.label_frauds]),
            np.concatenate([self.known_at[row[theirs]], lake.label_known]),
        )
        self.recorded = lake.recorded
        return len(both)
