"""Features of history: the stream's stages, run over events and labels in time order with decoded states in memory.

A label that became known at ``t`` is applied before an event at ``t``, as in the stream. The last states are the seeds that
a stream starts from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fraud_contracts.names import profile_key
from fraud_pipelines.features import FeatureSet, KeyState
from fraud_pipelines.features.plan import Event, Value, hash64


class Replay:
    """Iterate it once for (event, vector); afterwards ``profiles`` gives each key's last state.

    A repeated event comes with a vector too and changes nothing, as in the stream; ``repeats`` counts them.
    """

    def __init__(
        self, features: FeatureSet, events: Iterable[Event], labels: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        self.features = features
        self.repeats = 0
        self._events, self._labels = events, labels
        self._keys: list[dict[str, KeyState]] = [{} for _ in features.stages]

    def __iter__(self) -> Iterator[tuple[Event, list[float]]]:
        labels = iter(self._labels)
        label = next(labels, None)
        stages = list(zip(self.features.stages, self._keys, strict=True))
        assemble, nulls = self.features.assemble, [stage.nulls for stage in self.features.stages]
        for event in self._events:
            while label is not None and label["known"] <= event["time"]:
                self.label(label)
                label = next(labels, None)
            tokens, key = event["entities"], hash64(event["id"])
            values: list[Sequence[Value]] = [*nulls]
            repeat = False
            for i, (stage, states) in enumerate(stages):
                token = tokens.get(stage.entity)
                if token is None:
                    continue
                state = states.get(token)
                if state is None:
                    state = states[token] = stage.open(None)
                if repeat:
                    values[i] = state.peek(event)
                    continue
                new_values = state.observe(event, key)
                if new_values is None:
                    new_values = state.read(event)
                    repeat = i == 0
                    self.repeats += repeat
                values[i] = new_values
            yield event, assemble(event, *values)
        while label is not None:
            self.label(label)
            label = next(labels, None)

    def label(self, label: Mapping[str, Any]) -> None:
        """Takes a label into the states of its transaction's entities."""
        for stage, states in zip(self.features.stages, self._keys, strict=True):
            token = label["entities"].get(stage.entity)
            if token is None or stage.fraud is None:
                continue
            state = states.get(token)
            if state is None:
                state = states[token] = stage.open(None)
            state.label(label)

    def profiles(self, epoch: int) -> Iterator[tuple[str, bytes]]:
        """(profile key, profile) of every key, under ``epoch``: the seeds."""
        for stage, states in zip(self.features.stages, self._keys, strict=True):
            for token, state in states.items():
                state.epoch = epoch
                yield profile_key(self.features.hash6, stage.entity, token), state.dump()


def replay(features: FeatureSet, events: Iterable[Event], labels: Iterable[Mapping[str, Any]] = ()) -> Replay:
    """``events`` by time (late ones may come late), ``labels`` by ``known``."""
    return Replay(features, events, labels)
