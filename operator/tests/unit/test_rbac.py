"""The operator's rights in the chart follow from the table of its children's kinds."""

from __future__ import annotations

from pathlib import Path

import yaml

from fraud_contracts.child_kinds import CHILD_KINDS
from fraud_operator.rbac import child_rules

RULES = Path(__file__).resolve().parents[3] / "charts/fraud-platform/files/child-rules.yaml"


def test_the_charts_rules_are_generated() -> None:
    """The chart holds exactly what the table gives; `make rbac` writes it anew."""
    assert RULES.read_text() == child_rules()


def test_every_kind_is_granted_once() -> None:
    """Each kind of child has one rule, and only what is listed may be listed and watched."""
    granted = [
        (group, resource, rule["verbs"])
        for rule in yaml.safe_load(child_rules())
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    ]
    assert sorted((group, resource) for group, resource, _ in granted) == sorted(
        (kind.group, kind.plural) for kind in CHILD_KINDS
    )
    unlisted = {kind.plural for kind in CHILD_KINDS if not kind.listed}
    assert {resource for _, resource, verbs in granted if "list" not in verbs} == unlisted == {"secrets"}
