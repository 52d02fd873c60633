"""Every task asks with the exact ids of the references, and reads its answer back."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2 import tasks
from kosmos2.boxes import Box
from kosmos2.errors import RequestError
from kosmos2.grounding.markup import read, segments
from kosmos2.grounding.spans import GroundedText, Phrase, mark
from kosmos2.tasks import Prompt, Task
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import ImageSlot, Symbol, Tokenizer, parse_markup_string

GRID = LocationGrid()
SNOWMAN, FIRE = GRID.decode(44, 863), GRID.decode(5, 911)
IMAGE = (0, 64003, *range(4, 68), 64004)
SNOWMAN_IDS = (64009, 64057, 64876, 64010)
FIRE_QUESTION = mark("Where is the fire next to?", "the fire", [FIRE])


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        (tasks.caption(), (64012, 712, 1648, 9)),
        (tasks.caption_in_detail(), (64012, 34645, 247, 38, 1648, 12, 3391, 55)),
        (tasks.plain_caption(), (712, 1648, 9)),
        (tasks.plain_caption_in_detail(), (34645, 247, 38, 1648, 12, 3391, 55)),
        (tasks.find("a snowman"), (64012, 64007, 10, 43867, 64008)),
        (
            tasks.find("a snowman next to a fire"),
            (64012, 64007, 10, 43867, 197, 7, 10, 646, 64008),
        ),
        (tasks.describe(SNOWMAN, GRID), (64012, 64007, 67, 64008, *SNOWMAN_IDS, 17)),
        (tasks.ground("An image of a snowman."), (64012,)),
    ],
)
def test_prompt_has_the_ids_of_the_references(
    real_tokenizer: Tokenizer, prompt: Prompt, ids: tuple[int, ...]
) -> None:
    encoded = real_tokenizer.encode(prompt.segments, num_latents=64)
    assert encoded.ids == IMAGE + ids
    assert encoded.image_mask == (False, False, *[True] * 64, *[False] * (1 + len(ids)))


@pytest.mark.parametrize(
    ("prompt", "markup"),
    [
        # The strings of the original's scripts and of the model card (spec, model.md 6).
        (tasks.caption(), "<grounding> An image of"),
        (tasks.caption_in_detail(), "<grounding>Describe this image in detail:"),
        (tasks.find("a snowman"), "<grounding><phrase>a snowman</phrase>"),
        (
            tasks.find_in_caption("A man by a fire sings.", 9, 15),
            "<grounding>A man by  <phrase>a fire</phrase>",
        ),
        (tasks.find_in_caption("A man sings.", 0, 5), "<grounding> <phrase>A man</phrase>"),
        (
            tasks.describe(SNOWMAN, GRID),
            "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863></object>"
            " is",
        ),
        (tasks.ask("What is this?"), "Question: What is this? Answer:"),
        (
            tasks.ask_grounded("What is special about this image?"),
            "<grounding> Question: What is special about this image? Answer:",
        ),
        (
            tasks.ask_about(FIRE_QUESTION, GRID),
            "<grounding> Question: Where is<phrase> the fire</phrase><object><patch_index_0005>"
            "<patch_index_0911></object> next to? Answer:",
        ),
        (
            tasks.ask_what(SNOWMAN, GRID),
            "<grounding>Question: What is<phrase> it</phrase><object><patch_index_0044>"
            "<patch_index_0863></object>? Answer:",
        ),
    ],
)
def test_prompt_has_the_ids_of_its_published_string(
    real_tokenizer: Tokenizer, prompt: Prompt, markup: str
) -> None:
    published = [ImageSlot(), *parse_markup_string(markup)]
    expected = real_tokenizer.encode(published, num_latents=64)
    assert real_tokenizer.encode(prompt.segments, num_latents=64) == expected
    assert tasks.from_markup(markup).segments == tuple(published)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: tasks.find(" "),
        lambda: tasks.ask(""),
        lambda: tasks.ask_grounded("\n"),
        lambda: tasks.ground(""),
        lambda: tasks.from_markup(" "),
        lambda: tasks.find_in_caption("A man", 2, 2),
        lambda: tasks.find_in_caption("A man", 0, 6),
        lambda: tasks.find_in_caption("A  man", 1, 3),
        lambda: tasks.ask_about(GroundedText(text="What is it?"), GRID),
        lambda: tasks.ask_about(GroundedText(text=" "), GRID),
        lambda: tasks.few_shot([], tasks.caption(), GRID),
        lambda: tasks.few_shot(
            [tasks.Demonstration(prompt=tasks.caption(), answer=GroundedText(text=" "))],
            tasks.caption(),
            GRID,
        ),
        lambda: tasks.from_markup("<image></image> An image of"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(ask: Callable[[], Prompt]) -> None:
    with pytest.raises(RequestError):
        ask()


@given(st.text(min_size=1).filter(str.strip))
def test_what_a_user_types_is_never_control(text: str) -> None:
    for prompt in (tasks.find(text + "</phrase>"), tasks.ask("<grounding>" + text)):
        controls = [part for part in prompt.segments if isinstance(part, Tag)]
        assert controls in ([Tag.GROUNDING, Tag.PHRASE, Tag.PHRASE_END], [])


# ------------------------------------------------------------------------------------ few shot


def test_examples_stand_before_the_query_each_with_its_picture(real_tokenizer: Tokenizer) -> None:
    ask = tasks.describe(SNOWMAN, GRID)
    answer = GroundedText(text="a man made of snow")
    prompt = tasks.few_shot([tasks.Demonstration(prompt=ask, answer=answer)] * 2, ask, GRID)
    assert (prompt.num_images, prompt.task) == (3, Task.DESCRIBE)

    question = (64012, 64007, 67, 64008, *SNOWMAN_IDS)
    one = (*IMAGE[1:], *question, *real_tokenizer.encode_text("is a man made of snow"))
    expected = (0, *one, *one, *IMAGE[1:], *question, 17)
    assert real_tokenizer.encode(prompt.segments, num_latents=64).ids == expected


def test_boxes_alone_are_an_answer_to_learn_from() -> None:
    example = tasks.Demonstration(
        prompt=tasks.find("a fire"), answer=tasks.boxes_only([FIRE, SNOWMAN])
    )
    prompt = tasks.few_shot([example], tasks.find("a snowman"), GRID)
    boxes = segments(tasks.boxes_only([FIRE, SNOWMAN]), GRID)
    before, query = tasks.find("a fire").segments, tasks.find("a snowman").segments
    assert prompt.segments == (*before, *boxes, *query)
    assert prompt.subject == "a snowman"


def test_a_caption_after_examples_is_read_without_the_examples() -> None:
    example = tasks.Demonstration(prompt=tasks.caption(), answer=GroundedText(text="a fire."))
    prompt = tasks.few_shot([example], tasks.caption(), GRID)
    assert tasks.read_text(prompt, said(" a man"), (), GRID).text == "An image of a man"


# ------------------------------------------------------------------------------------- answers


def said(markup: str) -> list[Symbol]:
    return [Symbol(part, n, n + 1) for n, part in enumerate(parse_markup_string(markup))]  # type: ignore[arg-type]


BOX_FIRST = (
    "<object><patch_index_0044><patch_index_0863></object> by"
    "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>."
)
SAID = said("<phrase> a snowman</phrase>" + BOX_FIRST)
MASSES = [
    None,
    None,
    None,
    None,
    0.25,
    1.0,
    None,
    None,
    None,
    None,
    None,
    None,
    0.5,
    0.5,
    None,
    None,
]


def test_a_brief_caption_begins_with_the_words_of_its_prompt() -> None:
    grounded = tasks.read_text(tasks.caption(), SAID, MASSES, GRID)
    assert grounded.text == "An image of a snowman by a fire."
    assert [(p.start, p.end, p.scores) for p in grounded.phrases] == [
        (12, 21, (0.5,)),
        (25, 31, (0.5,)),
    ]


@pytest.mark.parametrize(
    "prompt", [tasks.caption_in_detail(), tasks.ask_grounded("What?"), tasks.describe(FIRE, GRID)]
)
def test_other_answers_are_read_without_their_prompt(prompt: Prompt) -> None:
    # The references keep "Describe this image in detail:" in the text; nobody wants to read it.
    assert tasks.read_text(prompt, SAID, MASSES, GRID).text == "a snowman by a fire."


def test_a_phrase_opened_in_a_markup_prompt_gets_the_boxes_of_the_answer() -> None:
    prompt = tasks.from_markup("<grounding><phrase> a snowman</phrase>")
    grounded = tasks.read_text(prompt, said(BOX_FIRST), MASSES[3:], GRID)
    assert grounded.text == "a snowman by a fire."
    assert [grounded.phrase_text(p) for p in grounded.phrases] == ["a snowman", "a fire"]
    assert grounded.phrases[0].scores == (0.5,)


def test_found_boxes_are_those_after_the_prompt() -> None:
    found = tasks.read_found(tasks.find("a snowman"), said(BOX_FIRST), MASSES[3:], GRID)
    assert (found.phrase, found.boxes, found.scores) == ("a snowman", (SNOWMAN,), (0.5,))


def test_boxes_under_the_same_words_later_on_are_found_too() -> None:
    # As the original's Flickr30k evaluator counts them.
    again = said(
        "<object><patch_index_0044><patch_index_0863></object> and<phrase> a fire</phrase>"
        "<object><patch_index_0005><patch_index_0911></object>"
    )
    assert tasks.read_found(tasks.find("a fire"), again, (), GRID).boxes == (SNOWMAN, FIRE)


def test_a_model_that_points_at_nothing_found_nothing() -> None:
    found = tasks.read_found(tasks.find("a dragon"), said(" is not here."), (), GRID)
    assert (found.boxes, found.scores, found.malformed) == ((), (), ())


def test_what_broke_in_an_answer_is_told() -> None:
    broken = said("<object><patch_index_0863><patch_index_0044></object>")
    found = tasks.read_found(tasks.find("a fire"), broken, (), GRID)
    assert [fault.reason for fault in found.malformed] == ["inverted_box"]


@pytest.mark.parametrize("ending", ["", ".", " ."])
def test_a_description_is_the_expression_alone(ending: str) -> None:
    prompt = tasks.describe(SNOWMAN, GRID)
    answer = tasks.read_description(prompt, said(f" snowman in a hat and scarf{ending}"), (), GRID)
    assert answer == "snowman in a hat and scarf"


@given(data=st.data())
def test_a_grounded_caption_is_the_users_own_text(
    tiny_tokenizer: Tokenizer, data: st.DataObject
) -> None:
    # "½" and "ﬁ" are spelled otherwise by the tokenizer, "€" not at all, and blanks collapse.
    pieces = st.sampled_from(["a", "dog", "ﬁre", "½", "€", "the", " ", "  ", "\n", "<phrase>", "."])
    caption = "".join(data.draw(st.lists(pieces, min_size=1))).strip()
    ids, offsets = tiny_tokenizer.encode_text_with_offsets(caption)
    if not caption:
        return
    first, last = sorted((data.draw(st.integers(0, len(ids))), data.draw(st.integers(0, len(ids)))))
    vocabulary = tiny_tokenizer.vocabulary
    tag = vocabulary.tag
    boxes = [tag(Tag.OBJECT), vocabulary.location(0), vocabulary.location(9), tag(Tag.OBJECT_END)]
    phrase = [tag(Tag.PHRASE), *ids[first:last], tag(Tag.PHRASE_END), *boxes]
    forced = [*ids[:first], *phrase, *ids[last:]]

    prompt = tasks.ground(caption)
    symbols = tiny_tokenizer.symbols(forced)
    grounded = tasks.read_grounded_caption(
        prompt, offsets, symbols, [0.5] * len(forced), tiny_tokenizer.grid
    )

    assert grounded.text == caption
    (found,) = grounded.phrases
    start = max((stop for _, stop in offsets[:first]), default=0)
    stop = max((stop for _, stop in offsets[:last]), default=0)
    assert grounded.phrase_text(found) == caption[start:stop].strip()
    assert found.scores == (0.5,)


def test_a_caption_cut_short_keeps_its_remaining_words(tiny_tokenizer: Tokenizer) -> None:
    prompt = tasks.ground("a dog. the fire")
    ids, offsets = tiny_tokenizer.encode_text_with_offsets(prompt.subject)
    symbols = tiny_tokenizer.symbols(ids[:2])
    grounded = tasks.read_grounded_caption(prompt, offsets, symbols, (), tiny_tokenizer.grid)
    assert grounded == GroundedText(text="a dog. the fire")


def test_the_caption_of_the_published_answer_is_grounded(real_tokenizer: Tokenizer) -> None:
    markup = (
        "An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863>"
        "</object> warming himself."
    )
    prompt = tasks.ground("An image of  a snowman warming himself.")  # two blanks
    _, offsets = real_tokenizer.encode_text_with_offsets(prompt.subject)
    forced = [
        *(712, 1648, 9, 64007, 10, 43867, 64008, 64009, 64057, 64876, 64010, 5950, 597, 4),
    ]
    assert real_tokenizer.decode(forced) == markup
    grounded = tasks.read_grounded_caption(
        prompt, offsets, real_tokenizer.symbols(forced), (), GRID
    )
    assert grounded.text == prompt.subject
    assert [(p.start, p.end, p.boxes) for p in grounded.phrases] == [(13, 22, (SNOWMAN,))]
    assert read(markup, GRID).phrases == (Phrase(start=12, end=21, boxes=(SNOWMAN,)),)


def test_boxes_only_has_no_words() -> None:
    assert tasks.boxes_only([Box(0, 0, 1, 1)]).text == ""
