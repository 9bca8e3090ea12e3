"""Pictures of the card for the registry's page, as SVG written by hand: three charts need no plotting library and no fonts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

WIDTH: Final = 640
HEIGHT: Final = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 36, 52
_INK, _GRID, _LINE = "#222222", "#d8d8d8", "#0b62a4"

NAMES: Final = ("scores", "recall_by_alerts", "precision_recall", "calibration", "importance")
FILES: Final = tuple(f"{name}.svg" for name in NAMES)

Points = Sequence[tuple[float, float]]
Scale = Callable[[float], float]


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 12, turn: bool = False) -> str:
    turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"{turned}>{escape(text)}</text>'


def _page(title: str, parts: list[str], height: int = HEIGHT) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" fill="{_INK}"><rect width="{WIDTH}" height="{height}" fill="white"/>'
    )
    return "\n".join([head, _text(WIDTH / 2, 22, title, size=15), *parts, "</svg>\n"])


def _scale(low: float, high: float, start: float, end: float, log: bool) -> Scale:
    change: Callable[[float], float] = (lambda v: math.log10(max(v, low))) if log else (lambda v: v)
    a, b = change(low), change(high)
    return lambda value: start + (change(value) - a) / (b - a) * (end - start)


def lines(
    title: str,
    x_title: str,
    y_title: str,
    series: Sequence[tuple[str, Points]],
    low: float = 0.0,
    log: bool = False,
) -> str:
    """Curves over two axes from ``low`` to 1; the first is drawn full, further ones dashed."""
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    x, y = _scale(low, 1.0, _LEFT, right, log), _scale(low, 1.0, bottom, _TOP, log)
    ticks = [10.0**power for power in range(round(math.log10(low)), 1)] if log else [i / 5 for i in range(6)]
    parts = []
    for tick in ticks:
        parts.append(
            f'<path d="M{x(tick):.1f} {_TOP}V{bottom}M{_LEFT} {y(tick):.1f}H{right}" stroke="{_GRID}" fill="none"/>'
        )
        parts.append(_text(x(tick), bottom + 18, f"{tick:g}"))
        parts.append(_text(_LEFT - 8, y(tick) + 4, f"{tick:g}", "end"))
    parts.append(_text((_LEFT + right) / 2, HEIGHT - 12, x_title))
    parts.append(_text(16, (_TOP + bottom) / 2, y_title, turn=True))
    for i, (name, points) in enumerate(series):
        way = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        look = f'stroke="{_LINE}" stroke-width="2"' if i == 0 else 'stroke="#888888" stroke-dasharray="5 4"'
        parts.append(f'<polyline points="{way}" fill="none" {look}><title>{escape(name)}</title></polyline>')
    return _page(title, parts)


def histogram(title: str, x_title: str, values: Sequence[tuple[str, float, float]]) -> str:
    """Two shares per bin beside each other on a logarithmic axis: the rare kind would be invisible on a plain one."""
    right, bottom, low = WIDTH - _RIGHT, HEIGHT - _BOTTOM, 1e-4
    y = _scale(low, 1.0, bottom, _TOP, True)
    step = (right - _LEFT) / max(1, len(values))
    parts = []
    for power in range(-4, 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{right}" stroke="{_GRID}" fill="none"/>')
        parts.append(_text(_LEFT - 8, at + 4, f"{10.0**power:g}", "end"))
    for i, (name, *shares) in enumerate(values):
        for j, (share, colour) in enumerate(zip(shares, ("#888888", _LINE), strict=True)):
            top = y(share) if share > low else bottom
            x = _LEFT + (i + 0.1 + 0.4 * j) * step
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{0.38 * step:.1f}" height="{bottom - top:.1f}" fill="{colour}"/>'
            )
        if i % 2 == 0:
            parts.append(_text(_LEFT + i * step, bottom + 18, name))
    parts.append(_text((_LEFT + right) / 2, HEIGHT - 12, x_title))
    parts.append(_text(16, (_TOP + bottom) / 2, "share of its kind: honest grey, fraud blue", turn=True))
    return _page(title, parts)


def bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    """Horizontal bars, each with its name and value."""
    left, step = 240, 22
    height = _TOP + step * len(values) + 20
    most = max((value for _, value in values), default=0.0) or 1.0
    parts = []
    for i, (name, value) in enumerate(values):
        top = _TOP + i * step
        width = (WIDTH - left - 70) * value / most
        parts.append(_text(left - 8, top + 14, name, "end"))
        parts.append(
            f'<rect x="{left}" y="{top + 2}" width="{width:.1f}" height="{step - 6}" fill="{_LINE}"/>'
        )
        parts.append(_text(left + width + 6, top + 14, f"{value:.1%}", "start"))
    return _page(title, parts, height)


def draw(card: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the precision-recall curve, the calibration, the scores, the recall by alerts, and the features' importance."""
    folder.mkdir(parents=True, exist_ok=True)
    test = card["test"]
    curve = [(q["recall"], q["precision"]) for q in test["curve"]]
    bins = [(b["predicted"], b["observed"]) for b in test["calibration"]["bins"]]
    gain = sorted(card["importance"].items(), key=lambda item: -item[1])[:15]
    scores = test["distribution"]
    honest, fraud = (max(1, sum(part[kind] for part in scores)) for kind in ("honest", "fraud"))
    daily = [(f"{one['alerts_per_day']} a day", one["recall"] or 0.0) for one in test["alerts_per_day"]]
    pictures = {
        "scores": histogram(
            "Scores on the test part",
            "score",
            [(f"{part['from']:g}", part["honest"] / honest, part["fraud"] / fraud) for part in scores],
        ),
        "recall_by_alerts": bars("Share of the frauds among the riskiest payments of each day", daily),
        "precision_recall": lines(
            f"Average precision {test['average_precision']['value']:.3f} on the test part",
            "recall: share of the frauds found",
            "precision: share of the alerts that are fraud",
            [("model", curve), ("chance", [(0.0, test["fraud_rate"]), (1.0, test["fraud_rate"])])],
        ),
        "calibration": lines(
            "Calibration, tenths of the test part",
            "mean predicted probability",
            "observed fraud rate",
            [("model", bins), ("perfect", [(1e-5, 1e-5), (1.0, 1.0)])],
            low=1e-5,
            log=True,
        ),
        "importance": bars("Share of the gain by feature", gain),
    }
    paths = []
    for name in NAMES:
        path = folder / f"{name}.svg"
        path.write_text(pictures[name])
        paths.append(path)
    return paths
