"""Ask the model about picture files: in batches, going on after a picture that is none."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

from kosmos2.cli.console import FAILED, bar, complain
from kosmos2.cli.options import Device, Dtype
from kosmos2.cli.showing import Outputs, Show
from kosmos2.errors import ImageError, Kosmos2Error, one_line

if TYPE_CHECKING:
    from kosmos2.api import Kosmos2, Question, Reply, View
    from kosmos2.api.decoding import Decoding
    from kosmos2.images import Picture

STDIN = "-"

Questioner = Callable[["View"], "Sequence[Question[Reply]]"]
"""What is asked of a picture; it may depend on the picture's size."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    name: str
    device: Device
    dtype: Dtype
    overrides: Sequence[str] | None = None

    def decoding(self) -> "Decoding":
        """Return how to answer, as the command line says it."""
        from kosmos2 import config
        from kosmos2.api.decoding import Decoding

        return config.from_overrides(Decoding, self.overrides or ())

    def precision(self) -> str:
        """Return what "auto" means here, before the model is loaded."""
        from kosmos2.api.loading import choose_device, precision_of
        from kosmos2.weights.pretrained import resolve

        return str(precision_of(resolve(self.name), self.dtype, choose_device(self.device)))

    def load(self) -> "Kosmos2":
        from kosmos2.api import Kosmos2

        settings = self.decoding().settings()
        return Kosmos2.load(self.name, device=self.device, dtype=self.dtype, settings=settings)


@dataclass(slots=True)
class _Case:
    """One picture on its way to its answers, or to an error."""

    name: str
    picture: "Picture | None" = None
    questions: "Sequence[Question[Reply]]" = ()
    replies: "list[Reply]" = field(default_factory=list)
    error: str = ""

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Keep an error, with the picture's name, instead of ending the run."""
        try:
            yield
        except ImageError as error:  # has the name already
            self.error = one_line(error)
        except Kosmos2Error as error:
            self.error = one_line(f"{self.name}: {error}")


def ask_pictures(
    names: Sequence[str], choice: ModelChoice, questioner: Questioner, outputs: Outputs
) -> None:
    """Put questions to each picture and show the answers; exit with 2 if a picture failed.

    A picture that cannot be read costs one line on standard error; the others are answered.
    """
    show = Show(outputs, model=choice.name)
    model: Kosmos2 | None = None
    failures, batch_size = 0, choice.decoding().batch_size
    for start in range(0, len(names), batch_size):
        cases = [_opened(name) for name in names[start : start + batch_size]]
        if good := [case for case in cases if case.picture is not None]:
            model = model or choice.load()  # outside the bar: a download shows one of its own
            with bar("looking", len(names), done=start):
                _answer(model, good, questioner)
        for case in cases:
            _show(show, case)
        failures += sum(bool(case.error) for case in cases)
    show.finish()
    if failures:
        raise typer.Exit(FAILED)


def _opened(name: str) -> _Case:
    from kosmos2.images import open_picture

    case = _Case(name)
    with case.trying():
        case.picture = open_picture(sys.stdin.buffer.read() if name == STDIN else name)
    return case


def _answer(model: "Kosmos2", cases: Sequence[_Case], questioner: Questioner) -> None:
    """Encode all pictures in one batch, and answer all their questions."""
    views = model.look([case.picture for case in cases if case.picture is not None])
    for case, view in zip(cases, views, strict=True):
        with case.trying():
            case.questions = questioner(view)
    pairs = [
        (case, view, question)
        for case, view in zip(cases, views, strict=True)
        for question in case.questions
    ]
    replies = model.answer([((view,), question) for _, view, question in pairs])
    for (case, _, _), reply in zip(pairs, replies, strict=True):
        case.replies.append(reply)


def _show(show: Show, case: _Case) -> None:
    if case.error or case.picture is None:
        complain(case.error)
        show.failure(case.name, case.error)
    else:
        show.answers(case.name, case.picture.image, case.questions, case.replies)
