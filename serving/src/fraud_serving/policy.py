"""The policy of a release, compiled once: lists, CEL rules, bands and limits, as plain calls without a clock.

Order of precedence, the same at both doors:

1. Lists and enforced rules. The strictest match counts (Decline, Review, Approve). Where Approve is the only match, it
   overrides the model: that is what an allow list is for.
2. The band of the model's score, or what stands in for it. It may make a match stricter, never milder.
3. Limits. Past ``declinesPerMinute`` a decline becomes a review; past ``reviewsPerDay`` a review becomes an approval. A
   decline that a list asked for is never softened. Limits count per replica: they bound a model gone mad, they are
   no exact budget.

A comparison with a null is false, ``!=`` true (``fraud_contracts.rules``). A rule that doesn't compile or fails while it runs
matches nothing, because an error in one rule must not stop all decisions: ``failed`` names it, which the doors count.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

import cel

from fraud_contracts import feature_set, rules, tokens
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_policy import (
    Action,
    Limits,
    OnModelLoss,
    OnProfileLoss,
    Policy,
    PolicyList,
    RuleMode,
)
from fraud_contracts.errors import Degraded
from fraud_contracts.records import DecisionReason, Event
from fraud_contracts.rule_names import RuleError
from fraud_pipelines.events import Tokeniser
from fraud_serving.reasons import declines_limit_reason, list_reason, reviews_limit_reason, rule_reason

SEVERITY: Final = {Action.APPROVE: 0, Action.REVIEW: 1, Action.DECLINE: 2}
MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
_log = logging.getLogger(__name__)


def strictest(*actions: Action) -> Action:
    return max(actions, key=SEVERITY.__getitem__)


@dataclass(frozen=True, slots=True)
class Match:
    """A list or an enforced rule that applies: the reason it gives and the action it asks for."""

    reason: DecisionReason
    action: Action
    of_list: bool


@dataclass(slots=True)
class Matches:
    """What lists and rules say about one event.

    ``enforced`` count. ``shadow`` names rules that apply but are on trial, ``failed`` those that couldn't be evaluated.
    """

    enforced: list[Match] = field(default_factory=list)
    shadow: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def action(self) -> Action | None:
        return strictest(*(match.action for match in self.enforced)) if self.enforced else None

    @property
    def listed(self) -> bool:
        """Whether a list asked for the action that the matches come to."""
        return any(match.of_list and match.action is self.action for match in self.enforced)


class Proposal(NamedTuple):
    """The action that the model asks for, or that stands in for it.

    ``only_if_silent``: it counts only where no list and no rule matched. ``stands_in_for`` names what was lost.
    """

    action: Action
    only_if_silent: bool = False
    stands_in_for: str = ""


class Tally:
    """Declines of the last minute and reviews of the last day that this replica gave. The one state of a policy."""

    def __init__(self) -> None:
        self._declines: deque[int] = deque()
        self._reviews: deque[int] = deque()

    def note(self, action: str, now: int) -> None:
        if action == "decline":
            self._declines.append(now)
        elif action == "review":
            self._reviews.append(now)

    def counts(self, now: int) -> tuple[int, int]:
        while self._declines and self._declines[0] <= now - MINUTE_MS:
            self._declines.popleft()
        while self._reviews and self._reviews[0] <= now - DAY_MS:
            self._reviews.popleft()
        return len(self._declines), len(self._reviews)


class _ListIndex:
    """A policy list as a dictionary from value to the time (UTC ms) at which its entry ends (None: never)."""

    def __init__(
        self, source: PolicyList, spec: DetectorSpec, tokeniser: Tokeniser, problems: list[str]
    ) -> None:
        self.name, self.field, self.action = source.name, source.field, source.action
        entity = next((e for e in spec.entities if e.name == source.field), None)
        self.entity = entity is not None
        raw_field = entity.field if entity is not None else source.field
        sensitive = raw_field in spec.event.sensitive
        if entity is None and all(f.name != source.field for f in spec.event.fields):
            problems.append(f"list {source.name}: {source.field!r} is neither an entity nor a declared field")
        self.until: dict[str, int | None] = {}
        for i, entry in enumerate(source.entries):
            try:
                ends = None if entry.expires is None else _epoch_ms(entry.expires)
            except ValueError:
                problems.append(
                    f"list {source.name}: entries[{i}].expires is no RFC 3339 time; the entry is left out"
                )
                continue
            # Events hold tokens, so a plain value is turned into its token; one copied from a decision is one already.
            plain = sensitive and not tokens.is_token(entry.value)
            self.until[tokeniser.token(raw_field, entry.value) if plain else entry.value] = ends

    def match(self, event: Event, now: int) -> bool:
        value = (event["entities"] if self.entity else event["fields"]).get(self.field)
        if value is None or (key := value if isinstance(value, str) else str(value)) not in self.until:
            return False
        ends = self.until[key]
        return ends is None or now < ends


def _epoch_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no zone")
    return int(moment.timestamp() * 1000)


class CompiledPolicy:
    """Made once per release; ``matches`` is on the hot path."""

    def __init__(self, policy: Policy, spec: DetectorSpec, tokeniser: Tokeniser) -> None:
        self.bands, self.fallback, self.limits = policy.bands, policy.fallback, policy.limits
        self.problems: list[str] = []
        self._lists = [_ListIndex(source, spec, tokeniser, self.problems) for source in policy.lists]
        self._rules: list[tuple[str, Action, bool, rules.Program]] = []
        self._broken: list[str] = []
        readable, wanted = rules.names(spec), set[str]()
        for rule in policy.rules:
            try:
                compiled = rules.compile_rule(rule.when, readable, cel.compile)
            except RuleError as error:
                self.problems.append(f"rule {rule.name} {error}")
                self._broken.append(rule.name)
                continue
            self._rules.append((rule.name, rule.action, rule.mode is RuleMode.ENFORCE, compiled.program))
            wanted |= compiled.features
        # Handing values to CEL costs more than evaluating: only features that some rule names are handed over.
        self._wanted = sorted(wanted)
        self._truth = feature_set.truth_names(spec.features)
        self._logged: set[str] = set()

    def band(self, score: int) -> Action:
        """What a score (0-1000) asks for."""
        if score >= self.bands.decline:
            return Action.DECLINE
        return Action.REVIEW if score >= self.bands.review else Action.APPROVE

    def without_model(self, lost: Degraded) -> Proposal:
        """What is answered without a score; ``lost`` says why there is none. No model at all means rules."""
        loss = OnModelLoss.RULES if lost is Degraded.NO_MODEL else self.fallback.on_model_loss
        if loss is OnModelLoss.RULES:
            return Proposal(self.fallback.on_no_model, only_if_silent=True, stands_in_for=lost)
        return Proposal(Action(loss.value), stands_in_for=lost)

    def without_profiles(self) -> Proposal:
        """What is answered in place of a score that was made without the profiles."""
        if self.fallback.on_profile_loss is OnProfileLoss.RULES:
            return Proposal(self.fallback.on_no_model, only_if_silent=True, stands_in_for="profiles")
        return Proposal(Action.REVIEW, stands_in_for="profiles")

    def matches(self, event: Event, features: Mapping[str, float] | None, now: int) -> Matches:
        """``features`` is the vector by name, or None where it couldn't be made: to a rule it is null then."""
        matches = Matches(failed=list(self._broken))
        for index in self._lists:
            if index.match(event, now):
                matches.enforced.append(Match(list_reason(index.name, index.field), index.action, True))
        if not self._rules:
            return matches
        values = {name: self._value(name, features) for name in self._wanted}
        context = cel.Context({"event": event, "features": values})
        for name, action, enforced, program in self._rules:
            try:
                result = program.execute(context)
            except (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
                result = None
                if name not in self._logged:  # once a release: a rule may fail on each event
                    self._logged.add(name)
                    _log.warning("rule failed", extra={"data": {"rule": name, "error": str(error)[:300]}})
            if result is True:
                if enforced:
                    matches.enforced.append(Match(rule_reason(name), action, False))
                else:
                    matches.shadow.append(name)
            elif result is not False:
                matches.failed.append(name)
        return matches

    def _value(self, name: str, features: Mapping[str, float] | None) -> float | bool | None:
        value = math.nan if features is None else features[name]
        if math.isnan(value):
            return None
        return value == 1.0 if name in self._truth else value


def combine(matches: Matches, proposal: Proposal) -> Action:
    """One action of lists, rules and model, by the order of precedence."""
    if matches.action is None:
        return proposal.action
    if matches.action is Action.APPROVE or proposal.only_if_silent:
        return matches.action
    return strictest(matches.action, proposal.action)


def apply_limits(
    action: Action, matches: Matches, limits: Limits, declines: int, reviews: int
) -> tuple[Action, DecisionReason | None]:
    """The action after the limits, and the reason of the limit that changed it."""
    if matches.listed and action is matches.action:
        return action, None
    if (
        action is Action.DECLINE
        and limits.declines_per_minute is not None
        and declines >= limits.declines_per_minute
    ):
        return Action.REVIEW, declines_limit_reason(limits.declines_per_minute)
    if action is Action.REVIEW and limits.reviews_per_day is not None and reviews >= limits.reviews_per_day:
        return Action.APPROVE, reviews_limit_reason(limits.reviews_per_day)
    return action, None
