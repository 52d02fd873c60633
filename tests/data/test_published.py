"""compat = "paper": the golden sequences of the data specification, B.3, B.2, B.6 and B.9."""

from pathlib import Path

import numpy as np
import pytest
from data_cases import row_of, save, write_lines
from PIL import Image

from kosmos2.boxes import Box
from kosmos2.data.album import centre_crop, resized
from kosmos2.data.grounded import Entry, grounded
from kosmos2.data.instructions import DESCRIPTIONS, instruction, published_instruction
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Teacher
from kosmos2.data.opening import Reader, open_source
from kosmos2.data.published import caption_ids, cropped
from kosmos2.data.recipe import SourceRecipe
from kosmos2.grounding.spans import GroundedText, Phrase, mark
from kosmos2.model.config import ModelConfig, TextConfig, VisionConfig
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer

CAPTION = "a wire hanger with a paper cover that reads we heart our customers"
HANGER = (0.019422357885505368, 0.027634161214033764, 0.9593302408854166, 0.969467560450236)
COVER = (0.019644069503434333, 0.31054004033406574, 0.9622142865754519, 0.9603442351023356)
RECORD = {
    "id": 1,
    "image": "hanger.png",
    "caption": CAPTION,
    "noun_chunks": [[19, 32, *COVER, 0.8], [0, 13, *HANGER, 0.67]],
    "ref_exps": [[19, 66, *COVER, 0.8], [0, 66, *HANGER, 0.67]],
}
SIZE = 224


def phrases(hanger: tuple[int, int], cover: tuple[int, int]) -> list[int]:
    first = 64013
    return [
        *(64007, 10, 6454, 31772, 64008, 64009, first + hanger[0], first + hanger[1], 64010, 23),
        *(64007, 10, 1287, 1285, 64008, 64009, first + cover[0], first + cover[1], 64010),
        *(14, 6372, 46, 689, 84, 1158, 2),
    ]


def whole(hanger: tuple[int, int]) -> list[int]:
    first = 64013
    return [
        *(64007, 10, 6454, 31772, 23, 10, 1287, 1285, 14, 6372, 46, 689, 84, 1158),
        *(64008, 64009, first + hanger[0], first + hanger[1], 64010, 2),
    ]


GOLDEN = {
    ("noun_chunks", "crop"): phrases((0, 1023), (288, 991)),
    ("noun_chunks", "squash"): phrases((0, 1022), (288, 990)),
    ("ref_exps", "crop"): whole((0, 1023)),
    ("ref_exps", "squash"): whole((0, 1022)),
}


@pytest.mark.parametrize(("view", "square"), GOLDEN)
def test_the_record_of_the_specification_is_the_published_sequence(
    tmp_path: Path, real_tokenizer: Tokenizer, view: str, square: str
) -> None:
    save(tmp_path / "hanger.png", Image.new("RGB", (1024, 693)))
    path = write_lines(tmp_path / "grit.jsonl", [RECORD])
    recipe = SourceRecipe(
        kind="records", path=str(path), compat="paper", view=view, square=square, min_score=0.65
    )  # type: ignore[arg-type]
    model = ModelConfig(
        vision=VisionConfig(width=8, feedforward_width=8, num_layers=1, num_heads=2),
        text=TextConfig(width=8, feedforward_width=8, num_layers=1, num_heads=2),
    )
    teacher = Teacher(real_tokenizer, 64)
    source = open_source(recipe, Reader(teacher, model, tmp_path / "cache"), seed=0)
    row = row_of(source.finite, 0)

    prefix, slots = teacher.prefix()
    assert len(prefix) == 67 and sum(slots) == 64
    expected = [64012, *GOLDEN[view, square]]
    assert row.ids == [*prefix, *expected[:-1]]
    # From </image> on every token counts: <grounding>, words, tags, cells and </s>.
    assert row.targets == expected
    assert row.sources == list(range(66, 66 + len(expected)))
    assert row.pixels_ICYX.shape == (1, 3, SIZE, SIZE)


def test_the_crop_of_the_specification_keeps_its_boxes() -> None:
    # I.11 and B.3: 1024 x 693 -> 330 x 224, 53 pixels off at the left.
    assert resized(1024, 693, SIZE) == (330, 224)
    boxes = [cropped(Entry(0, 1, Box(*box)), 1024, 693, SIZE) for box in (COVER, HANGER)]
    corners = [each.box.corners for each in boxes if isinstance(each, Entry)]
    assert corners[0] == pytest.approx([0, 0.310540, 1, 0.960344], abs=1e-6)
    assert corners[1] == pytest.approx([0, 0.027634, 1, 0.969468], abs=1e-6)


def test_a_box_of_which_the_crop_leaves_less_than_a_fifth_is_left_out() -> None:
    left = 53 / 330
    kept = cropped(Entry(0, 1, Box(left - 0.039, 0, left + 0.0101, 1)), 1024, 693, SIZE)
    lost = cropped(Entry(0, 1, Box(left - 0.041, 0, left + 0.0099, 1)), 1024, 693, SIZE)
    assert isinstance(kept, Entry)
    assert isinstance(lost, Rejected)


def test_the_crop_is_the_middle_square_of_the_picture() -> None:
    columns = np.tile(np.arange(64, dtype=np.uint8) * 3, (32, 1))
    image = Image.fromarray(np.stack([columns] * 3, axis=2))
    assert np.array_equal(np.asarray(centre_crop(image, 32)), np.asarray(image)[:, 16:48])


def test_a_contained_expression_comes_back_when_its_container_was_cropped_away() -> None:
    # Containment is looked at after the filters, as published.
    inner, outer = Entry(2, 6, Box(0.4, 0.4, 0.6, 0.6)), Entry(0, 9, Box(0.0, 0.0, 0.02, 1.0))
    framed = [cropped(each, 1024, 693, SIZE) for each in (outer, inner)]
    kept = [each for each in framed if isinstance(each, Entry)]
    assert [phrase.start for phrase in grounded("a red car", kept).phrases] == [2]


def test_a_corner_on_the_border_of_cells_goes_to_the_farther_one(tiny_tokenizer: Tokenizer) -> None:
    text = mark("a dog", "a dog", [Box(0, 0, 0.5, 0.5)])
    ids = caption_ids(text, tiny_tokenizer)
    ours = Teacher(tiny_tokenizer, 3).grounded_caption(text).answer
    assert not isinstance(ids, Rejected)
    cells = [cell for id in ids if (cell := tiny_tokenizer.vocabulary.cell_of(id)) is not None]
    assert cells == [0, 4 * 8 + 4]
    assert tiny_tokenizer.vocabulary.location(3 * 8 + 3) in ours


def test_a_span_that_ends_inside_a_token_is_rejected_by_the_published_rule_and_kept_by_ours(
    tiny_tokenizer: Tokenizer,
) -> None:
    said = "a snowman by a fire"
    _, offsets = tiny_tokenizer.encode_text_with_offsets(said)
    place = next(stop for start, stop in offsets if stop - start >= 4) - 2
    text = GroundedText(
        text=said, phrases=(Phrase(start=place, end=len(said), boxes=(Box(0, 0, 1, 1),)),)
    )
    found = caption_ids(text, tiny_tokenizer)
    assert isinstance(found, Rejected)
    assert found.reason == "span not on tokens"
    opened = tiny_tokenizer.vocabulary.tag(Tag.PHRASE)
    assert opened in Teacher(tiny_tokenizer, 3).grounded_caption(text).answer


@pytest.mark.parametrize("number", range(len(DESCRIPTIONS)))
def test_descriptions_have_the_wordings_of_table_9(tiny_tokenizer: Tokenizer, number: int) -> None:
    teacher, box = Teacher(tiny_tokenizer, 3), Box(0.1, 0.1, 0.6, 0.6)
    text = mark("a dog", "a dog", [box])
    begin, subject = DESCRIPTIONS[number]
    before, after = begin.split(subject, 1)
    cells = "".join(
        teacher.vocabulary.location_token(cell) for cell in tiny_tokenizer.grid.encode(box)
    )
    wanted = {0: "What is it?", 1: "What is this?", 2: "Describe this object."}
    assert begin.startswith(wanted.get(number, begin))
    for make in (instruction, published_instruction):
        drawn = [make(text, text.phrases[0], teacher, np.random.default_rng(n)) for n in range(150)]
        said = {
            (teacher.tokenizer.decode(lesson.prompt), teacher.tokenizer.decode(lesson.answer))
            for lesson in drawn
        }
        assert len(said) == 7  # the six, and the expression to find
        matching = [
            prompt for prompt, answer in said
            if answer == "a dog." and prompt.replace(" ", "").startswith(
                f"<grounding>{before}<phrase>{subject}</phrase><object>".replace(" ", "")
            ) and prompt.replace(" ", "").endswith(f"</object>{after}".replace(" ", ""))
        ]  # fmt: skip
        assert len(matching) == 1
        assert cells in matching[0] or make is published_instruction


def test_an_instruction_is_prompted_as_inference_prompts_and_only_answers_count(
    tiny_tokenizer: Tokenizer,
) -> None:
    # "?" behind a tag is tokenised as in a prompt: there it begins a word.
    teacher, box = Teacher(tiny_tokenizer, 3), Box(0.1, 0.1, 0.6, 0.6)
    text = mark("a dog", "a dog", [box])
    drawn = [
        instruction(text, text.phrases[0], teacher, np.random.default_rng(n)) for n in range(150)
    ]
    prompts = {lesson.prompt for lesson in drawn}
    assert teacher.find("a dog", [box]).prompt in prompts
    assert teacher.describe(box, "a dog").prompt in prompts
    assert {lesson.answer for lesson in drawn} == {
        teacher.find("a dog", [box]).answer,
        teacher.describe(box, "a dog").answer,
    }
