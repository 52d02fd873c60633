"""The page in a browser: an edit session ends in exactly the store that was meant."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_cases import open_page
from editor_cases import BALL, CAPTION, DOG, FIELD, LEFT, LONG_DOG, RIGHT, dog, write_store

pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

import uvicorn

from kosmos2.editor.app import create_app
from kosmos2.editor.changes import Delete, Reword
from kosmos2.editor.history import MARK
from kosmos2.editor.merge import merge
from kosmos2.editor.served import Served
from kosmos2.editor.session import Session
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.store import read

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PIXELS = (200, 100)
Opened = tuple[Session, str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Serve records, perhaps against others; give the session and the page's address."""
    running: list[tuple[Session, uvicorn.Server, threading.Thread]] = []

    def start(*records: GroundedRecord, other: GroundedRecord | None = None) -> Opened:
        store = write_store(tmp_path / "records.jsonl", *records)
        against = write_store(tmp_path / "other.jsonl", other) if other else None
        session = Session.open(store, against=against)
        listening = socket.create_server(("127.0.0.1", 0))
        app = create_app(session, Served(tmp_path), "127.0.0.1")
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((session, server, thread))
        return session, f"http://127.0.0.1:{listening.getsockname()[1]}/"

    yield start
    for session, server, thread in running:
        server.should_exit = True
        thread.join()
        session.close()


def opened(page: Page, address: str) -> Page:
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    # Not wait_for_function, which needs eval: the page's policy forbids it.
    wait = "image => image.complete || new Promise(done => image.addEventListener('load', done))"
    page.locator("#picture").evaluate(wait)
    return page


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Return where on the screen a share of the picture is."""
    place = page.locator("#stage").bounding_box()
    assert place is not None
    return place["x"] + x * place["width"], place["y"] + y * place["height"]


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
    page.mouse.move(*at(page, *end))
    page.mouse.up()


def select_words(page: Page, words: str) -> None:
    """Select words of the caption as a pointer does that goes over them."""
    page.evaluate(
        """words => {
          const runs = [...document.querySelectorAll('#caption .run')];
          const run = runs.find(each => each.textContent.includes(words));
          const start = run.textContent.indexOf(words);
          const range = document.createRange();
          range.setStart(run.firstChild, start);
          range.setEnd(run.firstChild, start + words.length);
          getSelection().removeAllRanges();
          getSelection().addRange(range);
          document.dispatchEvent(new PointerEvent('pointerup', { bubbles: true }));
        }""",
        words,
    )


def saved(page: Page, session: Session, number: int, version: int) -> GroundedRecord:
    """Wait until the page shows this version of the record, and return it."""
    page.wait_for_selector(f"#record-head[data-shows='{number}@{version}']")
    return session.state(number).record


def near(entry: Grounded, span: tuple[int, int], corners: tuple[float, ...]) -> bool:
    """Return whether an entry has this span and these corners, to a pixel of the picture."""
    ends = zip(entry[2:6], corners, (*PIXELS, *PIXELS), strict=True)
    return entry[:2] == span and all(abs(a - b) * side <= 1.01 for a, b, side in ends)


def decide(page: Page, key: str, following: int) -> None:
    """Accept or reject; the page goes on to the record that follows by itself."""
    page.keyboard.press(key)
    page.wait_for_selector(f"#record-head[data-shows^='{following}@']")


def place_the_dog(page: Page, session: Session) -> Grounded:
    """Move the box of the second record's dog, resize it, nudge it; return it."""
    page.locator(".box[data-phrase='0-16']").click()
    drag(page, (0.2, 0.5), (0.3, 0.4))
    record = saved(page, session, 1, 1)
    assert near(record.entries[0], LONG_DOG, (0.2, 0.1, 0.5, 0.7))
    drag(page, (0.5, 0.7), (0.55, 0.75))
    record = saved(page, session, 1, 2)
    assert near(record.entries[0], LONG_DOG, (0.2, 0.1, 0.55, 0.75))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")  # by ten pixels; both are one edit when it rests
    nudged = saved(page, session, 1, 3).entries[0]
    steps = [b - a for a, b in zip(record.entries[0][2:6], nudged[2:6], strict=True)]
    assert steps == pytest.approx([1 / 200, 10 / 100, 1 / 200, 10 / 100])
    return nudged


def link_words(page: Page, session: Session, moved: Grounded) -> None:
    """Draw a box for new words, link it to the ball instead, and give the dog other words."""
    page.keyboard.press("Escape")
    select_words(page, "looks")
    drag(page, (0.7, 0.05), (0.9, 0.25))
    record = saved(page, session, 1, 4)
    assert near(record.entries[2], (17, 22), (0.7, 0.05, 0.9, 0.25))
    page.keyboard.press("r")
    page.keyboard.press("3")
    assert saved(page, session, 1, 5).entries[2][:2] == BALL
    page.keyboard.press("1")
    page.keyboard.press("s")
    select_words(page, "field")
    assert saved(page, session, 1, 6).entries[0] == moved._replace(start=11, end=16)


def delete_and_reword(page: Page, session: Session) -> GroundedRecord:
    """Delete the ball's first box, take that back, do it again; edit the caption."""
    page.locator("#phrases .numbers > button").nth(1).click()
    page.keyboard.press("Delete")
    assert len(saved(page, session, 1, 7).entries) == 2
    page.keyboard.press("Control+z")
    assert len(saved(page, session, 1, 8).entries) == 3
    page.keyboard.press("y")
    record = saved(page, session, 1, 9)
    assert sorted(entry[:2] for entry in record.entries) == [(11, 16), BALL]
    page.keyboard.press("e")
    page.locator("#caption-edit").fill("😀 A big dog in a green field looks at two red balls.")
    page.keyboard.press("Enter")
    record = saved(page, session, 1, 10)
    words = sorted(record.caption[start:end] for start, end, *_ in record.entries)
    assert words == ["field", "two red balls"]
    # Characters are counted as the server counts them, also behind an emoji.
    assert page.locator("#caption .phrase").all_inner_texts() == words
    return record


def test_a_session_of_edits_ends_in_exactly_the_store_that_was_meant(
    browser_page: Page, serve: Callable[..., Opened]
) -> None:
    first, second, third = dog(1), replace(dog(2), noun_chunks=None), dog(3)
    session, address = serve(first, second, third)
    page = opened(browser_page, address)
    decide(page, "a", following=1)
    link_words(page, session, place_the_dog(page, session))
    record = delete_and_reword(page, session)
    decide(page, "x", following=2)
    # The third record: a phrase is deleted with its box, and a decision taken back.
    page.keyboard.press("2")
    page.keyboard.press("Delete")
    assert len(saved(page, session, 2, 1).entries) == 1
    page.keyboard.press("a")
    saved(page, session, 2, 2)
    page.keyboard.press("z")
    saved(page, session, 2, 3)

    merge(session, "keep")
    assert list(read(session.store)) == [
        replace(first, extra={**first.extra, MARK: "accepted"}),
        replace(record, extra={**record.extra, MARK: "rejected"}),
        replace(
            third,
            noun_chunks=(Grounded(*DOG, *LEFT, 0.9),),
            ref_exps=(Grounded(*LONG_DOG, *LEFT, 0.9),),
            extra={"licence": "CC0", "round_trip": [0.8], MARK: "edited"},
        ),
    ]


def lit(page: Page, where: str) -> list[str]:
    return page.eval_on_selector_all(f"{where} .lit", "all => all.map(each => each.dataset.phrase)")


def test_phrases_and_boxes_light_each_other_up_in_one_colour(
    browser_page: Page, serve: Callable[..., Opened]
) -> None:
    _, address = serve(dog())
    page = opened(browser_page, address)
    page.locator("#caption [data-phrase='26-36']").hover()
    assert lit(page, "#boxes") == ["26-36"]
    page.mouse.move(*at(page, 0.2, 0.5))
    assert lit(page, "#caption") == ["0-16"]
    page.locator("#phrases [data-phrase='26-36'] .words").hover()
    assert lit(page, "#boxes") == ["26-36"]
    paints = "all => all.map(each => getComputedStyle(each).getPropertyValue('--paint'))"
    same = page.eval_on_selector_all("[data-phrase='26-36']", paints)
    assert len(same) >= 3
    assert len(set(same)) == 1
    # It keeps its colour when a phrase comes before it.
    page.keyboard.press("Escape")
    select_words(page, "looks")
    drag(page, (0.5, 0.02), (0.58, 0.2))
    page.wait_for_selector(".box[data-phrase='17-22']")
    assert set(page.eval_on_selector_all("[data-phrase='26-36']", paints)) == set(same)


def test_a_drawn_box_asks_whose_it_is_and_keys_alone_can_tell(
    browser_page: Page, serve: Callable[..., Opened]
) -> None:
    session, address = serve(replace(dog(), noun_chunks=None, ref_exps=()))
    page = opened(browser_page, address)
    page.keyboard.press("d")
    page.keyboard.press("Enter")
    page.wait_for_selector("#hint:has-text('Whose box')")
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "Enter"):
        page.keyboard.press(key)
    record = saved(page, session, 0, 1)
    assert CAPTION[slice(*record.entries[0][:2])] == "dog in a"
    assert near(record.entries[0], record.entries[0][:2], (0.35, 0.35, 0.65, 0.65))


def test_a_change_in_another_window_is_told_and_the_edit_can_be_made_again(
    browser: Browser, serve: Callable[..., Opened]
) -> None:
    session, address = serve(dog())
    with open_page(browser) as page:
        opened(page, address)
        assert session.edit(0, Reword(caption="A dog in a field and a red ball."), 0) is None
        page.keyboard.press("2")
        page.keyboard.press("Delete")
        page.wait_for_selector(".toast:has-text('changed in another window')")
        assert page.locator("#caption").inner_text() == "A dog in a field and a red ball."
        assert session.history(0).version == 1
        page.locator(".toast button", has_text="Make it now").click()
        # Its phrase is elsewhere now: that is told, too, and nothing is lost or guessed.
        page.wait_for_selector(".toast:has-text('Not saved')")
    assert session.history(0).version == 1


def test_an_edit_of_a_box_that_is_another_one_now_is_not_offered_again(
    browser: Browser, serve: Callable[..., Opened]
) -> None:
    session, address = serve(dog())
    with open_page(browser) as page:
        opened(page, address)
        page.locator(".box[data-phrase='0-16']").click()
        assert session.edit(0, Delete(view="ref_exps", entry=0), 0) is None
        page.keyboard.press("Delete")
        page.wait_for_selector(".toast:has-text('its box is another one now')")
        assert page.locator(".toast button", has_text="Make it now").count() == 0
        assert page.locator(".box").count() == 1
    assert len(session.state(0).record.entries) == 1


def test_a_record_without_a_picture_can_be_edited_all_the_same(
    browser_page: Page, serve: Callable[..., Opened]
) -> None:
    far = replace(dog(1), image=None, url="http://pictures.example/1.jpg")
    session, address = serve(far)
    page = browser_page
    page.goto(address)
    page.wait_for_selector("#no-picture:has-text('pictures.example')")
    page.locator(".box[data-phrase='26-36']").click()
    page.keyboard.press("ArrowLeft")
    moved = saved(page, session, 0, 1).entries[1]
    assert moved[2:6] == pytest.approx((0.6 - 1 / 200, 0.5, 0.9 - 1 / 200, 0.75))
    # A list of nothing leaves it where it is.
    page.locator("#text").fill("no such words")
    page.wait_for_selector("#count:has-text('0 of 1')")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.wait_for_selector(".toast:has-text('last record')")
    assert page.locator("#record-id").inner_text() == "1"


def test_the_other_store_is_shown_and_its_box_can_be_taken(
    browser_page: Page, serve: Callable[..., Opened]
) -> None:
    other = replace(dog(), noun_chunks=None, ref_exps=(
        Grounded(*LONG_DOG, *LEFT, 0.8), Grounded(*BALL, *RIGHT, 0.8),
        Grounded(*FIELD, 0.0, 0.9, 1.0, 1.0, 0.7),
    ))  # fmt: skip
    session, address = serve(replace(dog(), noun_chunks=None), other=other)
    page = opened(browser_page, address)
    assert page.locator(".ghost").count() == 1
    page.locator("#other button", has_text="take").click()
    assert saved(page, session, 0, 1).entries[2] == Grounded(*FIELD, 0.0, 0.9, 1.0, 1.0, 0.7)
    page.wait_for_selector("#other:has-text('the same boxes')")


def test_only_the_rows_that_are_seen_exist(
    browser_page: Page, serve: Callable[..., Opened]
) -> None:
    _, address = serve(*(dog(number) for number in range(2_000)))
    page = opened(browser_page, address)
    page.wait_for_selector(".row")
    assert page.locator(".row").count() < 40
    page.locator("#text").fill("#1500")
    page.keyboard.press("Enter")
    page.wait_for_selector(".row.open[data-number='1499']")
    page.wait_for_selector("#record-id:text-is('1499')")
    assert page.locator(".row").count() < 40
    page.locator("#text").fill("1234")
    page.wait_for_selector("#count:has-text('1 of 2,000')")
    page.wait_for_selector("#record-id:text-is('1234')")
