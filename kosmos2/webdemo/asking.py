"""What a user of the demo asks for, into a question of the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from kosmos2.api import Question, Reply, questions
from kosmos2.boxes import Box
from kosmos2.errors import RequestError
from kosmos2.vocab.tokenizer import Tokenizer

_BRACKETED = re.compile(r"\[([^\[\]]+)\]")
_POINTING = re.compile(r"(?<!\w)(?:it|this|that)(?!\w)", re.IGNORECASE)


class Task(StrEnum):
    """What can be asked, by the name on the page."""

    BRIEF = "Brief caption"
    DETAILED = "Detailed caption"
    FIND = "Find a phrase"
    DESCRIBE = "Describe a box"
    ASK = "Ask a question"
    FREE = "Free prompt"

    @property
    def takes_box(self) -> bool:
        return self in (Task.DESCRIBE, Task.ASK)

    @property
    def hint(self) -> Hint | None:
        """Return what stands at the text to type; None: there is none."""
        return _HINTS.get(self)


@dataclass(frozen=True, slots=True)
class Hint:
    label: str
    example: str


_HINTS = {
    Task.FIND: Hint("Phrase to find", "a red car"),
    Task.ASK: Hint(
        "Question; about a drawn box, say “it”, “this”, or put words in [brackets]",
        "What color is it?",
    ),
    Task.FREE: Hint("Prompt, tags and all", "<grounding> An image of"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A task with what it needs; the box is normalised."""

    task: Task
    text: str = ""
    box: Box | None = None

    def question(self, tokenizer: Tokenizer) -> Question[Reply]:
        """Return the question; RequestError says what is missing."""
        match self.task:
            case Task.BRIEF:
                return questions.caption()
            case Task.DETAILED:
                return questions.caption_in_detail()
            case Task.FREE:
                return questions.complete(self.text)
            case Task.FIND:
                return questions.find(self.text, tokenizer.vocabulary)
            case Task.DESCRIBE:
                return questions.describe(self._drawn(), tokenizer.grid)
            case Task.ASK if self.box is None:
                return questions.ask(self.text)
            case Task.ASK:
                text, words = pointing(self.text)
                return questions.ask_about(text, words, self._drawn(), tokenizer.grid)

    def _drawn(self) -> Box:
        if self.box is None:
            raise RequestError("draw a box on the picture first: press, drag and let go")
        return self.box


def pointing(question: str) -> tuple[str, str]:
    """Return a question without brackets, and its words that mean the drawn box."""
    if found := _BRACKETED.search(question):
        return question[: found.start()] + found[1] + question[found.end() :], found[1]
    if found := _POINTING.search(question):
        return question, found[0]
    if not question.strip():
        return question, "it"  # refused as empty by whoever takes it
    raise RequestError(
        f"which words of {question[:80]!r} mean the drawn box? Write “it” or “this”, put them in "
        "[brackets], or clear the box"
    )
