"""Ask the model about picture files: in batches, going on after a picture that is none."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from kosmos2.cli.console import FAILED, bar, complain
from kosmos2.cli.options import Device, Dtype
from kosmos2.cli.showing import Outputs, Show
from kosmos2.errors import Kosmos2Error

if TYPE_CHECKING:
    from kosmos2.api import Kosmos2, Question, Reply, View
    from kosmos2.images import Picture

STDIN = "-"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    name: str
    device: Device
    dtype: Dtype

    def load(self) -> "Kosmos2":
        from kosmos2.api import Kosmos2

        return Kosmos2.load(self.name, device=self.device, dtype=self.dtype)


def ask_pictures(
    names: Sequence[str],
    choice: ModelChoice,
    questions: "Callable[[View], Sequence[Question[Reply]]]",
    outputs: Outputs,
) -> None:
    """Put the questions to each picture and show the answers; exit with 2 if one failed.

    A picture that cannot be read costs one line on standard error; the others are answered.
    """
    asking = _Asking(choice, questions, Show(outputs, model=choice.name))
    with bar("looking", len(names)) as progress:
        for start in range(0, len(names), asking.batch_size):
            asking.batch(names[start : start + asking.batch_size])
            progress.reach(min(start + asking.batch_size, len(names)), len(names), "looking")
    asking.show.finish()
    if asking.failures:
        raise typer.Exit(FAILED)


class _Asking:
    """One run over many pictures. The model is loaded for the first picture that is good."""

    def __init__(
        self,
        choice: ModelChoice,
        questions: "Callable[[View], Sequence[Question[Reply]]]",
        show: Show,
    ) -> None:
        self.failures = 0
        self.show = show
        self.batch_size = 8
        self._choice = choice
        self._questions = questions
        self._model: Kosmos2 | None = None

    def batch(self, names: Sequence[str]) -> None:
        """Answer about these pictures, and show it in their order."""
        from kosmos2.images import open_picture

        opened: dict[int, Picture] = {}
        errors: dict[int, Exception] = {}
        for index, name in enumerate(names):
            with _caught(errors, index):
                opened[index] = open_picture(sys.stdin.buffer.read() if name == STDIN else name)

        asked: dict[int, tuple[View, Sequence[Question[Reply]]]] = {}
        for index, view in zip(opened, self._look(list(opened.values())), strict=True):
            with _caught(errors, index):
                asked[index] = (view, self._questions(view))
        replies = iter(self._answer(list(asked.values())))
        for index, name in enumerate(names):
            if index in errors:
                self.failures += 1
                complain(errors[index])
                self.show.failure(name, errors[index])
            else:
                questions = asked[index][1]
                own = [next(replies) for _ in questions]
                self.show.answers(name, opened[index].image, questions, own)

    def _look(self, pictures: "list[Picture]") -> "list[View]":
        return self._loaded().look(pictures) if pictures else []

    def _answer(self, asked: "Sequence[tuple[View, Sequence[Question[Reply]]]]") -> "list[Reply]":
        pairs = [((view,), question) for view, questions in asked for question in questions]
        return self._loaded().answer(pairs) if pairs else []

    def _loaded(self) -> "Kosmos2":
        if self._model is None:
            self._model = self._choice.load()
        return self._model


@contextmanager
def _caught(errors: dict[int, Exception], index: int) -> Iterator[None]:
    """Keep the error of one picture instead of ending the run."""
    try:
        yield
    except Kosmos2Error as error:
        errors[index] = error
