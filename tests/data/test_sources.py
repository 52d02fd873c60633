"""Sources: a row is a function of its index; records become the published lessons."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scene_shapes import NOUNS, recipe, shapes

from kosmos2.boxes import Box
from kosmos2.data.collate import Row
from kosmos2.data.lessons import Teacher
from kosmos2.data.patches import UNKNOWN
from kosmos2.data.sources import RecordSource, SceneSource, roots
from kosmos2.errors import ImageError, RecordError
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.model.config import VisionConfig
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.store import Writer, read
from kosmos2.scenes.maker import SceneMaker
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer

VISION = VisionConfig(
    width=8, feedforward_width=16, num_layers=1, num_heads=2, image_size=16, patch_size=4
)
CAPTION = "a red car next to a dog"
CAR, DOG = (0.0, 0.25, 0.5, 0.75), (0.5, 0.5, 1.0, 1.0)
SPANS = (Grounded(0, 9, *CAR, 1.0), Grounded(18, 23, *DOG, 1.0))


def record(**changes: object) -> GroundedRecord:
    fields: dict[str, object] = {
        "id": 7,
        "image": "pictures/one.png",
        "caption": CAPTION,
        "noun_chunks": None,
        "ref_exps": SPANS,
        **changes,
    }
    return GroundedRecord(**fields)  # type: ignore[arg-type]


@pytest.fixture
def teacher(tiny_tokenizer: Tokenizer) -> Teacher:
    return Teacher(tiny_tokenizer, num_latents=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records as our own writer leaves them, and their pictures beside them."""
    (tmp_path / "pictures").mkdir()
    ramp = np.arange(40 * 20 * 3, dtype=np.uint8).reshape(20, 40, 3)
    Image.fromarray(ramp).save(tmp_path / "pictures/one.png")
    Image.fromarray(ramp[:, :20]).save(tmp_path / "pictures/two.png")
    with Writer(tmp_path / "train.jsonl") as writer:
        writer.write(record())
        writer.write(record(id=8, image="pictures/two.png", ref_exps=()))
    return tmp_path


def source(folder: Path, teacher: Teacher) -> RecordSource:
    return RecordSource(list(read(folder / "train.jsonl")), folder, teacher, VISION)


def scene_source(teacher: Teacher, *, max_lessons: int = 8, **changes: object) -> SceneSource:
    maker = SceneMaker(recipe(**changes), shapes())
    return SceneSource(maker, teacher, max_lessons=max_lessons, patches_per_side=4)


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


def test_a_record_teaches_its_caption_and_each_expression_both_ways(
    folder: Path, teacher: Teacher
) -> None:
    grid = teacher.tokenizer.grid
    car, dog = (
        "<object>"
        + "".join(teacher.vocabulary.location_token(cell) for cell in grid.encode(Box(*corners)))
        + "</object>"
        for corners in (CAR, DOG)
    )
    said = answers(source(folder, teacher).row(0), teacher)
    assert said == [
        f"<grounding><phrase> a red car</phrase>{car} next to<phrase> a dog</phrase>{dog}",
        car,
        "a red car.",
        dog,
        "a dog.",
    ]


def test_a_record_without_boxes_is_a_plain_caption(folder: Path, teacher: Teacher) -> None:
    # As in the original loader: <grounding> stands only before a caption with boxes.
    assert answers(source(folder, teacher).row(1), teacher) == [CAPTION]


def test_a_record_s_picture_is_squashed_to_the_model_s_square_as_at_inference(
    folder: Path, teacher: Teacher
) -> None:
    row = source(folder, teacher).row(0)
    with Image.open(folder / "pictures/one.png") as image:
        square = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(row.pixels_ICYX[0].numpy(), square.transpose(2, 0, 1))


def test_of_a_record_s_patches_nothing_is_known(folder: Path, teacher: Teacher) -> None:
    noun_IP = source(folder, teacher).row(0).noun_IP
    assert noun_IP.shape == (1, 16)
    assert noun_IP.unique().tolist() == [UNKNOWN]


def test_records_repeat(folder: Path, teacher: Teacher) -> None:
    ours = source(folder, teacher)
    assert_equal(ours.row(0), ours.row(2))
    assert ours.row(0).ids != ours.row(1).ids


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"image": None}, "record 7: no image path"),
        ({"ref_exps": None}, "record 7: nobody has drawn"),
        (
            {"ref_exps": (Grounded(0, 12, *CAR, 1.0), Grounded(10, 23, *DOG, 1.0))},
            "record 7: the expressions 'a red car ne' and 'next to a dog' overlap",
        ),
    ],
)
def test_a_record_that_cannot_be_trained_is_refused_at_the_start(
    tmp_path: Path, teacher: Teacher, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(RecordError, match=complaint):
        RecordSource([record(), record(**changes)], tmp_path, teacher, VISION)


def test_no_records_are_no_source(tmp_path: Path, teacher: Teacher) -> None:
    with pytest.raises(RecordError, match="no records"):
        RecordSource([], tmp_path, teacher, VISION)


def test_a_missing_picture_is_named(tmp_path: Path, teacher: Teacher) -> None:
    with pytest.raises(ImageError, match=r"one\.png"):
        RecordSource([record()], tmp_path, teacher, VISION).row(0)


def test_only_phrases_inside_no_other_remain_and_equal_spans_are_not_inside() -> None:
    def phrase(start: int, end: int, corners: tuple[float, ...] = CAR) -> Phrase:
        return Phrase(start=start, end=end, boxes=(Box(*corners),))

    whole, same, inner = phrase(0, 9), phrase(0, 9, DOG), phrase(2, 9)
    apart = phrase(18, 23)
    grounded = GroundedText(text=CAPTION, phrases=(whole, same, inner, apart))
    assert set(roots(grounded).phrases) == {whole, same, apart}


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
