"""The story through plain replay, in the order of its file and in the orders in which the stream's stages took it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from fraud_pipelines.features import FeatureSet, compile_detector
from fraud_pipelines.replay import Replay
from fraud_testing import parity

pytestmark = pytest.mark.integration
Items = Iterable[parity.Payment | dict[str, Any]]


def replayed(features: FeatureSet, items: Items) -> Iterator[tuple[int, list[float]]]:
    """(number, vector) of each payment; a label is taken where it stands, not by its date."""
    schema, tokeniser = parity.intake()
    numbers: list[int] = []

    def events() -> Iterator[Any]:
        for item in items:
            if isinstance(item, dict):
                run.label(item)
            else:
                numbers.append(item.n)
                yield schema.parse(parity.raw(item), tokeniser, parity.NOW)[0]

    run = Replay(features, events())
    for _, vector in run:
        yield numbers[-1], vector


def test_plain_replay_leaves_its_vectors() -> None:
    """One vector for each payment, and in a stage's order the columns that the stage makes."""
    features, story = compile_detector(parity.config().spec), parity.tell()
    one = {n: parity.hexes(vector) for n, vector in replayed(features, story.items())}
    assert len(one) == len(story.payments)
    document: dict[str, Any] = {"one": one}
    for entity, order in parity.orders().items():
        mine = parity.columns(features, entity)
        document[entity] = {n: parity.hexes(v, mine) for n, v in replayed(features, story.items(order))}
    parity.leave("replay", document)
