"""Payments as columns, so that a row costs some hundred bytes. An event is a dictionary only while its batch is at hand.

Texts that repeat (tokens, categories) are numbers beside one list of the different texts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow
import pyarrow.compute
from numpy.typing import NDArray

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_event import FieldType
from fraud_contracts.records import Event

BATCH: Final = 8192
# Arrow's own pool keeps what batches once had: after an import more than the columns themselves.
pyarrow.set_memory_pool(pyarrow.system_memory_pool())
Ints = NDArray[np.int64]
_TEXT: Final = pyarrow.large_string()
# Of a declared field: the one Python type of its values in an event, and its column's.
_KINDS: Final[Mapping[FieldType, tuple[type, pyarrow.DataType]]] = {
    FieldType.STRING: (str, _TEXT),
    FieldType.INTEGER: (int, pyarrow.int64()),
    FieldType.NUMBER: (float, pyarrow.float64()),
    FieldType.BOOLEAN: (bool, pyarrow.bool_()),
}


def values(column: pyarrow.Array) -> list[Any]:
    """A column's Python values, null as None: of a batch, not of all rows."""
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if (
        column.null_count
        and not pyarrow.types.is_large_string(column.type)
        and not pyarrow.types.is_string(column.type)
    ):
        return list(column.to_pylist())
    return list(column.to_numpy(zero_copy_only=False).tolist())


def codes(column: pyarrow.DictionaryArray) -> NDArray[np.int32]:
    """The texts' numbers in the texts' own order, so that equal texts have equal numbers and less has less; -1 is null."""
    numbers = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    rank = np.empty(len(column.dictionary) + 1, np.int32)
    rank[pyarrow.compute.sort_indices(column.dictionary).to_numpy()] = np.arange(
        len(column.dictionary), dtype=np.int32
    )
    rank[-1] = -1
    return np.asarray(rank[numbers], np.int32)


def first_equal(ids: pyarrow.ChunkedArray, hashes: Ints) -> Ints:
    """Of each row the first row with the same id: its own number where no earlier one has it.

    ``hashes`` are equal where ids are; only rows whose hash comes again are compared by their text.
    """
    first = np.arange(len(hashes))
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    again = np.zeros(len(order) + 1, np.bool_)  # whether it has the hash of the one before
    again[1:-1] = ordered[1:] == ordered[:-1]
    del ordered
    shared = np.flatnonzero(again[:-1] | again[1:])
    begins = ~again[shared]
    order = order[shared]
    texts: dict[str, int] = {}
    for start in range(0, len(order), BATCH):
        part = slice(start, start + BATCH)
        of_batch = values(ids.take(order[part]).combine_chunks())
        for row, text, new in zip(order[part].tolist(), of_batch, begins[part].tolist(), strict=True):
            if new:
                texts = {}
            first[row] = texts.setdefault(text, row)
    return first


class TextBuilder:
    """A column of repeating texts, made of one value after the other."""

    def __init__(self) -> None:
        self._batch: list[str | None] = []
        self._chunks: list[pyarrow.Array] = []
        self.append = self._batch.append

    def flush(self) -> None:
        self._chunks.append(pyarrow.array(self._batch, _TEXT).dictionary_encode())
        self._batch.clear()

    def column(self) -> pyarrow.DictionaryArray:
        self.flush()
        whole = pyarrow.chunked_array(self._chunks).unify_dictionaries().combine_chunks()
        self._chunks.clear()
        return whole


class _PlainBuilder(TextBuilder):
    """A column of values of one type that don't repeat."""

    def __init__(self, kind: pyarrow.DataType) -> None:
        super().__init__()
        self._kind = kind

    def flush(self) -> None:
        self._chunks.append(pyarrow.array(self._batch, self._kind))
        self._batch.clear()

    def column(self) -> pyarrow.Array:
        self.flush()
        whole = pyarrow.chunked_array(self._chunks).combine_chunks()
        self._chunks.clear()
        return whole


@dataclass
class EventColumns:
    """Canonical events; iterate it for ``records.Event``, which are made batch by batch.

    ``hashes`` are the process' own of the ids. ``fields`` are those that the detector declares, null where an event lacks one.
    """

    currency: str | None
    ids: pyarrow.Array
    hashes: Ints
    time: Ints
    amount: Ints
    entities: dict[str, pyarrow.DictionaryArray]
    fields: dict[str, pyarrow.Array]

    def __len__(self) -> int:
        return len(self.time)

    def __iter__(self) -> Iterator[Event]:
        # A replay keeps each token as its state's key: so they may as well be there before, once.
        few = (
            column
            for column in self.fields.values()
            if pyarrow.types.is_dictionary(column.type) and len(column.dictionary) <= BATCH
        )
        texts = {id(column): [*values(column.dictionary), None] for column in (*self.entities.values(), *few)}
        for start in range(0, len(self), BATCH):
            yield from self.batch(slice(start, start + BATCH), texts)

    def batch(
        self, rows: slice | Ints, texts: Mapping[int, list[str | None]] | None = None
    ) -> Iterator[Event]:
        """The events of some rows; they are all in memory at once."""

        def column(whole: pyarrow.Array) -> list[Any]:
            part = whole[rows] if isinstance(rows, slice) else whole.take(pyarrow.array(rows))
            known = texts.get(id(whole)) if texts is not None else None
            if known is None:
                return values(part)
            return [known[i] for i in part.indices.fill_null(-1).to_numpy(zero_copy_only=False).tolist()]

        ids = column(self.ids)
        for event_id, time, amount, entities, fields in zip(
            ids,
            self.time[rows].tolist(),
            self.amount[rows].tolist(),
            _records({name: column(one) for name, one in self.entities.items()}, len(ids)),
            _records({name: column(one) for name, one in self.fields.items()}, len(ids)),
            strict=True,
        ):
            yield {
                "id": event_id,
                "time": time,
                "amount": amount,
                "currency": self.currency,
                "entities": entities,
                "fields": fields,
            }

    def take(self, rows: Ints) -> None:
        """Goes on with these rows in this order: column by column, so that not all of them are there twice."""
        index = pyarrow.array(rows)
        self.ids = self.ids.take(index)
        self.hashes, self.time, self.amount = self.hashes[rows], self.time[rows], self.amount[rows]
        for columns in (self.entities, self.fields):
            for name in columns:
                columns[name] = columns[name].take(index)

    def append(self, other: EventColumns) -> None:
        """Puts another's rows, of the same detector, behind its own; the other one has none afterwards."""
        self.ids = _joined(self.ids, other.ids)
        other.ids = pyarrow.array([], _TEXT)
        self.hashes = np.concatenate([self.hashes, other.hashes])
        self.time = np.concatenate([self.time, other.time])
        self.amount = np.concatenate([self.amount, other.amount])
        other.hashes = other.time = other.amount = np.zeros(0, np.int64)
        for mine, others in ((self.entities, other.entities), (self.fields, other.fields)):
            for name in mine:
                mine[name] = _joined(mine[name], others.pop(name))


def _joined(first: pyarrow.Array, second: pyarrow.Array) -> pyarrow.Array:
    return pyarrow.chunked_array([first, second]).unify_dictionaries().combine_chunks()


def _records(columns: Mapping[str, list[Any]], count: int) -> Iterator[dict[str, Any]]:
    names = tuple(columns)
    if not names:
        return ({} for _ in range(count))
    return (dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True))


class EventBuilder:
    """Makes columns of events that come one by one.

    A field's value of another type than the detector declares now, as an older event of the lake may have, becomes null;
    ``misfits`` counts them by field.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        self.misfits: dict[str, int] = {}
        self._currency = spec.event.amount.currency
        self._ids, self._hashes = _PlainBuilder(_TEXT), array("q")
        self._time, self._amount = array("q"), array("q")
        self._entities = {entity.name: TextBuilder() for entity in spec.entities}
        self._fields: list[tuple[str, type, TextBuilder]] = []
        for declared in spec.event.fields:
            token = declared.name in spec.event.sensitive
            kind, column = _KINDS[FieldType.STRING if token else declared.type]
            self._fields.append(
                (declared.name, kind, TextBuilder() if kind is str else _PlainBuilder(column))
            )

    def __len__(self) -> int:
        return len(self._time)

    def add(self, event: Event) -> None:
        event_id = event["id"]
        self._ids.append(event_id)
        self._hashes.append(hash(event_id))
        self._time.append(event["time"])
        self._amount.append(event["amount"])
        tokens, given = event["entities"], event["fields"]
        for name, builder in self._entities.items():
            builder.append(tokens.get(name))
        for name, kind, builder in self._fields:
            value: Any = given.get(name)
            if value is not None and value.__class__ is not kind:
                self.misfits[name] = self.misfits.get(name, 0) + 1
                value = None
            builder.append(value)
        if len(self._time) % BATCH == 0:
            for builder in self._builders():
                builder.flush()

    def _builders(self) -> Sequence[TextBuilder]:
        return [self._ids, *self._entities.values(), *(builder for _, _, builder in self._fields)]

    def columns(self) -> EventColumns:
        return EventColumns(
            self._currency,
            self._ids.column(),
            np.frombuffer(self._hashes, np.int64),
            np.frombuffer(self._time, np.int64),
            np.frombuffer(self._amount, np.int64),
            {name: builder.column() for name, builder in self._entities.items()},
            {name: builder.column() for name, _, builder in self._fields},
        )
