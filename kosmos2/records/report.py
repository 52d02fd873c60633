"""The statistics of records as one HTML file, which loads nothing from anywhere; and as lines."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape

from PIL import Image, ImageOps

from kosmos2.errors import RecordError
from kosmos2.grounding.page import PageItem, card, head
from kosmos2.grounding.page_assets import SCRIPT
from kosmos2.grounding.spans import GroundedText
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord
from kosmos2.records.stats import Histogram, Stats, Tally

MOST = 30
"""Words of a tally that are shown."""
EMPTY_SIDE = 640
_WIDTH, _HEIGHT, _TOP, _BASE = 420, 186, 20, 138  # of a chart, in units of its picture
_EMPTY = (138, 143, 152)


def lines(stats: Stats) -> list[tuple[str, str]]:
    """Return the numbers that a terminal shows, each with its name."""
    told = [("records", _number(stats.records))]
    if stats.dropped:
        told.append(("pictures that became none", _number(stats.dropped)))
    told += [
        (f"– with {feature}", f"{_number(count)}  {percent(count, stats.records)}")
        for feature, count in stats.holding.items()
        if count
    ]
    told += [("spans", _number(stats.spans)), ("boxes", _number(stats.boxes))]
    told += [
        (title if axis in title.lower() else f"{title} ({axis})", _summary(histogram, unit))
        for title, unit, axis, histogram in histograms(stats)
        if histogram.n
    ]
    told += [
        (title, ", ".join(f"{word} {_number(count)}" for word, count in tally.most(8)))
        for title, tally, _ in _tallies(stats)
        if len(tally)
    ]
    return told


def report(stats: Stats, *, source: str, items: Sequence[PageItem]) -> str:
    """Return the HTML; `items` are records to show as they are."""
    title = f"Records of {source}"
    charts = [chart(*told) for told in histograms(stats) if told[-1].n]
    ranks = [rank(*told) for told in _tallies(stats) if len(told[1])]
    cards = [card(number, item) for number, item in enumerate(items)]
    sections = [
        ("", "tiles", _tiles(stats)),
        ("What is counted", "panels", charts),
        ("What is named", "stacks", [_held(stats), *ranks] if stats.records else ranks),
        ("Some of them", "cards", cards),
    ]
    return f"""{head(title, STYLE)}
<body>
<header><h1>{escape(title)}</h1>
<p>Boxes and spans are those of the referring expressions, or of the noun chunks where a record has
no others. Point at a bar for its number.</p>
</header>
<main>
{"".join(section(*each) for each in sections if each[2])}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def page_item(record: GroundedRecord, image: Image.Image, note: str = "") -> PageItem:
    """Return a record as a card: its caption with the boxes of its expressions, else its chunks."""
    where = record.image or record.url or "no picture"
    return PageItem(
        name=where if record.id is None else f"{record.id} · {where}",
        image=image,
        grounded=grounded(record),
        note=note,
    )


def grounded(record: GroundedRecord) -> GroundedText:
    """Return the caption with the boxes of its expressions, else its chunks, else without."""
    if record.ref_exps is not None:
        return record.grounded("ref_exps")
    if record.noun_chunks is not None:
        return record.grounded("noun_chunks")
    return GroundedText(text=record.caption)


def open_picture(record: GroundedRecord, pictures: Pictures) -> Image.Image:
    """Return the picture of a record, upright, in RGB."""
    data = pictures.read(record)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecordError(
            f"record {record.id}: {record.image} is no picture that can be opened ({error})"
        ) from error


def empty_picture(record: GroundedRecord) -> Image.Image:
    """Return a plain picture in the record's shape, to draw on where its own is not to be had."""
    width, height = record.width or 4, record.height or 3
    scale = EMPTY_SIDE / max(width, height)
    return Image.new("RGB", (max(1, round(width * scale)), max(1, round(height * scale))), _EMPTY)


def histograms(stats: Stats) -> list[tuple[str, str, str, Histogram]]:
    """Return title, what is counted, what the axis says."""
    return [
        ("Length of captions", "captions", "words", stats.caption_words),
        ("Length of expressions", "spans", "words", stats.expression_words),
        ("Length of noun chunks", "spans", "words", stats.chunk_words),
        ("Spans of a record", "records", "spans", stats.spans_a_record),
        ("Boxes of a span", "spans", "boxes", stats.boxes_a_span),
        ("Size of boxes", "boxes", "% of the picture", stats.box_shares),
        ("Scores", "boxes", "score", stats.scores),
        ("Size of pictures", "pictures", "longer side, pixels", stats.sides),
    ]


def _tallies(stats: Stats) -> list[tuple[str, Tally, int]]:
    """Return title, words, and what their shares are shares of."""
    return [
        ("Phrases", stats.phrases, stats.phrases.total),
        ("Why pictures became no record", stats.reasons, stats.dropped),
        ("Made by", stats.models, stats.records),
        ("Licences", stats.licences, stats.records),
        ("Shape of pictures", stats.shapes, stats.records),
        ("Other columns", stats.columns, stats.records),
    ]


def _tiles(stats: Stats) -> list[str]:
    numbers = [
        ("records", _number(stats.records)),
        ("spans", _number(stats.spans)),
        ("boxes", _number(stats.boxes)),
        ("boxes a record", f"{stats.boxes / stats.records:.2f}" if stats.records else ""),
        ("words a span", _mean(stats.expression_words)),
        ("mean score", _mean(stats.scores)),
        ("became no record", _number(stats.dropped) if stats.dropped else ""),
    ]
    return [f'<div class="tile"><b>{value}</b> {name}</div>' for name, value in numbers if value]


def _held(stats: Stats) -> str:
    rows = [
        row(feature, count, stats.records, stats.records)
        for feature, count in stats.holding.items()
    ]
    return panel("Records that have", f"of {_number(stats.records)}", table(rows))


def rank(title: str, tally: Tally, whole: int) -> str:
    """Return the most frequent words as bars that lie, each with its share of `whole`."""
    ranked = tally.most(MOST)
    largest = ranked[0][1] if ranked else 1
    rows = [row(word, count, largest, whole) for word, count in ranked]
    several = f"{len(tally):,} different" if not tally.missed else "a great many different"
    off = f"; counts too low by at most {tally.missed:,}" if tally.missed else ""
    rest = f"; the first {len(ranked)}" if len(tally) > len(ranked) else ""
    return panel(title, f"{tally.total:,} counted, {several}{rest}{off}", table(rows))


def chart(title: str, counted: str, axis: str, histogram: Histogram) -> str:
    """Return upright bars, one for each label, with its share above it."""
    step = _WIDTH / len(histogram.labels)
    highest = max(histogram.counts) or 1
    bars = []
    for number, (label, count) in enumerate(zip(histogram.labels, histogram.counts, strict=True)):
        high = (_BASE - _TOP) * count / highest
        middle = (number + 0.5) * step
        share = percent(count, histogram.n)
        bars.append(
            f"<g><title>{escape(label)} {escape(axis)}: {count:,} ({share})</title>"
            f'<rect class="reach" x="{number * step:.1f}" y="0" width="{step:.1f}" '
            f'height="{_BASE}"/>'
            f'<rect class="bar" x="{number * step + 0.1 * step:.1f}" y="{_BASE - high:.1f}" '
            f'width="{0.8 * step:.1f}" height="{high:.1f}" rx="2"/>'
            f'<text x="{middle:.1f}" y="{_BASE - high - 5:.1f}">{share if count else ""}</text>'
            f'<text class="tick" x="{middle:.1f}" y="{_BASE + 15}">{escape(label)}</text></g>'
        )
    drawing = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(bars)}<path class="base" d="M0 {_BASE}.5H{_WIDTH}"/>'
        f'<text class="axis" x="{_WIDTH / 2:.0f}" y="{_HEIGHT - 10}">{escape(axis)}</text></svg>'
    )
    return panel(title, _summary(histogram, counted), drawing)


def section(title: str, kind: str, parts: Sequence[str]) -> str:
    """Return parts (HTML) under a heading; `kind` is the class that arranges them."""
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    inside = "\n".join(parts)
    return f'<section>{heading}<div class="{kind}">{inside}</div></section>\n'


def panel(title: str, note: str, inside: str) -> str:
    """Return a frame with a title, a line below it, and what is inside (HTML)."""
    return f'<article class="panel"><h3>{escape(title)}</h3><p>{escape(note)}</p>{inside}</article>'


def table(rows: Sequence[str]) -> str:
    """Return rows (HTML) as a table."""
    return f"<table>{''.join(rows)}</table>"


def row(word: str, count: int, longest: int, whole: int) -> str:
    """Return a bar that lies: `longest` fills the row."""
    return (
        f'<tr style="--long:{count / longest:.2%}"><th scope="row">{escape(word)}</th>'
        f"<td>{count:,}</td><td>{percent(count, whole)}</td></tr>"
    )


def _summary(histogram: Histogram, counted: str) -> str:
    assert histogram.low is not None
    assert histogram.high is not None
    low, high = short(histogram.low), short(histogram.high)
    return f"mean {_mean(histogram)}, from {low} to {high}; {histogram.n:,} {counted}"


def _mean(histogram: Histogram) -> str:
    return "" if histogram.mean is None else short(histogram.mean)


def short(value: float) -> str:
    """Return a number with as many digits as tell something."""
    if 0 < value < 0.001:
        return "less than 0.001"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _number(value: int) -> str:
    return f"{value:,}"


def percent(count: int, whole: int) -> str:
    """Return a share as people read it, such as 12% or <0.1%."""
    share = 100 * count / whole if whole else 0
    if share in {0, 100} or 10 <= share < 99.5:
        return f"{share:.0f}%"
    return "<0.1%" if share < 0.1 else ">99%" if share >= 99.5 else f"{share:.1f}%"


STYLE = """
:root { --bar: #2f6fde; } @media (prefers-color-scheme: dark) { :root { --bar: #5b8fec; } }
section > h2 { margin: 0 0 0.8rem; color: var(--text); font-size: 1.15rem; }
.tiles { display: flex; flex-wrap: wrap; gap: 0.6rem 2.4rem; }
.tile { color: var(--soft); font-size: 0.9rem; } .tile b { display: block; color: var(--text);
  font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.panels, .cards { display: grid; gap: 1.25rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
.stacks { columns: 25rem; column-gap: 1.25rem; } .stacks .panel { break-inside: avoid;
  margin-bottom: 1.25rem; }
.panel { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 1rem 1.2rem 0.8rem; min-width: 0; }
.panel h3 { margin: 0; font-size: 1rem; }
.panel p { margin: 0.1rem 0 0.7rem; color: var(--soft); font-size: 0.82rem; }
svg { display: block; width: 100%; max-width: 36rem; height: auto; margin: auto; }
svg text { font-size: 10.5px; text-anchor: middle; fill: var(--text); }
svg .tick, svg .axis { fill: var(--soft); } svg .tick { font-size: 9.8px; }
svg .reach { fill: transparent; }
svg .bar { fill: var(--bar); } svg g:hover .bar { fill: var(--text); }
svg .base { stroke: var(--line); }
table { width: 100%; border-collapse: separate; border-spacing: 0 3px; font-size: 0.86rem; }
tr { background: linear-gradient(color-mix(in srgb, var(--bar) 24%, transparent) 0 0) no-repeat
  left / var(--long) 100%; }
th { text-align: left; font-weight: 400; overflow-wrap: anywhere; padding: 0.1rem 0.5rem; }
td { text-align: right; white-space: nowrap; padding-left: 0.8rem; width: 1%;
  font-variant-numeric: tabular-nums; } td:last-child { color: var(--soft); padding-right: 0.4rem; }
@media print { .panel { break-inside: avoid; } }
"""
