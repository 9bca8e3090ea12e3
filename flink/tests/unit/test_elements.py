"""The forms of an element: as it travels, as it lies in a key's state, and as former versions wrote it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from fraud_flink.elements import Element, EventElement, LabelElement, SeedElement, unpack

EVENT: Any = {
    "id": "a",
    "time": 1,
    "amount": 5,
    "currency": None,
    "entities": {"customer": "t_1"},
    "fields": {},
}
LABEL: Any = {"id": "a", "time": 1, "entities": {"customer": "t_1"}, "fraud": True, "known": 2}
SOURCE: Any = {"topic": "t", "partition": 0, "offset": 1}
ELEMENT = EventElement(
    EVENT,
    "h",
    SOURCE,
    3,
    None,
    True,
    None,
    ["idempotency"],
    {"customer": (1, 2, "0" * 16)},
    {"customer": [1.0]},
)
NAMES = {
    "event": EVENT,
    "hash": "h",
    "source": SOURCE,
    "appended": 3,
    "decision": None,
    "repeat": True,
    "reason": None,
    "degraded": ["idempotency"],
    "saw": {"customer": (1, 2, "0" * 16)},
    "values": {"customer": [1.0]},
}


@pytest.mark.parametrize(
    "element", [ELEMENT, LabelElement("customer", LABEL), SeedElement("customer", "t_1", b"p")]
)
def test_an_element_comes_through_a_pickle_whole(element: Element) -> None:
    """What one step sends is what the next one gets, and the pickle names no class of ours."""
    data = pickle.dumps(element.packed())
    assert b"fraud_flink" not in data
    assert unpack(pickle.loads(data)) == element


@pytest.mark.parametrize(
    ("former", "element"),
    [
        ((0, None, NAMES), ELEMENT),
        ((1, "customer", LABEL), LabelElement("customer", LABEL)),
        ((2, "customer", ("t_1", b"p")), SeedElement("customer", "t_1", b"p")),
    ],
)
def test_what_a_former_version_left_is_read(former: tuple[Any, ...], element: Element) -> None:
    """Elements in the form that former versions wrote into state and checkpoints become the same elements."""
    assert unpack(former) == element


def test_an_event_of_a_version_without_marks_is_read() -> None:
    """Before there was a list of what an event went without, it went without nothing."""
    element = unpack((0, None, {name: value for name, value in NAMES.items() if name != "degraded"}))
    assert isinstance(element, EventElement)
    assert element.degraded == []


def test_the_form_in_state_stays() -> None:
    """A key's state holds what former versions wrote and read: the fields by their names."""
    assert ELEMENT.stored() == (0, None, NAMES)
    assert unpack(pickle.loads(pickle.dumps(ELEMENT.stored()))) == ELEMENT
