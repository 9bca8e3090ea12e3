"""How full stores are, and for how long they will do. Pure: what was read, and what was said before, come in as arguments.

What is told is coarse, and stays until the store is clearly past it: a status that follows every reading would be written all the time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

HOUR: Final = 3_600.0
# Growth is that of so long at most: a night says little about the day.
WINDOW: Final = HOUR
# And of so long at least: a burst of a minute isn't growth.
SHORTEST: Final = 600.0
# Percent from which a store is too full whatever its growth, and from which there is nothing left to wait for.
FULL: Final = 80
BRIM: Final = 95
_STEP: Final = 5
# How far a store must be below what it is warned for: percent, and times the hours.
_CLEAR: Final = 5
_LONGER: Final = 1.25
# Volumes of one store that a message names.
_SHOWN: Final = 3
FOREVER: Final = 1_000_000
_HOURS: Final = (0, 1, 2, 3, 6, 12, 24, 48, 72)


@dataclass(frozen=True)
class StoreKind:
    """``within``: hours; a store that is full sooner is told of. ``unlimited``: what is so where it says no size. ``remedy``:
    what a person does.
    """

    title: str
    within: float
    unlimited: str
    remedy: str


REDIS: Final = StoreKind(
    "Redis",
    # What it holds of a payment goes after a day, so a growth that would fill it only then ends by itself.
    6,
    "it has no maxmemory",
    "raise its maxmemory and its memory with it: at the limit it refuses claims and profiles",
)
KAFKA: Final = StoreKind(
    "Kafka",
    72,
    "its brokers don't say how large their disks are",
    "enlarge the brokers' volumes, of a managed Kafka by spec.kafka.managed.storage: a broker whose disk is full stops",
)
POSTGRES: Final = StoreKind(
    "PostgreSQL",
    72,
    "nobody says how large its disk is",
    "take old rows out (python -m fraud_sinks.prune) or enlarge its volume: the ledger stops where it is full",
)


@dataclass(frozen=True)
class Volume:
    """Bytes."""

    used: int
    capacity: int


@dataclass(frozen=True)
class Reading:
    """A volume at one moment; ``at`` is in seconds of whichever clock."""

    at: float
    volume: Volume


@dataclass(frozen=True)
class Room:
    """What is told of one volume of a store: ``percent`` used, and in how many ``hours`` it is full, None where not soon.

    ``warned``: a person should do something. ``measured``: its growth was known.
    """

    kind: StoreKind
    name: str
    percent: int
    hours: int | None
    capacity: int
    warned: bool
    measured: bool


@dataclass(frozen=True)
class CapacityFact:
    """Of the stores of a detector: what is told of each volume, and why nothing is known of the others, as (store, reason).

    ``asking``: a store hasn't been asked yet. ``before``: status, reason and message of an earlier operator, which stand meanwhile.
    """

    rooms: tuple[Room, ...] = ()
    unknown: tuple[tuple[str, str], ...] = ()
    asking: bool = True
    before: tuple[bool | None, str, str] | None = None


def recent(readings: Iterable[Reading], now: float) -> list[Reading]:
    """Those that growth is measured by."""
    return [reading for reading in readings if reading.at >= now - WINDOW]


def growth(readings: Sequence[Reading]) -> float | None:
    """Bytes a second, by least squares; None where they are of too short a time."""
    if len(readings) < 2 or readings[-1].at - readings[0].at < SHORTEST:
        return None
    times = [reading.at - readings[0].at for reading in readings]
    mean = sum(times) / len(times)
    spread = sum((time - mean) ** 2 for time in times)
    return sum((time - mean) * one.volume.used for time, one in zip(times, readings, strict=True)) / spread


def seconds_left(volume: Volume, grows: float | None) -> float | None:
    """Until it is full at that growth; None where it never is."""
    if grows is None or grows <= 0:
        return None
    return max(0, volume.capacity - volume.used) / grows


def judge(kind: StoreKind, name: str, readings: Sequence[Reading], before: Room | None) -> Room:
    """What is told of a volume by its ``readings``, of which there is one at least, the newest last."""
    volume, grows = readings[-1].volume, growth(readings)
    exact = 100 * volume.used / volume.capacity
    left = seconds_left(volume, grows)
    hours = None if left is None else left / HOUR
    room = before if before is not None and before.capacity == volume.capacity else None
    was, known = before is not None and before.warned, before is not None and before.measured
    full = exact >= FULL - (_CLEAR if was else 0)
    soon = hours is not None and hours < kind.within * (_LONGER if was else 1)
    if grows is None and before is not None and known:
        # Too few readings since an outage: what was said of its growth stands.
        soon, told = before.hours is not None and was, before.hours
    else:
        told = _hours(hours, room)
    warned = full or soon
    percent = _percent(exact, room if was == warned else None)
    return Room(kind, name, percent, told, volume.capacity, warned, grows is not None or known)


def _percent(exact: float, before: Room | None) -> int:
    """In steps, rounded down; the former step as long as it is nearly right."""
    if before is not None and before.percent - 2 <= exact < before.percent + _STEP + 2:
        return before.percent
    return int(exact // _STEP) * _STEP


def _hours(exact: float | None, before: Room | None) -> int | None:
    """The same in steps of time; None where there is more than the longest."""
    if exact is None:
        return None
    if before is not None and before.hours is not None:
        following = _HOURS[_HOURS.index(before.hours) + 1]
        if before.hours / _LONGER <= exact < following * _LONGER:
            return before.hours
    return None if exact >= _HOURS[-1] else _HOURS[bisect_right(_HOURS, exact) - 1]


def in_words(rooms: Sequence[Room]) -> str:
    """What is told of those that are warned of, each store's remedy once."""
    kinds = dict.fromkeys(room.kind for room in rooms)
    return "; ".join(_of_store(kind, [room for room in rooms if room.kind == kind]) for kind in kinds)


def _of_store(kind: StoreKind, rooms: Sequence[Room]) -> str:
    more = f" and {len(rooms) - _SHOWN} more" if len(rooms) > _SHOWN else ""
    return f"{', '.join(map(_figures, rooms[:_SHOWN]))}{more}; {kind.remedy}"


def _figures(room: Room) -> str:
    where = f"{room.kind.title}{f' ({room.name})' if room.name else ''}"
    when = ""
    if room.hours is not None:
        about = "less than an hour" if room.hours == 0 else f"about {room.hours} h"
        when = f", full in {about} at the present growth"
    return f"{where}: {room.percent} % of {size(room.capacity)} used{when}"


def size(capacity: int) -> str:
    """As Kubernetes writes it, rounded."""
    for unit, factor in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20)):
        if capacity >= factor:
            number = capacity / factor
            return f"{number:.0f}{unit}" if number >= 10 else f"{number:.1f}{unit}".replace(".0", "")
    return f"{capacity}"
