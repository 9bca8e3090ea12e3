"""What follows from the table of who reaches whom is in the chart and in the page."""

from __future__ import annotations

import pytest
import yaml

from fraud_contracts.detector import Component
from fraud_operator.desired.reach import WAYS, Outside, Part, ways_from, ways_to
from fraud_operator.reach_files import BEGIN, CHART, END, PAGE, chart_ways, page


def test_the_charts_ways_are_generated() -> None:
    """The chart holds exactly what the table gives; `make rbac` writes it anew."""
    assert CHART.read_text() == chart_ways()
    assert set(yaml.safe_load(chart_ways())) == {part.value for part in Part}


def test_the_page_has_the_table() -> None:
    """docs/security.md holds exactly what the table gives; `make rbac` writes it anew."""
    assert PAGE.read_text() == page(PAGE.read_text())


def test_a_page_without_its_marks_is_refused() -> None:
    """The message names what lacks."""
    with pytest.raises(ValueError, match="Until here"):
        page(f"{BEGIN}without an end")
    with pytest.raises(ValueError, match="From fraud_operator"):
        page(f"without a beginning\n{END}")


def test_everybody_has_a_line() -> None:
    """Each component and each of the platform's Pods connects to something or is connected to, and so does what is outside."""
    idle = [party for party in (*Component, *Part, *Outside) if not ways_to(party) and not ways_from(party)]
    assert idle == []
    assert len({(way.target, way.port, way.sources) for way in WAYS}) == len(WAYS)
