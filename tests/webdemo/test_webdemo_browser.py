"""The demo as users have it, in a real browser."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

import pytest
from browser_cases import open_page
from PIL import Image, ImageChops
from webdemo_cases import EXAMPLES, choose, drag, near, painted, refused, run, seen, visit

from kosmos2.api import Kosmos2, Question, View, questions
from kosmos2.api.decoding import Decoding
from kosmos2.api.model import ReplyT
from kosmos2.boxes import Box
from kosmos2.grounding.render import draw

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def answered(browser: Browser, address: str) -> Iterator[Page]:
    """A page with the caption of the first example, for tests that only look at it."""
    with open_page(browser) as page:
        visit(page, address)
        run(page)
        yield page


def test_the_page_opens_with_the_examples_ready(browser_page: Page, address: str) -> None:
    visit(browser_page, address)
    assert browser_page.locator(".examples button").count() == len(EXAMPLES)
    assert browser_page.locator(".shown").get_attribute("alt") == EXAMPLES[0].name
    assert browser_page.evaluate("document.querySelector('.shown').naturalWidth") == 448


@pytest.mark.parametrize("detailed", [False, True])
def test_an_example_is_answered_as_the_model_answers_it(
    detailed: bool, browser_page: Page, address: str, shown_model: Kosmos2
) -> None:
    visit(browser_page, address, example=6)
    choose(browser_page, "Detailed caption" if detailed else "Brief caption")
    view = shown_model.look(EXAMPLES[6])
    reply = view.caption_in_detail() if detailed else view.caption()
    assert run(browser_page) == reply.text
    words = browser_page.locator(".caption .phrase").all_inner_texts()
    assert words == [reply.grounded.phrase_text(phrase) for phrase in reply.phrases]
    scores = browser_page.locator(".rows .score").all_inner_texts()
    assert scores == [f"{score:.0%}" for phrase in reply.phrases for score in phrase.scores]
    assert browser_page.text_content(".log .wrote") == reply.trace.markup


def test_words_light_their_box_and_no_other(answered: Page) -> None:
    picture = answered.locator(".picture")
    answered.hover("h1")
    before = seen(picture)
    answered.locator(".caption .phrase").nth(1).hover()
    after = seen(picture)
    boxes = {
        box.get_attribute("data-links"): box.bounding_box()
        for box in answered.locator(".box").all()
    }
    frame = picture.bounding_box()
    for link, box in boxes.items():
        assert box is not None and frame is not None and link is not None
        edge = (int(box["x"] - frame["x"] + 1), int(box["y"] + box["height"] / 2 - frame["y"]))
        assert near(after.getpixel(edge), painted(int(link))) is (link == "1")
    lit = boxes["1"]
    assert lit is not None and frame is not None
    inside = (int(lit["x"] - frame["x"] + 12), int(lit["y"] - frame["y"] + 30))
    assert near(after.getpixel(inside), before.getpixel(inside), most=40)
    outside = (4, before.height - 5)
    assert sum(after.getpixel(outside)) < 0.75 * sum(before.getpixel(outside))


def test_a_box_lights_its_words_and_its_row(answered: Page) -> None:
    answered.locator(".box[data-links='0']").hover()
    lit = answered.locator(".caption .phrase.lit")
    assert lit.all_inner_texts() == [answered.locator(".caption .phrase").first.inner_text()]
    assert answered.locator(".rows .lit .name").all_inner_texts() == lit.all_inner_texts()
    background = lit.evaluate("element => getComputedStyle(element).backgroundColor")
    assert background == f"rgb{painted(0)}"


def test_the_keyboard_lights_and_keeps_a_phrase(answered: Page) -> None:
    answered.locator(".caption .phrase").first.focus()
    assert answered.locator(".box.lit").get_attribute("data-links") == "0"
    answered.keyboard.press("Enter")
    answered.locator("#k2-go").focus()
    assert answered.locator(".box.lit").count() == 1
    assert answered.locator(".caption [aria-pressed=true]").count() == 1
    answered.locator(".caption .phrase").first.focus()
    answered.keyboard.press("Escape")
    answered.locator("#k2-go").focus()
    assert answered.locator(".box.lit").count() == 0


def test_a_drawn_box_is_described(browser_page: Page, address: str, shown_model: Kosmos2) -> None:
    visit(browser_page, address)
    choose(browser_page, "Describe a box")
    assert "draw a box" in refused(browser_page)
    drag(browser_page, (0.42, 0.6, 0.96, 0.9))
    pixels = [float(field.input_value()) for field in browser_page.locator(".region input").all()]
    assert pixels == pytest.approx([0.42 * 448, 0.6 * 448, 0.96 * 448, 0.9 * 448], abs=2)
    box = Box(*(pixel / 448 for pixel in pixels))
    assert run(browser_page) == shown_model.look(EXAMPLES[0]).describe(box).text
    assert "truck" in browser_page.inner_text(".caption")
    assert not browser_page.locator(".alert").is_visible()


def test_a_box_can_be_typed_and_asked_about(
    browser_page: Page, address: str, shown_model: Kosmos2
) -> None:
    visit(browser_page, address)
    choose(browser_page, "Ask a question", "What color is [the thing]?")
    browser_page.wait_for_selector(".drawing")
    for field, value in zip(
        browser_page.locator(".region input").all(), (188, 269, 430, 403), strict=True
    ):
        field.fill(str(value))
    box = Box.from_pixels((188, 269, 430, 403), width=448, height=448)
    view = shown_model.look(EXAMPLES[0])
    reply = view.ask_about("What color is the thing?", "the thing", box)
    assert run(browser_page).startswith(reply.text)  # boxes without words are told behind it
    assert browser_page.text_content(".log .wrote") == reply.trace.markup
    assert "<phrase> the thing</phrase><object>" in browser_page.text_content(".log .read")
    browser_page.click(".clear")
    browser_page.fill("#k2-text textarea", "What color is the truck?")
    browser_page.press("#k2-text textarea", "Enter")
    browser_page.locator(".log li").nth(1).wait_for(state="attached")
    assert browser_page.inner_text(".caption") == view.ask("What color is the truck?").text


def test_two_users_at_once_keep_apart(browser: Browser, address: str, shown_model: Kosmos2) -> None:
    expected = [shown_model.caption(EXAMPLES[number]).text for number in (1, 7)]
    assert expected[0] != expected[1]
    with open_page(browser) as one, open_page(browser) as other:
        visit(one, address, example=1)
        visit(other, address, example=7)
        for page in (one, other):
            page.click("#k2-go")
        for page in (one, other):
            page.locator(".log li").first.wait_for(state="attached")
        assert [page.inner_text(".caption") for page in (one, other)] == expected
        assert [page.locator(".shown").get_attribute("alt") for page in (one, other)] == [
            "scene-1.jpg",
            "scene-7.jpg",
        ]
        assert [page.locator(".log li").count() for page in (one, other)] == [1, 1]


def test_the_threshold_hides_boxes_without_asking_again(
    answered: Page, shown_model: Kosmos2
) -> None:
    reply = shown_model.caption(EXAMPLES[0])
    scores = sorted(score for phrase in reply.phrases for score in phrase.scores)
    least = round(scores[-1] * 100 - 1) / 100
    answered.fill(".threshold input", str(least))
    left = sum(score >= least for score in scores)
    assert 0 < left < len(scores)
    assert answered.locator(".box >> visible=true").count() == left
    assert answered.locator(".rows li >> visible=true").count() == left
    assert answered.locator(".phrase:not(.faint)").count() == left
    assert answered.locator(".log li").count() == 1

    for _ in range(2):  # the same picture may be saved twice
        with answered.expect_download() as saved:
            answered.click("[data-file=picture]")
    assert saved.value.suggested_filename == "scene-0-boxes.jpg"
    given = Image.open(saved.value.path()).convert("RGB")
    wanted = draw(Image.open(EXAMPLES[0]), reply.grounded, least)
    difference = ImageChops.difference(given, wanted).convert("L").resize((28, 28))
    assert given.size == wanted.size and difference.getextrema()[1] < 10
    answered.fill(".threshold input", "0")


def test_answers_are_saved_as_json_and_markup(
    browser_page: Page, address: str, shown_model: Kosmos2
) -> None:
    visit(browser_page, address)
    choose(browser_page, "Find a phrase", "a green truck")
    run(browser_page)
    reply = shown_model.look(EXAMPLES[0]).find("a green truck")
    with browser_page.expect_download() as saved:
        browser_page.click("[data-file=json]")
    whole = json.loads(Path(saved.value.path()).read_text("utf-8"))
    assert whole["phrases"] == json.loads(json.dumps(reply.to_dict()))["phrases"]
    assert (whole["image"], whole["width"], whole["task"]) == ("scene-0.jpg", 448, "Find a phrase")
    with browser_page.expect_download() as saved:
        browser_page.click("[data-file=markup]")
    prompt = "<image></image><grounding><phrase> a green truck</phrase>"
    assert Path(saved.value.path()).read_text("utf-8") == f"{prompt}{reply.trace.markup}\n"
    assert whole["prompt"] == prompt


def test_sampling_with_a_seed_repeats(
    browser_page: Page, address: str, shown_model: Kosmos2
) -> None:
    visit(browser_page, address, example=1)
    browser_page.click("#k2-sampling button")
    browser_page.get_by_label("Enable sampling").check()
    browser_page.get_by_label("Seed", exact=True).fill("7")
    browser_page.get_by_label("Seed", exact=True).press("Tab")
    told = Decoding(temperature=0.7, top_p=0.9, seed=7)
    drawn = replace(shown_model, settings=told.settings())
    assert run(browser_page) == run(browser_page) == drawn.caption(EXAMPLES[1]).text
    assert "seed 7" in (browser_page.text_content(".log li") or "")


def test_what_is_wrong_is_said_on_the_page(
    browser_page: Page, address: str, tmp_path: Path
) -> None:
    visit(browser_page, address)
    opener = browser_page.locator("input[type=file]")

    def told_of(name: str, data: bytes) -> str:
        opener.set_input_files({"name": name, "mimeType": "image/png", "buffer": data})
        browser_page.get_by_text(name).first.wait_for()
        return browser_page.inner_text(".alert")

    assert "no picture in a known format" in told_of("a.png", b"no picture")
    file = io.BytesIO()
    Image.new("RGB", (2000, 1000)).save(file, "PNG")
    assert "too large to decode" in told_of("b.png", file.getvalue())
    # A file that is too large is not even sent; Gradio says so itself.
    opener.set_input_files({"name": "c.png", "mimeType": "image/png", "buffer": b"c" * 300_000})
    browser_page.get_by_text("size").first.wait_for()
    choose(browser_page, "Find a phrase", " ")
    browser_page.wait_for_selector(".alert", state="hidden")
    assert "the phrase to find is empty" in refused(browser_page)
    choose(browser_page, "Free prompt", "<grounding><image> x")
    browser_page.wait_for_selector(".alert", state="hidden")
    assert "leave <image> out" in refused(browser_page)
    assert "Traceback" not in browser_page.content()
    assert browser_page.locator(".shown").get_attribute("alt") == "scene-0.jpg"


def test_words_and_names_are_never_markup_of_the_page(
    browser_page: Page, address: str, tmp_path: Path
) -> None:
    evil = "<img src=x onerror=window.hit=1>"
    visit(browser_page, address)
    name = f"{evil}.jpg".replace("/", "")
    browser_page.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/jpeg", "buffer": EXAMPLES[0].read_bytes()}
    )
    browser_page.wait_for_selector(".examples:not(:has([aria-pressed=true]))")
    choose(browser_page, "Find a phrase", evil)
    assert evil in run(browser_page)
    assert browser_page.inner_text(".rows .name") == evil
    choose(browser_page, "Find a phrase", "${window.hit=1}{{7}}</script>")
    run(browser_page)
    assert browser_page.evaluate("window.hit") is None
    assert browser_page.locator("img[src=x]").count() == 0


@dataclass(frozen=True, slots=True, eq=False)
class Slow(Kosmos2):
    """A model that takes its time over each token."""

    def follow(
        self, views: Sequence[View], question: Question[ReplyT]
    ) -> Generator[ReplyT, None, ReplyT]:
        replies = Kosmos2.follow(self, views, question)
        while True:
            try:
                yield next(replies)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            sleep(0.04)


def test_answers_are_shown_as_they_are_written_and_can_be_stopped(
    browser_page: Page, shown_model: Kosmos2
) -> None:
    from kosmos2.webdemo import Bounds, build, launch

    slow = Slow(shown_model.engine, shown_model.tokenizer, "slow", shown_model.settings)
    whole = slow.look(EXAMPLES[1]).put(questions.caption())
    page, bounds = build(slow, EXAMPLES, Bounds()), Bounds()
    with launch(page, slow, host="127.0.0.1", port=0, bounds=bounds) as url:
        visit(browser_page, url, example=1)
        browser_page.click("#k2-go")
        browser_page.wait_for_selector(".busy .box")
        said = browser_page.inner_text(".caption")
        assert whole.text.startswith(said) and said != whole.text
        browser_page.click("#k2-stop")
        browser_page.wait_for_selector(".card:not(.busy)")
        assert browser_page.locator(".log li").count() == 0
        browser_page.wait_for_selector("#k2-go")
        for _ in range(100):
            if not slow.engine.scheduler.busy:
                break
            sleep(0.1)
        assert not slow.engine.scheduler.busy
        assert run(browser_page) == whole.text


def test_the_page_fits_a_phone(browser: Browser, address: str) -> None:
    with open_page(browser, size=(390, 844)) as page:
        visit(page, address, example=6)
        run(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
