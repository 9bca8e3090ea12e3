"""Compiles a feature set to its stages and the assembly of the vector. No clock, no I/O, no engine's import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.feature_set import check
from fraud_contracts.feature_set import hash6 as short_hash
from fraud_pipelines.features.aggregates import OVER_LABELS, expression
from fraud_pipelines.features.curve_code import CurveCode
from fraud_pipelines.features.grid import make_grid
from fraud_pipelines.features.plan import AMOUNT, NAN, CurvePlan, Event, FraudPlan, Where
from fraud_pipelines.features.spec import EVENT_AMOUNT, FeatureSetSpec, from_detector
from fraud_pipelines.features.stage import SawEntry, Stage
from fraud_pipelines.features.transforms import Transformed, assembler


def compile_detector(spec: DetectorSpec) -> FeatureSet:
    """The engine of a detector's feature set; its hash is what contracts computes for the same spec.

    SpecError, the first that ``feature_set.check`` finds, where it can't be computed.
    """
    for error in check(spec):
        raise error
    return FeatureSet(from_detector(spec))


class FeatureSet:
    """A feature set, compiled; shared by all keys and threads, since it holds no state. It trusts its spec to be checked."""

    def __init__(self, spec: FeatureSetSpec) -> None:
        self.spec = spec
        self.names: tuple[str, ...] = tuple(feature.name for feature in spec.features)
        self.hash = spec.hash()
        self.hash6 = short_hash(self.hash)
        stages: list[Stage] = []
        at: dict[str, str] = {AMOUNT: "amount"}  # each feature's source in the assembling function
        for i, entity in enumerate(spec.entities):
            stage, places = _compile_stage(spec, entity.name, entity.label_delay_ms, self.hash[:8])
            at.update({name: f"s{i}[{place}]" for name, place in places.items()})
            stages.append(stage)
        transformed: list[Transformed] = []
        for feature in spec.features:
            if feature.transform is not None and feature.transform != EVENT_AMOUNT:
                args = tuple(at[arg] for arg in feature.args)
                at[feature.name] = f"x{len(transformed)}"
                transformed.append(Transformed(feature.transform, args, feature.where))
        self.stages: tuple[Stage, ...] = tuple(stages)
        self._stages = {stage.entity: stage for stage in stages}
        self._nulls = [(stage.entity, stage.nulls) for stage in stages]
        # The vector from the event and each stage's values, none of them None.
        self.assemble = assembler([at[name] for name in self.names], transformed, len(stages))

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
    ) -> tuple[list[float], dict[str, bytes], dict[str, SawEntry]]:
        """Applies an event to all stages: -> (vector, new states by entity, per entity what its stage had seen before).

        The first stage tells whether the id is repeated. A repeat gets a vector and changes nothing: the states that come
        back are the objects that came in.
        """
        values: dict[str, Sequence[float] | None] = {}
        new: dict[str, bytes] = {}
        saw: dict[str, SawEntry] = {}
        repeat = False
        for i, stage in enumerate(self.stages):
            if event["entities"].get(stage.entity) is None:
                continue
            state = states.get(stage.entity)
            key = stage.open(state, epoch)
            saw[stage.entity] = key.saw
            new_values = key.observe(event)
            repeat = repeat or (i == 0 and new_values is None)
            values[stage.entity] = key.read(event) if new_values is None else new_values
            if new_values is not None and not repeat:
                new[stage.entity] = key.dump()
            elif state is not None:
                new[stage.entity] = state
        return self.vector(event, values), new, saw


def _compile_stage(
    spec: FeatureSetSpec, entity: str, delay: int | None, set_hash8: str
) -> tuple[Stage, dict[str, int]]:
    """The stage of an entity, and where its features lie in the values that it gives."""
    mine = [feature for feature in spec.features if feature.entity == entity]
    over_labels = [feature for feature in mine if feature.aggregate in OVER_LABELS]
    spans: list[tuple[int, int]] = []
    for feature in mine:
        window = feature.window_ms
        if window is None:
            continue
        if feature in over_labels and delay is not None:
            spans += [(delay + window, window)] + ([(delay, window)] if delay else [])
        else:
            spans.append((window, window))
    grid = make_grid(spans, spec.k, spec.lateness_ms)
    filters: list[Where | None] = [None]
    for feature in mine:
        if not any(_same(feature.where, one) for one in filters):
            filters.append(feature.where)
    plans: list[CurvePlan] = []
    places: dict[str, int] = {}
    for where in filters:
        code = CurveCode(grid.retain)
        features = [f for f in mine if f not in over_labels and _same(f.where, where)]
        plans.append(code.plan(where, [expression(code, feature) for feature in features]))
        places.update({feature.name: len(places) + i for i, feature in enumerate(features)})
    fraud = None
    if over_labels and delay is not None:
        windows = sorted({f.window_ms or 0 for f in over_labels})
        fraud = FraudPlan(delay, tuple(windows))
        first = len(places)
        for feature in over_labels:
            row, column = windows.index(feature.window_ms or 0), OVER_LABELS.index(feature.aggregate)
            places[feature.name] = first + len(OVER_LABELS) * row + column
    return Stage(entity, set_hash8, grid, tuple(plans), fraud), places


def _same(a: Where | None, b: Where | None) -> bool:
    """Equal filters; ``1 == True`` in Python, so the type counts too."""
    return a == b and (a is None or b is None or type(a[1]) is type(b[1]))
