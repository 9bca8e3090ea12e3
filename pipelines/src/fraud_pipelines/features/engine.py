"""Compiles a feature set to its stages and the assembly of the vector. No clock, no I/O, no engine's import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.feature_set import hash6 as short_hash
from fraud_pipelines.features.emit import NAN, Derived, Read, assembler
from fraud_pipelines.features.grid import make_grid
from fraud_pipelines.features.plan import AMOUNT, PRESENT, VALUE, Column, CurvePlan, Event, FraudPlan
from fraud_pipelines.features.spec import FRAUD, FeatureSetSpec, FeatureSpec, check, from_detector
from fraud_pipelines.features.stage import Saw, Stage

T = TypeVar("T")


def compile_set(spec: FeatureSetSpec) -> FeatureSet:
    """The engine of a feature set; FeatureSpecError where it can't be computed."""
    check(spec)
    return FeatureSet(spec)


def compile_detector(spec: DetectorSpec) -> FeatureSet:
    """The engine of a detector's feature set; its hash is what contracts computes for the same spec."""
    return FeatureSet(from_detector(spec))


class FeatureSet:
    """Compiled; shared by all keys and threads, since it holds no state."""

    def __init__(self, spec: FeatureSetSpec) -> None:
        self.spec = spec
        self.names: tuple[str, ...] = tuple(feature.name for feature in spec.features)
        self.hash = spec.hash()
        self.hash6 = short_hash(self.hash)
        stages: list[Stage] = []
        at: dict[str, str] = {AMOUNT: "amount"}  # each feature's source in the assembling function
        for i, entity in enumerate(spec.entities):
            stage, found = _compile_stage(spec, entity.name, entity.label_delay_ms, self.hash[:8])
            at.update({name: f"s{i}[{index}]" for name, index in found.items()})
            stages.append(stage)
        derived: list[Derived] = []
        for feature in spec.features:
            if feature.transform is not None:
                args = tuple(at[arg] for arg in feature.args)
                at[feature.name] = f"x{len(derived)}"
                derived.append(Derived(feature.transform, args, feature.where))  # type: ignore[arg-type]  # checked
        self.stages: tuple[Stage, ...] = tuple(stages)
        self._stages = {stage.entity: stage for stage in stages}
        self._nulls = [(stage.entity, stage.nulls) for stage in stages]
        places = tuple(at[name] for name in self.names)
        # The vector from the event and each stage's values, none of them None.
        self.assemble = assembler(places, tuple(derived), len(stages))

    def stage(self, entity: str) -> Stage:
        return self._stages[entity]

    def vector(
        self, event: Event, values_by_entity: Mapping[str, Sequence[float | None] | None]
    ) -> list[float]:
        """The vector in the order of ``names``. An entity without values (absent, or its stage failed) gives NaN."""
        get = values_by_entity.get
        values = [nulls if (mine := get(entity)) is None else mine for entity, nulls in self._nulls]
        try:
            return self.assemble(event, *values)
        except TypeError:  # values that came through JSON, where NaN travels as null
            clean = ([NAN if value is None else value for value in mine] for mine in values)
            return self.assemble(event, *clean)

    def observe(
        self, states: Mapping[str, bytes | None], event: Event, epoch: int = 0
    ) -> tuple[list[float], dict[str, bytes], dict[str, Saw]]:
        """All stages at once: -> (vector, new states by entity, what each had seen before).

        A repeat, found by the first stage, gets a vector and changes nothing: the states are the given objects.
        """
        values: dict[str, Sequence[float] | None] = {}
        new: dict[str, bytes] = {}
        saw: dict[str, Saw] = {}
        repeat = False
        for i, stage in enumerate(self.stages):
            if event["entities"].get(stage.entity) is None:
                continue
            state = states.get(stage.entity)
            live = stage.open(state, epoch)
            saw[stage.entity] = live.saw
            made = live.observe(event)
            repeat = repeat or (i == 0 and made is None)
            values[stage.entity] = live.read(event) if made is None else made
            if made is not None and not repeat:
                new[stage.entity] = live.dump()
            elif state is not None:
                new[stage.entity] = state
        return self.vector(event, values), new, saw


def _compile_stage(
    spec: FeatureSetSpec, entity: str, delay: int | None, set_hash8: str
) -> tuple[Stage, dict[str, int]]:
    """The stage of an entity, and where its features lie in the values that it gives."""
    mine = [feature for feature in spec.features if feature.entity == entity]
    frauds = [feature for feature in mine if feature.aggregate in FRAUD]
    spans: list[tuple[int, int]] = []
    for feature in mine:
        window = feature.window_ms
        if window is None:
            continue
        if feature in frauds and delay is not None:
            spans += [(delay + window, window)] + ([(delay, window)] if delay else [])
        else:
            spans.append((window, window))
    grid = make_grid(spans, spec.k, spec.lateness_ms)
    filters: list[tuple[str, Any] | None] = [None]
    for feature in mine:
        if not any(_same(feature.where, known) for known in filters):
            filters.append(feature.where)
    plans: list[CurvePlan] = []
    at: dict[str, int] = {}
    offset = 0
    for where in filters:
        chosen = [f for f in mine if f not in frauds and _same(f.where, where)]
        plans.append(_compile_curve(where, chosen, grid.retain))
        at.update({feature.name: offset + i for i, feature in enumerate(chosen)})
        offset += len(chosen)
    fraud = None
    if frauds and delay is not None:
        windows = sorted({f.window_ms or 0 for f in frauds})
        fraud = FraudPlan(delay, tuple(windows))
        for f in frauds:
            at[f.name] = offset + 2 * windows.index(f.window_ms or 0) + (f.aggregate == "FraudRate")
    return Stage(entity, set_hash8, grid, tuple(plans), fraud), at


def _same(a: tuple[str, Any] | None, b: tuple[str, Any] | None) -> bool:
    """Equal filters; ``1 == True`` in Python, so the type counts too."""
    return a == b and (a is None or b is None or type(a[1]) is type(b[1]))


def _compile_curve(where: tuple[str, Any] | None, features: list[FeatureSpec], retain: int) -> CurvePlan:
    """The plan of one curve; its reads are the features, in order."""
    columns: list[Column] = []
    extremes: list[tuple[str, bool]] = []
    recents: list[str] = []
    reads: list[Read] = []
    for f in features:
        of, window = f.of or "", f.window_ms or retain
        if f.aggregate == "Count":
            reads.append(Read("count", window))
        elif f.aggregate == "Sum":
            reads.append(Read("sum", window, _index(columns, (of, VALUE))))
        elif f.aggregate == "Mean":
            per = None if of == AMOUNT else _index(columns, (of, PRESENT))
            reads.append(Read("mean", window, _index(columns, (of, VALUE)), per))
        elif f.aggregate == "Distinct":
            reads.append(Read("distinct", window, _index(recents, of)))
        elif f.aggregate == "SecondsSinceLast":
            reads.append(Read("since", window))
        else:
            reads.append(Read("extreme", window, _index(extremes, (of, f.aggregate == "Max"))))
    return CurvePlan(where, tuple(columns), tuple(extremes), tuple(recents), tuple(reads))


def _index(items: list[T], item: T) -> int:
    """Place of an item in a list of different ones, which it joins if it is new."""
    if item not in items:
        items.append(item)
    return items.index(item)
