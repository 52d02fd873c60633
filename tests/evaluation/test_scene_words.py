"""Scenes written as captions of COCO and questions of VQAv2: what they say is what is shown."""

from pathlib import Path

import pytest
from scene_shapes import recipe, shapes

from kosmos2.evaluation.benchmark import Prediction, Problem, read_split
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.evaluation.scene_sets import FORMATS, WITH_EXAMPLES
from kosmos2.evaluation.vqa import judge_vqa, most_said
from kosmos2.scenes import Scene, SceneMaker
from kosmos2.scenes.nouns import NUMBER_WORDS

BENCHMARK = {"coco-captions": "coco-captions", "vqav2": "vqav2", "refcocog": "refcocog-reg"}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [
        SceneMaker(recipe(split=split, size=48), shapes()).scene(index)
        for split, count in (("iid", 12), ("train", 5))
        for index in range(count)
    ]


def written(form: str, scenes: list[Scene], folder: Path, split: str) -> tuple[Problem, ...]:
    if not folder.exists():
        assert len(list(FORMATS[form](folder, scenes, "iid"))) == len(scenes)
    data = read_split(BENCHMARKS[BENCHMARK[form]], folder, split, own_data=True)
    assert all((folder / "images" / problem.picture).is_file() for problem in data.problems)
    return data.problems


@pytest.mark.parametrize("form", sorted(BENCHMARK))
def test_scenes_of_training_are_a_split_of_their_own(
    scenes: list[Scene], tmp_path: Path, form: str
) -> None:
    assert form in WITH_EXAMPLES
    asked = {each.picture for each in written(form, scenes, tmp_path / "d", "iid")}
    solved = {each.picture for each in written(form, scenes, tmp_path / "d", "train")}
    assert 0 < len(asked) <= 12 and 0 < len(solved) <= 5
    assert not asked & solved


def test_captions_are_both_of_a_scene_the_brief_one_without_its_beginning(
    scenes: list[Scene], tmp_path: Path
) -> None:
    problems = written("coco-captions", scenes, tmp_path / "d", "iid")
    for scene, problem in zip(scenes, problems, strict=False):
        brief, detailed = problem.references
        assert f"An image of {brief}" == scene.brief.text
        assert detailed == scene.detailed.text
        assert (problem.height, problem.width) == scene.image.shape[:2]


def test_questions_are_those_of_the_scene_and_their_answer_is_what_all_people_say(
    scenes: list[Scene], tmp_path: Path
) -> None:
    problems = written("vqav2", scenes, tmp_path / "d", "iid")
    asked = [item for scene in scenes[:12] for item in scene.questions]
    assert [each.text for each in problems] == [item.question for item in asked]
    for item, problem in zip(asked, problems, strict=True):
        # The scene's own words are right, as are those of the annotation.
        for text in (item.answer, most_said(problem)):
            said = Prediction(id=problem.id, prompt="", answer="", boxes=(), text=text)
            assert judge_vqa(problem, said)["accuracy"] == 1.0
        kind = "other"
        if item.answer in ("yes", "no"):
            kind = "yes/no"
        elif item.answer in NUMBER_WORDS:
            kind = "number"
        assert problem.categories == (kind,)
