"""CEL's grammar for policy rules: what an expression reads and compares, and the text that is evaluated in its place.

CEL raises where a null is compared. So each comparison, and each value that stands as a truth, is written anew behind a
guard: ``event.fields.n > 5`` becomes ``(event.fields.n == null ? false : event.fields.n > 5)``; behind ``!=`` the guard gives
true. Any value made of a null is null: ``event.fields.n + 1``, ``size(event.fields.text)``. No CEL is evaluated here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from fraud_contracts import rule_costs, tokens
from fraud_contracts.rule_names import (
    FUNCTIONS,
    KINDS,
    OVER_LISTS,
    TYPE_NAMES,
    Name,
    Names,
    Path,
    RuleError,
    first_dozen,
    unknown_function,
    unknown_name,
)

_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})
_MAX_TEXT: Final = 10_000
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<string>[bB]?[rR](?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')
    |[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>&&|\|\||==|!=|<=|>=|[-!<>+*/%?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_PLAIN: Final = frozenset[str | None]({None})
_WRITTEN: Final = frozenset[str | None]({None, ""})
_LISTS: Final = "put the value on a list of spec.policy.lists"
_PLAIN_STRING: Final = re.compile(r"""(["'])([^\\"']*)\1""")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the expression: the text that is evaluated in its place, and the conditions under which its value is null.

    ``bound`` maps each variable of a surrounding macro that the piece uses to the list that the macro goes through.
    ``truth``: its value is true or false, never null. ``tokens`` are the raw fields whose tokens the value may be or hold: ""
    stands for a token that the rule writes out, None for a plain value. ``size`` is the number of plain values that it may
    hold, ``item`` the number that its largest element may hold; ``steps`` is the cost of the macros and matches() in it.
    ``unfiltered`` is the text of the same list before filter().
    """

    text: str
    nulls: tuple[str, ...] = ()
    paths: frozenset[Path] = frozenset()
    bound: Mapping[str, Part] = field(default_factory=dict)
    truth: bool = False
    name: Name | None = None
    choice: tuple[str, Part, Part] | None = None
    tokens: frozenset[str | None] = _PLAIN
    unfiltered: str = ""
    size: int = 1
    item: int = 1
    steps: int = 0

    def __post_init__(self) -> None:
        if len(self.text) > _MAX_TEXT:
            raise RuleError("has too much in it that may be null, one in another; make several rules of it")

    def guarded(self, otherwise: str) -> Part:
        text = self.text
        if self.nulls:
            text = f"({' || '.join(self.nulls)} ? {otherwise} : {text})"
        return Part(
            text, paths=self.paths, bound=self.bound, size=self.size, item=self.item, steps=self.steps
        )


def _joined(text: str, *parts: Part) -> Part:
    """A value made of parts: null where one of them is."""
    for part in parts:
        if part.tokens - _WRITTEN:
            raise RuleError(
                f"reads {part.text}, which holds tokens, where only ==, !=, in and has can take it; {_LISTS}"
            )
    return _combined(text, *parts)


def _combined(text: str, *parts: Part) -> Part:
    part = Part(
        text,
        tuple(dict.fromkeys(null for part in parts for null in part.nulls)),
        frozenset().union(*(part.paths for part in parts)),
        {variable: over for part in parts for variable, over in part.bound.items()},
    )
    return _costing(
        part,
        size=sum(p.size for p in parts) or 1,
        item=max((p.item for p in parts), default=1),
        steps=sum(p.steps for p in parts),
    )


def _costing(part: Part, *, size: int, item: int, steps: int) -> Part:
    """The part with what it costs; RuleError where that is too much."""
    if max(size, steps) > rule_costs.MAX_STEPS:
        raise RuleError(rule_costs.TOO_MUCH)
    return replace(part, size=size, item=item, steps=steps)


def _element(text: str, *parts: Part) -> Part:
    """What is taken out of a list or a map, in which a null is an element like others."""
    part = _joined(text, *parts)
    return replace(part, nulls=(*part.nulls, f"{text} == null")) if part.paths else part


def _compared(left: Part, operator: str, right: Part) -> Part:
    """A comparison. Tokens equal only tokens of the same raw field: any other comparison with them is always the same."""
    text, held = f"{left.text} {operator} {right.text}", left.tokens | right.tokens
    fields = held - _WRITTEN
    if not fields or operator not in ("==", "!=", "in"):
        return _joined(text, left, right)
    if None in held:
        shown = left.text if left.tokens & fields else right.text
        raise RuleError(f"compares {shown}, which holds tokens, with a plain value; {_LISTS}")
    if len(fields) > 1:
        raise RuleError(f"compares {text}, tokens of two fields, which are never equal; {_LISTS}")
    return _combined(text, left, right)


class Parser:
    """CEL's grammar, by recursive descent. The CEL library has checked the syntax before."""

    def __init__(self, source: str, readable: Names) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._at, self._readable, self._scope = 0, readable, [dict[str, Part]()]
        self.comparisons: list[tuple[Part, str, Part]] = []
        self.truths: list[Part] = []
        self.branches: list[tuple[Part, Part]] = []
        end = 0
        while end < len(source):
            match = _TOKEN.match(source, end)
            if match is None:
                raise RuleError(f"has something that rules can't use at {source[end : end + 10]!r}")
            if match.lastgroup != "space":
                self._tokens.append((match.lastgroup or "", match.group()))
            end = match.end()
        self._tokens.append(("end", "the end"))

    def strings(self) -> list[str]:
        """Those that are written out in the rule."""
        return [plain[2] for _, text in self._tokens if (plain := _PLAIN_STRING.fullmatch(text))]

    def _peek(self, ahead: int = 0) -> str:
        kind, text = self._tokens[min(self._at + ahead, len(self._tokens) - 1)]
        return "" if kind == "string" else text

    def _take(self) -> tuple[str, str]:
        token = self._tokens[self._at]
        self._at += token[0] != "end"
        return token

    def _accept(self, *signs: str) -> str | None:
        return self._take()[1] if self._peek() in signs else None

    def _expect(self, sign: str) -> None:
        if self._accept(sign) is None:
            raise RuleError(f"has something that rules can't use at {self._tokens[self._at][1]!r}")

    def truth(self, part: Part) -> Part:
        """The part where true or false is asked for: a null is false."""
        if part.truth:
            return part
        if part.choice is not None:
            condition, *branches = part.choice
            first, second = (self.truth(branch) for branch in branches)
            return replace(
                _joined(f"({condition} ? {first.text} : {second.text})", part), nulls=(), truth=True
            )
        self.truths.append(part)
        return replace(part.guarded("false"), truth=True)

    def whole(self) -> Part:
        part = self._choice()
        self._expect("the end")
        return part

    def _choice(self) -> Part:
        part = self._logic()
        if self._accept("?") is None:
            return part
        condition = self.truth(part)
        first = self._logic()
        self._expect(":")
        second = self._choice()
        self.branches.append((first, second))
        choice = _joined(f"({condition.text} ? {first.text} : {second.text})", condition, first, second)
        nulls: tuple[str, ...] = ()
        if first.nulls or second.nulls:
            either = [" || ".join(branch.nulls) or "false" for branch in (first, second)]
            nulls = (f"({condition.text} ? {either[0]} : {either[1]})",)
        truth = first.truth and second.truth
        choice = replace(choice, nulls=nulls, truth=truth, choice=(condition.text, first, second))
        # The condition stands twice: in the value and in what asks whether it is null.
        steps = choice.steps + condition.steps
        return _costing(choice, size=max(first.size, second.size), item=choice.item, steps=steps)

    def _logic(self, sign: str = "||") -> Part:
        def inner() -> Part:
            return self._logic("&&") if sign == "||" else self._comparison()

        part = inner()
        while self._accept(sign):
            left, right = self.truth(part), self.truth(inner())
            part = replace(_joined(f"{left.text} {sign} {right.text}", left, right), truth=True)
        return part

    def _comparison(self) -> Part:
        left = self._sum("+", "-")
        while operator := self._accept(*_COMPARISONS):
            right = self._sum("+", "-")
            self.comparisons.append((left, operator, right))
            whole = _compared(left, operator, right)
            left = replace(whole.guarded("true" if operator == "!=" else "false"), truth=True)
        return left

    def _sum(self, *signs: str) -> Part:
        def inner() -> Part:
            return self._sum("*", "/", "%") if signs[0] == "+" else self._signed()

        part = inner()
        while sign := self._accept(*signs):
            right = inner()
            part = _joined(f"{part.text} {sign} {right.text}", part, right)
        return part

    def _signed(self) -> Part:
        if self._accept("!"):
            part = self.truth(self._signed())
            return replace(part, text=f"!{part.text}")
        if self._accept("-"):
            part = self._signed()
            return _joined(f"-{part.text}", part)
        return self._member()

    def _member(self) -> Part:
        part = self._primary()
        while sign := self._accept(".", "["):
            if sign == "[":
                index = self._choice()
                self._expect("]")
                part = replace(_element(f"{part.text}[{index.text}]", part, index), size=part.item)
                continue
            name = self._take()[1]
            if self._accept("("):
                part = (
                    self._macro(part, name)
                    if name in OVER_LISTS
                    else self._call(f"{part.text}.{name}", name, part)
                )
            elif part.name is not None:
                raise RuleError(
                    f"reads {part.text}.{name}, but {part.text} is {KINDS[part.name.kind]} without parts"
                )
            else:
                part = _element(f"{part.text}.{name}", part)
        return part

    def _primary(self) -> Part:
        kind, text = self._take()
        if kind in ("string", "number") or text in ("true", "false"):
            token = kind == "string" and tokens.is_token(text[1:-1])
            return Part(text, truth=kind == "name", tokens=frozenset({""}) if token else _PLAIN)
        if text == "(":
            part = self._choice()
            self._expect(")")
            return replace(part, text=f"({part.text})")
        if text in ("[", "{"):
            return self._literal(text)
        if text == "null":
            raise RuleError(
                "compares with null, which is never true; write has(…) or !has(…) of the name instead"
            )
        if kind != "name":
            raise RuleError(f"has something that rules can't use at {text!r}")
        if (over := self._scope[-1].get(text)) is not None:
            # What a list around this one gives comes first: the lists can be evaluated in this order.
            bound = {**over.bound, text: over}
            part = Part(text, (f"{text} == null",), over.paths, bound, tokens=over.tokens)
            return replace(part, size=over.item, item=over.item)
        if text in self._readable:
            return self._path(text)
        if self._accept("("):
            return self._call(text, text)
        if text in TYPE_NAMES:
            return Part(text)
        raise RuleError(f"reads {text}; it may read {' and '.join(sorted(self._readable))} only")

    def _path(self, root: str) -> Part:
        path: Path = (root,)
        level, text = self._readable[root], root
        while not isinstance(level, Name):
            key, written = self._key()
            if key is None:
                raise RuleError(f"reads {text} as a whole; name one of its values: {first_dozen(level)}")
            if key not in level:
                raise RuleError(unknown_name(".".join(path), key, level))
            path, text, level = (*path, key), text + written, level[key]
        nulls = (f"{text} == null",) if level.nullable else ()
        return Part(text, nulls, frozenset({path}), name=level, tokens=frozenset({level.token_of}))

    def _key(self) -> tuple[str | None, str]:
        """The next name below ``event`` or ``features``, as ``.name`` or ``["name"]``, and how it is written."""
        if self._peek() == "." and self._peek(2) != "(":
            self._take()
            key = self._take()[1]
            return key, f".{key}"
        if self._peek() == "[" and self._peek(2) == "]":
            literal = _PLAIN_STRING.fullmatch(self._tokens[self._at + 1][1])
            if literal is not None:
                self._at += 3
                return literal[2], f"[{literal[0]}]"
        return None, ""

    def _call(self, text: str, name: str, *receiver: Part) -> Part:
        if name not in FUNCTIONS:
            raise RuleError(unknown_function(name))
        arguments = self._list(")")
        if name == "has" and not receiver and len(arguments) == 1 and arguments[0].name is not None:
            # Every declared name is in the event, so has() asks for a value.
            return Part(f"({arguments[0].text} != null)", paths=arguments[0].paths, truth=True)
        part = _joined(f"{text}({', '.join(a.text for a in arguments)})", *receiver, *arguments)
        if name != "matches":
            return part
        plain = not arguments[-1].paths and not arguments[-1].bound if arguments else False
        steps = part.steps + rule_costs.matching(arguments[-1].text if plain else None)
        return _costing(part, size=1, item=1, steps=steps)

    def _macro(self, over: Part, name: str) -> Part:
        kind, variable = self._take()
        # A list around it that depends on an outer variable of this name couldn't be evaluated any more.
        lists = (over, *self._scope[-1].values())
        taken = variable in self._readable or any(variable in one.bound for one in lists)
        if kind != "name" or taken or self._accept(",") is None:
            raise RuleError(f"calls {name}; write it as list.{name}(x, …), with a name of its own")
        self._scope.append(self._scope[-1] | {variable: over})
        bodies = self._list(")")
        self._scope.pop()
        texts = [
            _embedded(body) if name == "map" and i == len(bodies) - 1 else self.truth(body).text
            for i, body in enumerate(bodies)
        ]
        macro = _joined(f"{over.text}.{name}({variable}, {', '.join(texts)})", over, *bodies)
        outer = {name: one for name, one in macro.bound.items() if name != variable}
        before = over.unfiltered or over.text
        unfiltered = {"filter": before, "map": f"{before}.map({variable}, {texts[-1]})"}.get(name, "")
        macro = replace(macro, nulls=over.nulls, bound=outer, unfiltered=unfiltered)
        size, item = {
            "map": (over.size * bodies[-1].size if bodies else 1, bodies[-1].size if bodies else 1),
            "filter": (over.size, over.item),
        }.get(name, (1, 1))
        steps = over.steps + rule_costs.macro(over.size, texts, sum(body.steps for body in bodies))
        return _costing(macro, size=size, item=item, steps=steps)

    def _list(self, end: str) -> list[Part]:
        parts: list[Part] = []
        while self._accept(end) is None:
            parts.append(self._choice())
            if self._peek() != end:
                self._expect(",")
        return parts

    def _literal(self, start: str) -> Part:
        """A list or a map. Nulls in it are elements like others: no comparison with them is true."""
        parts: list[Part] = []
        texts: list[str] = []
        end = "]" if start == "[" else "}"
        while self._accept(end) is None:
            parts.append(self._choice())
            texts.append(_embedded(parts[-1]))
            if start == "{":
                self._expect(":")
                parts.append(self._choice())
                texts[-1] += f": {_embedded(parts[-1])}"
            if self._peek() != end:
                self._expect(",")
        item = max((part.size for part in parts), default=1)
        holds = frozenset().union(*(part.tokens for part in parts)) if start == "[" else _PLAIN
        join = _combined if start == "[" else _joined
        return replace(join(f"{start}{', '.join(texts)}{end}", *parts), nulls=(), item=item, tokens=holds)


def _embedded(part: Part) -> str:
    """The part's text where a null is allowed as a value."""
    return part.text if part.name is not None or part.text in part.bound else part.guarded("null").text
