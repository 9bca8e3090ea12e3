"""Whether Kafkas of the users' own will do: brokers answer, the login is taken, the topics are there. What lacks is made where it may be.

Each Kafka is asked on a thread of its own with one client, for all detectors that log in there alike, and again while they are there:
nothing tells of a password that was revoked or a certificate that has expired. A pass reads the last answer; one that differs from
what the last pass read leads to a pass.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final

from fraud_operator.detector import DetectorKey
from fraud_operator.facts import KafkaFact
from fraud_operator.kafka_questions import WantedTopics, ask
from fraud_operator.kafka_target import KafkaTarget

LOG: Final = logging.getLogger(__name__)
CHECKING: Final = KafkaFact(None, "Checking", "the brokers are being asked")
# From one answer to the next question: with what a glance and a pass take, a fault is told well within a minute.
AGAIN: Final = 15.0
# Passes wait so long for a first answer, from the question on, which saves them a second pass where the brokers are near. A new leader
# with many detectors at brokers that are away would else wait as often.
_MOMENT: Final = 1.0

Ask = Callable[[KafkaTarget, Mapping[DetectorKey, WantedTopics]], dict[DetectorKey, KafkaFact]]


@dataclass
class _Answer:
    wanted: dict[DetectorKey, WantedTopics] = field(default_factory=dict)
    facts: dict[DetectorKey, KafkaFact] = field(default_factory=dict)
    due: float = 0.0
    asked: float = 0.0
    running: Future[None] | None = None


@dataclass
class KafkaChecks:
    """The last answer of each Kafka. Safe to use from several threads. ``clock`` is in seconds."""

    ask: Ask = ask
    clock: Callable[[], float] = time.monotonic
    pool: Executor = field(default_factory=lambda: ThreadPoolExecutor(4, "kafka"))
    _answers: dict[KafkaTarget, _Answer] = field(default_factory=dict)
    _read: dict[DetectorKey, tuple[KafkaTarget, KafkaFact]] = field(default_factory=dict)
    # Reentrant: a pool may run what it is given at once.
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def look(self, key: DetectorKey, target: KafkaTarget, wanted: WantedTopics) -> KafkaFact:
        """What is so for a detector. Other topics than before are asked for at once."""
        with self._lock:
            if key in self._read and self._read[key][0] != target:
                self.forget(key)
            answer = self._answers.setdefault(target, _Answer())
            if answer.wanted.get(key) != wanted:
                answer.wanted[key], answer.due = wanted, 0.0
                answer.facts.pop(key, None)
            running = self._begin(target, answer)
            first = key not in answer.facts
            left = answer.asked + _MOMENT - self.clock()
        if first and running is not None and left > 0:
            wait([running], left)
        with self._lock:
            fact = answer.facts.get(key, CHECKING)
            self._read[key] = target, fact
        return fact

    def turned(self, key: DetectorKey) -> bool:
        """Whether the answer isn't what the last pass read. Asks again where it is time."""
        with self._lock:
            if key not in self._read:
                return False
            target, fact = self._read[key]
            answer = self._answers[target]
            self._begin(target, answer)
            return answer.facts.get(key, fact) != fact

    def forget(self, key: DetectorKey) -> None:
        with self._lock:
            if key not in self._read:
                return
            target, _ = self._read.pop(key)
            answer = self._answers[target]
            answer.wanted.pop(key, None)
            answer.facts.pop(key, None)
            if not answer.wanted:
                del self._answers[target]

    def _begin(self, target: KafkaTarget, answer: _Answer) -> Future[None] | None:
        """The question that is under way, which begins where it is time."""
        idle = answer.running is None or answer.running.done()
        if idle and self.clock() >= answer.due:
            answer.asked = self.clock()
            answer.due = answer.asked + AGAIN
            answer.running = self.pool.submit(self._ask, target, answer, dict(answer.wanted))
        return answer.running

    def _ask(self, target: KafkaTarget, answer: _Answer, wanted: Mapping[DetectorKey, WantedTopics]) -> None:
        # A fault of ours must neither pass for an answer nor make every pass ask again.
        message = f"{target.owner}: {target.bootstrap} couldn't be asked; the operator's log says why"
        facts = dict.fromkeys(wanted, KafkaFact(False, "CheckFailed", message))
        try:
            facts = self.ask(target, wanted)
        except Exception:
            LOG.exception("kafka check broke", extra={"data": {"bootstrap": target.bootstrap}})
        finally:
            with self._lock:
                answer.due = self.clock() + AGAIN
                answer.facts.update(
                    {key: fact for key, fact in facts.items() if answer.wanted.get(key) == wanted[key]}
                )
