"""docs/reference holds every field, record, metric and code, as the types say them today."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from fraud_contracts import names, records, reference, reference_text
from fraud_contracts.errors import Access, Degraded, Reason
from fraud_contracts.label_report import ReportCode
from fraud_testing import module_index

ROOT = Path(__file__).parents[2]
PAGES = reference.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_types_say(name: str) -> None:
    """A page differs from what the types say only until `make reference` is run."""
    assert (ROOT / "docs/reference" / name).read_text() == PAGES[name]


def test_the_index_of_modules_is_as_the_sources_say() -> None:
    """A module, a name or a purpose that changed is in the index, by `make reference`."""
    assert module_index.PAGE.read_text() == module_index.page()


def test_there_is_no_other_page() -> None:
    """A page that nothing generates any more would go stale in silence."""
    assert {path.name for path in (ROOT / "docs/reference").iterdir()} == set(PAGES)


def test_every_topic_is_described() -> None:
    """A topic has a sentence, and a record or none, and no sentence is of a topic that isn't there."""
    assert set(reference_text.TOPICS) == set(reference.RECORDS) == set(names.TOPICS)


@pytest.mark.parametrize("record", reference_text.FIELDS)
def test_every_field_of_a_record_is_described(record: str) -> None:
    """A record's fields and their sentences are the same set."""
    assert set(reference_text.FIELDS[record]) == set(get_type_hints(getattr(records, record)))


def test_every_mark_of_a_degraded_decision_is_described() -> None:
    """The marks and their sentences are the same set."""
    assert set(reference_text.DEGRADED) == {str(mark) for mark in Degraded}


def _answered(package: str) -> Iterator[tuple[str, str]]:
    """(code, status) of each call in a package that hands over an HTTP status and a code."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            for status, code in zip(node.args, node.args[1:], strict=False):
                if (
                    isinstance(status, ast.Constant)
                    and isinstance(status.value, int)
                    and 400 <= status.value < 600
                    and isinstance(code, ast.Constant)
                    and isinstance(code.value, str)
                    and " " not in code.value  # the predictor answers KServe's protocol, in words
                ):
                    yield code.value, str(status.value)


@pytest.mark.parametrize(("package", "column"), [("serving/src", 0), ("console/src", 1)])
def test_every_code_of_an_http_answer_is_described(package: str, column: int) -> None:
    """What a door or the console may answer stands in the table, with its status."""
    missing = {
        (code, status)
        for code, status in _answered(package)
        if status not in reference_text.ERRORS.get(code, ("", "", ""))[column]
    }
    assert missing == set()


def test_every_reason_of_a_refusal_is_described() -> None:
    """Each reason of a dead letter or of a refused label report is a code with a sentence."""
    assert {str(code) for code in (*Reason, *ReportCode)} <= set(reference_text.ERRORS)


def test_no_code_is_described_that_nobody_answers() -> None:
    """A code in the table stands in the source of the doors or the console, or is a reason or a store's outage."""
    source = "\n".join(
        path.read_text()
        for package in ("serving/src", "console/src")
        for path in (ROOT / package).rglob("*.py")
    )
    codes = {str(code) for code in (*Reason, *ReportCode, *Access)} | {
        "kafka_unavailable",
        "redis_unavailable",
    }
    assert {code for code in reference_text.ERRORS if f'"{code}"' not in source} <= codes


def rollout_phases() -> Iterator[str]:
    """The phases of a rollout, each a reason of RolloutHealthy."""
    tree = ast.parse((ROOT / "operator/src/fraud_operator/rollout_state.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == "RolloutPhase":
            for line in node.body:
                assert isinstance(line, ast.Assign)
                assert isinstance(line.value, ast.Constant)
                yield str(line.value.value)


def test_every_condition_and_its_reason_is_described() -> None:
    """What the operator says of a detector is in the table: a bool or None, then a reason, in a call or a tuple."""
    reasons = set()
    for path in (ROOT / "operator/src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            values = (
                node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
            )
            for status, reason in itertools.pairwise(values):
                if (
                    isinstance(status, ast.Constant)
                    and status.value in (True, False, None)
                    and isinstance(reason, ast.Constant)
                ):
                    reasons.add(reason.value)
    assert reasons
    reasons |= set(rollout_phases())
    assert {r for r in reasons if isinstance(r, str) and r.isalpha() and r[0].isupper()} <= set(
        reference_text.REASONS
    )


def test_no_condition_is_described_that_nobody_sets() -> None:
    """Conditions and reasons of the tables stand in the operator's source."""
    source = "\n".join(path.read_text() for path in (ROOT / "operator/src").rglob("*.py"))
    described = {*reference_text.CONDITIONS, *reference_text.REASONS}
    assert {name for name in described if f'"{name}"' not in source} == set()
