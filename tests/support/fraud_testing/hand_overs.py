"""A detector whose feature set changes, with everything that a hand-over goes by in memory: topics, streaming jobs, worker, stored lineages.

The operator's own functions decide; between any two of them it may end, jobs may fail or be deleted, and people may change their mind.
Jobs hold back what they read for a moment, as an inline decision waits for others of its key.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fraud_contracts.lineage import Beginning, HandOverStep, Lineages
from fraud_contracts.release import ModelPackage
from fraud_operator import hand_over, rollout
from fraud_operator.detector import Detector
from fraud_operator.feature_sets import FeatureSets, feature_sets, noted
from fraud_operator.hand_over import HandOverFacts
from fraud_operator.lineage import LineageFacts, StoredState, decide, decide_beside
from fraud_operator.rollout import RolloutFacts
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_testing.healthy import make_detector

TOPICS = {"transactions": "t1", "accepted": "a1", "labels": "l1", "seeds": "s1"}
PARTITIONS = (0, 1)
# Records that a job reads before those of before are written.
AT_ONCE = 2
OTHER = {"extra": [{"name": "customer_count_2h", "entity": "customer", "aggregate": "Count", "window": "2h"}]}
Place = tuple[int, int]


@dataclass
class Job:
    """``held`` are places that it has read and not written; ``kept`` is its newest checkpoint or savepoint."""

    beginning: Beginning
    read: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PARTITIONS, 0))
    held: list[Place] = field(default_factory=list)
    kept: tuple[dict[int, int], list[Place]] | None = None
    committed: dict[int, int] = field(default_factory=dict)
    running: bool = True
    there: bool = True
    # It should run, and doesn't: its TaskManager is lost.
    down: bool = False

    @property
    def works(self) -> bool:
        return self.there and self.running and not self.down

    def checkpoint(self) -> None:
        self.kept = dict(self.read), list(self.held)

    def restore(self) -> None:
        read, held = self.kept or (dict.fromkeys(PARTITIONS, 0), [])
        self.read, self.held = dict(read), list(held)

    def writes(self, place: Place) -> bool:
        at, offset = place
        silent = self.beginning.silent
        return not silent and offset >= self.beginning.emits_from.get("transactions", {}).get(at, 0)


class World:
    """Version 1 of the first feature set is live. ``written`` has for each place the sets whose jobs wrote it.

    ``at_once``: the set changed while rules alone decided, so the worker may have met records that it couldn't read.
    """

    def __init__(self) -> None:
        self.now = 1_764_000_000_000
        self.sets: list[Detector] = [make_detector(), make_detector(features=OTHER)]
        self.declared, self.approve, self.rollback, self.pin = 0, True, "", None
        self.ready, self.next = True, 2
        self.resolved = self.package("1", self.sets[0].feature_set)
        state = RolloutState(phase=RolloutPhase.PROMOTED, stable=self.resolved)
        self.stored: tuple[Lineages, RolloutState] = (Lineages(detector="n.d"), state)
        self.jobs: dict[int, Job] = {}
        self.ends = dict.fromkeys(PARTITIONS, 0)
        self.written: dict[Place, list[str]] = {}
        self.undecided: list[str] = []
        self.document = self.worker = self.sets[0].feature_set
        self.lost_model = self.at_once = False
        self.still: hand_over.Still | None = None
        self.settle()

    @staticmethod
    def package(version: str, feature_set: str) -> ModelPackage:
        return ModelPackage(
            name="n.d", version=version, digest="sha256:" + version.rjust(64, "0"), feature_set=feature_set, slot="a",
            url="u", score_map=[(0.0, 0.0), (1.0, 1000.0)],
        )  # fmt: skip

    @property
    def lineages(self) -> Lineages:
        return self.stored[0]

    @property
    def state(self) -> RolloutState:
        return self.stored[1]

    @property
    def answering(self) -> str:
        in_use = self.lineages.in_use
        return in_use.feature_set if in_use is not None else ""

    # What happens around the operator

    def pay(self) -> None:
        for at in PARTITIONS:
            self.ends[at] += 1 + at

    def wait(self, ms: int = 1_000) -> None:
        """Time passes: what was held back is written, the worker decides, and restarts where its document changed."""
        self.now += ms
        for generation, job in self.jobs.items():
            if job.works:
                held, job.held = job.held, []
                for place in held:
                    self._write(generation, job, place)

    def work(self) -> None:
        self.undecided.clear()
        self.worker = self.document

    def read(self) -> None:
        for generation, job in self.jobs.items():
            if not job.works:
                continue
            for at in PARTITIONS:
                until = min(self.ends[at], job.read[at] + AT_ONCE)
                for offset in range(job.read[at], until):
                    if offset % 2:
                        job.held.append((at, offset))
                    else:
                        self._write(generation, job, (at, offset))
                job.read[at] = until
            waits = [(at, offset) for at, offset in job.held if offset >= job.read[at] - AT_ONCE]
            for place in sorted({*job.held} - {*waits}):
                self._write(generation, job, place)
            job.held = waits

    def checkpoint(self, *, committed: bool = True) -> None:
        for job in self.jobs.values():
            if job.works:
                job.checkpoint()
                if committed and not job.beginning.silent:
                    job.committed = dict(job.read)

    def fail(self) -> None:
        """All jobs go back to their checkpoints."""
        for job in self.jobs.values():
            if job.works:
                job.restore()

    def lose(self, index: int) -> None:
        """A job doesn't run for a while, and begins with its checkpoint then."""
        jobs = [job for job in self.jobs.values() if job.there and job.running]
        if jobs:
            job = jobs[index % len(jobs)]
            job.down = not job.down
            if not job.down:
                job.restore()

    def delete(self, index: int) -> None:
        """By hand, with what its last checkpoint has."""
        jobs = [job for job in self.jobs.values() if job.there and job.kept is not None]
        if jobs:
            job = jobs[index % len(jobs)]
            job.there = job.running = job.down = False

    def register(self) -> None:
        """Another version of the declared set."""
        self.resolved = self.package(str(self.next), self.sets[self.declared].feature_set)
        self.next += 1

    def _write(self, generation: int, job: Job, place: Place) -> None:
        if not job.writes(place):
            return
        lineage = next(one for one in self.lineages.known if one.generation == generation)
        self.written.setdefault(place, []).append(lineage.feature_set)
        self.undecided.append(lineage.feature_set)
        assert self.at_once or self.worker == lineage.feature_set, "the worker can't read this set"

    # The operator

    def passed(self, ends: str = "") -> None:
        """One pass, which may end before anything is written (``early``), or once the lineages are (``late``)."""
        lineages, state = self.stored
        detector = self.sets[self.declared]
        sets = feature_sets(detector, lineages, state)
        step = decide(lineages, sets.answering.feature_set, self._facts(sets.answering, lineages), self.now)
        if sets.beside is not None:
            step = decide_beside(
                step.lineages,
                sets.beside.feature_set,
                self._facts(sets.beside, step.lineages),
                self.now,
            )
        lineages = step.lineages
        sets = feature_sets(detector, lineages, state)
        known = self._rollout_facts(sets, lineages, state)
        after, _ = rollout.decide(state, known, self.now)
        beside = sets.built.feature_set if sets.built else None
        target = hand_over.target(after, known, sets.answering.feature_set, detector.feature_set, beside)
        live = after.stable.feature_set if after.stable else None
        lineages = hand_over.follow(lineages, self._hand_over_facts(sets, lineages, target, live), self.now)
        had = state.stable is not None and self.release_model(detector, *self.stored)
        sets = feature_sets(detector, lineages, after)
        lineages = noted(lineages, sets)
        if ends:
            self.still = None  # what the operator that dies has seen
        if ends == "early":
            return
        before, self.stored = self.answering, (lineages, after)
        self.at_once |= bool(before) and before != self.answering and lineages.hand_over is None
        if (
            had
            and after.phase is not RolloutPhase.ROLLED_BACK
            and not self.release_model(detector, *self.stored)
        ):
            self.lost_model = True
        if ends == "late":
            return
        self.document = sets.answering.feature_set
        self._apply(sets, lineages)

    def release_model(self, detector: Detector, lineages: Lineages, state: RolloutState) -> bool:
        """Whether the release has a model that the set that answers can read."""
        sets = feature_sets(detector, lineages, state)
        stable = sets.state(state).stable
        return stable is not None and stable.feature_set == sets.answering.feature_set

    def _facts(self, view: Detector, lineages: Lineages) -> LineageFacts:
        job = self.jobs.get(view.epoch) if view.lineage is not None else None
        there = job is not None and job.there
        stored = StoredState(("path",) if job is not None and job.kept is not None else ())
        in_use = lineages.in_use
        last = self.jobs.get(in_use.generation) if in_use is not None else None
        committed = {"transactions": dict(last.committed)} if last is not None and last.committed else {}
        return LineageFacts(there, stored=stored, committed=committed, topics=TOPICS, held={})

    def _rollout_facts(self, sets: FeatureSets, lineages: Lineages, state: RolloutState) -> RolloutFacts:
        present = self._generations(sets)
        beside = sets.built.feature_set if sets.built else ""
        resolved = self.resolved if self.resolved.feature_set == sets.declared.feature_set else None
        return RolloutFacts(
            spec=sets.declared.spec,
            model="n.d",
            resolved=resolved,
            warm=True,
            ready=frozenset("ab") if self.ready else frozenset(),
            propagated=True,
            champion=state.stable.version if state.stable else None,
            approve=state.candidate.version if self.approve and state.candidate else None,
            rollback=self.rollback or None,
            answering=sets.answering.feature_set,
            declared=sets.declared.feature_set,
            handed_over=hand_over.is_ready(lineages, beside, frozenset(present), self._stopped(present)),
            returns=sets.returns,
        )

    def _generations(self, sets: FeatureSets) -> dict[int, Job]:
        epochs = [view.epoch for view in (sets.answering, sets.built) if view is not None]
        return {one: self.jobs[one] for one in epochs if one in self.jobs and self.jobs[one].there}

    def _hand_over_facts(
        self, sets: FeatureSets, lineages: Lineages, target: str | None, live: str | None
    ) -> HandOverFacts:
        jobs = self._generations(sets)
        in_use = lineages.in_use
        answers = self.jobs.get(in_use.generation) if in_use is not None else None
        return HandOverFacts(
            target=target,
            live=live,
            warm=True,
            present=frozenset(jobs),
            running=frozenset(one for one, job in jobs.items() if job.works),
            stopped=self._stopped(jobs),
            committed={"transactions": dict(answers.committed)} if answers is not None else None,
            still=self._seen(lineages, answers),
            held={"transactions": {at: (0, end) for at, end in self.ends.items()}},
            undecided=len(self.undecided),
            settled=self.worker == sets.answering.feature_set,
        )

    @staticmethod
    def _stopped(jobs: dict[int, Job]) -> frozenset[int]:
        return frozenset(one for one, job in jobs.items() if not job.running)

    def _seen(self, lineages: Lineages, answers: Job | None) -> hand_over.Still | None:
        under_way = lineages.hand_over
        if under_way is None or under_way.step is not HandOverStep.PASSING:
            return None
        short = None
        if answers is not None and answers.works:
            short = hand_over.short_of({"transactions": dict(answers.committed)}, under_way.ends)
        self.still = hand_over.still(self.still, short, self.now)
        return self.still

    def _apply(self, sets: FeatureSets, lineages: Lineages) -> None:
        stand = lineages.hand_over.stopped if lineages.hand_over is not None else frozenset()
        views = [
            view for view in (sets.answering, sets.built) if view is not None and view.lineage is not None
        ]
        for generation, job in self.jobs.items():
            if job.there and generation not in {view.epoch for view in views}:
                self._stop(job)
                job.there = job.down = False
        for view in views:
            assert view.lineage is not None
            beginning, generation = view.lineage.beginning, view.epoch
            known, runs = self.jobs.get(generation), generation not in stand
            if known is None or not known.there:
                if runs:
                    self._make(generation, beginning, known)
                continue
            if known.works and (not runs or known.beginning != beginning):
                self._stop(known)
            if runs and not known.running:
                known.restore()
                known.beginning, known.running = beginning, True
        aloud = [job for job in self.jobs.values() if job.there and job.running and not job.beginning.silent]
        assert len(aloud) <= 1, "two jobs write"

    def long(self) -> None:
        """More than a minute, in which whoever runs does what it has to do; the operator isn't away so long."""
        self.passed()
        for _ in range(100):
            self.read()
        self.wait(70_000)
        self.work()

    def _make(self, generation: int, beginning: Beginning, before: Job | None) -> None:
        job = self.jobs[generation] = Job(beginning)
        if before is not None:
            job.kept, job.committed = before.kept, before.committed
            job.restore()

    @staticmethod
    def _stop(job: Job) -> None:
        """With a savepoint, if it runs, whose offsets it commits."""
        if job.works:
            job.checkpoint()
            if not job.beginning.silent:
                job.committed = dict(job.read)
        job.running = False

    def settle_once(self) -> None:
        self.passed()
        self.read()
        self.wait(3_000)
        self.checkpoint()
        self.work()

    def settle(self) -> None:
        """Nothing fails any more, until all is decided."""
        for job in self.jobs.values():
            if job.down:
                job.down = False
                job.restore()
        for _ in range(60):
            self.settle_once()
