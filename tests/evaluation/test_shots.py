"""Solved examples: drawn by seed, the same in every part of a run, pictures in their order."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from scene_shapes import recipe, shapes
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from kosmos2.api import Kosmos2
from kosmos2.boxes import Box
from kosmos2.cli import app
from kosmos2.errors import RequestError
from kosmos2.evaluation import words
from kosmos2.evaluation.asking import ModelAnswerer
from kosmos2.evaluation.benchmark import Data, Form, Problem, prompt_of, prompt_text
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.evaluation.round_trip import RoundTripper
from kosmos2.evaluation.scene_sets import FORMATS
from kosmos2.evaluation.shots import Examples, check_solvable, with_examples
from kosmos2.scenes import SceneMaker
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.tokenizer import Tokenizer

REG = BENCHMARKS["refcocog-reg"]
BOX = Box(0.1, 0.1, 0.5, 0.5)


def problems(count: int, name: str) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            id=f"{name}{number}",
            picture=f"{name}{number // 2}.jpg",
            width=9,
            height=9,
            boxes=(BOX,),
            references=(f"thing {number}", "other words"),
        )
        for number in range(count)
    )


def data(problems: tuple[Problem, ...]) -> Data:
    return Data(source="", problems=problems, folders=(Path("one"),))


def drawn(asked: tuple[Problem, ...], count: int = 2, seed: int = 0) -> tuple[Problem, ...]:
    examples = Examples(count=count, seed=seed, split="train")
    return with_examples(REG, data(asked), data(problems(40, "t")), examples).problems


def test_examples_depend_on_the_seed_and_the_question_alone() -> None:
    asked = problems(6, "q")
    all_of_them = drawn(asked)
    assert drawn(asked[3:]) == all_of_them[3:]
    assert drawn(asked[::-1])[::-1] == all_of_them
    assert drawn(asked, seed=1) != all_of_them
    assert len({each.shots for each in all_of_them}) > 1


def test_more_examples_begin_with_the_fewer_ones() -> None:
    asked = problems(6, "q")
    for two, four in zip(drawn(asked), drawn(asked, 4), strict=True):
        assert four.shots[:2] == two.shots


def test_examples_are_of_different_pictures_none_of_them_the_questions() -> None:
    same = tuple(replace(each, picture="t3.jpg") for each in problems(30, "q"))
    for each in drawn(same, 4):
        names = [shot.problem.picture for shot in each.shots]
        assert len({*names, "t3.jpg"}) == 5
        assert each.others == tuple(names)


def test_a_prompt_has_examples_with_what_people_said_first() -> None:
    (asked, *_) = drawn(problems(1, "q"))
    said = [shot.problem.references[0] for shot in asked.shots]
    query = prompt_text(REG.prompt(asked, LocationGrid()))
    prompt = prompt_of(REG, asked, LocationGrid())
    assert prompt_text(prompt) == f"{query} {said[0]}<image>{query} {said[1]}<image>{query}"
    assert prompt.num_images == 3


def test_too_few_pictures_and_questions_as_their_own_examples_are_refused() -> None:
    examples = Examples(count=4, seed=0, split="train")
    few = data(problems(6, "t"))
    with pytest.raises(RequestError, match="as many pictures of the split 'train', which has 3"):
        with_examples(REG, data(problems(1, "q")), few, examples)
    with pytest.raises(RequestError, match="are questions that are asked too"):
        with_examples(REG, few, few, examples)
    with pytest.raises(RequestError, match="seed-bench has no solved examples"):
        check_solvable(BENCHMARKS["seed-bench"])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes as RefCOCOg, with others of training beside."""
    folder = tmp_path_factory.mktemp("scenes") / "d"
    made = [
        SceneMaker(recipe(split=split, size=48), shapes()).scene(index)
        for split, count in (("iid", 4), ("train", 6))
        for index in range(count)
    ]
    list(FORMATS["refcocog"](folder, made, "iid"))
    return folder


@pytest.mark.parametrize("name", ["refcocog-reg", "refcocog-round-trip"])
def test_a_real_model_gets_the_pictures_of_its_examples(
    tmp_path: Path,
    tiny_tokenizer: Tokenizer,
    scenes: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(words.shutil, "which", lambda _: None)  # METEOR takes long to start
    model, out = save_tiny_model(tmp_path / "model", tiny_tokenizer), tmp_path / "out"
    pytest.importorskip("pycocoevalcap")
    asked = [name, "--data", scenes, "--split", "iid", "--own-data", "--shots", "2"]
    more = ["--out", out, "--model", model, "--set", "max_new_tokens=5", "--limit", "3"]
    result = CliRunner().invoke(app, ["eval", *map(str, [*asked, *more, "--device", "cpu"])])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert len(row["examples"]) == 2
        assert row["prompt"].count("<image>") == 2
    numbers = json.loads((out / "results.json").read_text())["numbers"]
    assert ("cider" in numbers) == (name == "refcocog-reg")
    assert ("described" in numbers) == (name == "refcocog-round-trip")


def test_the_boxes_of_a_round_trip_are_those_found_for_its_words(
    tmp_path: Path, tiny_tokenizer: Tokenizer, scenes: Path
) -> None:
    model = Kosmos2.load(save_tiny_model(tmp_path / "model", tiny_tokenizer), device="cpu")
    benchmark = BENCHMARKS["refcocog-round-trip"]
    read = benchmark.read(scenes, "iid").problems[:3]
    pictures = [scenes / "images" / each.picture for each in read]
    asked = [[each] for each in read]
    answers = RoundTripper(model, benchmark, Form.BOXES).answers(pictures, asked)
    said = ModelAnswerer(model, REG, Form.FREE).answers(pictures, asked)
    for picture, (answer,), (alone,) in zip(pictures, answers, said, strict=True):
        assert answer.text == alone.text
        assert answer.prompt == alone.prompt
        found = model.find(picture, alone.text).phrases if alone.text else ()
        boxes = [box for phrase in found for box in phrase.boxes]
        assert list(answer.boxes) == boxes
