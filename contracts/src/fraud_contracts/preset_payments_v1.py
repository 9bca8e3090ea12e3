"""The preset ``payments/v1``, as data. Frozen for ever: another set of features is another preset.

Names and order are part of it: models are trained on a vector in this order, and profiles are laid out by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fraud_contracts.detector_event import Entity, Feature
from fraud_contracts.feature_kinds import Aggregate, Transform

AMOUNT: Final = (
    "amount"  # the event's own amount: an operand in every set, and the preset has it in the vector
)


class Role(Enum):
    """Which entities have a block of features, by their place in the list and by whether they have a labelDelay."""

    FIRST = "the first"
    OTHER_LABELLED = "any but the first, with labels"
    OTHER_UNLABELLED = "any but the first, without labels"
    LABELLED = "any, with labels"


@dataclass(frozen=True)
class FeatureRow:
    """A feature of an entity. Its name is the entity's with ``suffix``. A Ratio divides the event's amount by the entity's
    feature with the suffix ``divisor``.
    """

    suffix: str
    kind: Aggregate | Transform
    of: str | None = None
    divisor: str | None = None


@dataclass(frozen=True)
class Block:
    """The features ``rows``, once for each window, which ends their names; a window None is none."""

    role: Role
    windows: tuple[str | None, ...]
    rows: tuple[FeatureRow, ...]


_COUNT: Final = FeatureRow("count", Aggregate.COUNT)
_SUM: Final = FeatureRow("amount_sum", Aggregate.SUM, AMOUNT)

OF_EACH_ENTITY: Final = (
    Block(
        Role.FIRST,
        ("1h", "1d", "7d", "30d"),
        (_COUNT, _SUM, FeatureRow("amount_mean", Aggregate.MEAN, AMOUNT)),
    ),
    Block(Role.FIRST, (None,), (FeatureRow("seconds_since_last", Aggregate.SECONDS_SINCE_LAST),)),
    Block(Role.FIRST, (None,), (FeatureRow("amount_ratio_30d", Transform.RATIO, divisor="amount_mean_30d"),)),
    Block(Role.OTHER_LABELLED, ("1d", "7d", "30d"), (_COUNT,)),
    Block(Role.OTHER_UNLABELLED, ("1d", "7d", "30d"), (_COUNT, _SUM)),
    Block(
        Role.LABELLED,
        ("7d", "30d"),
        (FeatureRow("fraud_count", Aggregate.FRAUD_COUNT), FeatureRow("fraud_rate", Aggregate.FRAUD_RATE)),
    ),
)
OF_THE_EVENT: Final = {"hour": Transform.HOUR, "night": Transform.NIGHT, "weekend": Transform.WEEKEND}


def payments_v1(entities: Sequence[Entity]) -> list[Feature]:
    """The features of a detector with these entities, in the vector's order.

    ``amount``, which the event itself holds, is the one that is neither an aggregate nor a transform.
    """
    features: list[Feature] = []
    for place, entity in enumerate(entities):
        roles = _roles(place, entity)
        for block in OF_EACH_ENTITY:
            if block.role in roles:
                features += [_feature(entity.name, row, w) for w in block.windows for row in block.rows]
    features.append(Feature(name=AMOUNT))
    return features + [Feature(name=name, transform=kind) for name, kind in OF_THE_EVENT.items()]


def _roles(place: int, entity: Entity) -> set[Role]:
    labelled = entity.label_delay is not None
    if place == 0:
        return {Role.FIRST, Role.LABELLED} if labelled else {Role.FIRST}
    return {Role.OTHER_LABELLED, Role.LABELLED} if labelled else {Role.OTHER_UNLABELLED}


def _feature(entity: str, row: FeatureRow, window: str | None) -> Feature:
    name = f"{entity}_{row.suffix}" + ("" if window is None else f"_{window}")
    if isinstance(row.kind, Transform):
        return Feature(name=name, transform=row.kind, args=[AMOUNT, f"{entity}_{row.divisor}"])
    return Feature(name=name, entity=entity, aggregate=row.kind, of=row.of, window=window)
