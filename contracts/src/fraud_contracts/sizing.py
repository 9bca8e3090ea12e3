"""What a load takes of memory and disk in each store: ``python -m fraud_contracts.sizing --rate 1000 --keys 50000000 1000000``.

``parts`` is the one pure function; it needs no cluster. Sizes are of what lies there in the steady state, when every topic and
table is as old as what it keeps: no growth for a busier year and no headroom are in them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from fraud_contracts.item_sizes import (
    CLAIM_SECONDS,
    CLAIM_WHOLE_SECONDS,
    FEATURES,
    PENDING_SECONDS,
    ItemSizes,
)
from fraud_contracts.marked_page import with_part
from fraud_contracts.retention import COMPACTED, KEPT_DAYS

DAY: Final = 86_400
Medium = Literal["memory", "disk"]
STORES: Final = ("Redis", "Kafka", "Flink", "PostgreSQL", "object store", "training")
# A customer pays some 52 times in 30 days, and a shop is paid by fifty.
KEYS_PER_RATE: Final = (50_000, 1_000)
RATES: Final = (100.0, 1_000.0, 10_000.0)
# Of a compacted topic: cleaned once a fifth of it is dirty, and never in the segment that is written to, which ends at 1 GiB or a day.
_DIRTY: Final = 1.25
_SEGMENT: Final = 2**30
BEGIN: Final = "<!-- sizes: written by make reference -->\n"
END: Final = "<!-- end of sizes -->\n"


class LoadError(ValueError):
    """A load that can't be: the message names what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What comes in, and how long it is kept.

    ``rate``: payments a second, the mean of a day. ``inline``: the share that comes by HTTP; the rest comes by the topic.
    ``keys``: live keys of each entity, those with a payment within the longest window. ``flagged`` and ``labelled``: shares of
    payments that are alerts, and that get a label. ``features``: values of a vector. ``window_days``: the longest window with its label
    delay. ``copies``: of each record in Kafka. ``topic_days``: as ``retention``. ``training_rows``: None is the whole lake, which is what
    a training reads. ``versions``: of models that are kept. LoadError where a number can't be.
    """

    rate: float
    keys: tuple[int, ...]
    inline: float = 0.5
    flagged: float = 0.02
    labelled: float = 0.01
    features: int = FEATURES
    window_days: int = 37
    partitions: int = 12
    copies: int = 3
    topic_days: Mapping[str, int | None] = field(default_factory=lambda: KEPT_DAYS)
    ledger_days: int = 400
    lake_days: int = 400
    training_rows: int | None = None
    versions: int = 20

    def __post_init__(self) -> None:
        for name in ("inline", "flagged", "labelled"):
            if not 0 <= getattr(self, name) <= 1:
                raise LoadError(f"{name} is a share: write a number from 0 to 1")
        if not self.rate > 0 or not self.keys or any(number < 0 for number in self.keys):
            raise LoadError("rate must be above 0, and keys a number for each entity")
        if min(self.partitions, self.copies, self.window_days) < 1:
            raise LoadError("partitions, copies and window_days are at least 1")
        rows = self.training_rows or 0
        if min(self.features, self.ledger_days, self.lake_days, self.versions, rows) < 0:
            raise LoadError("features, days, rows and versions can't be negative")


@dataclass(frozen=True)
class Part:
    """``kept`` says in words for how long, or of how many."""

    store: str
    what: str
    medium: Medium
    bytes: float
    kept: str


def profile_bytes(load: Load, keys: int, items: ItemSizes) -> float:
    """Of one key's state, were the payments spread evenly over the keys: where some keys have more of them, the mean is less."""
    if not keys:
        return 0.0
    events = max(1.0, load.rate * DAY * load.window_days / keys)
    return min(items.profile_base + items.profile_event * events, items.profile_full)


def parts(load: Load, items: ItemSizes = ItemSizes()) -> tuple[Part, ...]:  # noqa: B008 - frozen
    """All that lies in each store."""
    return (
        *_redis(load, items),
        *_kafka(load, items),
        *_flink(load, items),
        *_ledger(load, items),
        *_objects(load, items),
        *_training(load, items),
    )


def _redis(load: Load, items: ItemSizes) -> Iterable[Part]:
    small = CLAIM_SECONDS - CLAIM_WHOLE_SECONDS
    yield Part(
        "Redis", "claims, whole", "memory", load.rate * CLAIM_WHOLE_SECONDS * items.claim_whole, "10 minutes"
    )
    yield Part("Redis", "claims, small", "memory", load.rate * small * items.claim_small, "a day")
    profiles = sum(keys * (profile_bytes(load, keys, items) + items.redis_key) for keys in load.keys)
    yield Part("Redis", "profiles", "memory", profiles, f"{sum(load.keys):,} keys")
    pending = load.rate * load.inline * len(load.keys) * PENDING_SECONDS * items.pending
    yield Part("Redis", "pending events", "memory", pending, "10 minutes at most")


def record_bytes(load: Load, items: ItemSizes) -> dict[str, tuple[float, float]]:
    """By noun, of the topics that keep all: (records a second, bytes of one), uncompressed and once."""
    vector = items.vector * load.features
    decision = items.decision + vector
    accepted = items.event + decision
    features = items.feature_record + vector + load.inline * decision
    return {
        "transactions": (load.rate * (1 - load.inline), items.transaction + items.record),
        "accepted": (load.rate * load.inline, accepted + items.record),
        "features": (load.rate, features + items.record),
        "decisions": (load.rate, decision + items.record),
        "alerts": (load.rate * load.flagged, decision + items.record),
        "label-reports": (load.rate * load.labelled, items.label_report + items.record),
        "labels": (load.rate * load.labelled, items.label + items.record),
        "dead-letters": (0.0, 0.0),
    }


def _kafka(load: Load, items: ItemSizes) -> Iterable[Part]:
    for noun, (rate, size) in record_bytes(load, items).items():
        days = load.topic_days[noun]
        kept = f"{load.ledger_days} days, of a topic that keeps all" if days is None else f"{days} days"
        stored = rate * DAY * (load.ledger_days if days is None else days) * size * items.compression
        if stored:
            yield Part("Kafka", noun, "disk", stored * load.copies, f"{kept}, {load.copies} copies")
    of_a_key = [(keys, profile_bytes(load, keys, items) + items.record) for keys in load.keys]
    written = {
        # A profile is no text: lz4 gains little on one of a few hundred bytes.
        "profiles": sum(load.rate * DAY * size for _, size in of_a_key),
        "seeds": 0.0,
    }
    for noun in COMPACTED:
        clean = sum(keys * size for keys, size in of_a_key)
        active = min(written[noun], load.partitions * _SEGMENT)
        stored = clean * _DIRTY + active
        yield Part("Kafka", noun, "disk", stored * load.copies, f"the newest of a key, {load.copies} copies")


def _state(load: Load, items: ItemSizes) -> float:
    return sum(keys * (profile_bytes(load, keys, items) + items.state_key) for keys in load.keys)


def _flink(load: Load, items: ItemSizes) -> Iterable[Part]:
    state = _state(load, items)
    yield Part("Flink", "state in RocksDB", "disk", state * items.state_disk, "all TaskManagers together")
    yield Part("Flink", "the same on the heap", "memory", state * items.state_heap, "in place of RocksDB")


def _ledger(load: Load, items: ItemSizes) -> Iterable[Part]:
    decisions = load.rate * DAY * load.ledger_days
    row = items.ledger_decision + items.vector * (load.features - FEATURES)
    yield Part("PostgreSQL", "decisions", "disk", decisions * row, f"{load.ledger_days} days")
    labels = decisions * load.labelled * items.ledger_label
    yield Part("PostgreSQL", "labels and reports", "disk", labels, f"{load.ledger_days} days")


def _objects(load: Load, items: ItemSizes) -> Iterable[Part]:
    decisions = load.rate * DAY * load.lake_days
    row = items.lake_decision + items.vector * (load.features - FEATURES)
    yield Part("object store", "lake: decisions", "disk", decisions * row, f"{load.lake_days} days")
    labels = decisions * load.labelled * items.lake_label
    yield Part("object store", "lake: labels", "disk", labels, f"{load.lake_days} days")
    checkpoints = _state(load, items) * items.checkpoints
    yield Part("object store", "checkpoints", "disk", checkpoints, "the newest, and what is written")
    yield Part("object store", "models", "disk", load.versions * items.model, f"{load.versions} versions")


def _training(load: Load, items: ItemSizes) -> Iterable[Part]:
    row = items.training_row + items.training_vector * load.features
    whole = load.training_rows is None
    rows = load.rate * DAY * load.lake_days if load.training_rows is None else load.training_rows
    yield Part("training", "rows", "memory", rows * row, "the whole lake" if whole else f"{rows:,} rows")


def totals(sized: Iterable[Part]) -> dict[tuple[str, Medium], float]:
    """Bytes by store and medium; of Flink's state disk alone, since the heap stands in its place."""
    found: dict[tuple[str, Medium], float] = {}
    for part in sized:
        if (part.store, part.medium) != ("Flink", "memory"):
            key = part.store, part.medium
            found[key] = found.get(key, 0.0) + part.bytes
    return found


def typical(rate: float) -> Load:
    """A load with as many keys as a bank's would have."""
    return Load(rate=rate, keys=tuple(round(rate * keys) for keys in KEYS_PER_RATE))


def in_words(size: float) -> str:
    """Bytes as people write them, to two or three digits."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if size >= factor:
            number = size / factor
            return f"{number:,.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{size / 1024:.0f} KiB"


def text(load: Load, items: ItemSizes = ItemSizes()) -> str:  # noqa: B008
    """All parts and the stores' totals, for people."""
    sized = parts(load, items)
    rows = [(part.store, part.what, in_words(part.bytes), part.medium, part.kept) for part in sized]
    rows += [(store, "in all", in_words(size), medium, "") for (store, medium), size in totals(sized).items()]
    rows.sort(key=lambda row: (STORES.index(row[0]), row[1] == "in all"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for store, what, size, medium, kept in rows:
        left = f"{store:<{widths[0]}}  {what:<{widths[1]}}  {size:>{widths[2]}}  {medium:<{widths[3]}}"
        lines.append(f"{left}  {kept}".rstrip())
    return "\n".join(lines) + "\n"


def as_json(load: Load, items: ItemSizes = ItemSizes()) -> str:  # noqa: B008
    """The same for programs: bytes."""
    sized = parts(load, items)
    document = {
        "parts": [vars(part) | {"bytes": round(part.bytes)} for part in sized],
        "totals": [
            {"store": store, "medium": medium, "bytes": round(size)}
            for (store, medium), size in totals(sized).items()
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def table() -> str:
    """For docs/sizing.md: a row for each of three rates."""
    head = (
        "payments/s", "live keys", "Redis, memory", "Kafka, disk", "Flink, disk", "PostgreSQL, disk",
        "object store, disk", "training, memory",
    )  # fmt: skip
    lines = [head, ("---",) * len(head)]
    for load in map(typical, RATES):
        sizes = totals(parts(load))
        cells = [in_words(size) for (store, _), size in sorted(sizes.items(), key=_by_store)]
        keys = " + ".join(f"{number:,}" for number in load.keys)
        lines.append((f"{load.rate:,.0f}", keys, *cells))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _by_store(entry: tuple[tuple[str, Medium], float]) -> int:
    return STORES.index(entry[0][0])


def with_table(page: str) -> str:
    """The page with its table as it is to be; ValueError where the page has no place for one."""
    return with_part(page, BEGIN, table(), END)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fraud_contracts.sizing", description=__doc__)
    add = parser.add_argument
    add("--rate", type=float, default=100.0, help="payments a second, the mean of a day (%(default)s)")
    add("--inline", type=float, default=0.5, help="share of them that comes by HTTP (%(default)s)")
    add("--keys", type=int, nargs="+", help="live keys of each entity (50,000 and 1,000 times the rate)")
    add("--days", type=int, help="days that ledger and lake keep (400)")
    add("--ledger-days", type=int, help="the ledger's alone")
    add("--lake-days", type=int, help="the lake's alone")
    add("--training-rows", type=int, help="that a training holds (the whole lake)")
    add("--features", type=int, default=FEATURES, help="values of a vector (%(default)s)")
    add("--window-days", type=int, default=37, help="longest window with its label delay (%(default)s)")
    add("--partitions", type=int, default=12, help="of each topic (%(default)s)")
    add("--copies", type=int, default=3, help="of each record in Kafka (%(default)s)")
    add("--flagged", type=float, default=0.02, help="share of payments that are alerts (%(default)s)")
    add("--labelled", type=float, default=0.01, help="share of payments that get a label (%(default)s)")
    add("--json", action="store_true", help="bytes, for programs")
    add(
        "--write",
        metavar="PAGE",
        type=Path,
        help="puts the table of three rates into a page, and nothing else",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    told = parser.parse_args(arguments)
    if told.write is not None:
        told.write.write_text(with_table(told.write.read_text()))
        return 0
    days = 400 if told.days is None else told.days
    try:
        load = Load(
            rate=told.rate,
            keys=tuple(told.keys or typical(told.rate).keys),
            inline=told.inline,
            flagged=told.flagged,
            labelled=told.labelled,
            features=told.features,
            window_days=told.window_days,
            partitions=told.partitions,
            copies=told.copies,
            ledger_days=days if told.ledger_days is None else told.ledger_days,
            lake_days=days if told.lake_days is None else told.lake_days,
            training_rows=told.training_rows,
        )
    except LoadError as error:
        parser.error(str(error))
    sys.stdout.write(as_json(load) if told.json else text(load))
    return 0


if __name__ == "__main__":
    sys.exit(main())
