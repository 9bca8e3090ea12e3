"""What one item of each kind takes in its store, in bytes: the constants that ``sizing`` multiplies.

Where a comment says "measured", ``serving/tests/integration/test_item_sizes.py`` holds the constant to what the real store
uses, within 30 %: change a form, and that test says the new number. An estimate says what it is made from. The payments
are the simulator's, by the preset ``payments/v1``, each scored by a model with three reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Of the whole form of a claim, which holds the decision; after it a claim says only what tells a repeat from a conflict, and
# where the decision lies.
CLAIM_WHOLE_SECONDS: Final = 600
CLAIM_SECONDS: Final = 86_400
# How long an event may lie in the pending sets of its entities, which is until the next one of its key looks, or this long.
PENDING_SECONDS: Final = 600
# Of the features of the preset for which the records below were measured.
FEATURES: Final = 25


@dataclass(frozen=True)
class ItemSizes:
    """Bytes. Each assumes what its comment says; ``replace`` gives others."""

    # Redis, by the growth of used_memory: key, value and Redis' own share. Measured.
    claim_whole: int = 1_000
    claim_small: int = 200
    pending: int = 1_250
    redis_key: int = 165

    # A key's state, as the engine packs it; the same bytes lie in Flink, in `profiles` and `seeds`, and in Redis. Measured for
    # customers and counterparties, events spread evenly over the longest window. A feature with a filter or of another field than
    # the amount adds a curve of its own, which is not in here.
    profile_base: int = 65
    profile_event: int = 20
    profile_full: int = 3_700

    # Values of records as JSON, uncompressed; ``vector`` is for each feature, on top. Measured.
    transaction: int = 160
    event: int = 205
    decision: int = 1_250
    feature_record: int = 600
    label_report: int = 60
    label: int = 205
    vector: int = 7
    # What a record has beside its value: its key, and the header of its batch where a batch holds one record, as at the inline door.
    record: int = 105
    # What lz4 leaves of a decision that is alone in its batch, as most are below some hundred payments a second and partition. Measured; of ten in a
    # batch it leaves 0.3.
    compression: float = 0.7

    # PostgreSQL, all of a row's tables, indexes and TOAST, without dead rows. Measured.
    ledger_decision: int = 2_200
    ledger_label: int = 580

    # Parquet in the lake, zstd or snappy as the sink writes it, files put together. Measured.
    lake_decision: int = 520
    lake_label: int = 40

    # Estimates. Flink's key, entry and RocksDB's index beside a state; what compaction needs of disk at most; the checkpoints that
    # are kept, whose files incremental ones share; what a state takes on the heap (600,000 keys: 2.2 times their bytes).
    state_key: int = 80
    state_disk: float = 1.5
    checkpoints: float = 2.0
    state_heap: float = 2.2

    # Estimate: a training's row as columns, beside three copies of its vector in doubles (read, split, the model's own).
    training_row: int = 100
    training_vector: int = 24

    # Of one version's package; measured by `make card`, rounded up.
    model: int = 5_000_000
