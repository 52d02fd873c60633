"""The laws of a scene: pure, exact, apart, true to its split."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scene_shapes import NOUNS, recipe

from kosmos2.errors import SceneError
from kosmos2.scenes import backgrounds, compose
from kosmos2.scenes.gallery import Pixels, Sprites
from kosmos2.scenes.maker import SceneMaker
from kosmos2.scenes.nouns import all_nouns, article
from kosmos2.scenes.scene import Scene
from kosmos2.scenes.splits import SPLITS, Combination, is_held_out, relation_combination

COUNT = 60
NAMED = {
    name: noun.singular
    for noun in map(all_nouns().__getitem__, NOUNS)
    for name in (noun.singular, noun.plural)
}
WORD = "|".join(sorted(NAMED, key=len, reverse=True))
RELATION = "to the left of|to the right of|above|below|next to"
SAID = re.compile(rf"\b({WORD})(?: is| are)? ({RELATION}) [\w ]*?\b({WORD})\b")


def scenes(sprites: Sprites, count: int = COUNT, **changes: object) -> list[Scene]:
    maker = SceneMaker(recipe(**changes), sprites)
    return [maker.scene(index) for index in range(count)]


def fingerprint(scene: Scene) -> str:
    said = repr((scene.brief, scene.detailed, scene.groups, scene.referring, scene.questions))
    return hashlib.sha256(scene.image.tobytes() + said.encode()).hexdigest()


def texts(scene: Scene) -> list[str]:
    said = [scene.brief.text, scene.detailed.text]
    said += [phrase for group in scene.groups for phrase in group.expressions]
    said += [item.expression for item in scene.referring]
    return said + [f"{item.question} {item.answer}" for item in scene.questions]


def combinations(scene: Scene) -> set[Combination]:
    """Read the combinations back from the groups and the written words."""
    found: set[Combination] = set()
    for group in scene.groups:
        found.add(("count", group.noun, str(group.count)))
        if group.colour is not None:
            found.add(("colour", group.noun, group.colour))
    for first, words, second in SAID.findall("\n".join(texts(scene))):
        found.add(relation_combination(NAMED[first], words, NAMED[second]))
    return found


def test_a_scene_is_the_same_whenever_and_in_whatever_order_it_is_made(sprites: Sprites) -> None:
    forward = [fingerprint(scene) for scene in scenes(sprites, 8)]
    maker = SceneMaker(recipe(), sprites)
    assert [fingerprint(maker.scene(index)) for index in reversed(range(8))] == forward[::-1]
    assert len(set(forward)) == 8


def test_a_scene_is_the_same_in_a_fresh_process(sprites: Sprites) -> None:
    code = (
        "from scene_shapes import recipe, shapes\n"
        "from test_maker import fingerprint\n"
        "from kosmos2.scenes.maker import SceneMaker\n"
        "print(fingerprint(SceneMaker(recipe(), shapes()).scene(5)))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert fresh.stdout.strip() == fingerprint(SceneMaker(recipe(), sprites).scene(5))


def test_splits_and_seeds_are_streams_of_their_own(sprites: Sprites) -> None:
    prints = [
        fingerprint(scenes(sprites, 1, seed=seed, split=split)[0])
        for seed in (1, 2)
        for split in ("train", "iid", "combo", "background")
    ]
    assert len(set(prints)) == len(prints)


def test_boxes_are_the_extents_of_the_painted_pixels(sprites: Sprites) -> None:
    black = np.zeros((96, 96, 3), np.uint8)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        made = recipe(size=96)
        nouns = [all_nouns()[name] for name in NOUNS]
        plans = compose.plan_groups(made, nouns, sprites, rng)
        for group in compose.draw_groups(plans, 96, rng) or ():
            for layer in group.layers:
                alone = compose.Drawn(group.noun, group.colour, (layer,))
                painted = compose.paint(black, (alone,), shadow=0.0).max(axis=2) > 0
                ys, xs = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
                assert (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1) == layer.corners


def test_the_box_of_a_lone_thing_is_where_the_picture_changes(
    sprites: Sprites, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain(size: int, _: np.random.Generator) -> Pixels:
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(backgrounds, "procedural", plain)
    for scene in scenes(sprites, 12, max_groups=1, max_instances=1):
        changed = scene.image.max(axis=2) > 0
        ys, xs = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        extent = (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1)
        assert scene.groups[0].boxes[0].to_pixels(width=64, height=64) == pytest.approx(extent)


def test_no_two_things_of_a_scene_overlap_by_a_tenth(sprites: Sprites) -> None:
    for scene in scenes(sprites):
        boxes = [
            tuple(round(v) for v in box.to_pixels(width=64, height=64))
            for group in scene.groups
            for box in group.boxes
        ]
        for i, a in enumerate(boxes):
            assert all(compose.overlap(a, b) < compose.MAX_OVERLAP for b in boxes[:i])  # type: ignore[arg-type]


def test_each_phrase_of_a_caption_is_the_words_of_one_group(sprites: Sprites) -> None:
    for scene in scenes(sprites):
        for caption in (scene.brief, scene.detailed):
            named = {phrase.boxes: caption.phrase_text(phrase) for phrase in caption.phrases}
            expected = {group.boxes: group.expressions[0] for group in scene.groups}
            assert {boxes: text.lower() for boxes, text in named.items()} == {
                boxes: text.lower() for boxes, text in expected.items()
            }
        assert scene.brief.text.startswith("An image of ")


def test_groups_come_largest_first_and_their_boxes_from_left_to_right(sprites: Sprites) -> None:
    for scene in scenes(sprites):
        areas = [sum(box.area for box in group.boxes) for group in scene.groups]
        assert areas == sorted(areas, reverse=True)
        for group in scene.groups:
            centers = [box.center[0] for box in group.boxes]
            assert centers == sorted(centers)


def test_no_expression_is_said_of_two_different_things(sprites: Sprites) -> None:
    for scene in scenes(sprites, 100):
        meant: dict[str, object] = {}
        for group in scene.groups:
            for phrase in group.expressions:
                assert meant.setdefault(phrase, group.boxes) == group.boxes
        for item in scene.referring:
            assert meant.setdefault(item.expression, (item.box,)) == (item.box,)


def test_size_words_keep_clear_of_the_sizes_between(sprites: Sprites) -> None:
    made = recipe()
    for scene in scenes(sprites):
        for group in scene.groups:
            sides = [max(box.width, box.height) for box in group.boxes]
            assert (group.size == "small") == all(side < made.small_below for side in sides)
            assert (group.size == "large") == all(side > made.large_above for side in sides)


@pytest.mark.parametrize(("split", "count"), [("train", 2000), ("iid", 100), ("background", 100)])
def test_held_out_combinations_are_never_shown_or_said(
    sprites: Sprites, split: str, count: int
) -> None:
    for scene in scenes(sprites, count, size=32, split=split):
        assert not any(map(is_held_out, combinations(scene))), scene.brief.text


def test_every_scene_of_the_combination_split_tests_one(sprites: Sprites) -> None:
    kinds = set()
    for scene in scenes(sprites, 100, size=32, split="combo"):
        held_out = [item for item in combinations(scene) if is_held_out(item)]
        assert held_out, scene.brief.text
        kinds.update(item[0] for item in held_out)
    assert kinds == {"colour", "count", "relation"}


def test_the_combination_names_one_arrangement_whichever_way_it_is_said() -> None:
    assert relation_combination("car", "below", "dog") == relation_combination(
        "dog", "above", "car"
    )
    assert relation_combination("car", "next to", "dog") == relation_combination(
        "dog", "next to", "car"
    )


def test_held_out_styles_stay_in_the_split_that_is_made_of_them(sprites: Sprites) -> None:
    scenes(sprites, 2, split="style", styles=("openmoji",))
    with pytest.raises(SceneError, match="openmoji"):
        recipe(styles=("noto", "openmoji"))
    with pytest.raises(SceneError, match="noto"):
        recipe(split="style", styles=("noto", "openmoji"))


def test_questions_count_what_is_there_and_deny_what_is_not(sprites: Sprites) -> None:
    answers = set()
    for scene in scenes(sprites):
        shown = {group.noun for group in scene.groups}
        for item in scene.questions:
            if match := re.fullmatch(r"Is there an? (.*)\?", item.question):
                assert item.answer == ("yes" if match[1] in shown else "no")
                answers.add(item.answer)
    assert answers == {"yes", "no"}


def test_the_record_has_an_entry_per_box_and_expressions_around_the_chunks(
    sprites: Sprites,
) -> None:
    longer = 0
    for scene in scenes(sprites):
        record = scene.record()
        assert record.noun_chunks is not None and record.ref_exps is not None
        assert len(record.noun_chunks) == sum(group.count for group in scene.groups)
        assert record.grounded("noun_chunks").text == scene.brief.text
        for chunk, expression in zip(record.noun_chunks, record.ref_exps, strict=True):
            assert chunk.box == expression.box
            assert expression.start == chunk.start
            assert chunk.end <= expression.end < len(record.caption)
            longer += chunk.end < expression.end
    assert longer


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("hourglass", "an"),
        ("unicorn", "a"),
        ("umbrella", "an"),
        ("small umbrella", "a"),
        ("orange car", "an"),
        ("T-shirt", "a"),
        ("yo-yo", "a"),
        ("ear of corn", "an"),
        ("axe", "an"),
    ],
)
def test_articles_follow_the_sound(word: str, expected: str) -> None:
    assert article(word) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"split": "holdout"},
        {"nouns": ("hippogriff",)},
        {"nouns": ()},
        {"size": 4},
        {"max_groups": 0},
        {"min_side": 0.6},
    ],
)
def test_a_recipe_that_cannot_work_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SceneError):
        recipe(**changes)


def test_nouns_without_drawings_are_left_out_until_none_is_left(sprites: Sprites) -> None:
    only = scenes(sprites, 5, nouns=("dog", "zebra"), max_groups=1)
    assert {group.noun for scene in only for group in scene.groups} == {"dog"}
    with pytest.raises(SceneError, match="no noun"):
        SceneMaker(recipe(nouns=("zebra",)), sprites)


def test_every_split_has_scenes(sprites: Sprites) -> None:
    for split in SPLITS:
        styles = ("openmoji",) if split == "style" else ("noto",)
        assert scenes(sprites, 1, split=split, styles=styles)[0].image.shape == (64, 64, 3)
