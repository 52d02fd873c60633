"""Batches as a page: each row's picture with its boxes, and token by token what is learnt.

What is shown is read back from the batches that the network gets, not from their sources: a wrong
label, a wrong mask or much padding is seen before an hour of training is spent on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import islice

import numpy as np
from PIL import Image

from kosmos2.data.collate import NO_SAMPLE, PADDING_LESSON, PREFIX_LESSON, Batch
from kosmos2.data.ledger import Ledger
from kosmos2.grounding.markup import read_symbols
from kosmos2.grounding.page import PageItem, card, head
from kosmos2.grounding.page_assets import SCRIPT
from kosmos2.grounding.spans import GroundedText
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer

STYLE = """
.tokens { padding: 0 1.3rem 1.3rem; font: 0.78rem/1.9 ui-monospace, "SF Mono", Menlo, monospace;
  overflow-wrap: anywhere; }
.tokens p { margin: 0.5rem 0 0; }
.token { padding: 0.15em 0.35em; margin: 0 1px; border-radius: 4px; white-space: pre;
  color: #16181c; }
.read { background: #d9dce3; } .text { background: #b7e4c0; } .place { background: #f8c58a; }
.padding { background: repeating-linear-gradient(45deg, #f2f0ec 0 4px, #d8d4cc 4px 8px); }
.latent { background: #c9c2f0; }
.lesson { color: var(--soft); margin-right: 0.5em; }
.wordless { padding: 1.1rem 1.3rem 0.2rem; }
section { margin: 0 0 2.2rem; }
section > h2 { margin: 0 0 0.8rem; font-size: 1rem; color: inherit; }
table { border-collapse: collapse; font-size: 0.9rem; width: 100%; margin: 0.6rem 0 0; }
th, td { text-align: left; padding: 0.3rem 0.9rem 0.3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; } td.number, th.number { text-align: right; white-space: nowrap; }
td code { font-size: 0.82rem; }
"""
_SHOWN = 160
"""Tokens of one passage; longer ones are told by their number."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a sample, in reading order."""

    id: int
    position: int | None
    """None where it is predicted and never read."""
    is_learnt: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """One sample of a batch, taken apart."""

    prefix: tuple[Token, ...]
    passages: tuple[tuple[Token, ...], ...]
    latents: frozenset[int]
    """Places that latents of pictures take."""
    pictures: tuple[Image.Image, ...]
    padding: int
    """Positions behind it, where it is the last of its row."""


def samples_of(batch: Batch, tokenizer: Tokenizer, num_latents: int) -> Iterator[Seen]:
    """Yield the samples of a batch with their own pictures."""
    pixels = iter(batch.pixels_ICYX.permute(0, 2, 3, 1).numpy())
    length = batch.ids_BT.shape[1]
    learnt = list(zip(batch.source_L.tolist(), batch.target_L.tolist(), strict=True))
    kept_BT = batch.lesson_BT != PADDING_LESSON
    for row, samples in enumerate(batch.sample_BT.where(kept_BT, NO_SAMPLE).tolist()):
        for number in range(max(samples) + 1):
            first, stop = samples.index(number), length - samples[::-1].index(number)
            start = row * length + first
            mask = batch.image_mask_BT[row, first:stop].tolist()
            ids = batch.ids_BT[row, first:stop].tolist()
            lessons = batch.lesson_BT[row, first:stop].tolist()
            own = [(at - start, id) for at, id in learnt if start <= at < start + len(ids)]
            prefix, passages = _taken_apart(ids, lessons, own)
            shown = [next(pixels) for _ in range(sum(mask) // num_latents)]
            yield Seen(
                prefix=prefix,
                passages=passages,
                latents=frozenset(np.flatnonzero(mask).tolist()),
                pictures=tuple(Image.fromarray(each) for each in shown),
                padding=samples.count(NO_SAMPLE) if number == max(samples) else 0,
            )
    assert next(pixels, None) is None, "every picture belongs to a sample"


def padding_share(batches: Sequence[Batch]) -> float:
    """Return the share of positions that are padding."""
    positions = sum(batch.lesson_BT.numel() for batch in batches)
    padding = sum(int((batch.lesson_BT == PADDING_LESSON).sum()) for batch in batches)
    return padding / max(1, positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What the page tells."""

    title: str
    steps: Sequence[Sequence[Batch]]
    sources: Sequence[str]
    """The sources of the mixture, by their numbers."""
    ledger: Ledger
    location_weight: float


def page(preview: Preview, tokenizer: Tokenizer, num_latents: int, *, most_samples: int) -> str:
    """Return the HTML of a page that loads nothing from anywhere, with the first samples drawn."""
    drawn, sections = 0, []
    for step, batches in enumerate(preview.steps):
        for place, batch in enumerate(batches):
            rows = islice(samples_of(batch, tokenizer, num_latents), most_samples - drawn)
            cards = [
                _card(number, seen, tokenizer, preview.location_weight)
                for number, seen in enumerate(rows, drawn)
            ]
            drawn += len(cards)
            sections.append(_section(f"Step {step}, batch {place}", batch, cards))
    return f"""{head(preview.title, STYLE)}
<body>
<header><h1>{escape(preview.title)}</h1>
<p>The first batches, as the network gets them. Tokens:
<span class="token read">read only</span> <span class="token text">learnt text, weight 1</span>
<span class="token place">learnt location, weight {preview.location_weight:g}</span>
<span class="token latent">a picture's latents</span> <span class="token padding">padding</span></p>
{_counts(preview)}</header>
{"".join(sections)}
<script>{SCRIPT}</script>
</body>
</html>
"""


def _taken_apart(
    ids: Sequence[int], lessons: Sequence[int], learnt: Sequence[tuple[int, int]]
) -> tuple[tuple[Token, ...], tuple[tuple[Token, ...], ...]]:
    """Return the prefix and the passages; targets stand in the order of what they teach."""
    prefix = [place for place, lesson in enumerate(lessons) if lesson == PREFIX_LESSON]
    rest = list(learnt)
    passages = []
    for number in range(1, max(lessons) + 1):
        places = [place for place, lesson in enumerate(lessons) if lesson == number]
        tokens, before = [], prefix[-1]
        for place in places:
            is_learnt = bool(rest) and rest[0] == (before, ids[place])
            rest = rest[1:] if is_learnt else rest
            tokens.append(Token(ids[place], place, is_learnt))
            before = place
        if rest and rest[0][0] == before:  # the last one is predicted, and never read
            tokens.append(Token(rest.pop(0)[1], None, True))
        passages.append(tuple(tokens))
    assert not rest or len(passages) < len(learnt), "every target belongs to a passage"
    return tuple(Token(ids[place], place, False) for place in prefix), tuple(passages)


def _counts(preview: Preview) -> str:
    """Return how often each source was used, and what was left out, with one case of each."""
    ledger = preview.ledger
    used = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{ledger.used[number]}</td></tr>'
        for number, name in enumerate(preview.sources)
    )
    rows = "".join(
        f"<tr><td>{escape(preview.sources[source])}</td><td>{escape(reason)}</td>"
        f'<td class="number">{count}</td>'
        f"<td><code>{escape(ledger.examples.get((source, reason), ''))}</code></td></tr>"
        for (source, reason), count in sorted(ledger.rejected.items())
    )
    none = '<tr><td colspan="4">nothing</td></tr>'
    return (
        f'<table><tr><th>source</th><th class="number">samples used</th></tr>{used}</table>'
        '<table><tr><th>left out of</th><th>reason</th><th class="number">times</th>'
        f"<th>the first case</th></tr>{rows or none}</table>"
    )


def _section(name: str, batch: Batch, cards: Sequence[str]) -> str:
    rows, length = batch.ids_BT.shape
    facts = (
        f"{name}: {batch.num_samples} samples in {rows} rows of {length} positions, "
        f"{len(batch.pixels_ICYX)} pictures, "
        f"{len(batch.target_L)} learnt tokens, {padding_share([batch]):.1%} padding"
    )
    hidden = batch.num_samples - len(cards)
    more = f"<p class='note'>{hidden} more samples are not drawn.</p>" if hidden else ""
    shown = f'<main class="many">{"".join(cards)}</main>' if cards else ""
    return f"<section><h2>{escape(facts)}</h2>{shown}{more}</section>"


def _card(number: int, seen: Seen, tokenizer: Tokenizer, location_weight: float) -> str:
    tokens = _tokens(seen, tokenizer, location_weight)
    name = f"sample {number + 1}"
    if not seen.pictures:
        return (
            f'<article class="card"><div class="wordless"><h2>{name}, text alone</h2></div>'
            f"{tokens}</article>"
        )
    text = _said(seen, tokenizer)
    item = PageItem(name=name, image=_strip(seen.pictures), grounded=text)
    if len(seen.pictures) > 1:  # boxes would not know which picture they are of
        item = replace(item, grounded=GroundedText(text=text.text), note="several pictures")
    return card(number, item).removesuffix("</article>") + f"{tokens}</article>"


def _said(seen: Seen, tokenizer: Tokenizer) -> GroundedText:
    """Return what all passages say, one below the other, with their boxes."""
    whole = GroundedText(text="")
    for passage in seen.passages:
        ids = [token.id for token in passage if token.position not in seen.latents]
        part = read_symbols(tokenizer.symbols(ids), tokenizer.grid, ())
        start = len(whole.text) + bool(whole.text)
        moved = [
            replace(phrase, start=phrase.start + start, end=phrase.end + start)
            for phrase in part.phrases
        ]
        whole = GroundedText(
            text=f"{whole.text}\n{part.text}" if whole.text else part.text,
            phrases=(*whole.phrases, *moved),
            malformed=(*whole.malformed, *part.malformed),
        )
    return whole


def _tokens(seen: Seen, tokenizer: Tokenizer, location_weight: float) -> str:
    parts = [f"<p>{_line(seen.prefix, seen, tokenizer, location_weight)}</p>"]
    for number, passage in enumerate(seen.passages, 1):
        line = _line(passage, seen, tokenizer, location_weight)
        parts.append(f'<p><span class="lesson">{number}</span>{line}</p>')
    if seen.padding:
        parts.append(f'<p><span class="token padding">{seen.padding} × padding</span></p>')
    return f'<div class="tokens">{"".join(parts)}</div>'


def _line(tokens: Sequence[Token], seen: Seen, tokenizer: Tokenizer, location_weight: float) -> str:
    parts, latents = [], 0
    for token in tokens[:_SHOWN]:
        if token.position in seen.latents:
            latents += 1
            continue
        if latents:
            parts.append(_latents(latents))
            latents = 0
        parts.append(_chip(token, tokenizer, location_weight))
    if latents:
        parts.append(_latents(latents))
    hidden = len(tokens) - _SHOWN
    return " ".join(parts) + (f" … and {hidden} more" if hidden > 0 else "")


def _latents(count: int) -> str:
    return f'<span class="token latent">{count} × latent</span>'


def _chip(token: Token, tokenizer: Tokenizer, location_weight: float) -> str:
    vocabulary = tokenizer.vocabulary
    cell = vocabulary.cell_of(token.id)
    kind = "read" if not token.is_learnt else "text" if cell is None else "place"
    weight = 0.0 if not token.is_learnt else 1.0 if cell is None else location_weight
    place = "predicted, never read" if token.position is None else f"position {token.position}"
    hint = f"id {token.id}, {place}, weight {weight:g}"
    return f'<span class="token {kind}" title="{hint}">{escape(_word(token.id, tokenizer))}</span>'


def _word(id: int, tokenizer: Tokenizer) -> str:
    """Return a token as one reads it: a piece with its leading blank, a tag, a cell's number."""
    vocabulary = tokenizer.vocabulary
    cell, tag = vocabulary.cell_of(id), vocabulary.tag_of(id)
    if cell is not None:
        return f"{cell:04d}"
    if tag is not None:
        return ";" if tag is Tag.DELIMITER else str(tag)
    controls = {vocabulary.bos: "<s>", vocabulary.pad: "<pad>", vocabulary.eos: "</s>"}
    if id in controls:
        return controls[id]
    said = "".join(str(symbol.value) for symbol in tokenizer.symbols([id]))
    return said.replace(" ", "▁")


def _strip(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return pictures side by side, small ones enlarged so that boxes can be told apart."""
    side = pictures[0].width
    scale = max(1, -(-336 // side))
    whole = Image.new("RGB", (side * len(pictures), side))
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number * side, 0))
    return whole.resize((whole.width * scale, whole.height * scale), Image.Resampling.NEAREST)
