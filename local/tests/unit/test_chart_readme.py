"""The chart's README says every value, as values.yaml says it today."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from fraud_local.chart_readme import CHART, README, UndescribedError, current, readme

META = {"name": "c", "description": "d", "kubeVersion": ">=1.30.0-0"}
VALUES = """\
# Of all.
one:
  # What it is,
  # in two lines.
  text: a|b
  # A group.
  group:
    x: 1
    y: {z: true}
  deeper:
    # Inside.
    inner: null
"""


def test_the_page_is_as_the_values_say() -> None:
    """The README differs from values.yaml only until `make reference` is run."""
    assert README.read_text() == current()


def test_a_value_is_shown_with_its_default_and_its_comment() -> None:
    """A group whose values have no comments is one row; a deeper value has its whole path."""
    rows = [line for line in readme(VALUES, META).splitlines() if line.startswith("| `")]
    assert rows == [
        r"| `one.text` | `a\|b` | What it is, in two lines. |",
        '| `one.group` | `{"x": 1, "y": {"z": true}}` | A group. |',
        "| `one.deeper.inner` | `null` | Inside. |",
    ]


def test_a_value_without_comment_is_refused() -> None:
    """Nothing is published that nobody has described."""
    with pytest.raises(UndescribedError, match="other has no comment"):
        readme(VALUES + "\n  other: 1\n", META)


def keys(values: Any, above: str = "") -> set[str]:
    if not isinstance(values, dict) or not values:
        return {above}
    return {path for key, value in values.items() for path in keys(value, f"{above}.{key}".lstrip("."))}


def allowed(schema: dict[str, Any], definitions: dict[str, Any], above: str = "") -> set[str]:
    """Paths that the schema names; below a free map or list, that of the map or list."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "properties" not in schema:
        return {above}
    return {
        path
        for key, inner in schema["properties"].items()
        for path in allowed(inner, definitions, f"{above}.{key}".lstrip("."))
    }


def test_the_schema_knows_every_value_and_no_other() -> None:
    """values.yaml and values.schema.json name the same values, so a mistyped one is refused by helm."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    named = allowed(schema, schema["definitions"]) - {"global"}
    free = {path for path in keys(values) if not any(path == n or path.startswith(f"{n}.") for n in named)}
    assert free == set()
    assert {n for n in named if not any(k == n or k.startswith(f"{n}.") for k in keys(values))} == set()
