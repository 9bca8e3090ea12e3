"""Lineages: of which beginning a feature set's state is the continuation, wherever that state lies.

The state of a streaming job, and what is made from it (profiles, ``saw``), belong to one lineage: a feature set and a generation. A
detector gives each number once, whatever the set, so the number alone tells two lineages apart; it is the ``epoch`` of a profile. A
job that is made anew from a savepoint or a checkpoint goes on in its lineage. One that begins without any begins a new one.

The operator keeps the document beside the release, so it outlives the detector where the detector's topics do.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from fraud_contracts import names
from fraud_contracts.config import Mounted
from fraud_contracts.feature_set import hash6

LINEAGES_KEY: Final = "lineages.json"
# What a streaming job reads; of it what seeds hold, too; and of that what is decided.
SOURCES: Final = ("transactions", "accepted", "labels", "seeds")
HISTORY: Final = ("transactions", "accepted", "labels")
INPUTS: Final = ("transactions", "accepted")

# By input topic's noun and partition: an offset.
Positions = dict[str, dict[int, Annotated[int, Field(ge=0)]]]


class Kept(Mounted):
    """What a later version added is passed over: an operator that is put back must not take its lineages for lost."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Beginning(Kept):
    """What a streaming job is told of its lineage.

    ``seeds``: the run of training whose seeds its states begin with, empty where they begin without; and then
    ``starts_at``, the first records of the sources that those seeds don't hold: a job without state starts there.
    ``emits_from``: the first records of the inputs for which the job writes feature records. It takes those before into its state in
    silence, since another job, or this one before it was made anew, has written theirs.
    """

    seeds: str = ""
    starts_at: Positions = Field(default_factory=dict)
    emits_from: Positions = Field(default_factory=dict)


NO_STATE: Final = Beginning()


class Lineage(Kept):
    """``begun`` is UTC ms. ``restored``: the savepoint or checkpoint that its job was last made anew from; None where from none.

    ``topics`` are the ids of its sources by noun, as far as they are known: a topic made anew has other records at the same offsets.
    ``taken``: the run of training whose seeds a job without any has taken while it had read nothing else.
    ``unreadable``: savepoints and checkpoints that a job was made from and couldn't read; each is tried once.
    """

    feature_set: str
    generation: Annotated[int, Field(ge=1)]
    begun: int = 0
    restored: str | None = None
    topics: dict[str, str] = Field(default_factory=dict)
    beginning: Beginning = NO_STATE
    taken: str = ""
    unreadable: tuple[str, ...] = ()

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


class Lineages(Kept):
    """``detector`` is the identity of whose they are; ``highest`` the last generation that was given to any.

    ``known``: the newest lineage of each feature set that the detector has had, the one in use last.
    """

    detector: str = ""
    highest: int = 0
    known: tuple[Lineage, ...] = ()

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
