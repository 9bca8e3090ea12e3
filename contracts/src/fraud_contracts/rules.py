"""A policy rule: CEL over ``event`` and ``features``, checked whole, and compiled so that a comparison with a null is false.

The operator checks rules with this code at admission and the doors compile them with it, so each rule that is admitted
compiles. The CEL library's ``compile`` comes as an argument, as this package needs no more than pydantic. Types show only
when CEL runs, so each comparison is tried alone on sample events of the declared types: ``&&`` would hide a wrong one from a
trial of the whole.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from fraud_contracts import feature_set
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_event import FieldType
from fraud_contracts.rule_names import FUNCTIONS, KINDS, Name, Names, Path, RuleError
from fraud_contracts.rule_parser import Parser, Part

# What the library says of a function that it has, but not of these types; they are the same in each sample.
_REFUSED_CALL: Final = re.compile(r"Undefined variable or function: '(\w+)'")
_IN_MS: Final = "; event.time is in ms: use features.night, or event.time / 3600000 % 24 for the hour in UTC"
_NO_VALUE: Final = "t_" + "0" * 32

# Several of each, so that int(), timestamp(), duration() and division find one that they can take.
_SAMPLES: Final[Mapping[type, tuple[Any, ...]]] = {
    str: ("1", "a", "2026-01-31T12:00:00Z", "1h"),
    int: (7, 1, 1_000, 2),
    float: (2.5, 1.0, 0.5, 7.0),
    bool: (True, False, True, False),
}


class Program(Protocol):
    """A compiled CEL expression. ``execute`` raises where it can't be evaluated."""

    def execute(self, context: Any = None, /) -> Any: ...


Compile = Callable[[str], Program]


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """``features`` are those that the rule reads."""

    program: Program
    features: frozenset[str]


def names(spec: DetectorSpec) -> Names:
    """All that rules of this detector may read, by its parts: ``event.entities.customer`` and so on."""
    types = {FieldType.STRING: str, FieldType.INTEGER: int, FieldType.NUMBER: float, FieldType.BOOLEAN: bool}
    fields = {
        f.name: Name(str, token_of=f.name) if f.name in spec.event.sensitive else Name(types[f.type])
        for f in spec.event.fields
    }
    entities = {
        e.name: Name(str, i > 0, token_of=e.field if e.field in spec.event.sensitive else None)
        for i, e in enumerate(spec.entities)
    }
    event: dict[str, Names | Name] = {
        "id": Name(str, nullable=False),
        "time": Name(int, nullable=False),
        "amount": Name(int, nullable=False),
        "entities": entities,
        "fields": fields,
    }
    if spec.event.amount.currency is not None:
        event["currency"] = Name(str, nullable=False)
    truths = feature_set.truth_names(spec.features)
    features = {
        name: Name(bool if name in truths else float)
        for name in feature_set.all_names(spec.features, spec.entities)
    }
    return {"event": event, "features": features}


def compile_rule(when: str, readable: Names, cel_compile: Compile) -> CompiledRule:
    """The rule, checked and compiled; RuleError says what is wrong with it.

    ``readable`` are the names that it may read. The program gives true or false on ``{"event": …, "features": …}`` in which
    each of them has a value of its type or null. It can still raise where a value decides, as in
    ``int(event.fields.code)`` or a division by a field.
    """
    try:
        cel_compile(when)
        parser = Parser(when, readable)
        whole = parser.truth(parser.whole())
        trial = _Trial(readable, cel_compile, parser.strings())
        for left, operator, right in parser.comparisons:
            trial.comparison(left, operator, right)
        for part in parser.truths:
            trial.truth(part)
        for branches in parser.branches:
            trial.branches(*branches)
        trial.on_nulls(whole)
        program = cel_compile(whole.text)
    except RuleError:
        raise
    except ValueError as error:
        raise RuleError(f"is no CEL expression: {_line(error)}") from error
    except RecursionError as error:
        raise RuleError("is nested too deep; make several rules of it") from error
    return CompiledRule(program, frozenset(path[1] for path in whole.paths if path[0] == "features"))


class _Trial:
    """Evaluates parts on sample events of the declared types."""

    def __init__(self, readable: Names, cel_compile: Compile, strings: list[str]) -> None:
        self._readable, self._compile = readable, functools.cache(cel_compile)
        # With a rule's own strings, as they may be the keys of a map in it.
        self._strings = (*_SAMPLES[str], *strings)

    def _values(self, *parts: Part, nulls: bool = False) -> list[tuple[Any, ...]]:
        """The parts' values on each sample that they can be evaluated on; RuleError where there is none."""
        paths = frozenset().union(*(part.paths for part in parts))
        bound = {variable: over for part in parts for variable, over in part.bound.items()}
        by_sample: list[tuple[Any, ...]] = []
        problem = ""
        for number in range(len(self._strings)):
            if number >= len(_SAMPLES[str]) and (by_sample or not problem):
                break
            scope, text = self._sample(paths, number, nulls), ""
            try:
                for variable, over in bound.items():
                    text = over.unfiltered or over.text
                    elements = self._elements(over, self._compile(text).execute(scope))
                    if not elements:
                        break
                    scope[variable] = elements[number % len(elements)]
                else:
                    values = []
                    for part in parts:
                        text = part.text
                        values.append(self._compile(text).execute(scope))
                    by_sample.append(tuple(values))
            except RuleError:
                raise
            except (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
                problem = f"can't be evaluated at {text}: {_line(error)}"
                if (call := _REFUSED_CALL.search(str(error))) and call[1] in FUNCTIONS:
                    in_ms = _IN_MS if ("event", "time") in paths else ""
                    raise RuleError(
                        f"can't be evaluated at {text}: write {call[1]} as {FUNCTIONS[call[1]]}{in_ms}"
                    ) from error
        if problem and not by_sample:
            raise RuleError(problem)
        return by_sample

    def _elements(self, over: Part, value: Any) -> list[Any]:
        """What a macro goes through, all of one kind."""
        if not isinstance(value, list | dict):
            raise RuleError(f"goes through {over.text}, which is {_kind(value)}; write a list")
        kinds = sorted({_kind(element) for element in value})
        if len(kinds) > 1:
            raise RuleError(
                f"goes through {over.text}, which holds {' and '.join(kinds)}; make a list of each"
            )
        return list(value)

    def _sample(self, paths: Iterable[Path], number: int, nulls: bool) -> dict[str, Any]:
        """An event with these values and no others: handing values to CEL costs more than evaluating."""
        sample: dict[str, Any] = {}
        for path in paths:
            level: Any = self._readable
            level_values = sample
            for key in path[:-1]:
                level, level_values = level[key], level_values.setdefault(key, {})
            name: Name = level[path[-1]]
            values = self._strings if name.kind is str else _SAMPLES[name.kind]
            value = values[number % len(values)] if name.token_of is None else _NO_VALUE
            level_values[path[-1]] = None if nulls and name.nullable else value
        return sample

    def comparison(self, left: Part, operator: str, right: Part) -> None:
        shown = f"{left.text} {operator} {right.text}"
        widest = [replace(part, text=part.unfiltered or part.text) for part in (left, right)]
        for one, other in self._values(*widest):
            if operator == "in" and not isinstance(other, list | dict):
                raise RuleError(
                    f"looks for {left.text} in {right.text}, which is {_kind(other)}; write a list"
                )
            pair = _mismatch([one], list(other)) if operator == "in" else _mismatch(one, other)
            if pair is not None:
                first = f"{left.text} {_verb(one)} {_kind(pair[0])}"
                second = f"{right.text} {_verb(other)} {_kind(pair[1])}"
                raise RuleError(f"compares {shown}, but {first}, {second}; give both the same type")
        self._values(Part(shown, paths=left.paths | right.paths, bound={**left.bound, **right.bound}))

    def truth(self, part: Part) -> None:
        for (value,) in self._values(part):
            if not isinstance(value, bool):
                raise RuleError(
                    f"gives {_kind(value)} at {part.text}, not true or false; compare it with something"
                )

    def branches(self, first: Part, second: Part) -> None:
        """Each alone, as no sample may choose it."""
        values = [[value for (value,) in self._values(part)] for part in (first, second)]
        if (pair := _mismatch(*values)) is not None:
            shown = f"{first.text}, which is {_kind(pair[0])}, and {second.text}, which is {_kind(pair[1])}"
            raise RuleError(f"chooses between {shown}; give both the same type")

    def on_nulls(self, whole: Part) -> None:
        """The rule whole, on events that lack all they may lack."""
        for (value,) in self._values(whole, nulls=True):
            if not isinstance(value, bool):
                raise RuleError(f"gives {_kind(value)}, not true or false; compare it with something")


def _mismatch(one: Any, other: Any) -> tuple[Any, Any] | None:
    """Two values of different kinds that are compared where these are."""
    if not isinstance(one, list) or not isinstance(other, list):
        return (one, other) if _kind(one) != _kind(other) else None
    return next((pair for a in one for b in other if (pair := _mismatch(a, b)) is not None), None)


def _verb(value: Any) -> str:
    return "holds" if isinstance(value, list | dict) else "is"


def _kind(value: Any) -> str:
    return KINDS.get(type(value), type(value).__name__)


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
