"""The page is one valid file that loads nothing, and ties every phrase to its boxes."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kosmos2.boxes import Box
from kosmos2.grounding.page import PageItem, page
from kosmos2.grounding.spans import GroundedText, Malformed, Phrase

VOID = {"meta", "img"}
GREY = Image.new("RGB", (40, 20), "#808080")


class Reader(HTMLParser):
    """Collects what the tests look at, and fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.caption = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if any(attrs.get("class") == "caption" for _, attrs in self.open):
            self.caption += data

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.elements if name in (attrs.get("class") or "").split()]


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


def item(grounded: GroundedText, image: Image.Image = GREY, note: str = "") -> PageItem:
    return PageItem(name="grey.png", image=image, grounded=grounded, note=note)


def phrase(start: int, end: int, count: int = 1, scores: tuple[float, ...] = ()) -> Phrase:
    return Phrase(start=start, end=end, boxes=(Box(0.25, 0.5, 0.75, 1),) * count, scores=scores)


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(alphabet="ab <>&\"'", min_size=1, max_size=12),
    spans=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=4),
)
def test_every_phrase_is_linked_both_ways_and_can_be_reached_by_keyboard(
    text: str, spans: list[tuple[int, int]]
) -> None:
    inside = [sorted((min(a, len(text)), min(b, len(text)))) for a, b in spans]
    phrases = tuple(phrase(start, end, count=2) for start, end in inside)
    reader = read(page([item(GroundedText(text=text, phrases=phrases))]))

    boxes = [box["data-links"] for box in reader.of_class("box")]
    assert sorted(map(str, boxes)) == sorted(str(n) for n in range(len(phrases)) for _ in "ab")
    reachable = [links for links in reader.of_class("phrase") if links.get("tabindex") == "0"]
    first_links = [str(attrs["data-links"]).split()[0] for attrs in reachable]
    assert sorted(first_links) == [str(n) for n in range(len(phrases))]
    assert reader.caption.startswith(text)


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_nothing_that_a_model_or_a_file_name_says_becomes_html(evil: str) -> None:
    grounded = GroundedText(
        text=evil,
        phrases=(phrase(0, len(evil)),),
        malformed=(Malformed(reason=evil, detail=evil),),
    )
    html = page([PageItem(name=evil, image=GREY, grounded=grounded, note=evil)])
    assert evil not in html
    harmless = read(page([item(grounded=GroundedText(text="a", phrases=(phrase(0, 1),)))]))
    kinds = [tag for tag, _ in read(html).elements]
    assert kinds.count("script") == 1 and kinds.count("img") == 1
    assert not any("onerror" in attrs for _, attrs in read(html).elements)
    assert len(harmless.of_class("box")) == 1


def test_the_page_asks_nobody_for_anything() -> None:
    html = re.sub('base64,[^"]*', "", page([item(GroundedText(text="a cat"))]))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|src=\"(?!data:)", html)
    assert "default-src &#x27;none&#x27;" in html


def test_boxes_are_fractions_of_the_picture_whatever_its_size_on_screen() -> None:
    (box,) = read(page([item(GroundedText(text="a", phrases=(phrase(0, 1),)))])).of_class("box")
    assert str(box["style"]).startswith("left:25.0000%;top:50.0000%;width:50.0000%;height:50.0000%")


def test_scores_are_on_the_box_and_on_the_phrase() -> None:
    html = page([item(GroundedText(text="cats", phrases=(phrase(0, 4, 2, (0.914, 0.5)),)))])
    assert "<b>91%</b>" in html and "<b>50%</b>" in html
    assert 'title="2 boxes, score 91%, 50%"' in html


def test_what_could_not_be_used_is_told() -> None:
    malformed = (Malformed(reason="inverted_box", detail="cells 863, 44"),)
    html = page([item(GroundedText(text="a", malformed=malformed), note="from my camera")])
    assert "1 part of the answer could not be used" in html
    assert "<code>inverted_box</code> cells 863, 44" in html
    assert "from my camera" in html


@pytest.mark.parametrize(("size", "kind"), [((40, 20), "png"), ((3000, 1000), "jpeg")])
def test_pictures_travel_inside_the_page_no_larger_than_needed(
    size: tuple[int, int], kind: str
) -> None:
    image = Image.new("RGBA", size, "#80808080")
    (attrs,) = [
        a for tag, a in read(page([item(GroundedText(text=""), image)])).elements if tag == "img"
    ]
    head, data = str(attrs["src"]).split(",")
    assert head == f"data:image/{kind};base64"
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert max(shown.size) == min(max(size), 1600)
    assert image.size == size


def test_many_pictures_are_many_cards() -> None:
    reader = read(page([item(GroundedText(text=text)) for text in "abc"]))
    assert len(reader.of_class("card")) == 3
    assert len({attrs["aria-labelledby"] for attrs in reader.of_class("card")}) == 3
    assert read(page([])).of_class("card") == []
