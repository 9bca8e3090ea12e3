"""What flows between the stream's steps: an event in the making, a label, a seed, or how far the sources are. Imports nothing of Flink.

Elements travel packed, as tuples of their values: a pickle of plain tuples is small and quick, and no class of this code
lies in a checkpoint. What waits in a key's state has its fields' names (``EventElement.stored``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from fraud_contracts.lineage import Positions
from fraud_contracts.records import Label, Source

# The kind of an element comes first.
Packed = tuple[Any, ...]
_EVENT, _LABEL, _SEED, _PROGRESS = 0, 1, 2, 3


@dataclass(slots=True)
class EventElement:
    """A feature record in the making: each entity's stage adds its values. No entity is addressed: it passes all stages.

    ``event`` is an Event; that of an accepted record, and its ``hash``, may be damaged and anything. Then ``reason`` says
    that no features are computed.
    ``decision`` is what the decision service appended, unchecked. ``values`` and ``saw`` are by entity.
    """

    event: Any
    hash: str
    source: Source
    appended: int
    decision: dict[str, Any] | None
    repeat: bool = False
    reason: str | None = None
    degraded: list[str] = field(default_factory=list)
    saw: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)

    def packed(self) -> Packed:
        return _EVENT, *_values_of(self)

    def stored(self) -> Packed:
        """The form in a key's state."""
        return _EVENT, None, dict(zip(EventElement.__slots__, _values_of(self), strict=True))


_values_of = attrgetter(*EventElement.__slots__)


class LabelElement(NamedTuple):
    """A joined label for one entity's stage; the others pass it on."""

    entity: str
    label: Label

    @property
    def token(self) -> str:
        return str(self.label["entities"][self.entity])

    def packed(self) -> Packed:
        return _LABEL, self.entity, self.label

    def stored(self) -> Packed:
        """The form in a key's state: a label is named as it is."""
        return self.packed()


class SeedElement(NamedTuple):
    """A profile from training for one key of one entity's stage; the other stages pass it on."""

    entity: str
    token: str
    profile: bytes

    def packed(self) -> Packed:
        return _SEED, self.entity, self.token, self.profile


class ProgressElement(NamedTuple):
    """How far the sources' records are that went this way: one copy for each subtask of the next stage.

    ``origin`` tells who sent it from all others, also from those before a restart; ``sender`` is its subtask, 0 for all of intake.
    ``subtask`` is whose copy this is, ``key`` one that is sent there.
    """

    origin: str
    sender: int
    subtask: int
    key: str
    applied: Positions

    def packed(self) -> Packed:
        return _PROGRESS, *self


Element = EventElement | LabelElement | SeedElement | ProgressElement


def unpack(packed: Packed) -> Element:
    """The element of its packed form, of the form in a key's state, or of one that a former version left in a checkpoint."""
    kind = packed[0]
    if kind == _EVENT:
        if len(packed) != 3:
            return EventElement(*packed[1:])
        # By names. Before there was a list of what an event went without, none was among them.
        return EventElement(**{"degraded": [], **packed[2]})
    if kind == _LABEL:
        return LabelElement(*packed[1:])
    if kind == _PROGRESS:
        return ProgressElement(*packed[1:])
    # Formerly token and profile were a pair.
    return SeedElement(*packed[1:]) if len(packed) == 4 else SeedElement(packed[1], *packed[2])


def entity_key(element: Element, entity: str) -> str:
    """Key of an element in an entity's stage. What has no business there is spread, not sent to one hot key."""
    if isinstance(element, ProgressElement):
        return element.key
    if not isinstance(element, EventElement):
        return ("t" if element.entity == entity else "i") + element.token
    event = element.event if isinstance(element.event, dict) else {}
    entities = event.get("entities")
    token = entities.get(entity) if isinstance(entities, dict) else None
    return "t" + token if isinstance(token, str) else "i" + str(event.get("id"))
