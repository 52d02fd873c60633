"""Pictures and their grounded text as one HTML file, which loads nothing from anywhere.

Point at a phrase, or reach it with the Tab key, and its boxes light up; point at a box, and its
phrase does. A click or Enter keeps it lit, Escape lets go. Without scripts, all boxes are shown.
"""

import base64
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from kosmos2.grounding.page_assets import SCRIPT, STYLE
from kosmos2.grounding.render import colour, ink
from kosmos2.grounding.spans import GroundedText, Phrase

LONGEST_SIDE = 1600
"""Pictures are made smaller than this for the page; boxes are fractions, so they stay right."""
LOSSLESS_SIDE = 320  # smaller pictures as PNG: JPEG would blur them, and they are light anyway

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageItem:
    """One card: a picture, what is said of it, and a line below (where it comes from, the task)."""

    name: str
    image: Image.Image
    grounded: GroundedText
    note: str = ""


def head(title: str, style: str = "") -> str:
    """Return a page down to the end of its head: self-contained, light and dark."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>"""


def page(items: Sequence[PageItem]) -> str:
    """Return the HTML of a page with one card for each picture."""
    title = items[0].name if len(items) == 1 else f"{len(items)} grounded pictures"
    cards = "\n".join(card(number, item) for number, item in enumerate(items))
    return f"""{head(title)}
<body>
<header><h1>{escape(title)}</h1>
<p>Point at a phrase to see where it is in the picture, or at a box to see what it is called.</p>
</header>
<main class="{"single" if len(items) == 1 else "many"}">
{cards}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def card(number: int, item: PageItem) -> str:
    """Return one picture with its text as HTML, for a page with our STYLE and SCRIPT."""
    text = item.grounded.text or "(no words)"
    return f"""<article class="card" aria-labelledby="name-{number}">
<div class="picture"><img src="{data_uri(item.image)}" alt="{escape(text)}">
{boxes_html(item.grounded)}
</div>
<div class="words">
<h2 id="name-{number}">{escape(item.name)}</h2>
<p class="caption">{caption_html(item.grounded)}</p>
{_footer(item)}
</div>
</article>"""


def boxes_html(grounded: GroundedText) -> str:
    """Return the boxes as elements over the picture, small ones above large ones, escaped."""
    placed = [
        (box.area, _box(grounded, index, number))
        for index, phrase in enumerate(grounded.phrases)
        for number, box in enumerate(phrase.boxes)
    ]
    return "\n".join(html for _, html in sorted(placed, key=lambda pair: -pair[0]))


def _box(grounded: GroundedText, index: int, number: int) -> str:
    phrase = grounded.phrases[index]
    box = phrase.boxes[number]
    words = grounded.phrase_text(phrase) or f"box {index + 1}"
    score = f" <b>{phrase.scores[number]:.0%}</b>" if phrase.scores else ""
    measured = f' data-score="{phrase.scores[number]:.4f}"' if phrase.scores else ""
    # The label must stay on the picture: under the upper edge of a box at the top of the picture,
    # and flush right on a box that begins in its right half.
    is_right = box.center[0] > 0.5
    room = (box.x1 if is_right else 1 - box.x0) / max(box.width, 0.01)
    sides = ("under" if box.y0 < 0.12 else "above") + (" from-right" if is_right else "")
    place = (
        f"left:{box.x0:.4%};top:{box.y0:.4%};width:{box.width:.4%};height:{box.height:.4%};"
        f"--room:{room:.2%};{paint(index)}"
    )
    return (
        f'<div class="box" data-links="{index}"{measured} style="{place}">'
        f'<span class="label {sides}">{escape(words)}{score}</span></div>'
    )


def caption_html(grounded: GroundedText) -> str:
    """Return the text, escaped, in runs: each is linked to the phrases over it, shortest first."""
    borders = {0, len(grounded.text)}
    for phrase in grounded.phrases:
        borders |= {phrase.start, phrase.end}
    places = sorted(borders)
    runs: list[str] = []
    reachable: set[int] = set()
    for start, end in itertools.pairwise(places):
        words = escape(grounded.text[start:end])
        links = _covering(grounded.phrases, start, end)
        if not links:
            runs.append(words)
            continue
        is_first = links[0] not in reachable
        reachable.add(links[0])
        runs.append(_phrase(grounded, links, words) if is_first else _more_of(links, words))
    for index, phrase in enumerate(grounded.phrases):
        if index not in reachable:  # boxes without words, or words that shorter phrases cover
            words = escape(grounded.phrase_text(phrase) or f"box {index + 1}")
            runs.append(" " + _phrase(grounded, [index], words))
    return "".join(runs)


def _covering(phrases: Sequence[Phrase], start: int, end: int) -> list[int]:
    found = [
        index for index, phrase in enumerate(phrases) if phrase.start <= start and end <= phrase.end
    ]
    return sorted(found, key=lambda index: phrases[index].end - phrases[index].start)


def _phrase(grounded: GroundedText, links: Sequence[int], words: str) -> str:
    phrase = grounded.phrases[links[0]]
    count = f"{len(phrase.boxes)} box" + ("es" if len(phrase.boxes) > 1 else "")
    scores = ", ".join(f"{score:.0%}" for score in phrase.scores)
    hint = f"{count}, score {scores}" if scores else count
    return (
        f'<span class="phrase" role="button" tabindex="0" aria-pressed="false" title="{hint}" '
        f'data-links="{_joined(links)}" style="{paint(links[0])}">{words}</span>'
    )


def _more_of(links: Sequence[int], words: str) -> str:
    """Return a further run of a phrase that a shorter one has cut in pieces."""
    return (
        f'<span class="phrase" data-links="{_joined(links)}" '
        f'style="{paint(links[0])}">{words}</span>'
    )


def _footer(item: PageItem) -> str:
    parts = [f'<p class="note">{escape(item.note)}</p>'] if item.note else []
    faults = item.grounded.malformed
    if faults:
        count = f"{len(faults)} part" + ("s" if len(faults) > 1 else "")
        lines = "".join(
            f"<li><code>{escape(fault.reason)}</code> {escape(fault.detail)}</li>"
            for fault in faults
        )
        parts.append(
            f"<details><summary>{count} of the answer could not be used as written</summary>"
            f"<ul>{lines}</ul></details>"
        )
    return "\n".join(parts)


def _joined(links: Sequence[int]) -> str:
    return " ".join(str(link) for link in links)


def paint(index: int) -> str:
    """Return the colours of the phrase with this number, as CSS variables."""
    return f"--paint:{colour(index)};--ink:{ink(colour(index))}"


def data_uri(image: Image.Image, longest_side: int = LONGEST_SIDE) -> str:
    """Return the picture as a `data:` URI of at most so many pixels a side."""
    shown = image.convert("RGB")
    shown.thumbnail((longest_side, longest_side))
    file = io.BytesIO()
    if max(shown.size) <= LOSSLESS_SIDE:
        kind = "png"
        shown.save(file, "PNG", optimize=True)
    else:
        kind = "jpeg"
        shown.save(file, "JPEG", quality=88, optimize=True, progressive=True)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
