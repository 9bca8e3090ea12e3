"""Writes ``docs/reference`` from the types: ``python -m fraud_contracts.reference FOLDER``.

One page each for the resource's fields, the records on topics, the metrics, the codes of errors and degraded answers,
the conditions, and the kinds of features.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NotRequired, get_args, get_origin, get_type_hints

from fraud_contracts import metrics, names, records, reference_text
from fraud_contracts.crd import custom_resource_definition
from fraud_contracts.errors import Degraded, Reason
from fraud_contracts.feature_kinds import Aggregate, Transform

_HEAD: Final = "<!-- Generated: change the types that it is made from, then run make reference. -->\n"
# What lies on each topic; a profile is bytes, and a transaction is written as the detector's spec says.
RECORDS: Final[dict[str, type | None]] = {
    "transactions": None,
    "accepted": records.Accepted,
    "label-reports": records.LabelReport,
    "labels": records.Label,
    "seeds": None,
    "features": records.FeatureRecord,
    "profiles": None,
    "dead-letters": records.DeadLetter,
    "decisions": records.Decision,
    "alerts": records.Decision,
}
_PARTS: Final = (records.Event, records.Source, records.DecisionReason)


def pages() -> dict[str, str]:
    """Each page's text by its file name; KeyError where a field or code has no sentence."""
    return {
        "fields.md": _fields(),
        "records.md": _records(),
        "metrics.md": _metrics(),
        "errors.md": _errors(),
        "conditions.md": _conditions(),
        "features.md": _features(),
    }


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(head)
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(value: object) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(_code(value) for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if schema["type"] == "array":
        return f"list of {schema['items']['type']}"
    if "additionalProperties" in schema:
        return "map"
    return str(schema["type"])


def _bounds(schema: Mapping[str, Any]) -> str:
    """What limits a value: of a list with plain items also their bounds."""
    parts = []
    for low, high, what in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
    ):
        if low in schema and high in schema:
            parts.append(f"{schema[low]} to {schema[high]}{what}")
        elif low in schema:
            parts.append(f"at least {schema[low]}{what}")
        elif high in schema:
            parts.append(f"at most {schema[high]}{what}")
    parts += [f"`{schema['pattern']}`"] if "pattern" in schema else []
    items = schema.get("items", {})
    if items and "properties" not in items and (each := _bounds(items)):
        parts.append(f"each {each}")
    return "; ".join(parts)


def _rows(path: str, schema: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    required = schema.get("required", ())
    for name, child in schema.get("properties", {}).items():
        default = ""
        if name in required:
            default = "required"
        elif "default" in child and not isinstance(child["default"], dict | list):
            default = _code(child["default"])
        elif child.get("default") and isinstance(child["default"], list):
            default = _code(", ".join(str(e["name"] if isinstance(e, dict) else e) for e in child["default"]))
        here = f"{path}.{name}"
        yield _code(here), _type(child), default, _bounds(child), child["description"].replace("\n", " ")
        yield from _rows(here, child)
        yield from _rows(f"{here}[]", child.get("items", {}))


def _rules(path: str, schema: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The rules across fields; a single field's rule repeats its pattern and says how to write it."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield _code(path), rule["message"]
    for name, child in schema.get("properties", {}).items():
        yield from _rules(f"{path}.{name}", child)
        yield from _rules(f"{path}.{name}[]", child.get("items", {}))


def _fields() -> str:
    definition = custom_resource_definition()["spec"]
    schema = definition["versions"][0]["schema"]["openAPIV3Schema"]
    head = ("field", "type", "default", "bounds", "what")
    spec, status = schema["properties"]["spec"], schema["properties"]["status"]
    rules = [*_rules("metadata.name", {**schema, "properties": {}}), *_rules("spec", spec)]
    return (
        f"{_HEAD}# The fields of a {names.KIND}\n\n`apiVersion: {names.GROUP}/{names.VERSION}`, `kind: {names.KIND}`. "
        f"`kubectl explain fd.spec` shows the same sentences.\n\n## spec\n\n{_table(head, _rows('spec', spec))}\n"
        f"## What kubectl apply refuses\n\n{_table(('where', 'remedy'), rules)}\n"
        f"## status\n\n{_table(('field', 'type', 'what'), ((r[0], r[1], r[4]) for r in _rows('status', status)))}"
    )


def _hint(hint: Any) -> str:
    """A type as one reads it in JSON."""
    plain = {int: "integer", float: "number", str: "text", bool: "boolean", type(None): "null", Any: "any"}
    if hint == records.Saw:
        return "object of lists"
    if hint in plain:
        return plain[hint]
    if get_origin(hint) is NotRequired:
        return f"{_hint(get_args(hint)[0])}, may be absent"
    if get_origin(hint) is list:
        each = _hint(get_args(hint)[0])
        return f"list of ({each})" if " or " in each else f"list of {each}"
    if get_origin(hint) is dict:
        each = _hint(get_args(hint)[1])
        return f"object of ({each})" if " or " in each else f"object of {each}"
    if isinstance(hint, type):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return " or ".join(_hint(part) if not isinstance(part, str) else _code(part) for part in get_args(hint))


def _record(record: type) -> str:
    sentences = reference_text.FIELDS[record.__name__]
    hints = get_type_hints(record, include_extras=True)
    rows = ((_code(name), _hint(hint), sentences[name]) for name, hint in hints.items())
    return f"## {record.__name__}\n\n{_table(('field', 'type', 'what'), rows)}"


def _records() -> str:
    topics = (
        (
            _code(names.Identity("<namespace>", "<name>").topic(noun)),
            "" if (kind := RECORDS[noun]) is None else f"[{kind.__name__}](#{kind.__name__.lower()})",
            reference_text.TOPICS[noun],
        )
        for noun in names.TOPICS
    )
    kinds = [*_PARTS, *dict.fromkeys(kind for kind in RECORDS.values() if kind is not None)]
    return (
        f"{_HEAD}# The records on the topics\n\nRecords are JSON objects. Times are UTC milliseconds, amounts integer minor units.\n\n"
        f"{_table(('topic', 'record', 'what'), topics)}\n" + "\n".join(map(_record, kinds))
    )


def _metrics() -> str:
    rows = (
        (_code(metric.name), metric.kind, ", ".join(map(_code, metric.labels)), metric.help)
        for metric in metrics.ALL
    )
    return f"{_HEAD}# Metrics\n\n{_table(('name', 'kind', 'labels', 'what'), rows)}"


def _errors() -> str:
    letters = {str(reason) for reason in Reason}
    errors = (
        (_code(code), api, "yes" if code in letters else "", console, text)
        for code, (api, console, text) in reference_text.ERRORS.items()
    )
    marks = ((_code(mark), reference_text.DEGRADED[mark]) for mark in Degraded)
    return (
        f"{_HEAD}# Codes\n\n## Errors\n\nAn error's body is "
        '`{"error": {"code": …, "message": …, "field": …}}`; the console leaves `field` out.\n\n'
        f"{_table(('code', 'decision service', 'dead letter', 'console', 'what'), errors)}\n"
        f"## What a decision did without\n\n{_table(('`degraded`', 'what'), marks)}"
    )


def _conditions() -> str:
    conditions = ((_code(name), text) for name, text in reference_text.CONDITIONS.items())
    reasons = ((_code(name), text) for name, text in reference_text.REASONS.items())
    return (
        f"{_HEAD}# Conditions of a {names.KIND}\n\nEach stands in `status.conditions` with a reason and a message.\n\n"
        f"{_table(('condition', 'True when'), conditions)}\n## Reasons\n\nBeside `Not` with the name of a condition, as in "
        f"`NotKafkaReady`, which is a reason of `Ready`:\n\n{_table(('reason', 'what'), reasons)}"
    )


def _features() -> str:
    aggregates = []
    for aggregate in Aggregate:
        entry = aggregate.entry
        needs = ["`entity`", *(["`window`"] if entry.needs_window else [])]
        needs += [f"`of`: {entry.of.value}"] if entry.of else []
        needs += ["`labelDelay` on the entity, no `where`"] if entry.needs_labels else []
        row = (_code(aggregate), entry.sentence, ", ".join(needs), entry.state, entry.value, entry.null)
        aggregates.append(row)
    transforms = []
    for transform in Transform:
        args = "`args`: two, each `amount` or an earlier feature" if transform.entry.args else ""
        needs_where = "`where`" if transform.entry.needs_where else ""
        row_of = (transform.entry.sentence, args or needs_where, transform.entry.value, transform.entry.null)
        transforms.append((_code(transform), *row_of))
    return (
        f"{_HEAD}# The kinds of features\n\n## Aggregates\n\nOf one entity's events in the window `(t - window, t]`, the event "
        "itself included; with `where`, of those whose field has that value. Null (NaN) where the event has no such entity.\n\n"
        f"{_table(('aggregate', 'what', 'needs', 'kept of a key', 'value', 'null'), aggregates)}\n"
        "## Transforms\n\nOf the event and of features before it; they keep nothing.\n\n"
        f"{_table(('transform', 'what', 'needs', 'value', 'null'), transforms)}"
    )


def main() -> None:
    """Writes each page into the folder named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(re.sub(r" +\n", "\n", text))


if __name__ == "__main__":
    main()
