"""Where each id ended, from the topics alone: the proof that nothing was dropped, for a set of ids or for all of them.

Every id has exactly one state, so the states add up. Topics forget (``transactions`` after two days, ``decisions`` and letters
after thirty): ids older than that are ``nowhere``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from confluent_kafka import Message

from fraud_contracts.errors import Reason
from fraud_serving import stored_records
from fraud_serving.dead_letters.redrive import HEADER, field_text
from fraud_serving.dead_letters.topic import DeadLetterTopic, Position


class IdState(StrEnum):
    """The text after each is what the command prints beside the count."""

    DECIDED = "decided"
    REDRIVEN_DECIDED = "redriven_decided"
    CONFLICT = "decided_other_refused"
    DEAD = "dead_lettered"
    REDRIVEN_DEAD = "redriven_dead_lettered"
    UNDERWAY = "under_way"
    NOWHERE = "nowhere"


MEANING: Final = {
    IdState.DECIDED: "decided, no letter",
    IdState.REDRIVEN_DECIDED: "dead-lettered first, sent again, then decided",
    IdState.CONFLICT: "decided; another record of this id is a dead letter",
    IdState.DEAD: "dead-lettered, not sent again",
    IdState.REDRIVEN_DEAD: "dead-lettered, sent again, not decided",
    IdState.UNDERWAY: "in transactions or accepted, neither decided nor dead-lettered yet",
    IdState.NOWHERE: "in no topic: refused with an HTTP status, never sent, or older than the topics keep",
}


@dataclass(slots=True)
class _IdTrace:
    decisions: int = 0
    letters: list[Position] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    sent: bool = False
    redriven: bool = False

    def state(self) -> IdState:
        if self.decisions:
            if not self.letters:
                return IdState.DECIDED
            # A reused id is refused because the id was decided: that letter is another payment's.
            return (
                IdState.REDRIVEN_DECIDED
                if self.redriven and self.reasons != {Reason.ID_REUSED}
                else IdState.CONFLICT
            )
        if self.letters:
            return IdState.REDRIVEN_DEAD if self.redriven else IdState.DEAD
        return IdState.UNDERWAY if self.sent else IdState.NOWHERE


@dataclass
class IdSummary:
    """``doubled``: ids with several decisions in ``decisions``; must be empty. ``nameless``: records refused without a readable id."""

    states: dict[str, IdState]
    doubled: list[str]
    nameless: Counter[str]

    def counts(self) -> Counter[IdState]:
        return Counter(self.states.values())


def _id(read: Callable[[bytes | None], str], message: Message, nameless: Counter[str]) -> str | None:
    """The record's id; one that can't be read is counted and must not hide the others."""
    try:
        return read(message.value())
    except ValueError:
        nameless[f"(unreadable in {message.topic()})"] += 1
        return None


def summary(topic: DeadLetterTopic, id_field: str, ids: Iterable[str] | None = None) -> IdSummary:
    """Of the given ids, or of all that the topics hold. Decisions and letters are read last, so that what ends meanwhile counts."""
    wanted = None if ids is None else set(ids)
    traces: defaultdict[str, _IdTrace] = defaultdict(_IdTrace)
    for event_id in wanted or ():
        traces[event_id]

    def of(event_id: str | None) -> _IdTrace | None:
        return (
            None if event_id is None or (wanted is not None and event_id not in wanted) else traces[event_id]
        )

    nameless: Counter[str] = Counter()
    redriven_letters: set[str] = set()
    for message in topic.all(topic.of.topic("transactions")):
        headers = dict(message.headers() or [])
        if HEADER in headers:
            redriven_letters.add((headers[HEADER] or b"").decode(errors="replace"))
        if (one := of(field_text(message.value() or b"", id_field))) is not None:
            one.sent = True
    for message in topic.all(topic.of.topic("accepted")):
        if (one := of(_id(stored_records.read_accepted_id, message, nameless))) is not None:
            one.sent = True
    origins: set[tuple[str, int, int]] = set()
    for at, letter in topic.letters():
        if letter is None:
            nameless["(no dead letter)"] += 1
            continue
        source = letter["source"]
        place = (source["topic"], source["partition"], source["offset"])
        redriven = str(at) in redriven_letters or at.offset in topic.remembered[at.partition]
        if letter["id"] is None:
            nameless[letter["reason"]] += place not in origins
        elif (one := of(letter["id"])) is not None:
            one.letters.append(at)
            one.reasons.add(letter["reason"])
            one.redriven |= redriven
        origins.add(place)
    for message in topic.all(topic.of.topic("decisions")):
        if (one := of(_id(stored_records.read_decided_id, message, nameless))) is not None:
            one.decisions += 1
    return IdSummary(
        {event_id: one.state() for event_id, one in sorted(traces.items())},
        sorted(event_id for event_id, one in traces.items() if one.decisions > 1),
        nameless,
    )
