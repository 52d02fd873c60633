"""What two models say of the same records, as numbers that can be told by hand, and as a page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.evaluation import before_after, own
from kosmos2.evaluation.own import Answered, compare, head_word
from kosmos2.grounding.sheet import Tile, sheet
from kosmos2.grounding.spans import GroundedText, Phrase, mark

LEFT, RIGHT = Box(0.1, 0.1, 0.4, 0.6), Box(0.6, 0.2, 0.9, 0.8)
TRUE = replace(
    mark("a dog and two red cats", "a dog", (LEFT,)),
    phrases=(
        Phrase(start=0, end=5, boxes=(LEFT,)),
        Phrase(start=10, end=22, boxes=(RIGHT, LEFT)),
    ),
)
RIGHT_ANSWER = Answered(
    record="7",
    picture="one",
    true=TRUE,
    caption=TRUE,
    found=((LEFT,), (RIGHT, LEFT)),
    described=("a dog", None),
)
WRONG = Answered(
    record="7",
    picture="one",
    true=TRUE,
    caption=mark("a <b>cow</b>", "cow", (LEFT,)),
    found=((RIGHT,), ()),
    described=("a cow", None),
)


def values(one: list[Answered], two: list[Answered]) -> dict[str, tuple[float, float, int]]:
    return {
        name: (each.before.value, each.after.value, each.after.n)
        for name, each in compare(one, two).items()
    }


def test_right_answers_are_all_right_and_wrong_ones_all_wrong() -> None:
    found = values([WRONG], [RIGHT_ANSWER])
    assert found == {
        "find": (0.0, 1.0, 2),
        "find_iou": (0.0, 1.0, 2),
        "describe": (0.0, 1.0, 1),
        "caption_f1": (0.0, 1.0, 6),
        "caption_precision": (0.0, 1.0, 3),
        "caption_recall": (0.0, 1.0, 3),
    }


def test_a_caption_s_f1_counts_the_boxes_of_both_sides() -> None:
    half = replace(RIGHT_ANSWER, caption=replace(TRUE, phrases=TRUE.phrases[:1]))
    found = compare([half], [half])
    assert found["caption_precision"].after.value == 1.0
    assert found["caption_recall"].after.value == pytest.approx(1 / 3)
    assert found["caption_f1"].after.value == pytest.approx(2 * 1 / (1 + 3))


def test_a_right_box_under_a_wrong_word_is_wrong() -> None:
    wrong = replace(RIGHT_ANSWER, caption=replace(TRUE, text="a cow and two red hens"))
    assert compare([wrong], [wrong])["caption_f1"].after.value == 0.0


def test_captions_without_boxes_are_no_answers_not_errors() -> None:
    silent = replace(RIGHT_ANSWER, caption=GroundedText(text="nothing"))
    found = compare([silent], [RIGHT_ANSWER])
    assert (found["caption_precision"].before.n, found["caption_recall"].before.value) == (0, 0.0)
    assert "–" in before_after.lines(found)[4]
    assert "caption_precision" not in compare([silent], [silent])


def test_the_change_is_that_of_the_same_questions_and_its_interval_holds_it() -> None:
    before = [replace(WRONG, picture=str(n)) for n in range(10)]
    after = [replace(RIGHT_ANSWER if n < 6 else WRONG, picture=str(n)) for n in range(10)]
    change = compare(before, after)["find"].change
    assert change is not None
    assert change.value == pytest.approx(0.6)
    assert 0.2 < change.low < 0.6 < change.high < 0.95
    assert compare(before, after)["caption_f1"].change is None


@pytest.mark.parametrize(
    ("phrase", "word"),
    [
        ("two small red cars on a book", "car"),
        ("a car", "car"),
        ("the strawberries", "strawberry"),
        ("a slice of pizza", "pizza"),
        ("glass", "glass"),
        ("on the left", "left"),
        ("", ""),
    ],
)
def test_the_head_of_a_phrase_is_its_last_word_before_it_goes_on(phrase: str, word: str) -> None:
    assert head_word(phrase) == word


def test_answers_are_read_as_they_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "before.jsonl"
    own.save(path, [RIGHT_ANSWER, WRONG])
    assert own.read(path) == [RIGHT_ANSWER, WRONG]
    path.write_text('{"record": "7"}\n')
    with pytest.raises(RecordError, match=r"before\.jsonl.*picture"):
        own.read(path)


def test_the_page_shows_both_answers_and_loads_nothing() -> None:
    image = Image.new("RGB", (60, 40), "navy")
    story = before_after.Story(
        facts={"model before": "mine & <yours>"}, numbers=compare([WRONG], [RIGHT_ANSWER])
    )
    html = before_after.page(story, [(image, WRONG, RIGHT_ANSWER)], 1)
    for words in ("truth", "before", "after", "mine &amp; &lt;yours&gt;", "IoU 1.00"):
        assert words in html
    assert "a &lt;b&gt;" in html
    assert "http" not in html.replace("http-equiv", "")
    assert json.loads(json.dumps(before_after.as_dict(story, 1)))["held_out"] == 1


@pytest.mark.parametrize("count", [1, 4, 6])
def test_the_picture_has_a_row_before_above_a_row_after(count: int) -> None:
    image = Image.new("RGB", (60, 40), "navy")
    drawn = before_after.picture([(image, WRONG, RIGHT_ANSWER)] * count)
    tile = sheet([Tile(image=image, grounded=GroundedText(text="a"))]).size
    pairs = -(-count // before_after.SHEET)
    assert drawn.size == (before_after.SHEET * tile[0], 2 * pairs * tile[1])
