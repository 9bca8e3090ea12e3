"""Lineages: of which beginning a feature set's state is the continuation, wherever that state lies.

The state of a streaming job, and what is made from it (profiles, ``saw``), belong to one lineage: a feature set and a generation. A
detector gives each number once, whatever the set, so the number alone tells two lineages apart; it is the ``epoch`` of a profile. A
job that is made anew from a savepoint or a checkpoint goes on in its lineage. One that begins without any begins a new one.

The operator keeps the document beside the release, so it outlives the detector where the detector's topics do.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from fraud_contracts import names
from fraud_contracts.config import Mounted
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_base import FieldName
from fraud_contracts.detector_event import Entity, EventField, Features
from fraud_contracts.detector_policy import Policy
from fraud_contracts.feature_set import hash6

LINEAGES_KEY: Final = "lineages.json"
# What a streaming job reads; of it what seeds hold, too; and of that what is decided.
SOURCES: Final = ("transactions", "accepted", "labels", "seeds")
HISTORY: Final = ("transactions", "accepted", "labels")
INPUTS: Final = ("transactions", "accepted")

# By input topic's noun and partition: an offset.
Positions = dict[str, dict[int, Annotated[int, Field(ge=0)]]]
# The same, flat.
ByPlace = dict[tuple[str, int], int]


def by_place(positions: Positions) -> ByPlace:
    return {
        (noun, number): offset for noun, offsets in positions.items() for number, offset in offsets.items()
    }


def by_topic(places: Mapping[tuple[str, int], int]) -> Positions:
    """The inverse of ``by_place``."""
    positions: Positions = {}
    for (noun, number), offset in places.items():
        positions.setdefault(noun, {})[number] = offset
    return positions


class Kept(Mounted):
    """What a later version added is passed over: an operator that is put back must not take its lineages for lost."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Beginning(Kept):
    """What a streaming job is told of its lineage.

    ``seeds``: the run of training whose seeds its states begin with, empty where they begin without; and then
    ``starts_at``, the first records of the sources that those seeds don't hold: a job without state starts there.
    ``emits_from``: the first records of the inputs for which the job writes feature records. It takes those before into its state in
    silence, since another job, or this one before it was made anew, has written theirs. ``silent``: there are none such yet, as
    another job's feature records are decided; which those are will be told by then.
    """

    seeds: str = ""
    starts_at: Positions = Field(default_factory=dict)
    emits_from: Positions = Field(default_factory=dict)
    silent: bool = False


NO_STATE: Final = Beginning()


class Declaration(Kept):
    """What a feature set is made of and may change while a detector lives: the parts of a spec that its hash covers, and which fields
    are ``sensitive``: their tokens are what is counted and compared. None where that wasn't written down.
    """

    entities: list[Entity]
    fields: list[EventField]
    features: Features
    sensitive: list[FieldName] | None = None

    @classmethod
    def of(cls, spec: DetectorSpec) -> Declaration:
        return cls(
            entities=spec.entities,
            fields=spec.event.fields,
            features=spec.features,
            sensitive=spec.event.sensitive,
        )

    def put_into(self, spec: DetectorSpec) -> DetectorSpec:
        """The spec with this feature set, and all else as it is."""
        sensitive = spec.event.sensitive if self.sensitive is None else self.sensitive
        event = spec.event.model_copy(update={"fields": self.fields, "sensitive": sensitive})
        return spec.model_copy(update={"event": event, "entities": self.entities, "features": self.features})


class Lineage(Kept):
    """``begun`` is UTC ms. ``restored``: the savepoint or checkpoint that its job was last made anew from; None where from none.

    ``topics`` are the ids of its sources by noun, as far as they are known: a topic made anew has other records at the same offsets.
    ``taken``: the run of training whose seeds a job without any has taken while it had read nothing else.
    ``unreadable``: savepoints and checkpoints that a job was made from and couldn't read; each is tried once.
    ``declared`` is its feature set as the spec declared it; ``policy`` the one that was live when another set took over last, where this
    one can't read that one's.
    """

    feature_set: str
    generation: Annotated[int, Field(ge=1)]
    begun: int = 0
    restored: str | None = None
    topics: dict[str, str] = Field(default_factory=dict)
    beginning: Beginning = NO_STATE
    taken: str = ""
    unreadable: tuple[str, ...] = ()
    declared: Declaration | None = None
    policy: Policy | None = None

    @property
    def seeded(self) -> str:
        """Whose seeds its states hold: a run of training's, empty for nobody's."""
        return self.beginning.seeds or self.taken

    @property
    def refused(self) -> bool:
        """Whether its job was made from what it can't read, and another one is to be made."""
        return self.restored is not None and self.restored in self.unreadable

    @property
    def stream(self) -> str:
        return names.stream(hash6(self.feature_set), self.generation)


class HandOverStep(StrEnum):
    """Where a hand-over is. Up to ``Ready`` it can be called off, and the job that answered goes on."""

    ALIGNING = "Aligning"
    PASSING = "Passing"
    STOPPING = "Stopping"
    DRAINING = "Draining"
    READY = "Ready"
    SETTLING = "Settling"


class HandOver(Kept):
    """The way of the decisions from one lineage to another (docs/decisions/0019). Times are UTC ms.

    ``to`` is a feature set; ``generations`` are those of the lineage that answered when it began, and of the other. ``since``: when the
    step began. ``ends`` are those of the inputs when the other job had stopped; ``short``: up to where the job that answers had read the
    partitions of which it had not passed the end when it was stopped, since no record lies between; ``emits_from`` is where the other goes on.
    """

    to: str
    generations: tuple[int, int]
    step: HandOverStep = HandOverStep.ALIGNING
    since: int
    ends: Positions = Field(default_factory=dict)
    short: Positions = Field(default_factory=dict)
    emits_from: Positions = Field(default_factory=dict)

    @property
    def stopped(self) -> frozenset[int]:
        """Generations whose streaming job is to stand still."""
        answering, other = self.generations
        waits = self.step in (HandOverStep.ALIGNING, HandOverStep.PASSING)
        return frozenset({other} if waits else {answering, other})


class Lineages(Kept):
    """``detector`` is the identity of whose they are; ``highest`` the last generation that was given to any.

    ``known``: the newest lineage of each feature set that the detector has had, the one in use last: its job's feature records are decided.
    ``wanted``: what the spec declares, where that is another feature set.
    """

    detector: str = ""
    highest: int = 0
    known: tuple[Lineage, ...] = ()
    wanted: Declaration | None = None
    hand_over: HandOver | None = None

    @property
    def in_use(self) -> Lineage | None:
        return self.known[-1] if self.known else None

    def of(self, feature_set: str) -> Lineage | None:
        return next((one for one in self.known if one.feature_set == feature_set), None)

    def using(self, lineage: Lineage) -> Lineages:
        """The same with this one in use, in the place of an older one of its feature set."""
        others = tuple(one for one in self.known if one.feature_set != lineage.feature_set)
        highest = max(self.highest, lineage.generation)
        return self.model_copy(update={"highest": highest, "known": (*others, lineage)})

    def beside(self, lineage: Lineage) -> Lineages:
        """The same with this one known, and the one in use as before: nothing of this one's job is decided."""
        silent = lineage.beginning.model_copy(update={"silent": True})
        after = self.using(lineage.model_copy(update={"beginning": silent}))
        return after if self.in_use is None else after.using(self.in_use)

    def without_hand_over(self) -> Lineages:
        return self.model_copy(update={"hand_over": None})
