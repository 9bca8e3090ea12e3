"""One table of the lake at one version, read in batches as often as needed, each time in the same order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow
import pyarrow.dataset
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from numpy.typing import NDArray

from fraud_contracts import lake, lake_snapshot
from fraud_contracts.training_end import EndReason
from fraud_ray.columns import Ints, TextBuilder, codes, first_equal, values
from fraud_ray.errors import TrainingError

_PLACE: Final = ("id", "topic", "topic_id", "partition", "offset", "appended")
# Rows at once: each has a whole decision, of some kilobytes.
_BATCH: Final = 1024
# What is read of a column at once: a row group of a compacted file may have a million rows, each with a whole decision.
_BUFFER: Final = 2**20
_UNKNOWN: Final = -1  # when a row was appended
# Of columns that an older table may lack.
_TYPES: Final = {"appended": pyarrow.int64(), "vector": pyarrow.list_(pyarrow.float64())}


class _Limits(dict[tuple[str, str | None, int], int]):
    """The offset before which rows of a place belong to the snapshot."""

    def __init__(self, read_to: Mapping[str, int], first: str) -> None:
        super().__init__()
        self._read_to, self._first = read_to, first

    def __missing__(self, key: tuple[str, str | None, int]) -> int:
        topic, topic_id, partition = key
        limit = self._read_to.get(lake_snapshot.place(topic, partition, topic_id or self._first), 0)
        self[key] = limit
        return limit


@dataclass
class Places:
    """Where the snapshot's rows come from: ``rows`` are their numbers in the table, the others are beside them.

    ``topic`` numbers ``topics``, which are in their own order.
    """

    rows: Ints
    ids: pyarrow.ChunkedArray
    hashes: Ints
    topic: NDArray[np.int32]
    topics: list[str]
    partition: Ints
    offset: Ints
    appended: Ints

    def place(self, i: int) -> dict[str, Any]:
        """Topic, partition and offset of a row."""
        return {
            "topic": self.topics[self.topic[i]],
            "partition": int(self.partition[i]),
            "offset": int(self.offset[i]),
        }

    def appended_at(self, i: int) -> int | None:
        return None if self.appended[i] == _UNKNOWN else int(self.appended[i])

    def __len__(self) -> int:
        return len(self.rows)

    def standing(self) -> Ints:
        """Of each id the row number of the decision that stands, as ``lake_snapshot.standing_decisions`` says; in the order of first rows."""
        first = first_equal(self.ids, self.hashes)
        chosen = np.arange(len(first))

        def age(i: int) -> tuple[Any, ...]:
            return max(self.appended[i], 0), self.topic[i], self.partition[i], self.offset[i]

        own = first == chosen
        for i in np.flatnonzero(~own).tolist():
            if age(i) < age(chosen[first[i]]):
                chosen[first[i]] = i
        return np.asarray(self.rows[chosen[own]], np.int64)


class Scan:
    """``rows`` counts all rows of the table, once ``places`` has read them."""

    def __init__(self, uri: str, table: DeltaTable) -> None:
        self.uri, self.table, self.rows = uri, table, 0
        self._present = {column.name for column in table.schema().fields}

    @classmethod
    def open(cls, uri: str) -> Scan | None:
        """None where there is no table yet."""
        try:
            return cls(uri, DeltaTable(uri, storage_options=lake.storage_options(uri, os.environ)))
        except TableNotFoundError:
            return None

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pyarrow.RecordBatch]]:
        """(number of the first row, rows). A column that an older table lacks is null."""
        options = pyarrow.dataset.ParquetFragmentScanOptions(
            use_buffered_stream=True, buffer_size=_BUFFER, pre_buffer=False
        )
        start = 0
        try:
            scanner = self.table.to_pyarrow_dataset().scanner(
                columns=[name for name in columns if name in self._present],
                batch_size=_BATCH,
                batch_readahead=1,
                fragment_readahead=1,
                fragment_scan_options=options,
                use_threads=False,
            )
            for batch in scanner.to_batches():
                for name in columns:
                    if name not in self._present:
                        kind = _TYPES.get(name, pyarrow.string())
                        batch = batch.append_column(name, pyarrow.nulls(batch.num_rows, kind))
                yield start, batch
                start += batch.num_rows
        except (DeltaError, OSError, pyarrow.ArrowException) as error:
            raise TrainingError(EndReason.LAKE_UNREADABLE, f"the lake can't be read: {error}") from error

    def places(self, read_to: Mapping[str, int], first: str) -> Places:
        """Reads where the rows of the snapshot with this ``read_to`` come from; ``first``: the first id of the topic's name."""
        limits = _Limits(read_to, first)
        topics = TextBuilder()
        ids: list[pyarrow.Array] = []
        parts: list[tuple[Ints, ...]] = []
        for start, batch in self.batches(_PLACE):
            self.rows = start + batch.num_rows
            topic = values(batch.column("topic"))
            partition, offset, appended = (
                batch.column(name).fill_null(_UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int64)
                for name in ("partition", "offset", "appended")
            )
            places = zip(topic, values(batch.column("topic_id")), partition.tolist(), strict=True)
            kept = np.flatnonzero(offset < np.array([limits[place] for place in places], np.int64))
            for i in kept.tolist():
                topics.append(topic[i])
            topics.flush()
            ids.append(batch.column("id").take(pyarrow.array(kept)).cast(pyarrow.large_string()))
            hashes = np.fromiter(map(hash, values(ids[-1])), np.int64, len(kept))
            parts.append((kept + start, hashes, partition[kept], offset[kept], appended[kept]))
        rows, hashes, partition, offset, appended = (
            np.concatenate([np.zeros(0, np.int64), *(part[i] for part in parts)]) for i in range(5)
        )
        topic_column = topics.column()
        return Places(
            rows=rows,
            ids=pyarrow.chunked_array([pyarrow.chunked_array(ids, pyarrow.large_string()).combine_chunks()]),
            hashes=hashes,
            topic=codes(topic_column),
            topics=sorted(topic_column.dictionary.to_pylist()),
            partition=partition,
            offset=offset,
            appended=appended,
        )
