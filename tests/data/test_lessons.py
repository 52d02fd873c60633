"""Lessons: the prompts of inference, the answers of the published data."""

import pytest

from kosmos2 import tasks
from kosmos2.boxes import Box
from kosmos2.data.lessons import Lesson, Teacher
from kosmos2.grounding.markup import read_symbols
from kosmos2.grounding.spans import GroundedText, Phrase, mark
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer

BOX, OTHER = Box(0.1, 0.1, 0.6, 0.6), Box(0.5, 0.2, 0.9, 0.9)
CAPTION = "a wire hanger with a paper cover that reads we heart our customers"
HANGER = Box(0.019422357885505368, 0.027634161214033764, 0.9593302408854166, 0.969467560450236)
COVER = Box(0.019644069503434333, 0.31054004033406574, 0.9622142865754519, 0.9603442351023356)
QUESTION = "What color is the small red car?"


@pytest.fixture
def teacher(tiny_tokenizer: Tokenizer) -> Teacher:
    return Teacher(tiny_tokenizer, num_latents=5)


def decoded(teacher: Teacher, ids: tuple[int, ...]) -> str:
    return teacher.tokenizer.decode(ids)


def lessons(teacher: Teacher) -> dict[str, tuple[Lesson, tasks.Prompt]]:
    grid = teacher.tokenizer.grid
    caption = mark("The image features a yellow bird.", "a yellow bird", [BOX])
    return {
        "detailed": (teacher.detailed_caption(caption), tasks.caption_in_detail()),
        "find": (teacher.find("a small red car", [BOX, OTHER]), tasks.find("a small red car")),
        "describe": (teacher.describe(BOX, "a small red car"), tasks.describe(BOX, grid)),
        "ask": (teacher.ask(QUESTION, "red"), tasks.ask(QUESTION)),
    }


@pytest.mark.parametrize("name", ["detailed", "find", "describe", "ask"])
def test_a_lesson_is_prompted_as_inference_prompts(teacher: Teacher, name: str) -> None:
    lesson, prompt = lessons(teacher)[name]
    encoded = teacher.tokenizer.encode(prompt.segments, num_latents=teacher.num_latents)
    assert (*teacher.prefix()[0], *lesson.prompt) == encoded.ids


@pytest.mark.parametrize("name", ["detailed", "find", "describe", "ask"])
def test_every_answer_ends_the_sequence_once(teacher: Teacher, name: str) -> None:
    lesson, _ = lessons(teacher)[name]
    eos = teacher.vocabulary.eos
    assert lesson.answer[-1] == eos
    assert [*lesson.prompt, *lesson.answer].count(eos) == 1
    assert len(lesson) == len(lesson.prompt) + len(lesson.answer)


def test_the_prefix_is_the_start_and_one_picture(teacher: Teacher) -> None:
    vocabulary = teacher.vocabulary
    begin, end = vocabulary.tag(Tag.IMAGE), vocabulary.tag(Tag.IMAGE_END)
    ids, mask = teacher.prefix()
    assert ids == (vocabulary.bos, begin, 4, 5, 6, 7, 8, end)
    assert mask == (False, False, *[True] * 5, False)


def test_a_grounded_caption_of_the_published_record_is_the_published_sequence(
    real_tokenizer: Tokenizer,
) -> None:
    # B.3 of the data specification: noun chunks, squashed picture; <grounding> is a target.
    phrases = (Phrase(start=0, end=13, boxes=(HANGER,)), Phrase(start=19, end=32, boxes=(COVER,)))
    lesson = Teacher(real_tokenizer, 64).grounded_caption(
        GroundedText(text=CAPTION, phrases=phrases)
    )

    assert lesson.prompt == ()
    assert lesson.answer == (
        *(64012, 64007, 10, 6454, 31772, 64008, 64009, 64013, 64013 + 1022, 64010, 23),
        *(64007, 10, 1287, 1285, 64008, 64009, 64013 + 288, 64013 + 990, 64010),
        *(14, 6372, 46, 689, 84, 1158, 2),
    )


def test_a_caption_begins_with_the_ids_of_the_prompt_for_it(teacher: Teacher) -> None:
    # Training reads the words as one text, inference as a prompt and what comes after it.
    caption = mark("An image of a snowman.", "a snowman", [BOX])
    answer = teacher.grounded_caption(caption).answer
    encoded = teacher.tokenizer.encode(tasks.caption().segments, num_latents=teacher.num_latents)
    prompt = encoded.ids[len(teacher.prefix()[0]) :]
    assert answer[: len(prompt)] == prompt


def test_a_caption_reads_back_as_what_was_taught(teacher: Teacher) -> None:
    grid = teacher.tokenizer.grid
    box = grid.decode(9, 45)
    caption = mark("An image of a snowman by a fire.", "a snowman", [box])
    answer = teacher.grounded_caption(caption).answer
    assert read_symbols(teacher.tokenizer.symbols(answer), grid, ()) == caption


def test_a_plain_caption_has_no_tag_at_all(teacher: Teacher) -> None:
    lesson = teacher.plain_caption("An image of a snowman.")
    assert lesson.prompt == ()
    assert decoded(teacher, lesson.answer) == "An image of a snowman."


def test_found_boxes_are_answered_in_the_order_given(teacher: Teacher) -> None:
    grid, vocabulary = teacher.tokenizer.grid, teacher.vocabulary
    lesson = teacher.find("two dogs", [OTHER, BOX])
    corners = [vocabulary.location_token(cell) for box in (OTHER, BOX) for cell in grid.encode(box)]
    assert decoded(teacher, lesson.answer) == (
        f"<object>{corners[0]}{corners[1]}</delimiter_of_multi_objects/>"
        f"{corners[2]}{corners[3]}</object>"
    )


def test_a_described_box_and_an_answered_question_are_words(teacher: Teacher) -> None:
    assert decoded(teacher, teacher.describe(BOX, "a small red car").answer) == "a small red car."
    assert decoded(teacher, teacher.ask(QUESTION, "red").answer) == "red"
