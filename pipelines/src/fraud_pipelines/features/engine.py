"""Compiles a feature set to its stages and the assembly of the vector. No clock, no I/O, no engine's import."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.feature_set import hash6 as short_hash
from fraud_pipelines.features.grid import DAY, HOUR, make_grid
from fraud_pipelines.features.plan import AMOUNT, NAN, PRESENT, VALUE, CurvePlan, Event, FraudPlan
from fraud_pipelines.features.spec import FRAUD, FeatureSetSpec, FeatureSpec, check, from_detector
from fraud_pipelines.features.stage import Saw, Stage

Flat = Sequence[float | None]
Transform = Callable[[Event, Flat], float]

NIGHT_ENDS: Final = 6
THURSDAY: Final = 3  # 1970-01-01, counted from Monday


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
        at: dict[str, int] = {}  # where each feature lies in the values of all stages, one after the other
        size = 0
        for entity in spec.entities:
            stage, found = _compile_stage(spec, entity.name, entity.label_delay_ms, self.hash[:8])
            at.update({name: size + index for name, index in found.items()})
            size += stage.width
            stages.append(stage)
        self.stages: tuple[Stage, ...] = tuple(stages)
        self._stages = {stage.entity: stage for stage in stages}
        self._transforms: list[Transform] = []
        for feature in spec.features:
            if feature.transform is not None:
                self._transforms.append(_transform(feature, at))
                at[feature.name] = size
                size += 1
        order = [at[name] for name in self.names]
        self._take: Callable[[Flat], Any] = _taker(order)

    def stage(self, entity: str) -> Stage:
        return self._stages[entity]

    def vector(
        self, event: Event, values_by_entity: Mapping[str, Sequence[float | None] | None]
    ) -> list[float]:
        """The vector in the order of ``names``. An entity without values (absent, or its stage failed) gives NaN."""
        flat: list[float | None] = []
        for stage in self.stages:
            values = values_by_entity.get(stage.entity)
            flat += stage.nulls if values is None else values
        for transform in self._transforms:
            flat.append(transform(event, flat))
        taken = self._take(flat)
        try:
            return array("d", taken).tolist()
        except TypeError:  # values that came through JSON, where NaN travels as null
            return [NAN if value is None else float(value) for value in taken]

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


def _taker(order: list[int]) -> Callable[[Flat], Any]:
    if len(order) > 1:
        return itemgetter(*order)
    return lambda flat: [flat[i] for i in order]  # itemgetter gives no tuple for one index, and takes no none


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
        plan, found, width = _compile_curve(where, chosen, grid.retain)
        at.update({name: offset + index for name, index in found.items()})
        offset += width
        plans.append(plan)
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


def _compile_curve(
    where: tuple[str, Any] | None, features: list[FeatureSpec], retain: int
) -> tuple[CurvePlan, dict[str, int], int]:
    """The plan of one curve, where its features lie in its values, and how many values there are."""

    def distinct(items: list[Any]) -> list[Any]:
        return list(dict.fromkeys(items))

    of_kind: dict[str, list[FeatureSpec]] = {}
    for feature in features:
        of_kind.setdefault(feature.aggregate or "", []).append(feature)
    get = of_kind.get
    columns = distinct([(f.of, VALUE) for f in get("Sum", []) + get("Mean", [])])
    columns += distinct([(f.of, PRESENT) for f in get("Mean", []) if f.of != AMOUNT])
    counted = get("Count", []) + get("Sum", []) + get("Mean", [])
    windows = sorted({f.window_ms or 0 for f in counted}, reverse=True)
    stride = 1 + len(columns)
    at: dict[str, int] = {}
    for f in get("Count", []):
        at[f.name] = stride * windows.index(f.window_ms or 0)
    for f in get("Sum", []):
        at[f.name] = stride * windows.index(f.window_ms or 0) + 1 + columns.index((f.of, VALUE))
    size = stride * len(windows)

    means: list[tuple[int, int]] = []
    for f in get("Mean", []):
        start = stride * windows.index(f.window_ms or 0)
        count = start if f.of == AMOUNT else start + 1 + columns.index((f.of, PRESENT))
        at[f.name] = size + len(means)
        means.append((start + 1 + columns.index((f.of, VALUE)), count))
    size += len(means)

    extremes = distinct([(f.of, True) for f in get("Max", [])] + [(f.of, False) for f in get("Min", [])])
    peaks: list[tuple[int, int]] = []
    for f in get("Max", []) + get("Min", []):
        at[f.name] = size + len(peaks)
        peaks.append((f.window_ms or 0, extremes.index((f.of, f.aggregate == "Max"))))
    size += len(peaks)

    recents = distinct([f.of for f in get("Distinct", [])])
    distincts: list[tuple[int, int]] = []
    for f in get("Distinct", []):
        at[f.name] = size + len(distincts)
        distincts.append((recents.index(f.of), f.window_ms or 0))
    size += len(distincts)

    since = [f.window_ms or retain for f in get("SecondsSinceLast", [])]
    for i, f in enumerate(get("SecondsSinceLast", [])):
        at[f.name] = size + i
    size += len(since)
    plan = CurvePlan(
        where,
        tuple(columns),
        tuple(windows),
        tuple(means),
        tuple(extremes),
        tuple(peaks),
        tuple(recents),
        tuple(distincts),
        tuple(since),
    )
    return plan, at, size


def _transform(feature: FeatureSpec, at: Mapping[str, int]) -> Transform:
    """Function of the event and the values so far."""
    kind = feature.transform
    if kind == "Amount":
        return lambda event, flat: float(event["amount"])
    if kind == "Hour":
        return lambda event, flat: float(event["time"] // HOUR % 24)
    if kind == "Night":
        return lambda event, flat: 1.0 if event["time"] // HOUR % 24 < NIGHT_ENDS else 0.0
    if kind == "Weekend":
        return lambda event, flat: 1.0 if (event["time"] // DAY + THURSDAY) % 7 >= 5 else 0.0
    if kind == "Equals":
        name, wanted = feature.where or ("", None)

        def equals(event: Event, flat: Flat) -> float:
            value = event["fields"].get(name)
            return NAN if value is None else float(value == wanted)

        return equals
    left, right = (_operand(arg, at) for arg in feature.args)
    if kind == "Difference":
        return lambda event, flat: left(event, flat) - right(event, flat)

    def ratio(event: Event, flat: Flat) -> float:
        below = right(event, flat)
        return left(event, flat) / below if below else NAN

    return ratio


def _operand(name: str, at: Mapping[str, int]) -> Transform:
    """Amount or a feature, as a float: Python's own ``int / int`` rounds otherwise above 2^53."""
    if name == AMOUNT:
        return lambda event, flat: float(event["amount"])
    index = at[name]

    def value(event: Event, flat: Flat) -> float:
        found = flat[index]
        return NAN if found is None else float(found)

    return value
