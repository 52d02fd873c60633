"""Scenes written as the files of benchmarks, and the embedded model run over them."""

import json
from pathlib import Path
from typing import Any

import pytest
from scene_shapes import NOUNS, recipe, shapes
from typer.testing import CliRunner

from kosmos2.boxes import Box
from kosmos2.cli import app
from kosmos2.errors import RequestError
from kosmos2.evaluation.benchmark import Problem, read_split
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.evaluation.scene_sets import FORMATS, check_empty
from kosmos2.grounding.spans import GroundedText
from kosmos2.scenes import Scene, SceneMaker, Sprites

COUNT = 30
RECIPE = f"""
seed = 4
[scenes]
nouns = {json.dumps(NOUNS)}
styles = ["noto", "noto-v1"]
[[sources]]
kind = "scenes"
[optimizer]
steps = 1
warmup_steps = 0
"""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    maker = SceneMaker(recipe(split="iid", size=48), shapes())
    return [maker.scene(index) for index in range(COUNT)]


def written(form: str, scenes: list[Scene], folder: Path) -> tuple[Problem, ...]:
    assert [scene.id for scene in FORMATS[form](folder, scenes, "iid")] == [s.id for s in scenes]
    return read_split(BENCHMARKS[form], folder, "iid", own_data=True).problems


def rounded(box: Box) -> tuple[float, ...]:
    return tuple(round(corner, 6) for corner in box.corners)


def test_refcoco_asks_every_expression_that_is_true_of_one_thing_alone(
    scenes: list[Scene], tmp_path: Path
) -> None:
    problems = written("refcoco", scenes, tmp_path)
    asked = {(each.picture, each.phrase, rounded(each.boxes[0])) for each in problems}
    true = {
        (scene.id.replace(":", "_") + ".png", item.expression, rounded(item.box))
        for scene in scenes
        for item in scene.referring
    }
    assert asked == true
    assert len(problems) == len(asked)


def test_refcoco_counts_the_other_things_of_the_noun(scenes: list[Scene], tmp_path: Path) -> None:
    problems = written("refcoco", scenes, tmp_path)
    for scene in scenes:
        own = [p for p in problems if p.picture == scene.id.replace(":", "_") + ".png"]
        for each in own:
            alike = [g for g in scene.groups if g.noun == each.categories[0]]
            assert each.distractors == sum(group.count for group in alike) - 1


def test_flickr_asks_every_phrase_of_both_captions_with_all_of_its_boxes(
    scenes: list[Scene], tmp_path: Path
) -> None:
    problems = written("flickr30k", scenes, tmp_path)

    def told(text: GroundedText) -> list[tuple[str, list[tuple[float, ...]]]]:
        return [(text.phrase_text(p), sorted(map(rounded, p.boxes))) for p in text.phrases]

    for number, scene in enumerate(scenes, start=1):
        own = [each for each in problems if each.picture == f"{number}.png"]
        asked = [(each.phrase, sorted(map(rounded, each.boxes))) for each in own]
        assert asked == [*told(scene.brief), *told(scene.detailed)]
        for each in own[: len(scene.brief.phrases)]:
            assert each.text.replace(" ,", ",").removesuffix(" .") == scene.brief.text.removesuffix(
                "."
            )


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    check_empty(tmp_path / "new")
    check_empty(tmp_path)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(RequestError, match="not empty"):
        check_empty(tmp_path)


def test_refcocog_is_the_same_set_and_asks_for_words_too(
    scenes: list[Scene], tmp_path: Path
) -> None:
    found = written("refcocog", scenes, tmp_path / "g")
    assert found == written("refcoco", scenes, tmp_path / "r")
    said = read_split(BENCHMARKS["refcocog-reg"], tmp_path / "g", "iid", own_data=True).problems
    assert sum(len(each.references) for each in said) == len(found)
    assert all(len(each.boxes) == 1 for each in said)


@pytest.mark.parametrize("form", ["refcoco", "flickr30k"])
def test_the_embedded_model_runs_over_scenes_through_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def run(*arguments: str | Path) -> str:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        return result.output

    monkeypatch.setattr(Sprites, "load", lambda *_, **__: shapes())
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    data, out = tmp_path / "data", tmp_path / "out"
    said = run(
        *("scenes", "write", data, "--as", form, "--recipe", tmp_path / "recipe.toml"),
        *("--count", "24"),
    )
    assert f"kosmos2 eval {form}" in said
    run("eval", form, "--data", data, "--split", "iid", "--own-data", "--out", out)
    results: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["pictures"] == 24
    assert results["n"] >= 24
    # Plain shapes are none of the model's things, and it says so of some.
    assert results["numbers"]["answered"]["value"] > 0.5
    run("eval", "score", out, "--data", data, "--own-data", "--worst", "0")
    again = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert again["numbers"] == results["numbers"]
