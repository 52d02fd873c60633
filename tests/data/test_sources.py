"""Sources: a row is a function of its index; finite sources shuffle, scenes never end."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scene_shapes import NOUNS, recipe, shapes

from kosmos2.data.collate import Row, pack
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Lesson, Teacher
from kosmos2.data.patches import unknown
from kosmos2.data.recipe import SourceRecipe
from kosmos2.data.sources import SceneSource, Shuffled
from kosmos2.scenes.maker import SceneMaker
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer


@pytest.fixture
def teacher(tiny_tokenizer: Tokenizer) -> Teacher:
    return Teacher(tiny_tokenizer, num_latents=3)


def scene_source(teacher: Teacher, *, max_lessons: int = 8, **changes: object) -> SceneSource:
    maker = SceneMaker(recipe(**changes), shapes())
    source = SourceRecipe(kind="scenes", max_lessons=max_lessons)
    return SceneSource(maker, teacher, source, patches_per_side=4)


def assert_equal(one: Row, other: Row) -> None:
    for field in dataclasses.fields(Row):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, torch.Tensor):
            assert torch.equal(ours, theirs)
        else:
            assert ours == theirs


def answers(row: Row, teacher: Teacher) -> list[str]:
    """The targets as text, lesson by lesson."""
    ends = [n for n, token in enumerate(row.targets, 1) if token == teacher.vocabulary.eos]
    starts = [0, *ends[:-1]]
    return [
        teacher.tokenizer.decode(row.targets[start:end])
        for start, end in zip(starts, ends, strict=True)
    ]


@dataclass(frozen=True)
class Drawing:
    """Four samples; each says its number and what was drawn for it."""

    def __len__(self) -> int:
        return 4

    def sample(self, number: int, rng: np.random.Generator) -> Row | Rejected:
        answer = (100 + number, 200 + int(rng.integers(1000)), *[5] * (4 * number))
        lesson = Lesson(prompt=(), answer=answer)
        return pack(torch.zeros(3, 4, 4), unknown(2), ((0,), (False,)), [lesson])


def test_what_is_drawn_for_a_sample_hangs_on_seed_sample_and_epoch_alone() -> None:
    def targets(seed: int, index: int) -> list[int]:
        row = Shuffled(Drawing(), seed=seed, most_positions=99).row(index)
        assert isinstance(row, Row)
        return row.targets

    drawn = [targets(3, index) for index in range(12)]
    assert [targets(3, index) for index in reversed(range(12))] == drawn[::-1]
    assert sorted(each[0] for each in drawn) == [100] * 3 + [101] * 3 + [102] * 3 + [103] * 3
    assert len({each[1] for each in drawn}) > 9
    assert drawn != [targets(4, index) for index in range(12)]


def test_a_row_that_the_model_has_no_positions_for_is_rejected() -> None:
    source = Shuffled(Drawing(), seed=0, most_positions=10)
    rows = [source.row(index) for index in range(4)]
    reasons = [row.reason for row in rows if isinstance(row, Rejected)]
    assert reasons == ["too long"]
    assert max(len(row) for row in rows if isinstance(row, Row)) == 10


def test_a_scene_s_row_is_a_pure_function_of_its_index(teacher: Teacher) -> None:
    ours, theirs = scene_source(teacher), scene_source(teacher)
    backwards = [ours.row(index) for index in (3, 2, 1, 0)][::-1]
    for index, row in enumerate(backwards):
        assert_equal(row, theirs.row(index))
    assert len({tuple(row.targets) for row in backwards}) == 4


def test_a_scene_s_row_shows_its_picture_and_teaches_what_is_true_of_it(teacher: Teacher) -> None:
    ours = scene_source(teacher, max_lessons=30)
    for index in range(12):
        scene, row = ours.maker.scene(index), ours.row(index)
        said = answers(row, teacher)

        assert np.array_equal(row.pixels_ICYX[0].numpy(), scene.image.transpose(2, 0, 1))
        texts = [scene.brief.text, scene.detailed.text]
        words = {
            teacher.tokenizer.decode(lesson.answer)
            for lesson in (
                *(teacher.grounded_caption(scene.brief), teacher.detailed_caption(scene.detailed)),
                *(teacher.plain_caption(text) for text in texts),
            )
        }
        assert said[0] in words
        boxes = [teacher.tokenizer.decode(teacher.find("x", g.boxes).answer) for g in scene.groups]
        assert said[1 : 1 + len(boxes)] == boxes
        others = len(scene.referring) * 2 + len(scene.questions)
        assert len(said) == min(30, 1 + len(boxes) + others)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_row_has_more_lessons_than_the_recipe_allows(teacher: Teacher, most: int) -> None:
    ours = scene_source(teacher, max_lessons=most)
    assert max(len(answers(ours.row(index), teacher)) for index in range(8)) <= most


def test_a_source_without_lessons_teaches_the_tower_alone(teacher: Teacher) -> None:
    row = scene_source(teacher, max_lessons=0).row(0)
    assert row.targets == []
    assert row.ids == list(teacher.prefix()[0])
    assert row.noun_IP[0].max() > 0


def test_nouns_are_numbered_from_one_in_the_recipe_s_order(teacher: Teacher) -> None:
    ours = scene_source(teacher, max_groups=1, max_instances=1)
    for index in range(6):
        (group,) = ours.maker.scene(index).groups
        numbers = set(ours.row(index).noun_IP[0].tolist())
        assert numbers <= {0, NOUNS.index(group.noun) + 1}


def test_only_captions_with_boxes_are_announced(teacher: Teacher) -> None:
    grounding = teacher.vocabulary.tag(Tag.GROUNDING)
    opened = teacher.vocabulary.tag(Tag.OBJECT)
    ours = scene_source(teacher, max_lessons=1)
    kinds = set()
    for index in range(25):
        row = ours.row(index)
        is_grounded = opened in row.targets
        kinds.add(is_grounded)
        assert (grounding in row.targets or grounding in row.ids) == is_grounded
    assert kinds == {True, False}


def with_doubts(teacher: Teacher, **shares: float) -> SceneSource:
    maker = SceneMaker(recipe(), shapes())
    asked = dataclasses.replace(SourceRecipe(kind="scenes", max_lessons=30), **shares)  # type: ignore[arg-type]
    return SceneSource(maker, teacher, asked, patches_per_side=4)


def test_a_phrase_that_the_picture_does_not_show_is_answered_by_the_end(teacher: Teacher) -> None:
    ours = with_doubts(teacher, absent=1.0)
    taught = 0
    for index in range(12):
        scene, row = ours.maker.scene(index), ours.row(index)
        shown = {group.noun for group in scene.groups}
        assert not any(noun in phrase for noun in shown for phrase in scene.absent)
        ends = answers(row, teacher).count("")
        assert ends == len(scene.absent[:1])
        taught += ends
    assert taught


def test_a_phrase_of_a_caption_is_found_behind_the_words_before_it(teacher: Teacher) -> None:
    plain, ours = with_doubts(teacher), with_doubts(teacher, in_caption=1.0)
    for index in range(8):
        scene, row = ours.maker.scene(index), ours.row(index)
        captions = (scene.brief, scene.detailed)
        fitting = [
            teacher.find_in_caption(caption.text, phrase)
            for caption in captions
            for phrase in caption.phrases
        ]
        added = [lesson for lesson in fitting if holds(row, lesson)]
        usual = len(answers(plain.row(index), teacher))
        assert added and len(answers(row, teacher)) == min(30, usual + 1)


def holds(row: Row, lesson: Lesson) -> bool:
    """Whether the lesson's tokens stand in the row one behind the other."""
    ids = [*lesson.prompt, *lesson.answer[:-1]]
    return any(row.ids[n : n + len(ids)] == ids for n in range(len(row.ids)))


def test_behind_an_example_a_row_shows_two_pictures_and_learns_of_the_last(
    teacher: Teacher,
) -> None:
    alone, ours = with_doubts(teacher), with_doubts(teacher, behind_example=1.0)
    for index in range(6):
        one, both = alone.row(index), ours.row(index)
        assert both.pixels_ICYX.shape[0] == both.noun_IP.shape[0] == 2
        assert np.array_equal(both.pixels_ICYX[1].numpy(), one.pixels_ICYX[0].numpy())
        assert not np.array_equal(both.pixels_ICYX[0].numpy(), one.pixels_ICYX[0].numpy())
        assert sum(both.image_mask) == 2 * teacher.num_latents
        assert both.targets == one.targets
        assert min(both.sources) == len(both.ids) - len(one.ids) + min(one.sources)


def test_shares_of_nothing_draw_nothing(teacher: Teacher) -> None:
    for index in range(4):
        assert_equal(
            with_doubts(teacher).row(index),
            with_doubts(teacher, absent=0.0, in_caption=0.0, behind_example=0.0).row(index),
        )
