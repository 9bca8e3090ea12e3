"""Writes the chart's README from the comments of its values: ``python -m fraud_local.chart_readme``.

A value's comment is the block of lines above it. Each value needs one, or belongs to a group of values that is shown as one row
because none of them has one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from fraud_local.shell import LocalError
from fraud_local.version import CHART

README = CHART / "README.md"


class UndescribedError(LocalError):
    """A value that nothing is said of: ``key`` is its path with dots."""

    def __init__(self, key: str) -> None:
        super().__init__(f"values.yaml: {key} has no comment above it")
        self.key = key


def _comment(lines: list[str], line: int) -> str:
    """The block of comment lines that ends above a line, as one paragraph."""
    block: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        block.insert(0, lines[line].lstrip(" #"))
    # What a page would take for a tag.
    return " ".join(block).replace("<", "&lt;")


def _default(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value)
    return f"`{text}`"


def _rows(node: yaml.MappingNode, lines: list[str], above: str) -> Iterator[tuple[str, str, str]]:
    """(path, default, what it is) of each value below a key; UndescribedError where there is nothing to say."""
    for key, value in node.value:
        path, comment = f"{above}.{key.value}", _comment(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and any(
            _comment(lines, inner.start_mark.line) for inner, _ in value.value if not value.flow_style
        ):
            yield from _rows(value, lines, path)
        elif comment:
            yield path, _default(_plain(value)), comment
        else:
            raise UndescribedError(path)


def _plain(node: yaml.Node) -> Any:
    """A node as plain data."""
    return yaml.safe_load(yaml.serialize(node, Dumper=yaml.SafeDumper))


def readme(values: str, chart: dict[str, Any]) -> str:
    """The page, from the text of values.yaml and Chart.yaml's data."""
    lines = values.splitlines()
    root = yaml.compose(values, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    out = [
        "<!-- Generated: change values.yaml, then run make reference. -->",
        f"# {chart['name']}",
        "",
        chart["description"],
        "",
        f"Needs Kubernetes {chart['kubeVersion'].removesuffix('-0')} and helm 3.14 or newer, and the operators of Strimzi, Flink, KubeRay and "
        "KServe. `upstream-images.yaml` names the trial stores' images for every cluster but the native node. Upgrading, uninstalling "
        "and what stays: docs/install.md of the repository.",
        "",
        "# Values",
    ]
    for key, value in root.value:
        comment = _comment(lines, key.start_mark.line)
        if not comment:
            raise UndescribedError(key.value)
        out += ["", f"## {key.value}", "", comment, "", "| value | default | what it is |", "|---|---|---|"]
        out += [
            "| " + " | ".join(cell.replace("|", r"\|") for cell in (f"`{path}`", default, what)) + " |"
            for path, default, what in _rows(value, lines, key.value)
        ]
    return "\n".join(out) + "\n"


def current() -> str:
    """The page as the chart's files say it today."""
    return readme((CHART / "values.yaml").read_text(), yaml.safe_load((CHART / "Chart.yaml").read_text()))


if __name__ == "__main__":
    README.write_text(current())
    sys.stdout.write(f"{README}\n")
