"""Writes the operator's rights to its children for the chart, from the table of their kinds.

python -m fraud_operator.rbac > charts/fraud-platform/files/child-rules.yaml      (make rbac)
"""

from __future__ import annotations

import json
import sys
from typing import Final

from fraud_contracts.child_kinds import CHILD_KINDS

_LISTED: Final = ("get", "list", "watch", "create", "patch", "delete")
_BY_NAME: Final = ("get", "create", "patch", "delete")


def child_rules() -> str:
    """One rule of a ClusterRole for each API group; what may be had by name only has a rule of its own."""
    resources: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for kind in CHILD_KINDS:
        resources.setdefault((kind.group, _LISTED if kind.listed else _BY_NAME), []).append(kind.plural)
    lines = ["# Generated from fraud_contracts.child_kinds; change that file and run: make rbac"]
    for (group, verbs), plurals in resources.items():
        lines += [
            f"- apiGroups: [{json.dumps(group)}]",
            f"  resources: [{', '.join(plurals)}]",
            f"  verbs: [{', '.join(verbs)}]",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(child_rules())
