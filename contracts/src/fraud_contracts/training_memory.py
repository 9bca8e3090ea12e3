"""How much memory a training run takes at its peak, and how many rows fit into some: known from numbers alone, before anything is read.

A run has four parts, each with its own peak: import, replay, search and judging. The search's trials are processes beside it, and
read one copy of the train and valid rows in shared memory. The bytes are of the bench ``training``, rounded up.

How late labels are known changes nothing here: a state keeps no more rows than its key has payments, whatever its windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 2**20
GIB: Final = 2**30
# Of a container's memory: beyond it Ray ends trials, and the kernel isn't far.
USABLE: Final = 0.9
_PROCESS: Final = 450 * MIB  # Python with all that it imports, and the batch at hand
_RAY: Final = 600 * MIB  # Ray's own processes
_TRIAL: Final = 250 * MIB  # a trial's process before it has data
_SAMPLE: Final = 200_000 * 12  # of a feature: the values that LightGBM chooses its bins by, in each trial
_SEARCHED: Final = 0.8  # of the rows: train and valid
_ID: Final = 44  # bytes: a UUID and where it ends
_ROW: Final = 56  # of a row, whatever it holds: hash of the id, time, amount, label, and where it comes from
_DECISION: Final = 100  # of a row of the lake besides: its place in the table, and what a batch of whole decisions leaves behind
_KEY: Final = 1_600  # of an entity's value: its state in the replay, and its token


@dataclass(frozen=True)
class TrainingSize:
    """What a run learns from.

    ``rows``: payments, each id once. ``read``: rows of files and lake before their ids are compared; ``rows`` where None.
    ``decisions``: how many of them are of the lake. ``keys``: different values of all entities together; 0 where nobody knows yet.
    ``trials``: how many run at a time; 0 without a search.
    """

    rows: int
    features: int
    entities: int = 2
    fields: int = 0
    read: int | None = None
    decisions: int = 0
    keys: int = 0
    trials: int = 2


def _parts(size: TrainingSize) -> dict[str, tuple[int, float]]:
    """Of each part of a run: (bytes whatever the rows, bytes that the rows add)."""
    rows, read = size.rows, size.rows if size.read is None else size.read
    vector = 4 * size.features
    kept = _ROW + 4 * size.entities + 10 * size.fields
    # Beside the columns: bodies' hashes and line numbers, then an order and the column that is put into it.
    imported = _ID + kept + 4 * size.entities + 24 + 160
    # A state keeps time, sum and tag of its payments.
    replayed = vector + _ID + kept + 24 * size.entities
    # A trial has each value in bins, twice, and some sums a row.
    searched = vector + kept + _SEARCHED * (vector + size.trials * (2 * size.features + 40))
    judged = vector + kept + 0.4 * vector + 80
    return {
        "import": (_PROCESS, read * imported + size.decisions * _DECISION),
        "replay": (_PROCESS, rows * replayed + size.decisions * _DECISION + size.keys * _KEY),
        "search": (
            _PROCESS + (_RAY + size.trials * (_TRIAL + size.features * _SAMPLE) if size.trials else 0),
            rows * searched,
        ),
        "judging": (_PROCESS + (_RAY if size.trials else 0), rows * judged),
    }


def peak(size: TrainingSize) -> int:
    """Bytes at the peak of a run, its trials and Ray's processes with it."""
    return round(max(fixed + of_rows for fixed, of_rows in _parts(size).values()))


def needed(size: TrainingSize) -> int:
    """Bytes that the container should have: what its limit must at least be."""
    return round(peak(size) / USABLE)


def rows_that_fit(memory: int, size: TrainingSize) -> int:
    """How many rows fit into a container of ``memory`` bytes, with as many keys and features to a row as in ``size``."""
    shares = [
        (memory * USABLE - fixed) / of_rows if of_rows else float("inf")
        for fixed, of_rows in _parts(size).values()
    ]
    return max(0, int(size.rows * min(shares))) if size.rows else 0


def bytes_a_row(
    features: int, entities: int = 2, fields: int = 0, payments_a_key: float = 20, trials: int = 2
) -> float:
    """What a further row costs in the part of a run where rows cost most."""
    many = 10**6
    keys = round(many * entities / payments_a_key)
    size = TrainingSize(many, features, entities, fields, keys=keys, trials=trials)
    return max(of_rows for _, of_rows in _parts(size).values()) / many


def rows_per_gib(
    features: int, entities: int = 2, fields: int = 0, payments_a_key: float = 20, trials: int = 2
) -> int:
    """Further rows that a further GiB of the container's memory takes."""
    return int(GIB * USABLE / bytes_a_row(features, entities, fields, payments_a_key, trials))
