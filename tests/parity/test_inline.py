"""The story through the decision service's inline path: profiles that lag behind, and pending events that make up for it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from fraud_pipelines.features import FeatureSet, compile_detector
from fraud_serving.decision.inline_vector import compute_inline
from fraud_serving.decision.profile_reader import entity_keys
from fraud_testing import parity

pytestmark = pytest.mark.integration
LAG = 12


class Redis:
    """What the profile sink has written of a key, and the key's pending events since."""

    def __init__(self) -> None:
        self.profile: bytes | None = None
        self.pending: list[bytes] = []


def decided(
    features: FeatureSet, story: parity.Story, order: list[int] | None, entities: tuple[str, ...]
) -> Iterator[tuple[int, list[float], dict[str, str]]]:
    """(number, vector, digest of the set seen by entity) of each payment that is no repeat: a repeat is answered from
    its claim, without features."""
    schema, tokeniser = parity.intake()
    dice = random.Random(5)
    stream: dict[tuple[str, str], bytes] = {}
    redis: dict[tuple[str, str], Redis] = defaultdict(Redis)
    for item in story.items(order):
        if isinstance(item, dict):
            for entity, token in item["entities"].items():
                if entity in entities and token is not None:
                    key = (entity, token)
                    stream[key] = features.stage(entity).label(stream.get(key), item, 1)
                    # A label reaches the service in the profile alone.
                    redis[key].profile, redis[key].pending = stream[key], []
            continue
        if item.repeat:
            continue
        event, _ = schema.parse(parity.raw(item), tokeniser, parity.NOW)
        keys = [(e, (e, str(event["entities"][e]))) for e, _ in entity_keys(features, event) if e in entities]
        for _, key in keys:
            if len(redis[key].pending) > dice.randrange(LAG):
                redis[key].profile = stream.get(key)
                # The list is trimmed later than the profile is written, so it may hold what the profile has.
                redis[key].pending = redis[key].pending[-dice.randrange(1, 4) :]
        computed = compute_inline(
            features,
            event,
            {entity: redis[key].profile for entity, key in keys},
            {entity: redis[key].pending for entity, key in keys},
            True,
            1,
        )
        assert computed.vector is not None
        assert computed.degraded == []
        yield item.n, computed.vector, {entity: digest for entity, (_, _, digest) in computed.saw.items()}
        for entity, key in keys:
            _, stream[key], _ = features.stage(entity).observe(stream.get(key), event, 1)
            redis[key].pending.append(orjson.dumps(event))


def test_the_service_leaves_its_vectors() -> None:
    """One vector for each payment that is no repeat, made of a profile and the events that it lacks."""
    features, story = compile_detector(parity.config().spec), parity.tell()
    document: dict[str, Any] = {"saw": {}}
    passes = {"one": None, **parity.orders()}
    for name, order in passes.items():
        entities = (name,) if order else ("customer", "counterparty")
        mine = parity.columns(features, name) if order else None
        computed = list(decided(features, story, order, entities))
        document[name] = {n: parity.hexes(vector, mine) for n, vector, _ in computed}
        document["saw"][name] = {n: saw for n, _, saw in computed}
    parity.leave("inline", document)
