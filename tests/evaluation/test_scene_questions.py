"""Scenes written as SEED-Bench, POPE and others: what is asked is true of the scene."""

from pathlib import Path

import pytest
from scene_shapes import recipe, shapes

from kosmos2.evaluation.asking import pictures_of
from kosmos2.evaluation.benchmark import Problem, read_split
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.evaluation.scene_sets import FORMATS
from kosmos2.scenes import Scene, SceneMaker
from kosmos2.scenes.nouns import all_nouns


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    maker = SceneMaker(recipe(split="iid", size=48), shapes())
    return [maker.scene(index) for index in range(30)]


def written(form: str, scenes: list[Scene], folder: Path) -> tuple[Problem, ...]:
    assert [scene.id for scene in FORMATS[form](folder, scenes, "iid")] == [s.id for s in scenes]
    data = read_split(BENCHMARKS[form], folder, "iid", own_data=True)
    assert all((folder / "images" / problem.picture).is_file() for problem in data.problems)
    return data.problems


def name_of(scene: Scene) -> str:
    return scene.id.replace(":", "_") + ".png"


def test_pope_asks_for_what_is_there_and_for_what_is_not(
    scenes: list[Scene], tmp_path: Path
) -> None:
    problems = written("pope", scenes, tmp_path)
    shown = {
        name_of(scene): {all_nouns()[group.noun].singular for group in scene.groups}
        for scene in scenes
    }
    for problem in problems:
        is_there = problem.categories[0] in shown[problem.picture]
        assert problem.references == ("yes" if is_there else "no",)
    assert {problem.references[0] for problem in problems} == {"yes", "no"}
    asked = sum(item.question.startswith("Is there ") for s in scenes for item in s.questions)
    assert len(problems) == asked


def test_seed_bench_offers_the_truth_and_three_others_in_any_place(
    scenes: list[Scene], tmp_path: Path
) -> None:
    problems = written("seed-bench", scenes, tmp_path)
    true = {
        (name_of(scene), item.question): item.answer for scene in scenes for item in scene.questions
    }
    for problem in problems:
        assert len({*problem.choices}) == 4
        assert problem.choices[problem.correct] == true[problem.picture, problem.text]
    assert {problem.correct for problem in problems} == {0, 1, 2, 3}
    assert {problem.categories for problem in problems} == {
        ("Instances Counting",),
        ("Instance Attributes",),
    }


def test_the_same_scenes_are_written_as_the_same_questions(
    scenes: list[Scene], tmp_path: Path
) -> None:
    first = written("seed-bench", scenes, tmp_path / "a")
    assert first == written("seed-bench", scenes, tmp_path / "b")


@pytest.mark.parametrize("form", FORMATS)
def test_each_form_is_read_by_its_benchmark_and_has_all_its_pictures(
    form: str, scenes: list[Scene], tmp_path: Path
) -> None:
    list(FORMATS[form](tmp_path, scenes[:6], "iid"))
    data = read_split(BENCHMARKS[form], tmp_path, "iid", own_data=True)
    assert pictures_of(data, data.problems)


def test_karpathys_file_has_both_captions_of_each_scene(
    scenes: list[Scene], tmp_path: Path
) -> None:
    problems = written("flickr30k-captions", scenes, tmp_path)
    assert [problem.references for problem in problems] == [
        (scene.brief.text.removeprefix("An image of").strip(), scene.detailed.text)
        for scene in scenes
    ]
