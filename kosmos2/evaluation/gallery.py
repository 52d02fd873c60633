"""The worst answers as one HTML page: beside the truth, the surest errors first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from PIL import Image

from kosmos2.boxes import Box
from kosmos2.evaluation.benchmark import Kind, Pair, Prediction, Problem, find_picture
from kosmos2.evaluation.localisation import best_overlap
from kosmos2.evaluation.results import Scored
from kosmos2.grounding.page import PageItem, card, head
from kosmos2.grounding.page_assets import SCRIPT
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.images import open_picture

SIDE = 640
"""Pictures are made smaller than this for the page."""
TRUTH = "the truth"
_FOUND = 5
"""So many found boxes are drawn."""
_BY_SCORE = (Kind.WORDS, Kind.GROUNDED)
"""Judged by degrees: there is no right and wrong."""
_EMPTY = (138, 143, 152)


def worst(scored: Scored, count: int) -> list[Pair]:
    """Return the wrong boxes that the model is surest of, or the words of the lowest score."""
    headline = scored.benchmark.headline
    judged = [
        (each[headline], pair) for pair, each in zip(scored.pairs, scored.judged, strict=True)
    ]
    if scored.benchmark.kind in _BY_SCORE:
        lowest = sorted(judged, key=lambda each: (each[0], each[1][0].id))
        return [pair for _, pair in lowest[:count]]
    return sorted((pair for value, pair in judged if not value), key=_badness)[:count]


def gallery(scored: Scored, count: int, folders: Sequence[Path]) -> str:
    """Return the page; a picture that is not in these folders is drawn as an empty one."""
    chosen = worst(scored, count)
    title = f"{scored.benchmark.title}, {scored.setting.split}: the worst answers"
    cards = "\n".join(card(number, _item(*pair, folders)) for number, pair in enumerate(chosen))
    return f"""{head(title)}
<body>
<header><h1>{escape(title)}</h1>
<p>{escape(_explained(scored, len(chosen)))}</p>
</header>
<main class="many">
{cards}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _explained(scored: Scored, shown: int) -> str:
    of, model = f"among {len(scored.pairs):,} answers", scored.setting.model
    metric = scored.benchmark.titles[scored.benchmark.headline]
    kind = scored.benchmark.kind
    if kind in _BY_SCORE:
        return f"The {shown:,} of the lowest {metric} {of} of {model}, beside what people said."
    wrong = sum(not judged[scored.benchmark.headline] for judged in scored.judged)
    told = f"{shown:,} of {wrong:,} errors {of} of {model} ({metric})"
    if not any(answer.scores or answer.logprobs for _, answer in scored.pairs):
        return f"{told}."
    told += ": those that it was surest of come first."
    if kind is Kind.ANSWER:
        return told
    return (
        f"{told} Point at the phrase for the boxes that were found, at “{TRUTH}” for the true ones."
    )


def _badness(pair: Pair) -> tuple[float, float, str]:
    problem, prediction = pair
    score = prediction.scores[0] if prediction.scores else 0.0
    if prediction.logprobs and problem.choices:
        score = max(prediction.logprobs) - prediction.logprobs[problem.correct]
    return (-score, best_overlap(prediction.boxes[:1], problem.boxes), problem.id)


def _item(problem: Problem, prediction: Prediction, folders: Sequence[Path]) -> PageItem:
    if problem.choices or (problem.references and problem.text):
        return PageItem(
            name=f"{problem.id} · {problem.picture}",
            image=_picture(problem, folders),
            grounded=_answered(problem, prediction),
            note=_weights(problem, prediction),
        )
    if problem.named:
        return PageItem(
            name=f"{problem.id} · {problem.picture}",
            image=_picture(problem, folders),
            grounded=_said_and_named(problem, prediction),
            note=f"Answer: {prediction.answer}",
        )
    if problem.references and not (prediction.boxes and problem.boxes):
        return PageItem(
            name=f"{problem.id} · {problem.picture}",
            image=_picture(problem, folders),
            grounded=_said(problem, prediction),
        )
    if problem.references:  # words by which the box was looked for again
        words = prediction.text
        problem = replace(problem, text=words, start=0, end=len(words))
    overlap = best_overlap(prediction.boxes[:1], problem.boxes)
    sure = f", score {prediction.scores[0]:.2f}" if prediction.scores else ""
    found = f"IoU of the first box {overlap:.2f}{sure}" if prediction.boxes else "no box"
    return PageItem(
        name=f"{problem.id} · {problem.picture}",
        image=_picture(problem, folders),
        grounded=_both(problem, prediction),
        note=f"{found}. Answer: {prediction.answer or '(nothing)'}",
    )


def _said(problem: Problem, prediction: Prediction) -> GroundedText:
    """Return the answer, with the box that it is about, and what people said behind it."""
    answer = prediction.text or "(nothing)"
    text = f"{answer}  –  {TRUTH}: {' / '.join(problem.references)}"
    if not problem.boxes:
        return GroundedText(text=text)
    return GroundedText(text=text, phrases=(Phrase(start=0, end=len(answer), boxes=problem.boxes),))


def _said_and_named(problem: Problem, prediction: Prediction) -> GroundedText:
    """Return the caption with its boxes, and behind it the true things with theirs."""
    spans: dict[tuple[int, int], list[Box]] = {}
    for span, box in zip(prediction.spans, prediction.boxes, strict=True):
        spans.setdefault(span, []).append(box)
    phrases = [Phrase(start=a, end=b, boxes=tuple(boxes)) for (a, b), boxes in spans.items()]
    text = f"{prediction.text or '(nothing)'}  –  {TRUTH}: "
    for names, box in zip(problem.named, problem.boxes, strict=True):
        phrases.append(Phrase(start=len(text), end=len(text) + len(names[0]), boxes=(box,)))
        text += f"{names[0]} / "
    return GroundedText(text=text.removesuffix(" / "), phrases=tuple(phrases))


def _people(references: Sequence[str]) -> str:
    """Return what people answered, the most frequent first, with its number of several."""
    if len(references) == 1:
        return references[0]
    return ", ".join(f"{said} ×{times}" for said, times in Counter(references).most_common())


def _answered(problem: Problem, prediction: Prediction) -> GroundedText:
    """Return the question, the answer and the true one; boxes that were found lie on the question.

    Where boxes were looked for, the question is the phrase, and the truth whether it is there.
    """
    people = _people(problem.references) if problem.references else ""
    truth = problem.choices[problem.correct] if problem.choices else people
    said = "" if prediction.boxes else f" {prediction.text or '(nothing)'}"
    text = f"{problem.text}{said}  –  {TRUTH}: {truth}"
    if not prediction.boxes:
        return GroundedText(text=text)
    boxes, scores = prediction.boxes[:_FOUND], prediction.scores[:_FOUND]
    phrase = Phrase(start=0, end=len(problem.text), boxes=boxes, scores=scores)
    return GroundedText(text=text, phrases=(phrase,))


def _weights(problem: Problem, prediction: Prediction) -> str:
    """Return the mean log-probability of each choice, or the score of the first box."""
    if problem.choices:
        pairs = zip(problem.choices, prediction.logprobs, strict=False)
        return "; ".join(f"{choice} {weight:.2f}" for choice, weight in pairs)
    return f"score {prediction.scores[0]:.2f}" if prediction.scores else ""


def _both(problem: Problem, prediction: Prediction) -> GroundedText:
    """Return the text with the found boxes on its phrase, and the true ones on words behind it."""
    text = f"{problem.text}  –  {TRUTH}"
    phrases = [Phrase(start=len(text) - len(TRUTH), end=len(text), boxes=problem.boxes)]
    if prediction.boxes:
        phrases.append(
            Phrase(
                start=problem.start,
                end=problem.end,
                boxes=prediction.boxes[:_FOUND],
                scores=prediction.scores[:_FOUND],
            )
        )
    return GroundedText(text=text, phrases=tuple(phrases))


def _picture(problem: Problem, folders: Sequence[Path]) -> Image.Image:
    path = find_picture(problem.picture, folders)
    if path is None:
        image = Image.new("RGB", (problem.width or 4, problem.height or 3), _EMPTY)
    else:
        image = open_picture(path).image
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    return image
