"""Writes what follows from the table of who reaches whom: the chart's part of it, and the table in docs/security.md.

python -m fraud_operator.reach_files      (make rbac)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fraud_contracts.detector import Component
from fraud_contracts.marked_page import with_part
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.reach import WAYS, Outside, Part, Party, Way, title, ways_from, ways_to

ROOT: Final = Path(__file__).resolve().parents[3]
CHART: Final = ROOT / "charts/fraud-platform/files/ways.yaml"
PAGE: Final = ROOT / "docs/security.md"
BEGIN: Final = "<!-- From fraud_operator.desired.reach, by make rbac. -->\n"
END: Final = "<!-- Until here. -->\n"
_OWN: Final = {Outside.KAFKA: "its own", Outside.API_SERVER: "443, 6443"}


def chart_ways() -> str:
    """Of each of the platform's Pods who connects to it and whom it connects to; a port of 0 is one that the chart knows better."""
    lines = ["# Generated from fraud_operator.desired.reach; change that file and run: make rbac"]
    for part in Part:
        lines.append(f"{part.value}:")
        ingress = [_entry(way.port, way.sources) for way in ways_to(part)]
        egress = [_entry(way.port, (way.target,)) for way in ways_from(part)]
        for direction, entries in (("ingress", ingress), ("egress", egress)):
            lines.append(f"  {direction}:{'' if entries else ' []'}")
            lines += [f"  - {json.dumps(entry)}" for entry in entries]
    return "\n".join(lines) + "\n"


def _entry(port: int | None, parties: Sequence[Party]) -> dict[str, object]:
    return {
        "port": port or 0,
        "components": [COMPONENTS[one].label for one in parties if isinstance(one, Component)],
        "parts": [one.value for one in parties if isinstance(one, Part)],
        "outside": [one.name for one in parties if isinstance(one, Outside)],
    }


def page_table() -> str:
    """One row for each target and port."""
    rows = ["| to | port | from | for |", "|---|---|---|---|"]
    rows += [f"| {title(way.target)} | {_port(way)} | {_sources(way)} | {way.why} |" for way in WAYS]
    return "\n".join(rows) + "\n"


def _port(way: Way) -> str:
    if isinstance(way.target, Outside) and way.target in _OWN:
        return _OWN[way.target]
    return "any" if way.port is None else str(way.port)


def _sources(way: Way) -> str:
    if set(Component) <= set(way.sources):
        others = [title(one) for one in way.sources if not isinstance(one, Component)]
        return ", ".join(["every component", *others])
    return ", ".join(title(one) for one in way.sources)


def page(text: str) -> str:
    """The page with the table between its two marks."""
    return with_part(text, BEGIN, page_table(), END)


if __name__ == "__main__":
    CHART.write_text(chart_ways())
    PAGE.write_text(page(PAGE.read_text()))
