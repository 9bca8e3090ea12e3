"""What the features mean, in the slowest and plainest form: what property tests and benches hold the engine to."""

from __future__ import annotations

from typing import Any

from fraud_pipelines.features import FeatureSetSpec, FeatureSpec

HOUR, DAY = 3_600_000, 86_400_000
NAN = float("nan")


class Oracle:
    """Definitions, word by word. Only right while no key holds more than K events."""

    def __init__(self, spec: FeatureSetSpec, retain: dict[str, int]) -> None:
        self.spec, self.retain = spec, retain
        self.delay = {entity.name: entity.label_delay_ms for entity in spec.entities}
        self.events: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.labels: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}

    def observe(self, event: dict[str, Any]) -> list[float]:
        seen: dict[str, list[dict[str, Any]]] = {}
        too_late: set[str] = set()
        for entity in self.retain:
            token = event["entities"].get(entity)
            if token is None:
                continue
            mine = self.events.setdefault((entity, token), [])
            newest = max((e["time"] for e in mine), default=event["time"])
            if event["time"] <= newest - self.retain[entity]:
                seen[entity] = [event]
                too_late.add(entity)
            else:
                if not any(e["id"] == event["id"] for e in mine):
                    mine.append(event)
                seen[entity] = mine
        return self._vector(event, seen, too_late)

    def label(self, label: dict[str, Any]) -> None:
        for entity, token in label["entities"].items():
            if self.delay[entity] is None or token is None:
                continue
            mine = self.labels.setdefault((entity, token), {})
            newest = max((e["time"] for e in self.events.get((entity, token), [])), default=label["time"])
            if not label["fraud"]:
                mine.pop(label["id"], None)
            elif label["time"] > newest - self.retain[entity]:
                known = min(label["known"], mine.get(label["id"], label)["known"])
                mine[label["id"]] = {**label, "known": known}

    def _vector(
        self, event: dict[str, Any], seen: dict[str, list[dict[str, Any]]], too_late: set[str]
    ) -> list[float]:
        values: dict[str, float] = {"amount": float(event["amount"])}
        for feature in self.spec.features:
            if feature.transform is not None:
                values[feature.name] = self._transform(feature, event, values)
            elif feature.entity not in seen:
                values[feature.name] = NAN
            else:
                alone = feature.entity in too_late
                values[feature.name] = float(self._aggregate(feature, event, seen[feature.entity], alone))
        return [values[name.name] for name in self.spec.features]

    def _transform(self, feature: FeatureSpec, event: dict[str, Any], values: dict[str, float]) -> float:
        day, rest = divmod(event["time"], DAY)
        if feature.transform == "Amount":
            return values["amount"]
        if feature.transform == "Hour":
            return float(rest // HOUR)
        if feature.transform == "Night":
            return float(rest < 6 * HOUR)
        if feature.transform == "Weekend":
            return float((day + 3) % 7 in (5, 6))
        if feature.transform == "Equals":
            assert feature.where is not None
            value = event["fields"][feature.where[0]]
            return NAN if value is None else float(value == feature.where[1])
        a, b = (values[arg] for arg in feature.args)
        if feature.transform == "Difference":
            return a - b
        return NAN if b == 0 else a / b

    def _aggregate(
        self, feature: FeatureSpec, event: dict[str, Any], seen: list[dict[str, Any]], alone: bool
    ) -> float:
        assert feature.entity is not None
        assert feature.aggregate is not None
        t: int = event["time"]
        retain = self.retain[feature.entity]
        passing = [e for e in seen if not feature.where or e["fields"][feature.where[0]] == feature.where[1]]
        newest = max((e["time"] for e in passing), default=0)
        kept = [e for e in passing if e["time"] > newest - retain]
        if feature.aggregate == "SecondsSinceLast":
            before: list[int] = [e["time"] for e in kept if e["time"] <= t and e["id"] != event["id"]]
            limit = feature.window_ms or retain
            return (t - max(before)) / 1000 if before and t - max(before) < limit else NAN
        delay = (self.delay[feature.entity] or 0) if feature.aggregate.startswith("Fraud") else 0
        assert feature.window_ms is not None
        until, after = t - delay, t - delay - feature.window_ms
        inside = [e for e in kept if after < e["time"] <= until]
        if feature.aggregate == "Count":
            return len(inside)
        if feature.aggregate.startswith("Fraud"):
            key = (feature.entity, event["entities"][feature.entity])
            frauds = (
                0
                if alone
                else sum(
                    after < label["time"] <= until and label["known"] <= t and label["time"] > newest - retain
                    for label in self.labels.get(key, {}).values()
                )
            )
            if feature.aggregate == "FraudCount":
                return frauds
            return frauds / len(inside) if inside else NAN
        if feature.aggregate == "Distinct":
            times: dict[Any, int] = {}
            for e in kept:
                value = e["fields"][feature.of] if feature.of in e["fields"] else e["entities"][feature.of]
                if value is not None:
                    times[value] = max(times.get(value, 0), e["time"])
            return sum(after < last <= until for last in times.values())
        given = [e["amount"] if feature.of == "amount" else e["fields"][feature.of] for e in inside]
        present: list[float] = [value for value in given if value is not None]
        if feature.aggregate == "Sum":
            return sum(present)
        if not present:
            return NAN
        if feature.aggregate == "Mean":
            return float(sum(present)) / float(len(present))
        if feature.aggregate == "Max":
            return max(present)
        assert feature.aggregate == "Min", f"{feature.aggregate} has no definition"
        return min(present)
