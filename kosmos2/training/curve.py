"""A run's learning curve as one SVG: losses on the left, finding a phrase on the right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from kosmos2.grounding.render import colour
from kosmos2.training import journal

WIDTH, HEIGHT = 420, 260
LEFT, TOP, RIGHT, BOTTOM = 48, 34, 12, 34
Point = tuple[float, float]


def write_curve(folder: Path) -> None:
    """Write `curve.svg` of a run's folder, as soon as its log has a line."""
    log, exams = _lines(folder / journal.LOG), _lines(folder / journal.EVALUATIONS)
    if not log:
        return
    losses = {
        name: [(line["pictures"], line[f"{name}_loss"]) for line in log]
        for name in ("text", "location", "patch")
    }
    per_step = log[-1]["pictures"] / log[-1]["step"]
    found = {
        "find, IoU ≥ 0.5": [(each["step"] * per_step, each["find_accuracy"]) for each in exams],
        "mean IoU": [(each["step"] * per_step, each["mean_iou"]) for each in exams],
    }
    last = log[-1]["pictures"]
    highest = max(value for points in losses.values() for _, value in points[len(log) // 20 :])
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11">'
        '<rect width="100%" height="100%" fill="white"/>'
        f"{_panel('loss, nats per target', losses, last, highest)}"
        f'<g transform="translate({WIDTH})">{_panel("held-out pictures", found, last, 1.0)}</g>'
        "</svg>\n"
    )
    (folder / "curve.svg").write_text(svg, encoding="utf-8")


def _lines(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _panel(title: str, series: Mapping[str, Sequence[Point]], last: float, highest: float) -> str:
    """Return one plot with its axes; x runs to `last` pictures, y from 0 to `highest`."""
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(point: Point) -> str:
        x, y = LEFT + across * point[0] / last, TOP + down * (1 - min(1, point[1] / highest))
        return f"{x:.1f},{y:.1f}"

    parts = [f'<text x="{LEFT}" y="16" font-weight="bold">{title}</text>']
    for quarter in range(5):
        y, x = TOP + down * (1 - quarter / 4), LEFT + across * quarter / 4
        parts.append(f'<path d="M{LEFT} {y}h{across}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{highest * quarter / 4:.2f}</text>'
            f'<text x="{x}" y="{HEIGHT - 16}" text-anchor="middle">'
            f"{last * quarter / 4000:.0f}k</text>"
        )
    for number, (name, points) in enumerate(series.items()):
        line = " ".join(map(place, points))
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour(number)}" stroke-width="1.6"/>'
            f'<text x="{LEFT + across}" y="{TOP + 14 + 14 * number}" text-anchor="end" '
            f'fill="{colour(number)}">{name}</text>'
        )
    parts.append(
        f'<text x="{LEFT + across / 2}" y="{HEIGHT - 3}" text-anchor="middle">pictures</text>'
    )
    return "".join(parts)
