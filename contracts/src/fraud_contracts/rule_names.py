"""What a policy rule may name: the values below ``event`` and ``features`` and CEL's functions; and the errors for other names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

_CALENDAR: Final = [
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
]
# Each with how it is called.
FUNCTIONS: Final[Mapping[str, str]] = {
    "has": "has(event.fields.category), of a name",
    "size": "size(x), of a string, bytes, a list or a map",
    **{name: f"'text'.{name}('x')" for name in ("contains", "startsWith", "endsWith", "matches")},
    **{name: f"{name}(x), of a number or a string" for name in ("int", "uint", "double", "string")},
    "bytes": "bytes('text')",
    "timestamp": "timestamp('2026-01-31T12:00:00Z'), of a string",
    "duration": "duration('1h'), of a string",
    "type": "type(x)",
    "dyn": "dyn(x)",
    **{
        name: f"timestamp('2026-01-31T12:00:00Z').{name}(), in UTC and without an argument"
        for name in _CALENDAR
    },
}
OVER_LISTS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})
TYPE_NAMES: Final = frozenset({"int", "uint", "double", "string", "bytes", "bool", "list", "map", "type"})
KINDS: Final[Mapping[type, str]] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    bytes: "bytes",
    datetime: "a timestamp",
    timedelta: "a duration",
    list: "a list",
    dict: "a map",
}


class RuleError(ValueError):
    """What is wrong with a rule, and the remedy; it reads on from the rule's name."""


@dataclass(frozen=True, slots=True)
class Name:
    """A value that a rule may read. What is sensitive is a string: a token of the raw field that ``token_of`` names."""

    kind: type
    nullable: bool = True
    token_of: str | None = None


Names = Mapping[str, "Names | Name"]


Path = tuple[str, ...]
"""As ``("event", "fields", "category")``: a field's name may hold a dot."""


def first_dozen(names: Iterable[str]) -> str:
    """The first twelve names in alphabetical order, for an error's text."""
    listed = sorted(names)
    return ", ".join(listed[:12]) + (", …" if len(listed) > 12 else "")


def unknown_name(path: str, key: str, level: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, level, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {first_dozen(level) or 'none'}."
    remedy = {
        "event": " Currency is there where spec.event.amount.currency is." if key == "currency" else "",
        "event.fields": " Else declare it in spec.event.fields",
        "event.entities": " Else declare it in spec.entities",
        "features": " Else add it to spec.features.extra",
    }
    return f"reads {path}.{key}, which isn't there; {hint}{remedy[path]}"


def unknown_function(name: str) -> str:
    functions = {*FUNCTIONS, *OVER_LISTS}
    close = difflib.get_close_matches(name, functions, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(sorted(functions))}"
    return f"calls {name}, which CEL hasn't; {hint}"
