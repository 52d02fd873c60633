"""The page of the demo, and what happens when something on it is used.

Nothing of a user is kept outside the state that Gradio keeps for each open page, so users cannot
see or overwrite each other's pictures; the model is shared, and answers them at the same time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from kosmos2.api import Kosmos2, Question, Reply
from kosmos2.api.decoding import Decoding
from kosmos2.errors import ConfigError, Kosmos2Error, RequestError
from kosmos2.webdemo import look, showing
from kosmos2.webdemo.asking import Task, Wish
from kosmos2.webdemo.sitting import Bounds, Sitting, open_file
from kosmos2.webdemo.stage import stage

BLINK = 0.05
"""Seconds between two views of an answer that is being written."""
SESSIONS = 64
"""Users whose pictures are kept; of more, those who have done nothing for longest are forgotten."""
WAITING = 64
"""Questions that may wait; one more is refused."""
KEPT = 3600
"""Seconds that uploaded files stay on disk."""

_log = logging.getLogger(__name__)

Shown = tuple[Any, ...]
"""What a handler returns: the sitting, and updates of the stage and of the two buttons."""


@dataclass(frozen=True, slots=True, eq=False)
class Demo:
    """What is the same for all users."""

    model: Kosmos2
    examples: tuple[Path, ...]
    bounds: Bounds

    def open_example(self, index: int, sitting: Sitting | None) -> Shown:
        """Open the example with that number."""
        if not 0 <= index < len(self.examples):
            return sitting, gr.skip()
        path = self.examples[index]
        return self.open(path, sitting, index)

    def open(self, path: Path, sitting: Sitting | None, example: int | None = None) -> Shown:
        """Open a picture file; the log stays."""
        try:
            opened = open_file(path, path.name, self.bounds, sitting.log if sitting else ())
            shown = showing.picture_value(opened, opened.picture(self.bounds))
        except Kosmos2Error as error:
            return sitting, gr.update(error=str(error))
        return opened, gr.update(
            value=None,
            picture={**shown, "example": example},
            answer=showing.NOTHING,
            error="",
            files=None,
        )

    def ask(
        self, sitting: Sitting | None, wish: Wish, drawn: object, told: Decoding
    ) -> Iterator[Shown]:
        """Yield the answer as it is written; an error is shown in its place."""
        start: dict[str, Any] = {"answer": showing.NOTHING, "error": "", "files": None}
        yield sitting, gr.update(**start, busy=True), *_buttons(is_busy=True)
        try:
            if sitting is None:
                raise RequestError("there is no picture: open one, or choose an example")
            if len(wish.text) > self.bounds.max_text:
                raise RequestError(
                    f"the text has {len(wish.text):,} characters, "
                    f"and {self.bounds.max_text:,} is the most"
                )
            box = sitting.box(drawn) if wish.task.takes_box else None
            question = replace(wish, box=box).question(self.model.tokenizer)
            yield from self._answer(sitting, wish.task, question, told)
        except Kosmos2Error as error:
            message = str(error)
        except Exception:
            _log.exception("the demo could not answer")
            message = "something went wrong here, not with what you asked; the terminal has more"
        else:
            return
        yield sitting, gr.update(error=message, busy=False), *_buttons(is_busy=False)

    def draw(self, sitting: Sitting | None, threshold: object) -> Any:  # noqa: ANN401  (an update)
        """Return the picture with its boxes, to be saved."""
        if sitting is None or not isinstance(threshold, int | float):
            return gr.skip()
        uri = showing.drawn_uri(sitting, self.bounds, float(threshold))
        return gr.update(saved={"uri": uri, "at": time.time()})

    def _answer(
        self, sitting: Sitting, task: Task, question: Question[Reply], told: Decoding
    ) -> Generator[Shown, None, None]:
        model = replace(self.model, settings=told.settings())
        view = sitting.view or model.look(sitting.picture(self.bounds))
        replies = model.follow((view,), question)
        seen = time.monotonic()
        while True:
            try:
                unfinished = next(replies)
            except StopIteration as end:
                reply: Reply = end.value
                break
            if time.monotonic() - seen >= BLINK:
                shown = showing.answer_value(unfinished)
                yield sitting, gr.update(answer=shown), gr.skip(), gr.skip()
                seen = time.monotonic()
        sitting = sitting.answered(view, reply, showing.entry_of(task, question, reply, told))
        done = gr.update(
            answer=showing.answer_value(reply, showing.note_of(question, reply)),
            busy=False,
            log=showing.log_value(sitting.log),
            files=showing.files_value(sitting, model.name, told),
        )
        yield sitting, done, *_buttons(is_busy=False)


def build(model: Kosmos2, examples: Sequence[Path], bounds: Bounds) -> gr.Blocks:
    """Return the page. The first example is open when it is loaded."""
    demo = Demo(model, tuple(examples), bounds)
    page = gr.Blocks(
        title="Kosmos-2", analytics_enabled=False, delete_cache=(KEPT, KEPT), fill_width=True
    )
    with page:
        gr.HTML(look.heading(model.name), apply_default_css=False, elem_id="k2-head")
        sitting = gr.State(None, time_to_live=KEPT)
        with gr.Row(elem_id="k2-main"):
            with gr.Column(scale=3, min_width=280):
                controls = look.controls(bounds)
            with gr.Column(scale=7, min_width=280):
                canvas = stage(showing.thumbnails(demo.examples))
        _connect(demo, page, sitting, canvas, controls)
    page.queue(max_size=WAITING, default_concurrency_limit=model.settings.batch_size)
    return page


@contextmanager
def launch(
    page: gr.Blocks, model: Kosmos2, *, host: str, port: int, bounds: Bounds
) -> Iterator[str]:
    """Serve the page while the block runs; yield its address. Nothing else is ever contacted."""
    # One thread computes for all users: see `Turns.employed`.
    with model.engine.employed():
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port or None,
                share=False,
                ssr_mode=False,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                max_file_size=bounds.max_bytes,
                state_session_capacity=SESSIONS,
                theme=look.theme(),
                css=look.STYLE,
            )
        except OSError as error:
            raise ConfigError(f"{host}:{port}: {error}; try another --port") from error
        try:
            yield address
        finally:
            page.close(verbose=False)


def _connect(
    demo: Demo, page: gr.Blocks, sitting: gr.State, canvas: gr.HTML, controls: look.Controls
) -> None:
    """Say what each event does."""

    def ask(given: dict[Any, Any]) -> Iterator[Shown]:
        wish = Wish(task=Task(given[controls.task]), text=given[controls.text] or "")
        yield from demo.ask(given[sitting], wish, given[canvas], controls.decoding(given))

    def pick(opened: Sitting | None, event: gr.EventData) -> Shown:
        return demo.open_example(_told(event, "index", -1), opened)

    def upload(path: str | None, opened: Sitting | None) -> Shown:
        return demo.open(Path(path), opened) if path else (opened, gr.skip())

    def draw(opened: Sitting | None, event: gr.EventData) -> Any:  # noqa: ANN401
        return demo.draw(opened, _told(event, "threshold", 0.0))

    def choose(name: str) -> Shown:
        task = Task(name)
        return gr.update(drawing=task.takes_box, error=""), look.text_for(task)

    both = [sitting, canvas]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    page.load(lambda: demo.open_example(0, None), outputs=both, **quiet)
    canvas.pick(pick, inputs=sitting, outputs=both, **quiet)
    canvas.draw(draw, inputs=sitting, outputs=canvas, **quiet).then(
        lambda: gr.update(saved=None), outputs=canvas, **quiet
    )
    controls.open.upload(upload, inputs=[controls.open, sitting], outputs=both, **quiet)
    controls.task.change(choose, inputs=controls.task, outputs=[canvas, controls.text], **quiet)
    asked = gr.on(
        [controls.go.click, controls.text.submit],
        ask,
        inputs={sitting, canvas, *controls.inputs},
        outputs=[sitting, canvas, controls.go, controls.stop],
        trigger_mode="once",
        **quiet,
    )
    controls.stop.click(
        lambda: (gr.update(busy=False), *_buttons(is_busy=False)),
        outputs=[canvas, controls.go, controls.stop],
        cancels=[asked],
        **quiet,
    )


def _buttons(*, is_busy: bool) -> Shown:
    """Return updates of the buttons that ask and that stop; one of them is there."""
    return gr.update(visible=not is_busy), gr.update(visible=is_busy)


def _told(event: gr.EventData, name: str, otherwise: Any) -> Any:  # noqa: ANN401
    """Return what a browser sent with an event, if it is a number."""
    data = getattr(event, "_data", None)
    value = data.get(name) if isinstance(data, dict) else None
    return value if type(value) in (int, float) else otherwise
