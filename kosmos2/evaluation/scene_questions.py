"""Illustrated scenes written as the files of benchmarks that ask about pictures in words.

pope         OUT/scene_pope_SPLIT.json, OUT/images/NAME.png; for `absent` too
seed-bench   OUT/SEED-Bench.json, OUT/images/NAME.png; the split is their data_type
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kosmos2.evaluation.scene_words import with_pictures
from kosmos2.scenes import Scene
from kosmos2.scenes.compose import COLOURS
from kosmos2.scenes.nouns import NUMBER_WORDS

LETTERS = "abcd"
COUNTS = NUMBER_WORDS[1:5]
CHOICES: Mapping[str, tuple[str, Sequence[str]]] = {
    "How many ": ("Instances Counting", COUNTS),
    "What color ": ("Instance Attributes", tuple(COLOURS)),
}
"""How a question begins → its kind in SEED-Bench, and what may be answered."""


def write_pope(folder: Path, scenes: Iterable[Scene], split: str) -> Iterator[Scene]:
    """Write who is there and who is not, as POPE asks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for scene, name in with_pictures(folder, scenes):
        for item in scene.questions:
            thing = re.fullmatch(r"Is there (.+)\?", item.question)
            if thing is None:
                continue
            rows.append(
                {
                    "question_id": len(rows) + 1,
                    "image": name,
                    "text": f"Is there {thing[1]} in the image?",
                    "label": item.answer,
                }
            )
        yield scene
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"scene_pope_{split}.json").write_text(lines, encoding="utf-8")


def write_seed_bench(folder: Path, scenes: Iterable[Scene], split: str) -> Iterator[Scene]:
    """Write how many there are and of which colour, with three wrong answers each."""
    types = {kind: number for number, (kind, _) in enumerate(CHOICES.values(), start=1)}
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for scene, name in with_pictures(folder, scenes):
        for item in scene.questions:
            offered = _offered(item.question, item.answer, seed=f"{scene.id} {item.question}")
            if offered is None:
                continue
            kind, choices = offered
            rows.append(
                {
                    **{
                        f"choice_{letter}": each
                        for letter, each in zip(LETTERS, choices, strict=True)
                    },
                    "answer": LETTERS[choices.index(item.answer)].upper(),
                    "data_id": name,
                    "data_type": split,
                    "question": item.question,
                    "question_id": str(len(rows) + 1),
                    "question_type_id": types[kind],
                }
            )
        yield scene
    text = json.dumps({"questions": rows, "question_type": types}, indent=1)
    (folder / "SEED-Bench.json").write_text(text + "\n", encoding="utf-8")


def _offered(question: str, answer: str, *, seed: str) -> tuple[str, list[str]] | None:
    """Return the kind of a question and four answers in any order; None for other questions."""
    for begin, (kind, answers) in CHOICES.items():
        if question.startswith(begin) and answer in answers:
            draw = random.Random(seed)
            wrong = draw.sample([each for each in answers if each != answer], len(LETTERS) - 1)
            return kind, draw.sample([answer, *wrong], len(LETTERS))
    return None
