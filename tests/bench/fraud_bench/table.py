"""The one table: each goal, the figure of this machine beside it, the baseline of the same run. A missed goal says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Figures = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """``judge`` gives (figure, baseline, whether the goal is met) from the figures that ``needs`` names."""

    what: str
    goal: str
    needs: tuple[str, ...]
    judge: Callable[..., tuple[str, str, bool | None]]


def inline(ours: dict[str, Any], flask: dict[str, Any], slow: dict[str, Any]) -> tuple[str, str, bool]:
    figure = f"p50 {ours['p50_ms']}, p99 {ours['p99_ms']}, p99.9 {ours['p999_ms']} ms{_beside(ours)}"
    base = (
        f"Flask + pyfunc: {flask['done_per_s']}/s done, p99 {flask['p99_ms']:.0f} ms{_beside(flask)}; "
        f"at {slow['offered']:.0f}/s p50 {slow['p50_ms']}, p99 {slow['p99_ms']} ms"
    )
    return figure, base, ours["p99_ms"] <= 20 and ours["p999_ms"] <= 50


def _beside(measured: dict[str, Any]) -> str:
    """What else than a plain 200 was answered."""
    other = {name: count for name, count in measured["answers"].items() if name != "200"}
    lost = {"no answer": measured["lost"]} if measured["lost"] else {}
    return "".join(f", {name} {count}" for name, count in {**other, **lost}.items())


def model(ours: dict[str, Any]) -> tuple[str, str, bool]:
    return f"p99 ≤ {ours['model_p99_ms']:g} ms (histogram's edge)", "–", ours["model_p99_ms"] <= 5


def cost(ours: dict[str, Any], flask: dict[str, Any]) -> tuple[str, str, None]:
    parts = ", ".join(
        f"{name} {us}" for name, us in sorted(ours["cpu_us"].items(), key=lambda item: -item[1])
    )
    return f"{parts} µs; {ours['cpu_cores']} cores in all", f"Flask: {flask['cpu_us']} µs", None


def door(ours: dict[str, Any]) -> tuple[str, str, bool]:
    figure = f"p50 {ours['p50_ms']}, p99 {ours['p99_ms']}, p99.9 {ours['p999_ms']} ms"
    return figure, "–", ours["p99_ms"] <= 50


def locks(locked: dict[str, Any], opened: dict[str, Any]) -> tuple[str, str, None]:
    def told(ours: dict[str, Any]) -> str:
        cpu = ", ".join(f"{part} {us}" for part, us in ours["cpu_us"].items())
        return f"p50 {ours['p50_ms']}, p99 {ours['p99_ms']} ms{_beside(ours)}; CPU {cpu} µs"

    return told(locked), f"by open servers: {told(opened)}", None


def throughput(ours: dict[str, Any]) -> tuple[str, str, bool]:
    return (
        f"{ours['decisions_per_s']:,} decided/s; CPU {sum(ours['cpu_us'].values())} µs each, all parts",
        "–",
        ours["decisions_per_s"] >= 5000,
    )


def features(thread: dict[str, Any], process: dict[str, Any]) -> tuple[str, str, bool]:
    ratio = thread["per_s"] / process["per_s"]
    return (
        f"{thread['per_s']:,}/s, {ratio:.1f}×",
        f"the same job in process mode: {process['per_s']:,}/s",
        ratio >= 5,
    )


def predictor(ours: dict[str, Any], stock: dict[str, Any]) -> tuple[str, str, bool]:
    ratio = ours["per_s"] / stock["per_s"]
    return (
        f"{ours['per_s']:,}/s, p50 {ours['p50_ms']} ms, {ours['cpu_us']} µs CPU; {ratio:.1f}×",
        f"stock KServe: {stock['per_s']:,}/s, p50 {stock['p50_ms']} ms, {stock['cpu_us']} µs CPU",
        ratio >= 4,
    )


def freshness(ours: dict[str, Any]) -> tuple[str, str, bool]:
    return f"p50 {ours['p50_ms']}, p99 {ours['p99_ms']} ms", "–", ours["p99_ms"] <= 1000


def burst(ours: dict[str, Any]) -> tuple[str, str, bool]:
    exact = f"{ours['exact']} of {ours['payments']} exact ({ours['bursts']} cards)"
    return exact, "–", ours["exact"] == ours["payments"]


def replay(ours: dict[str, Any], pandas: dict[str, Any]) -> tuple[str, str, bool]:
    equal = (
        ours["equal_to_stream"] == ours["checked"] and ours["equal_to_oracle"] == ours["checked_by_oracle"]
    )
    figure = (
        f"{ours['per_core_s']:,}/s, {ours['features']} features; bit-equal to the stream's form "
        f"{ours['equal_to_stream']:,}/{ours['checked']:,}, to the oracle "
        f"{ours['equal_to_oracle']:,}/{ours['checked_by_oracle']:,}"
    )
    base = f"pandas rolling, {pandas['features']} of them: {pandas['per_core_s']:,}/s"
    return figure, base, ours["per_core_s"] >= 100_000 and equal


def training(files: dict[str, Any], lake: dict[str, Any]) -> tuple[str, str, bool]:
    def told(ours: dict[str, Any]) -> str:
        return f"{ours['bytes_a_row']} B a row, {ours['beside_matrix']} beside the matrix, {ours['import_per_s']:,} imported/s"

    met = max(files["beside_matrix"], lake["beside_matrix"]) <= 400
    return f"of files {told(files)}; of the lake {told(lake)}", "–", met


def reconcile(ours: dict[str, Any]) -> tuple[str, str, bool]:
    figure = (
        f"{ours['children']} children: median {ours['median_s']}, worst {ours['worst_s']} s; "
        f"{ours['settled_writes']} writes in {ours['settled_passes']} settled passes"
    )
    met = ours["worst_s"] <= 1 and ours["settled_writes"] == 0 and ours["settled_passes"] > 0
    return figure, "–", met


def rollback(ours: dict[str, Any]) -> tuple[str, str, bool]:
    return f"{ours['seconds']} s, both doors", "–", ours["seconds"] <= 10


ROWS = (
    Row("inline decision, 500/s, shadow on, stream running", "p99 ≤ 20 ms, p99.9 ≤ 50 ms",
        ("inline", "flask_500", "flask_100"), inline),
    Row("model call in it", "p99 ≤ 5 ms", ("inline",), model),
    Row("CPU of it, per decision", "–", ("inline", "flask_100"), cost),
    Row("inline decision by TLS and logins, 300/s, no stream", "–", ("door_locked", "door_open"), locks),
    Row("stream door: `features` → committed decision, 2,000/s", "p99 ≤ 50 ms", ("door",), door),
    Row("stream: validate, all features, decide, shadow, profiles", "≥ 5,000/s", ("throughput",), throughput),
    Row("stream: features alone", "≥ 5× process mode", ("features_thread", "features_process"), features),
    Row("predictor, one row over HTTP", "≥ 4× stock KServe", ("predictor", "stock"), predictor),
    Row("freshness: event in Kafka → profile in Redis, beside 500/s", "p99 ≤ 1 s", ("freshness",), freshness),
    Row("burst: 10 in 1 s on a card, each after the last answer", "counts 1…10", ("burst",), burst),
    Row("offline replay, one core", "≥ 100,000/s, bit-equal", ("replay", "pandas"), replay),
    Row("training: memory at the peak of import and replay", "≤ 400 B a row beside the matrix",
        ("training_files", "training_lake"), training),
    Row("reconcile: CR → last child; settled passes", "≤ 1 s; no write", ("reconcile",), reconcile),
    Row("rollback: order → last decision on the old release", "≤ 10 s", ("rollback",), rollback),
)  # fmt: skip


def markdown(kept: dict[str, Any]) -> str:
    """The table, and what it was measured on."""
    figures: Figures = {name: figure for bench in kept.values() for name, figure in bench["figures"].items()}
    lines = ["| what | goal | figure | baseline, same run | |", "|---|---|---|---|---|"]
    for row in ROWS:
        missing = [name for name in row.needs if name not in figures]
        if missing:
            lines.append(f"| {row.what} | {row.goal} | not measured | – | |")
            continue
        figure, base, met = row.judge(*(figures[name] for name in row.needs))
        verdict = "" if met is None else "met" if met else "**missed**"
        lines.append(f"| {row.what} | {row.goal} | {figure} | {base} | {verdict} |")
    lines.append(
        "| any one process killed at 500/s | none lost, none doubled, `degraded` stated | "
        "`make demo ONCE=1 CHAOS=1`: its summary | – | |"
    )
    lines += ["", *_measured_on(kept, figures)]
    return "\n".join(lines) + "\n"


def _measured_on(kept: dict[str, Any], figures: Figures) -> list[str]:
    machines = [bench["machine"] for bench in kept.values()]
    first = machines[0]
    loads = sorted(where["load_before"] for where in machines)
    lines = [
        f"Measured on {first['cores']} cores ({first['cpu']}), {first['memory_gib']} GiB, Linux {first['kernel']}, Python "
        f"{first['python']}, {min(m['at'] for m in machines)} to {max(m['at'] for m in machines)}; load average before the "
        f"benches {loads[0]} to {loads[-1]}."
    ]
    versions = figures.get("inline", {}).get("versions", {})
    if versions:
        lines.append(
            "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
        )
    return lines
