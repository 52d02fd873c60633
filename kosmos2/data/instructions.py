"""What somebody asks and what is answered: instructions with or without a picture.

    LLaVA       {"id": "1", "image": "coco/1.jpg", "conversations": [
                    {"from": "human", "value": "<image>\\nWhat is this?"},
                    {"from": "gpt", "value": "A dog."}]}
    FLAN        {"inputs": "Is it true? ...", "targets": "yes", "task_name": "..."}
    Alpaca      {"instruction": "Add.", "input": "1, 2", "output": "3"}
    Unnatural   {"instruction": "Add.", "instances": [{"input": "1, 2", "output": "3",
                    "instruction_with_input": "Add. 1, 2", "constraints": "None."}]}

Questions and answers read "Question: ... Answer: ...", as every prompt here does; only answers are
learnt. Instructions made of grounded records have the wordings of the paper's Table 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kosmos2.boxes import Box
from kosmos2.data import published
from kosmos2.data.album import Album
from kosmos2.data.collate import Row, pack_all
from kosmos2.data.frames import Frames
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Lesson, Teacher
from kosmos2.data.lines import Lines
from kosmos2.grounding.spans import GroundedText, Phrase, mark
from kosmos2.vocab.special import Tag

DESCRIPTIONS = (
    ("What is it? It is", "it"),
    ("What is this? This is", "this"),
    ("Describe this object. This object is", "this object"),
    ("It is", "It"),
    ("This is", "This"),
    ("The object is", "The object"),
)
"""Table 9: the words before an expression, and those of them that the box belongs to."""
_ASKS, _ANSWERS = ("human", "user"), ("gpt", "assistant", "chatgpt", "bard")
_SLOT = "<image>"
Turns = list[tuple[str, str]]


def instruction(
    text: GroundedText, phrase: Phrase, teacher: Teacher, rng: np.random.Generator
) -> Lesson:
    """Return an expression to find or its box to describe, each half of the time.

    Several boxes are found only: one of "three cups" is not three cups.
    """
    words = text.phrase_text(phrase)
    if rng.random() < 0.5 or len(phrase.boxes) > 1:
        return teacher.find(words, phrase.boxes)
    box, (begin, subject) = _drawn(phrase, rng)
    return teacher.complete(mark(begin, subject, [box]), f"{words}.")


def published_instruction(
    text: GroundedText, phrase: Phrase, teacher: Teacher, rng: np.random.Generator
) -> Lesson:
    """Return the same with the published cells, the sentence tokenised as one text.

    No loader of these was published: the tokens follow that of the captions, and of several boxes
    one is drawn.
    """
    tokenizer, words = teacher.tokenizer, text.phrase_text(phrase)
    if rng.random() < 0.5:
        asked = teacher.find(words, phrase.boxes)
        eos = teacher.vocabulary.eos
        return Lesson(
            prompt=asked.prompt, answer=(*published.object_ids(phrase.boxes, tokenizer), eos)
        )
    box, (begin, subject) = _drawn(phrase, rng)
    sentence = mark(f"{begin} {words.strip()}.", subject, [box])
    ids = published.caption_ids(sentence, tokenizer)
    assert not isinstance(ids, Rejected)  # the templates' own words
    answered = len(tokenizer.encode_text(sentence.text)) - len(tokenizer.encode_text(begin))
    assert [teacher.vocabulary.tag(Tag.GROUNDING)] == ids[:1]
    return Lesson(prompt=tuple(ids[:-answered]), answer=(*ids[-answered:], teacher.vocabulary.eos))


def _drawn(phrase: Phrase, rng: np.random.Generator) -> tuple[Box, tuple[str, str]]:
    box = phrase.boxes[int(rng.integers(len(phrase.boxes)))]
    return box, DESCRIPTIONS[int(rng.integers(len(DESCRIPTIONS)))]


@dataclass(frozen=True, slots=True)
class InstructionSource:
    """Rows of instructions, each file in one of the layouts above; rows may be of any."""

    lines: Lines
    album: Album
    teacher: Teacher
    frames: Frames

    def __len__(self) -> int:
        return len(self.lines)

    def sample(self, number: int, rng: np.random.Generator) -> Row | Rejected:
        """Return the row of a conversation or an instruction."""
        where, fields = self.lines.where(number), self.lines.fields(number)
        if isinstance(fields, Rejected):
            return fields
        turns = turns_of(fields, rng)
        if isinstance(turns, str):
            return Rejected(turns, f"{where}: {_shown(fields)}")
        name = fields.get("image")
        if name is None:
            pictures, prefix = self.frames.pictures([]), self.teacher.begin()
        else:
            if not isinstance(name, str):
                return Rejected("not one picture", f"{where}: image is {str(name)[:60]!r}")
            image = self.album.open(name)
            if isinstance(image, Rejected):
                return image
            pictures, prefix = self.frames.pictures([image]), self.teacher.prefix()
        return pack_all(pictures, prefix, [self.teacher.talk(turns)])


def turns_of(fields: Mapping[str, Any], rng: np.random.Generator) -> Turns | str:
    """Return questions with their answers, or in a few words why there are none."""
    if "conversations" in fields:
        pictures = 0 if fields.get("image") is None else 1
        return _conversation(fields["conversations"], pictures)
    if "inputs" in fields and "targets" in fields:
        return _turn(fields["inputs"], "", fields["targets"])
    instances = fields.get("instances")
    if isinstance(instances, Mapping):  # columns, as tables have them: {"input": [...], ...}
        rows = zip(*instances.values(), strict=False)
        instances = [dict(zip(instances, row, strict=True)) for row in rows]
    if isinstance(instances, Sequence) and not isinstance(instances, str):
        instances = [each for each in instances if isinstance(each, Mapping)]
        if not instances:
            return "no instance"
        one = instances[int(rng.integers(len(instances)))]
        whole = one.get("instruction_with_input")
        if isinstance(whole, str) and whole.strip():
            return _turn(whole, "", one.get("output"))
        return _turn(fields.get("instruction"), one.get("input"), one.get("output"))
    if "instruction" in fields:
        given = fields.get("input", fields.get("context"))
        return _turn(fields["instruction"], given, fields.get("output", fields.get("response")))
    return "no layout that is known"


def _turn(question: object, given: object, answer: object) -> Turns | str:
    if not isinstance(question, str) or not question.strip():
        return "no instruction"
    if not isinstance(answer, str) or not answer.strip():
        return "no answer"
    more = given.strip() if isinstance(given, str) else ""
    return [(f"{question.strip()} {more}".strip(), answer.strip())]


def _conversation(messages: object, pictures: int) -> Turns | str:
    """Return the turns of LLaVA's messages without `<image>`: the picture comes first here."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or len(messages) < 2:
        return "no conversation"
    turns: Turns = []
    question: str | None = None
    slots = 0
    for message in messages:
        who = message.get("from") if isinstance(message, Mapping) else None
        value = message.get("value") if isinstance(message, Mapping) else None
        if not isinstance(value, str):
            return "message without text"
        slots += value.count(_SLOT)
        words = value.replace(_SLOT, " ").strip()
        if who == "system":
            continue
        if who in _ASKS and question is None and words:
            question = words
        elif who in _ANSWERS and question is not None and words:
            turns.append((question, words))
            question = None
        else:
            return "turns out of order"
    if question is not None or not turns:
        return "question without answer"
    if slots > 1 or slots > pictures:
        return "pictures do not match <image>"
    return turns


def _shown(fields: Mapping[str, Any]) -> str:
    return f"{fields.get('id', '')} {', '.join(map(str, fields))}"[:120]
