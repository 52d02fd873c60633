"""What the demo asks, keeps and shows, without a browser."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from webdemo_cases import EXAMPLES

from kosmos2.api import Kosmos2
from kosmos2.api.decoding import Decoding
from kosmos2.boxes import Box
from kosmos2.errors import BoxError, ImageError, RequestError
from kosmos2.grounding.markup import literal, read, write
from kosmos2.grounding.render import draw
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.vocab.locations import LocationGrid

pytest.importorskip("gradio", reason="needs the extra demo")

from kosmos2.webdemo import Bounds, app, build, launch
from kosmos2.webdemo.asking import Task, Wish, pointing
from kosmos2.webdemo.sitting import LONGEST_LOG, Entry, Sitting, open_file

BOUNDS = Bounds()


@pytest.fixture
def sitting() -> Sitting:
    return open_file(EXAMPLES[1], "scene-1.jpg", BOUNDS, ())


@pytest.fixture
def demo(shown_model: Kosmos2) -> app.Demo:
    return app.Demo(shown_model, tuple(EXAMPLES), BOUNDS)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is it?", ("What is it?", "it")),
        ("What is [the red hat] for?", ("What is the red hat for?", "the red hat")),
        ("Is [this] it?", ("Is this it?", "this")),
        ("Who has This?", ("Who has This?", "This")),
    ],
)
def test_a_question_about_a_box_has_words_for_it(question: str, expected: tuple[str, str]) -> None:
    assert pointing(question) == expected


def test_a_question_without_words_for_the_box_is_refused() -> None:
    with pytest.raises(RequestError, match=r"which words of 'Sit with whom\?' mean the drawn box"):
        pointing("Sit with whom?")


@pytest.mark.parametrize("task", list(Task))
def test_every_task_names_what_is_missing_or_asks(task: Task, shown_model: Kosmos2) -> None:
    if task in (Task.BRIEF, Task.DETAILED):
        assert Wish(task=task).question(shown_model.tokenizer).asks_for_boxes
        return
    with pytest.raises(RequestError, match=r"empty|draw a box"):
        Wish(task=task, text=" ").question(shown_model.tokenizer)


def test_a_drawn_box_is_clipped_to_the_picture(sitting: Sitting) -> None:
    assert (sitting.width, sitting.height) == (448, 448)
    assert sitting.box([-9, 112, 224, 999]) == Box(0, 0.25, 0.5, 1)
    assert sitting.box([224, 336, 0, 112]) == Box(0, 0.25, 0.5, 0.75)
    assert sitting.box(None) is sitting.box("") is None


@pytest.mark.parametrize(
    "corners", [[1, 2, 3], [1, 2, 3, "4"], [0, 0, math.nan, 1], [True, 0, 1, 1], {"x": 1}, "1234"]
)
def test_what_is_no_box_is_refused(corners: object, sitting: Sitting) -> None:
    with pytest.raises(BoxError, match="drawn box"):
        sitting.box(corners)


def test_a_box_without_area_in_the_picture_is_refused(sitting: Sitting) -> None:
    with pytest.raises(BoxError, match="no area inside the picture"):
        sitting.box([500, 10, 600, 20])


def test_files_over_the_bounds_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (200, 200)).save(path)
    with pytest.raises(ImageError, match=r"large\.png: too large to decode"):
        open_file(path, "large.png", Bounds(max_pixels=1_000), ())
    with pytest.raises(ImageError, match=r"large\.png has 0\.0 MB"):
        open_file(path, "large.png", Bounds(max_bytes=10), ())


def test_a_streamed_answer_grows_into_the_whole_one(
    demo: app.Demo, sitting: Sitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "BLINK", 0.0)
    views = list(demo.ask(sitting, Wish(task=Task.BRIEF), None, Decoding()))
    answers = [view[1]["answer"] for view in views]
    counts = [len(answer["rows"]) for answer in answers]
    assert len(counts) > 10
    assert counts == sorted(counts)
    assert sorted(set(counts)) == list(range(counts[-1] + 1))  # one box after the other
    last, done = views[-1][0], views[-1][1]
    reply = demo.model.caption(EXAMPLES[1])
    assert [row["words"] for row in done["answer"]["rows"]] == [
        reply.grounded.phrase_text(phrase) for phrase in reply.phrases for _ in phrase.boxes
    ]
    assert last.reply.trace.markup == reply.trace.markup == done["log"][0]["markup"]
    assert done["log"][0]["prompt"] == "<image></image><grounding>An image of"
    assert views[0][1]["busy"] and not done["busy"]


def test_an_answer_that_nobody_waits_for_frees_its_row(demo: app.Demo, sitting: Sitting) -> None:
    views = demo.ask(sitting, Wish(task=Task.DETAILED), None, Decoding())
    next(views)
    scheduler = demo.model.engine.scheduler
    next(views)
    views.close()  # type: ignore[attr-defined]
    assert not scheduler.busy


def test_errors_are_told_and_the_page_is_ready_again(
    demo: app.Demo, sitting: Sitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def last(*given: Any) -> dict[str, Any]:
        *_, (_, stage, go, stop) = demo.ask(*given)
        assert (stage["busy"], go["visible"], stop["visible"]) == (False, True, False)
        return dict(stage)

    wish = Wish(task=Task.FIND, text="x" * 5_000)
    assert "there is no picture" in last(None, wish, None, Decoding())["error"]
    assert "5,000 characters" in last(sitting, wish, None, Decoding())["error"]
    monkeypatch.setattr(Kosmos2, "look", lambda *_: 1 / 0)
    told = last(sitting, Wish(task=Task.BRIEF), None, Decoding())["error"]
    assert "something went wrong here" in told and "division" not in told


def test_the_picture_is_looked_at_once(
    demo: app.Demo, sitting: Sitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, (seen, *_) = demo.ask(sitting, Wish(task=Task.BRIEF), None, Decoding())
    monkeypatch.setattr(Kosmos2, "look", lambda *_: pytest.fail("looked again"))
    *_, (again, *_) = demo.ask(seen, Wish(task=Task.FIND, text="a fish"), None, Decoding())
    assert again.view is seen.view and again.reply.text == "a fish"
    assert [entry.task for entry in again.log] == ["Brief caption", "Find a phrase"]
    assert sitting.view is None and not sitting.log  # a sitting is never changed


def test_the_log_has_an_end(demo: app.Demo, sitting: Sitting) -> None:
    entry = Entry(task="t", prompt="p", settings="s", markup="m", stop="eos")
    view = demo.model.look(EXAMPLES[1])
    reply = view.caption()
    for _ in range(LONGEST_LOG + 5):
        sitting = sitting.answered(view, reply, entry)
    assert len(sitting.log) == LONGEST_LOG


def test_building_and_serving_contacts_no_other_machine(
    shown_model: Kosmos2, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    resolve, connect = socket.getaddrinfo, socket.socket.connect

    def watched_resolve(host: Any, *rest: Any, **named: Any) -> Any:
        asked.append(host)
        return resolve(host, *rest, **named)

    def watched_connect(self: socket.socket, address: Any) -> None:
        asked.append(address[0])
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", watched_resolve)
    monkeypatch.setattr(socket.socket, "connect", watched_connect)
    page = build(shown_model, EXAMPLES[:1], BOUNDS)
    with launch(page, shown_model, host="127.0.0.1", port=0, bounds=BOUNDS) as url:
        assert url.startswith("http://127.0.0.1:")
        assert page.share_url is None
    assert {str(host) for host in asked} <= {"127.0.0.1", "localhost", "None"}


def test_a_drawing_leaves_out_boxes_below_a_score_and_keeps_colours() -> None:
    image = Image.new("RGB", (64, 64), "white")
    boxes = (Box(0, 0, 0.4, 1), Box(0.5, 0, 1, 1))
    phrases = tuple(
        Phrase(start=n, end=n, boxes=(box,), scores=(score,))
        for n, (box, score) in enumerate(zip(boxes, (0.3, 0.8), strict=True))
    )
    text = GroundedText(text="ab", phrases=phrases)
    both, one = draw(image, text), draw(image, text, 0.5)
    left, right = (0, 0, 28, 64), (32, 0, 64, 64)
    assert one.crop(right).tobytes() == both.crop(right).tobytes()
    assert one.crop(left).getcolors() == [(28 * 64, (255, 255, 255))]


def test_literal_prompts_read_back() -> None:
    grid = LocationGrid(32)
    text = GroundedText(text="a cat", phrases=(Phrase(start=0, end=5, boxes=(Box(0, 0, 1, 1),)),))
    assert read(write(text, grid), grid).text == "a cat"
    from kosmos2 import tasks

    assert "".join(map(literal, tasks.caption().segments)) == (
        "<image></image><grounding>An image of"
    )
