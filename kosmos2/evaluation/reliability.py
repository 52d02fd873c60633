"""Calibration for people: one SVG with a reliability diagram for each benchmark, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from kosmos2.evaluation.calibration import Bin, Reliability
from kosmos2.evaluation.metrics import Number
from kosmos2.grounding.render import colour

WIDTH, HEIGHT = 330, 420
LEFT, TOP, SIDE = 50, 54, 250
COUNTS_TOP, COUNTS = TOP + SIDE + 12, 44
"""The small bars below a diagram: how many boxes have such a score."""


def picture(panels: Mapping[str, Reliability]) -> str:
    """Return the diagrams as one SVG, beside each other; the names are their titles."""
    drawn = "".join(
        f'<g transform="translate({number * WIDTH})">{_panel(name, each, colour(0))}</g>'
        for number, (name, each) in enumerate(panels.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(panels)}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{drawn}</svg>\n'
    )


def _panel(name: str, reliability: Reliability, ink: str) -> str:
    low, high = f"{reliability.ece.low:.3f}", f"{reliability.ece.high:.3f}"
    parts = [
        f'<text x="{LEFT}" y="18" font-weight="bold" font-size="12">{escape(name)}</text>',
        f'<text x="{LEFT}" y="34" fill="#444">{reliability.n:,} boxes, ECE '
        f"{reliability.ece.value:.3f} ({low} – {high})</text>",
        f'<text x="{LEFT}" y="48" fill="#444">mean score {reliability.score:.3f}, right '
        f"{reliability.right.value:.3f}</text>",
        _axes(),
    ]
    most = max(each.right.n for each in reliability.bins)
    parts += [_bar(each, most, ink) for each in reliability.bins]
    points = " ".join(
        f"{_x(each.score):.1f},{_y(each.right.value):.1f}" for each in reliability.bins
    )
    parts.append(f'<polyline points="{points}" fill="none" stroke="{ink}" stroke-width="1.4"/>')
    parts += [_point(each, ink) for each in reliability.bins]
    return "".join(parts)


def _axes() -> str:
    parts = []
    for step in range(6):
        at = step / 5
        parts.append(
            f'<path d="M{LEFT} {_y(at):.1f}h{SIDE}" stroke="#e4e4e4"/>'
            f'<text x="{LEFT - 6}" y="{_y(at) + 4:.1f}" text-anchor="end">{at:.1f}</text>'
            f'<text x="{_x(at):.1f}" y="{COUNTS_TOP + COUNTS + 14}" text-anchor="middle">{at:.1f}'
            "</text>"
        )
    return (
        "".join(parts)
        + f'<path d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}" stroke="#999" stroke-dasharray="5 4"/>'
        f'<path d="M{LEFT} {COUNTS_TOP + COUNTS + 0.5}h{SIDE}" stroke="#999"/>'
        f'<text x="{LEFT - 6}" y="{COUNTS_TOP + COUNTS}" text-anchor="end">boxes</text>'
        f'<text x="{LEFT + SIDE / 2}" y="{HEIGHT - 22}" text-anchor="middle">score of the '
        "box</text>"
        f'<text transform="translate(14 {TOP + SIDE / 2})rotate(-90)" text-anchor="middle">share '
        "of right boxes (IoU ≥ 0.5)</text>"
    )


def _bar(each: Bin, most: int, ink: str) -> str:
    high = COUNTS * each.right.n / most
    wide = _x(each.high) - _x(each.low) - 3
    return (
        f'<rect x="{_x(each.low) + 1.5:.1f}" y="{COUNTS_TOP + COUNTS - high:.1f}" '
        f'width="{wide:.1f}" height="{high:.1f}" fill="{ink}" opacity="0.45">'
        f"<title>{each.low:.1f} – {each.high:.1f}: {each.right.n:,} boxes</title></rect>"
    )


def _point(each: Bin, ink: str) -> str:
    x = _x(each.score)
    return (
        f'<path d="M{x:.1f} {_y(each.right.low):.1f}V{_y(each.right.high):.1f}" stroke="{ink}"/>'
        f'<circle cx="{x:.1f}" cy="{_y(each.right.value):.1f}" r="3.2" fill="{ink}"/>'
    )


def _x(value: float) -> float:
    return LEFT + SIDE * value


def _y(value: float) -> float:
    return TOP + SIDE * (1 - value)


def summary(reliabilities: Mapping[str, Reliability]) -> list[list[str]]:
    """Return one row for each, with a header."""
    table = [["", "boxes", "mean score", "right", "ECE (95 %)", "Brier", "AUROC (95 %)"]]
    for name, each in reliabilities.items():
        table.append(
            [
                name,
                f"{each.n:,}",
                f"{each.score:.3f}",
                f"{each.right.value:.3f}",
                _with_interval(each.ece),
                f"{each.brier.value:.3f}",
                _with_interval(each.auroc) if each.auroc else "–",
            ]
        )
    return table


def cuts(reliability: Reliability) -> list[list[str]]:
    """Return precision at each threshold as a table with a header."""
    table = [["score at least", "precision (95 %)", "boxes kept", "share"]]
    for cut in reliability.cuts:
        shown = _with_interval(cut.precision)
        table.append([f"{cut.threshold:.1f}", shown, f"{cut.precision.n:,}", f"{cut.kept:.1%}"])
    return table


def bins(reliability: Reliability) -> list[list[str]]:
    """Return the bins of the diagram as a table with a header."""
    table = [["score", "boxes", "mean score", "right (95 %)"]]
    for each in reliability.bins:
        span = f"{each.low:.1f} – {each.high:.1f}"
        table.append([span, f"{each.right.n:,}", f"{each.score:.3f}", _with_interval(each.right)])
    return table


def markdown(
    reliabilities: Mapping[str, Reliability], facts: Sequence[str], *, drawing: str
) -> str:
    """Return the page: what was run, the picture by its file name, all tables."""
    blocks = [
        "# What the score of a box is worth",
        "\n".join(f"- {fact}" for fact in facts),
        "A box is right where its IoU with a true one of its phrase is at least 0.5. Intervals "
        "hold 95 %: for shares Wilson's with as many boxes as independent ones would tell as much, "
        "else a seeded bootstrap over pictures.",
        f"![Share of right boxes by score]({drawing})",
        _table(summary(reliabilities)),
    ]
    for name, each in reliabilities.items():
        blocks += [f"## {name}", _table(cuts(each)), _table(bins(each))]
    return "\n\n".join(blocks) + "\n"


def _with_interval(number: Number) -> str:
    return f"{number.value:.3f} ({number.low:.3f} – {number.high:.3f})"


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *lines = rows
    ruled = [header, ["---", *("---:" for _ in header[1:])], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)
