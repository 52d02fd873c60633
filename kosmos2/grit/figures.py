"""What the report of `grit build` draws that the report of records does not: funnel and scores."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from kosmos2.grit.steps import Ledger
from kosmos2.records.report import panel, percent, table
from kosmos2.records.stats import Histogram

_WIDTH, _HEIGHT, _TOP, _BASE = 860, 250, 30, 196

STYLE = """
:root { --lost: #b9b4a8; --bad: #c22f2f; --good: #1f7a47; }
@media (prefers-color-scheme: dark) { :root { --lost: #5f646d; --bad: #f07070; --good: #5cc48c; } }
section { margin-top: 0.6rem; } section:first-child { margin-top: 0; }
.verdict { margin: 0; padding: 0.7rem 1.1rem; border-left: 4px solid var(--good);
  font-size: 0.95rem; background: var(--card); border-radius: 6px; overflow-wrap: anywhere; }
.verdict.bad { border-color: var(--bad); } .verdict.bad b { color: var(--bad); }
.verdict ul { margin: 0.3rem 0 0; padding-left: 1.2rem; }
.funnel tr.lost { background-image: linear-gradient(var(--lost) 0 0); }
.funnel tr.out th, .funnel tr.in th { font-weight: 600; }
.funnel tr.lost th { padding-left: 1.4rem; }
.sum { margin: 0.5rem 0 0; color: var(--soft); font-size: 0.82rem; } .sum.bad { color: var(--bad);
  font-weight: 600; }
.thirds { grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.wide svg { max-width: none; } svg .gone { fill: var(--lost); }
svg .mark { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .mark-name { fill: var(--bad); text-anchor: start; font-size: 12px; }
.key i { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px;
  margin: 0 0.35em 0 0.9em; background: var(--bar); } .key i.gone { background: var(--lost); }
.plain tr { background: none; } .plain td, .plain th { padding: 0.25rem 0.7rem 0.25rem 0;
  border-bottom: 1px solid var(--line); width: auto; vertical-align: top; }
.plain thead th { color: var(--soft); font-size: 0.8rem; }
.plain th { overflow-wrap: break-word; min-width: 6rem; } .plain .figure { text-align: right; }
.plain tr > * + * { padding-left: 1.2rem; }
.plain td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.plain td.figure { white-space: nowrap; }
.plain { overflow-x: auto; }
.rows { display: grid; gap: 1.25rem; }
.reason { margin: 1.1rem 0 0.6rem; font-size: 1rem; } .reason span { color: var(--soft);
  font-weight: 400; }
.few { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
.few .words { padding: 0.7rem 0.9rem 0.9rem; } .few .caption { font-size: 0.98rem;
  line-height: 1.6; } .few .note { margin-top: 0.4rem; }
.card .caption { max-height: 14rem; overflow: auto; }
.note { overflow-wrap: anywhere; }
pre { margin: 0; font-size: 0.8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.panel details { margin: 0.4rem 0 0; }
"""


def funnel(level: str, ledger: Ledger) -> str:
    """Return what came in, what went out and why the rest did not, as bars that lie."""
    lost = ledger.dropped.most_common()
    lost.sort(key=lambda pair: (-pair[1], pair[0]))
    told = [("in", "in", ledger.entered), *(("lost", f"– {why}", n) for why, n in lost if n)]
    rows = [_bar(kind, name, n, ledger.entered) for kind, name, n in [*told, _out(ledger)]]
    dropped = ledger.dropped.total()
    left = f"{ledger.left:,} out + {dropped:,} dropped"
    balance = (
        f'<p class="sum">{ledger.entered:,} in = {left}</p>'
        if ledger.balances
        else f'<p class="sum bad">{ledger.entered:,} in is not {left}: do not trust this set</p>'
    )
    return f'<div class="funnel">{panel(level, _share_left(ledger), table(rows) + balance)}</div>'


def _out(ledger: Ledger) -> tuple[str, str, int]:
    return "out", "out", ledger.left


def _share_left(ledger: Ledger) -> str:
    return f"{percent(ledger.left, ledger.entered)} went through"


def _bar(kind: str, name: str, count: int, whole: int) -> str:
    long = min(count / whole, 1) if whole else 0
    return (
        f'<tr class="{kind}" style="--long:{long:.2%}"><th scope="row">{escape(name)}</th>'
        f"<td>{count:,}</td><td>{percent(count, whole)}</td></tr>"
    )


def scores(kept: Histogram, dropped: Histogram, threshold: float, note: str) -> str:
    """Return the scores of kept and of dropped boxes as one bar on the other, and the threshold.

    Both have equal bars from 0 to 1.
    """
    step = _WIDTH / len(kept.labels)
    highest = max(map(sum, zip(kept.counts, dropped.counts, strict=True))) or 1
    bars = []
    for number, label in enumerate(kept.labels):
        good, bad = kept.counts[number], dropped.counts[number]
        low, high = ((_BASE - _TOP) * count / highest for count in (good, bad))
        x, wide = number * step + 0.08 * step, 0.84 * step
        bars.append(
            f"<g><title>score {escape(label)}: {good:,} kept, {bad:,} dropped</title>"
            f'<rect class="reach" x="{number * step:.1f}" y="0" width="{step:.1f}" '
            f'height="{_BASE}"/>'
            f'<rect class="bar" x="{x:.1f}" y="{_BASE - low:.1f}" width="{wide:.1f}" '
            f'height="{low:.1f}"/>'
            f'<rect class="gone" x="{x:.1f}" y="{_BASE - low - high:.1f}" width="{wide:.1f}" '
            f'height="{high:.1f}"/>'
            "</g>"
        )
    drawing = (
        f'<svg viewBox="-14 0 {_WIDTH + 28} {_HEIGHT}" role="img" '
        'aria-label="Scores of boxes">'
        f'{"".join(bars)}<path class="base" d="M0 {_BASE}.5H{_WIDTH}"/>{_ticks()}{_mark(threshold)}'
        f'<text class="axis" x="{_WIDTH / 2:.0f}" y="{_HEIGHT - 10}">score</text></svg>'
        '<p class="key"><i></i>kept<i class="gone"></i>dropped, but not with their whole pair</p>'
    )
    told = f"{kept.n:,} kept, {dropped.n:,} dropped; {note}"
    return f'<div class="wide">{panel("Scores of boxes", told, drawing)}</div>'


def _ticks() -> str:
    return "".join(
        f'<text class="tick" x="{tenth / 10 * _WIDTH:.1f}" y="{_BASE + 15}">{tenth / 10:g}</text>'
        for tenth in range(11)
    )


def _mark(threshold: float) -> str:
    x = threshold * _WIDTH
    side = 'style="text-anchor:end" x' if threshold > 0.8 else "x"
    at = x - 6 if threshold > 0.8 else x + 6
    return (
        f'<path class="mark" d="M{x:.1f} 8V{_BASE}"/>'
        f'<text class="mark-name" {side}="{at:.1f}" y="18">threshold {threshold:g}</text>'
    )


def plain(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table without bars; the first cell of a row is its name.

    A column is aligned as its first cell asks: numbers to the right.
    """
    kinds = ["", *(_kind(cell) for _, *cells in rows[:1] for cell in cells)]
    kinds += [""] * (len(heads) - len(kinds))
    head = "".join(
        f'<th scope="col"{kind}>{escape(each)}</th>'
        for each, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(cells, kinds[1:], strict=True)
        )
        + "</tr>"
        for name, *cells in rows
    )
    inside = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="plain"><table>{inside}</table></div>'


def _kind(cell: str) -> str:
    return ' class="figure"' if cell[:1].isdigit() and len(cell) < 20 else ""
