"""The policy of a release, compiled once: lists, CEL rules, bands and limits, as plain calls without a clock.

Order of precedence, the same at both doors:

1. Lists and enforced rules. The strictest match counts (Decline, Review, Approve). Where Approve is the only match, it
   overrides the model: that is what an allow list is for.
2. The model's band, or what stands in for it. It may make a match stricter, never milder.
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
from typing import Final

import cel

from fraud_contracts import feature_set, rules, tokens
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_policy import Action, Limits, Policy, PolicyList, RuleMode
from fraud_contracts.records import Event, Reasoned
from fraud_contracts.rule_names import RuleError
from fraud_pipelines.events import Tokeniser

SEVERITY: Final = {Action.APPROVE: 0, Action.REVIEW: 1, Action.DECLINE: 2}
MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
_log = logging.getLogger(__name__)


def strictest(*actions: Action) -> Action:
    return max(actions, key=SEVERITY.__getitem__)


@dataclass(frozen=True, slots=True)
class Match:
    """A list or rule that spoke: its stable code, a text for people, what it asks for."""

    code: str
    text: str
    action: Action

    def reason(self) -> Reasoned:
        return {"code": self.code, "text": self.text}


@dataclass(slots=True)
class Matches:
    """What lists and rules say about one event. ``shadow`` rules are noted and change nothing."""

    enforced: list[Match] = field(default_factory=list)
    shadow: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def action(self) -> Action | None:
        return strictest(*(match.action for match in self.enforced)) if self.enforced else None

    @property
    def listed(self) -> bool:
        return any(match.code.startswith("list:") and match.action is self.action for match in self.enforced)


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


class _List:
    """A policy list as a dictionary from value to the time at which it ends (None: never)."""

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
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("no zone")
    return int(found.timestamp() * 1000)


class CompiledPolicy:
    """Made once per release; ``matches`` is on the hot path."""

    def __init__(self, policy: Policy, spec: DetectorSpec, tokeniser: Tokeniser) -> None:
        self.bands, self.fallback, self.limits = policy.bands, policy.fallback, policy.limits
        self.problems: list[str] = []
        self._lists = [_List(source, spec, tokeniser, self.problems) for source in policy.lists]
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
        if score >= self.bands.decline:
            return Action.DECLINE
        return Action.REVIEW if score >= self.bands.review else Action.APPROVE

    def matches(self, event: Event, features: Mapping[str, float] | None, now: int) -> Matches:
        """``features`` is the vector by name, or None where it couldn't be made: to a rule it is null then."""
        found = Matches(failed=list(self._broken))
        for one in self._lists:
            if one.match(event, now):
                found.enforced.append(
                    Match(f"list:{one.name}", f"{one.field} is on the list {one.name}", one.action)
                )
        if not self._rules:
            return found
        given = {name: self._value(name, features) for name in self._wanted}
        context = cel.Context({"event": event, "features": given})
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
                    found.enforced.append(Match(f"rule:{name}", f"the rule {name} applies", action))
                else:
                    found.shadow.append(name)
            elif result is not False:
                found.failed.append(name)
        return found

    def _value(self, name: str, features: Mapping[str, float] | None) -> float | bool | None:
        value = math.nan if features is None else features[name]
        if math.isnan(value):
            return None
        return value == 1.0 if name in self._truth else value


def limit(
    action: Action, matches: Matches, limits: Limits, declines: int, reviews: int
) -> tuple[Action, Match | None]:
    """The action after the circuit breakers, and the one that opened."""
    if matches.listed:
        return action, None
    if (
        action is Action.DECLINE
        and limits.declines_per_minute is not None
        and declines >= limits.declines_per_minute
    ):
        text = f"more than {limits.declines_per_minute} declines a minute: held for review"
        return Action.REVIEW, Match("limit:declinesPerMinute", text, Action.REVIEW)
    if action is Action.REVIEW and limits.reviews_per_day is not None and reviews >= limits.reviews_per_day:
        text = f"more than {limits.reviews_per_day} reviews a day: let pass"
        return Action.APPROVE, Match("limit:reviewsPerDay", text, Action.APPROVE)
    return action, None
