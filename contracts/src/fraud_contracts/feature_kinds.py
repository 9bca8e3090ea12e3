"""All aggregates and transforms: what each takes and needs, what a key keeps for it, and the value that it gives.

An entry is all that is said of one. The resource's schema and CEL rules (``detector_event``), the checks (``feature_set``)
and docs/reference/features.md follow from it; the code that computes it is ``fraud_pipelines.features.aggregates`` or
``transforms``. docs/add-an-aggregate.md shows how another comes in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, Self


class Of(Enum):
    """What an aggregate's ``of`` may name."""

    NUMBER = "`amount` or a declared integer field"
    VALUE = "a declared field or an entity"


@dataclass(frozen=True, kw_only=True)
class AggregateEntry:
    """``of``: None where the aggregate takes none. ``needs_labels``: it counts fraud labels, which carry no fields, so it
    needs the entity's labelDelay and takes no ``where``. ``state``: what a key keeps. ``null``: when the value is NaN.
    """

    sentence: str
    of: Of | None = None
    needs_window: bool = True
    needs_labels: bool = False
    state: str
    value: str
    null: str


@dataclass(frozen=True, kw_only=True)
class TransformEntry:
    """``args``: how many operands it takes, each ``amount`` or an earlier feature. ``is_truth``: a rule sees a boolean."""

    sentence: str
    args: int = 0
    needs_where: bool = False
    is_truth: bool = False
    value: str
    null: str


_SUMS: Final = "a running sum beside the events, and for a field how many held a value"


class Aggregate(StrEnum):
    entry: AggregateEntry

    def __new__(cls, name: str, entry: AggregateEntry) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.entry = entry
        return member

    COUNT = (
        "Count",
        AggregateEntry(
            sentence="How many events there were.",
            state="the events",
            value="events",
            null="never; at least 1 without `where`",
        ),
    )
    SUM = (
        "Sum",
        AggregateEntry(
            sentence="What the values add up to; a null field adds nothing.",
            of=Of.NUMBER,
            state="a running sum beside the events",
            value="minor units, or the field's unit; exact up to 64 bits, where it stands still",
            null="never",
        ),
    )
    MEAN = (
        "Mean",
        AggregateEntry(
            sentence="The mean of the values.",
            of=Of.NUMBER,
            state=_SUMS,
            value="minor units, or the field's unit",
            null="without a value",
        ),
    )
    MIN = (
        "Min",
        AggregateEntry(
            sentence="The least of the values.",
            of=Of.NUMBER,
            state="each event's value",
            value="minor units, or the field's unit",
            null="without a value",
        ),
    )
    MAX = (
        "Max",
        AggregateEntry(
            sentence="The greatest of the values.",
            of=Of.NUMBER,
            state="each event's value",
            value="minor units, or the field's unit",
            null="without a value",
        ),
    )
    DISTINCT = (
        "Distinct",
        AggregateEntry(
            sentence="How many different values there were; nulls don't count.",
            of=Of.VALUE,
            state="when each of the newest K values was last seen",
            value="values; a lower bound past K of them in the retained time, and for late events",
            null="never",
        ),
    )
    SECONDS_SINCE_LAST = (
        "SecondsSinceLast",
        AggregateEntry(
            sentence="How long ago the event before this one was.",
            needs_window=False,
            state="the events",
            value="seconds",
            null="without an event before within the window, or else within the entity's longest window",
        ),
    )
    FRAUD_COUNT = (
        "FraudCount",
        AggregateEntry(
            sentence="How many events of the window `(t - delay - window, t - delay]` have a fraud label that is known by `t`.",
            needs_labels=True,
            state="the events and their fraud labels",
            value="labels",
            null="never",
        ),
    )
    FRAUD_RATE = (
        "FraudRate",
        AggregateEntry(
            sentence="FraudCount by Count, both of the same delayed window.",
            needs_labels=True,
            state="the events and their fraud labels",
            value="0 to 1",
            null="without an event in the delayed window",
        ),
    )


class Transform(StrEnum):
    entry: TransformEntry

    def __new__(cls, name: str, entry: TransformEntry) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.entry = entry
        return member

    RATIO = (
        "Ratio",
        TransformEntry(
            sentence="The first operand by the second.",
            args=2,
            value="a / b",
            null="where an operand is, and where b is 0",
        ),
    )
    DIFFERENCE = (
        "Difference",
        TransformEntry(
            sentence="The first operand less the second.",
            args=2,
            value="a - b",
            null="where an operand is",
        ),
    )
    HOUR = "Hour", TransformEntry(sentence="The event's hour of the day.", value="0 to 23, UTC", null="never")
    NIGHT = (
        "Night",
        TransformEntry(
            sentence="Whether the event was before 06:00 UTC.", is_truth=True, value="1 or 0", null="never"
        ),
    )
    WEEKEND = (
        "Weekend",
        TransformEntry(
            sentence="Whether the event was on a Saturday or Sunday, UTC.",
            is_truth=True,
            value="1 or 0",
            null="never",
        ),
    )
    EQUALS = (
        "Equals",
        TransformEntry(
            sentence="Whether the event's field has the value that `where` names.",
            needs_where=True,
            is_truth=True,
            value="1 or 0",
            null="where the field is",
        ),
    )


WITHOUT_WINDOW: Final = tuple(kind for kind in Aggregate if not kind.entry.needs_window)
WITH_OF: Final = tuple(kind for kind in Aggregate if kind.entry.of is not None)
OF_ANY_VALUE: Final = tuple(kind for kind in Aggregate if kind.entry.of is Of.VALUE)
WITH_ARGS: Final = tuple(kind for kind in Transform if kind.entry.args)
WITH_WHERE: Final = tuple(kind for kind in Transform if kind.entry.needs_where)


def cel_is_one_of(field: str, kinds: Iterable[StrEnum]) -> str:
    """CEL that is true where ``field`` holds one of ``kinds``."""
    quoted = [f"'{kind}'" for kind in kinds]
    return f"{field} == {quoted[0]}" if len(quoted) == 1 else f"{field} in [{', '.join(quoted)}]"


def cel_is_none_of(field: str, kinds: Iterable[StrEnum]) -> str:
    """CEL that is true where ``field`` holds none of ``kinds``."""
    quoted = [f"'{kind}'" for kind in kinds]
    return f"{field} != {quoted[0]}" if len(quoted) == 1 else f"!({field} in [{', '.join(quoted)}])"
