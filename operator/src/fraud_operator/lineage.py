"""Which lineage a detector's streaming job is of: ``decide`` is asked in each pass, and changes nothing while all is as it was. Pure.

A job that is gone is made anew from its newest savepoint or checkpoint; one that can't read what it was made from goes, and the next
older one is tried. Where there is none, or a topic that it read was made anew, a new lineage begins, whose number is above any that was
ever given; so what an older one left in Redis, Kafka and the storage gives way to it. So it does with the first seeds that training
writes, unless the job had read nothing else when it took them. Either way the job is silent where the one before it has written: it
takes those records into its state only.

No time is compared: a clock that steps back changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from fraud_contracts import names
from fraud_contracts.feature_set import hash6
from fraud_contracts.lineage import HISTORY, INPUTS, Beginning, Lineage, Lineages, Positions

# Of what a job has committed, the last so many records of a partition may still be held back: an inline decision waits half a second for
# others of its key (docs/decisions/0005), in a state that may be lost. A job reads some 10,000 a second at most. They are written
# again, and the worker knows them by their claims or, where those can't be relied on, by ten times as many of the newest decisions.
HELD_BACK: Final = 5_000

_AGAIN: Final = f"Train again: another value in {names.TRAIN_ANNOTATION}"
# By source topic's noun and partition: the first offset that is kept, and the end.
Held = Mapping[str, Mapping[int, tuple[int, int]]]


@dataclass(frozen=True)
class StoredState:
    """What the storage holds of a lineage's state.

    ``paths`` of its newest savepoints and checkpoints, newest first. ``streams`` are those of any feature set that have a folder, the
    highest generation first; ``own`` is the highest generation of the same feature set that has one, 0 where none has.
    """

    paths: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    own: int = 0

    @property
    def highest(self) -> int:
        """The highest generation that has a folder, 0 where none has."""
        return max(map(_generation, self.streams), default=0)

    def since(self, generation: int) -> set[str]:
        """The streams of this generation and later ones."""
        return {stream for stream in self.streams if _generation(stream) >= generation}


def _generation(stream: str) -> int:
    known = names.parse_stream(stream)
    return 0 if known is None else known[1]


@dataclass(frozen=True)
class SeedsOffer:
    """Seeds that a run of training wrote, and where a job that begins with them goes on, in the topics of these ids.

    ``starts_at`` is None of a training of before that was fixed: nobody knows which records its seeds lack.
    """

    run: str
    starts_at: Positions | None
    topics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LineageFacts:
    """What a lineage is decided from. None is what nobody knows yet.

    ``job`` says whether the set's streaming job is there, ``ending`` whether it is on its way out, ``made_from`` the savepoint or checkpoint
    that it was made from, ``unreadable`` why it never came up with it. ``stored`` is of the set's newest lineage,
    ``committed`` what the lineage in use, and later ones that the storage knows of, have read for good and written, ``topics`` the ids of the sources by noun.
    ``seeds`` is what the training that has ended (``trained``) offers, ``taken`` whether the job has read all seeds; ``held`` are the first
    and the end of the offsets that the sources keep.
    """

    job: bool
    ending: bool = False
    made_from: str | None = None
    unreadable: str = ""
    stored: StoredState | None = None
    committed: Positions | None = None
    topics: Mapping[str, str] | None = None
    trained: bool = False
    seeds: SeedsOffer | None = None
    taken: bool = False
    held: Held | None = None


@dataclass(frozen=True)
class LineageStep:
    """``lineages`` as they are to be kept. ``waits``: why the job can't be made yet; ``unseeded``: why it has no seeds of training.

    ``told``: (reason, message, whether it warns). ``ends``: the job that is there is to go.
    """

    lineages: Lineages
    waits: str = ""
    ends: bool = False
    unseeded: str = ""
    told: tuple[str, str, bool] | None = None


def remade(lineage: Lineage, topics: Mapping[str, str] | None) -> list[str]:
    """Nouns of its sources that are other topics now."""
    return _others(lineage.topics, topics)


def _others(before: Mapping[str, str], topics: Mapping[str, str] | None) -> list[str]:
    known = topics or {}
    return [noun for noun, topic_id in before.items() if known.get(noun, topic_id) != topic_id]


def furthest(committed: Sequence[Positions | None]) -> Positions | None:
    """The furthest of what several groups have committed; None where one of them isn't known."""
    together: Positions = {}
    for positions in committed:
        if positions is None:
            return None
        for noun, ends in positions.items():
            known = together.setdefault(noun, {})
            known.update({at: max(end, known.get(at, 0)) for at, end in ends.items()})
    return together


def decide(before: Lineages, feature_set: str, facts: LineageFacts, now: int) -> LineageStep:
    """The lineage of the feature set's job is the one in use afterwards, unless the step waits."""
    own, last = before.of(feature_set), before.in_use
    if facts.ending and own != last:
        return LineageStep(before, "a job of this feature set is on its way out")
    path = facts.made_from
    if own is not None and path is not None and (facts.unreadable or path in own.unreadable):
        return _refused(before, own, path, facts.unreadable)
    if facts.job and (own is None or not remade(own, facts.topics)):
        # A job from before lineages were kept is of the first.
        lineage = own or Lineage(feature_set=feature_set, generation=1)
        lineage = lineage.model_copy(update={"topics": {**(facts.topics or {}), **lineage.topics}})
        step = _seeded(before, lineage, facts, now)
        return LineageStep(before) if step.lineages == before and not step.unseeded else step
    if facts.stored is None:
        return LineageStep(before, "the storage is searched for its newest savepoint or checkpoint")
    earlier = last is not None or facts.stored.highest > 0
    if earlier and (facts.committed is None or facts.topics is None):
        return LineageStep(before, "Kafka hasn't said yet how far the job before it had read")
    lost = [] if own is None else remade(own, facts.topics)
    outdated = own is not None and facts.stored.own > own.generation
    if own is not None and not lost and not outdated:
        path = next((one for one in facts.stored.paths if one not in own.unreadable), None)
        if path is not None:
            return _restored(before, own, path, facts)
        if own == last and own.restored is None and not facts.committed and not own.beginning.emits_from:
            return LineageStep(before)  # its job never came so far as to read anything
    if lost:
        reason, why = "TopicsRemade", f"{', '.join(lost)} were made anew"
    elif outdated:
        reason = "LineagesLost"
        why = f"the storage has a folder of generation {facts.stored.own} of it, later than what the operator kept"
    elif own is not None:
        readable = " that can be read" if own.unreadable else ""
        reason = "StateLost"
        why = f"no savepoint or checkpoint of generation {own.generation}{readable} is in the storage"
    elif last is not None:
        reason, why = "NewFeatureSet", "the feature set is another one"
    else:
        reason = "LineagesLost"
        why = "what the operator kept of earlier ones is gone, and the storage has folders of theirs"
    seeds = _usable_seeds(own, facts) if not lost else None
    return _begun(before, feature_set, seeds, facts, (reason, why), now)


def decide_beside(before: Lineages, feature_set: str, facts: LineageFacts, now: int) -> LineageStep:
    """The same of a job beside the one that answers: the lineage in use stays, and the job is silent."""
    step = decide(before, feature_set, facts, now)
    own, in_use = step.lineages.of(feature_set), before.in_use
    if own is None or in_use is None or (step.lineages == before and own.beginning.silent):
        return step
    return replace(step, lineages=step.lineages.using(in_use).beside(own))


def _restored(before: Lineages, own: Lineage, path: str, facts: LineageFacts) -> LineageStep:
    """The lineage goes on. Of what can't be read it remembers what is there still: the rest is never offered again."""
    paths = facts.stored.paths if facts.stored is not None else ()
    lineage = own.model_copy(
        update={
            "restored": path,
            "beginning": own.beginning.model_copy(
                update={"emits_from": written(before.in_use, facts.topics or {}, facts.committed or {})}
            ),
            "unreadable": tuple(one for one in own.unreadable if one in paths),
        }
    )
    told = "StateRestored", f"{_name(own)} goes on from {path}", False
    return LineageStep(before.using(lineage), told=told)


def _refused(before: Lineages, own: Lineage, path: str, why: str) -> LineageStep:
    """The job that was made from this path goes. That it can't be read is kept, so that no other job is made from it."""
    waits = f"the one that was made from {path} can't read it and is deleted; another one is made without it"
    if path in own.unreadable:
        return LineageStep(before, waits, ends=True)
    lineage = own.model_copy(update={"restored": path, "unreadable": (*own.unreadable, path)})
    message = (
        f"{_name(own)} can't read {path}: {why}. Its job is deleted and made anew from the next older savepoint or checkpoint; "
        "where there is none, a new generation begins"
    )
    return LineageStep(before.using(lineage), waits, ends=True, told=("StateUnreadable", message, True))


def _name(lineage: Lineage) -> str:
    return f"generation {lineage.generation} of feature set {hash6(lineage.feature_set)}"


def _seeded(before: Lineages, lineage: Lineage, facts: LineageFacts, now: int) -> LineageStep:
    """Of a job that runs: it takes seeds while it has read nothing else; else those who have them begin a lineage."""
    same, offer = LineageStep(before.using(lineage)), facts.seeds
    if lineage.seeded:
        return same
    if offer is None:
        lacks = facts.trained and lineage.generation > 1
        why = f"generation {lineage.generation} began without state, and the last training wrote no seeds. {_AGAIN}"
        return replace(same, unseeded=why) if lacks else same
    if offer.starts_at is None or (facts.held is not None and not _anything(facts.held)):
        taken = lineage.model_copy(update={"taken": offer.run}) if facts.taken else lineage
        return LineageStep(before.using(taken))
    if facts.held is None or facts.committed is None or facts.topics is None:
        return same
    too_late = _too_late(offer, facts)
    if too_late:
        message = f"the seeds of training {offer.run} are too old: {too_late}. {_AGAIN}"
        return replace(same, unseeded=message)
    if facts.stored is None:
        return same  # numbers that only the storage knows of are not to be given again
    why = f"seeds of training {offer.run} came when payments had come already"
    return _begun(same.lineages, lineage.feature_set, offer, facts, ("SeedsWritten", why), now)


def _usable_seeds(own: Lineage | None, facts: LineageFacts) -> SeedsOffer | None:
    """Those of training, or those that the lineage before had, unless records that they lack are gone."""
    offers = [facts.seeds] if facts.seeds is not None else []
    if own is not None and own.beginning.seeds:
        offers.append(SeedsOffer(own.beginning.seeds, own.beginning.starts_at, own.topics))
    usable = [offer for offer in offers if offer.starts_at is not None and facts.held is not None]
    return next((offer for offer in usable if not _too_late(offer, facts)), None)


def _begun(
    before: Lineages,
    feature_set: str,
    seeds: SeedsOffer | None,
    facts: LineageFacts,
    cause: tuple[str, str],
    now: int,
) -> LineageStep:
    """A new lineage. The first of a detector is nothing to tell of."""
    highest = facts.stored.highest if facts.stored is not None else 0
    lineage = Lineage(
        feature_set=feature_set,
        generation=max(before.highest, highest) + 1,
        begun=now,
        topics=dict(facts.topics or {}),
        beginning=Beginning(
            seeds="" if seeds is None else seeds.run,
            starts_at=(seeds.starts_at or {}) if seeds is not None else {},
            emits_from=written(before.in_use, facts.topics or {}, facts.committed or {}),
        ),
    )
    step = LineageStep(before.using(lineage))
    if lineage.generation == 1:
        return step
    reason, why = cause
    begins = f"{_name(lineage)} begins"
    if seeds is not None:
        return replace(step, told=(reason, f"{begins} with the seeds of training {seeds.run}: {why}", False))
    takes = "it takes seeds and what the topics still hold into its profiles"
    return replace(step, told=(reason, f"{begins} without state: {why}; {takes}", reason != "NewFeatureSet"))


def written(last: Lineage | None, topics: Mapping[str, str], committed: Positions) -> Positions:
    """Up to where feature records were written before for certain: by the last job, or before its own silence."""
    before = {} if last is None else last.beginning.emits_from
    anew = [] if last is None else remade(last, topics)
    ends_of: Positions = {}
    for noun in HISTORY:
        if noun in anew:
            # A job that lives on commits the old topic's offsets again, with each checkpoint: to the new one, by its name.
            continue
        silent, read = before.get(noun, {}), committed.get(noun, {})
        ends = {at: max(silent.get(at, 0), read.get(at, 0) - HELD_BACK) for at in silent.keys() | read.keys()}
        ends_of[noun] = {at: end for at, end in sorted(ends.items()) if end > 0}
    return {noun: ends for noun, ends in ends_of.items() if ends}


def _anything(held: Held) -> bool:
    """Whether any input has ever held a record."""
    return any(end > 0 for noun in INPUTS for _, end in held.get(noun, {}).values())


def _too_late(offer: SeedsOffer, facts: LineageFacts) -> str:
    """Of which source records are gone that come after the seeds, or those themselves; empty where all are there."""
    others, starts_at, held = _others(offer.topics, facts.topics), offer.starts_at or {}, facts.held or {}
    if others:
        return f"{', '.join(others)} were made anew since"
    for noun in HISTORY:
        gone = sum(
            max(0, first - starts_at.get(noun, {}).get(at, 0))
            for at, (first, _) in held.get(noun, {}).items()
        )
        if gone:
            return f"{gone} records of {noun} that they lack have left the topic since"
    return ""
