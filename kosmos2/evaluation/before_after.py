"""A model before and after it was fine-tuned, as one page, one picture and one file of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from PIL import Image

from kosmos2.evaluation.metrics import IOU, Number
from kosmos2.evaluation.own import NOT_A_SHARE, TITLES, Answered, Compared, found_right
from kosmos2.grounding.page import PageItem, card, head
from kosmos2.grounding.page_assets import SCRIPT
from kosmos2.grounding.sheet import Tile, sheet
from kosmos2.grounding.spans import GroundedText, Phrase

SIDE = 480
"""Pictures are made smaller than this for the page."""
SHEET = 4
"""Records on the picture: a row of answers before, one of answers after."""
STYLE = """
table { border-collapse: collapse; margin: 0 0 1.75rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: 0.35rem 0.9rem 0.35rem 0; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
td small { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.2rem;
  margin: 0 0 1.75rem; overflow-wrap: anywhere; }
dt { color: var(--soft); } dd { margin: 0; }
section { margin: 0 0 2.25rem; }
.part { margin: 1.75rem 0 0; font-size: 1.1rem; color: var(--text); }
.note + section { margin-top: 1.25rem; }
section h2 { margin: 0 0 0.6rem; font-size: 0.95rem; color: var(--text); }
.three { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); }
.three .caption { font-size: 1rem; line-height: 1.6; }
.finds { margin: 0.7rem 0 0; padding: 0; list-style: none; font-size: 0.9rem; }
.finds b.right { color: #1f9254; } .finds b.wrong { color: #dd3b3b; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a fine-tuning was, and what it changed."""

    facts: Mapping[str, str]
    """Name → text, such as the model, the records, the steps."""
    numbers: Mapping[str, Compared]


def page(story: Story, shown: Sequence[tuple[Image.Image, Answered, Answered]], count: int) -> str:
    """Return the page; `shown` are the first of `count` held-out records, before and after."""
    title = "Before and after fine-tuning"
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in story.facts.items())
    sections = "\n".join(_section(number, *each) for number, each in enumerate(shown))
    return f"""{head(title, STYLE)}
<body>
<header><h1>{title}</h1>
<p>Asked about {count:,} held-out records that were never trained on.</p>
</header>
<dl>{facts}</dl>
<div class="wide">{_table(story.numbers)}</div>
<p class="note">Intervals hold 95 %: a bootstrap over pictures. n counts phrases, or boxes of
captions (after). The change has an interval where both models were asked about the same things.</p>
<h2 class="part">The first {len(shown):,} held-out records: the truth, before, after</h2>
<p class="note">In the order of the records, not chosen by how well they went. Point at a phrase
to see its boxes.</p>
{sections}
<script>{SCRIPT}</script>
</body>
</html>
"""


def picture(shown: Sequence[tuple[Image.Image, Answered, Answered]]) -> Image.Image:
    """Return records drawn in pairs of rows, captions before and after, true boxes dashed."""
    tiles = []
    for start in range(0, len(shown), SHEET):
        some = shown[start : start + SHEET]
        for name, place in (("before", 0), ("after", 1)):
            row = [_tile(image, said[place], name) for image, *said in some]
            blank = Image.new("RGB", (1, 1), "white")
            nothing = Tile(image=blank, grounded=GroundedText(text=""))
            tiles += [*row, *[nothing] * (SHEET - len(row))]
    return sheet(tiles)


def as_dict(story: Story, count: int) -> dict[str, Any]:
    """Return the story as `json.dumps` takes it."""
    return {
        "facts": dict(story.facts),
        "held_out": count,
        "numbers": {name: asdict(each) for name, each in story.numbers.items()},
    }


def lines(numbers: Mapping[str, Compared]) -> list[tuple[str, str, str, str, str]]:
    """Return title, n, before, after and change of every number, as people read them."""
    return [
        (
            TITLES[name],
            f"{each.after.n:,}",
            _shown(name, each.before),
            _shown(name, each.after),
            "" if each.change is None else _shown(name, each.change, sign="+"),
        )
        for name, each in numbers.items()
    ]


def _tile(image: Image.Image, answered: Answered, name: str) -> Tile:
    said = answered.caption
    boxes = tuple(box for phrase in answered.true.phrases for box in phrase.boxes)
    text = f"{name}: {said.text}"
    moved = len(text) - len(said.text)
    phrases = tuple(
        Phrase(start=each.start + moved, end=each.end + moved, boxes=each.boxes)
        for each in said.phrases
    )
    return Tile(image=image, grounded=GroundedText(text=text, phrases=phrases), true=boxes)


def _shown(name: str, number: Number, sign: str = "") -> str:
    if not number.n:
        return "–"
    if name in NOT_A_SHARE:
        value, low, high = (f"{each:{sign}.3f}" for each in (number.value, number.low, number.high))
        return f"{value} ({low} … {high})"
    value, low, high = (
        f"{100 * each:{sign}.1f}" for each in (number.value, number.low, number.high)
    )
    return f"{value} % ({low} … {high})"


def _table(numbers: Mapping[str, Compared]) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>"
        for line in lines(numbers)
    )
    titles = "".join(f"<th>{title}</th>" for title in ("", "n", "before", "after", "change"))
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"


def _section(number: int, image: Image.Image, before: Answered, after: Answered) -> str:
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    cards = "\n".join(
        card(3 * number + place, PageItem(name=name, image=small, grounded=text))
        for place, (name, text) in enumerate(
            (("truth", before.true), ("before", before.caption), ("after", after.caption))
        )
    )
    overlaps = zip(found_right(before), found_right(after), strict=True)
    finds = "".join(
        f"<li>find “{escape(before.true.phrase_text(phrase))}”: {_verdict(old)} → {_verdict(new)}"
        "</li>"
        for phrase, (old, new) in zip(before.true.phrases, overlaps, strict=True)
    )
    return f"""<section>
<h2>{escape(before.record)}</h2>
<div class="three">
{cards}
</div>
<ul class="finds">{finds}</ul>
</section>"""


def _verdict(overlap: float) -> str:
    mark, kind = ("✓", "right") if overlap >= IOU else ("✗", "wrong")
    return f'<b class="{kind}">{mark}</b> IoU {overlap:.2f}'
