"""Questions with few answers: SEED-Bench, POPE, absent things, classes, rows of pictures."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from choice_files import write_birds, write_pope, write_raven, write_seed_bench
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from kosmos2.api import Kosmos2
from kosmos2.boxes import Box
from kosmos2.cli import app, evaluate_benchmarks
from kosmos2.evaluation.absent import thresholds
from kosmos2.evaluation.benchmark import Benchmark, Form, Prediction, Problem, prompt_text
from kosmos2.evaluation.classification import judge_name
from kosmos2.evaluation.pope import says_yes
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.evaluation.weighing import Weigher
from kosmos2.tasks import ask
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.tokenizer import Tokenizer

WRITERS = {
    "seed-bench": (write_seed_bench, "image"),
    "pope": (write_pope, "random"),
    "absent": (write_pope, "random"),
    "classify": (write_birds, "test"),
    "classify-asked": (write_birds, "test"),
    "classify-described": (write_birds, "test"),
    "raven": (write_raven, "test"),
}
Rule = Callable[[Problem], float]
"""How sure of the true answer somebody is, in 0..1; below a half it is the wrong one."""


@dataclass
class Known:
    """Somebody whose answers follow a rule."""

    benchmark: Benchmark
    form: Form
    rule: Rule

    def answers(
        self, pictures: Sequence[Path], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        assert all(path.is_file() for path in pictures)
        return [[self._answer(problem) for problem in own] for own in asked]

    def _answer(self, problem: Problem) -> Prediction:
        sure, prompt = self.rule(problem), self.benchmark.prompt(problem, LocationGrid())
        boxes: tuple[Box, ...] = ()
        scores: tuple[float, ...] = ()
        logprobs: tuple[float, ...] = ()
        text = ""
        if self.form is Form.CHOICE:
            weights = [-1.0] * len(problem.choices)
            weights[problem.correct] = -2 * (1 - sure)
            logprobs, text = tuple(weights), "chosen"
        elif self.form is Form.BOXES:
            is_there = problem.references == ("yes",)
            boxes, scores = (Box(0, 0, 1, 1),), (sure if is_there else 1 - sure,)
        else:
            text = problem.references[0] if sure >= 0.5 else "yes"
        return Prediction(
            id=problem.id, prompt=prompt_text(prompt), answer=text, boxes=boxes, scores=scores,
            text=text, logprobs=logprobs,
        )  # fmt: skip


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rule], None]:
    def put(rule: Rule) -> None:
        def load(benchmark: Benchmark, _choice: object, form: Form, *_: object) -> Known:
            return Known(benchmark, form, rule)

        monkeypatch.setattr(evaluate_benchmarks, "_load", load)

    return put


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def evaluated(name: str, folder: Path, *more: str | Path) -> dict[str, Any]:
    write, split = WRITERS[name]
    data, out = folder / "data", folder / "out"
    if not data.exists():
        write(data)
    code, said = run(*(name, "--data", data, "--split", split, "--own-data", "--out", out), *more)
    assert code == 0, said
    results: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return results


def values(results: dict[str, Any]) -> dict[str, float]:
    return {name: number["value"] for name, number in results["numbers"].items()}


@pytest.mark.parametrize("name", WRITERS)
def test_who_knows_the_truth_scores_everything(
    tmp_path: Path, use: Callable[[Rule], None], name: str
) -> None:
    use(lambda problem: 0.9)
    found = values(evaluated(name, tmp_path))
    assert found["accuracy"] == 1.0
    for metric in ("precision", "recall", "f1", "clear", "auroc", "refused_0.95"):
        assert found.get(metric, 1.0) == 1.0
    assert found.get("yes", 0.5) == 0.5
    page = (tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")
    assert "0 of 0 errors" in page


def test_who_always_says_yes_scores_what_arithmetic_says(
    tmp_path: Path, use: Callable[[Rule], None]
) -> None:
    use(lambda problem: 0.1)
    results = evaluated("pope", tmp_path)
    found = values(results)
    assert found == {
        "accuracy": 0.5, "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "yes": 1.0,
        "clear": 1.0,
    }  # fmt: skip
    assert results["numbers"]["precision"]["n"] == 6 and results["numbers"]["recall"]["n"] == 3
    assert results["slices"]["kind"]["dog"]["recall"]["value"] == 1.0
    assert results["slices"]["kind"]["hat"]["precision"]["value"] == 0.0


def test_who_always_takes_the_first_answer_scores_what_arithmetic_says(
    tmp_path: Path, use: Callable[[Rule], None]
) -> None:
    use(lambda problem: 0.5)  # all are as probable: the first one is taken
    results = evaluated("seed-bench", tmp_path)
    assert results["numbers"]["accuracy"]["value"] == 0.5  # A and A of A, D, A, B
    kinds = {kind: each["accuracy"]["value"] for kind, each in results["slices"]["kind"].items()}
    assert kinds == {"Instances Counting": 1.0, "Scene Understanding": pytest.approx(1 / 3)}
    assert evaluated("raven", tmp_path / "r")["numbers"]["accuracy"]["value"] == 0.5
    birds = evaluated("classify-asked", tmp_path / "b")["numbers"]["accuracy"]
    assert (birds["value"], birds["n"]) == (0.5, 8)
    assert evaluated("classify", tmp_path / "b", "--fresh")["n"] == 8


def test_one_score_for_all_tells_nothing_apart(tmp_path: Path, use: Callable[[Rule], None]) -> None:
    use(lambda problem: 0.7 if problem.references == ("yes",) else 0.3)
    found = values(evaluated("absent", tmp_path))
    assert found["accuracy"] == 0.5 and found["auroc"] == 0.5
    assert found["threshold_0.9"] == pytest.approx(0.7) and found["refused_0.9"] == 0.0
    code, said = run("threshold", tmp_path / "out", "--data", tmp_path / "data", "--own-data",
                     "--at", "0.8")  # fmt: skip
    assert code == 0 and "0.0%" in said and "100.0%" in said
    code, said = run("threshold", tmp_path / "out", "--data", tmp_path / "data", "--own-data")
    assert code == 2 and "either --recall" in said


def test_the_highest_threshold_that_keeps_enough_is_chosen() -> None:
    scores = [0.9, 0.8, 0.6, 0.2, 0.7, 0.5, 0.1, 0.6]
    there = [True] * 4 + [False] * 4
    (half, refused), (most, few), (all_of, none) = thresholds(
        scores, there, list("abcdefgh"), [0.5, 0.75, 1.0]
    )
    assert (half.value, refused.value) == (0.8, 1.0)
    assert (most.value, few.value) == (0.6, 0.5)  # a score at the threshold counts as there
    assert (all_of.value, none.value) == (0.2, 0.25)
    assert most.low <= most.value <= most.high and refused.n == 4


@pytest.mark.parametrize(
    ("answer", "is_yes"),
    [
        ("Yes", True), ("No", False), ("no, there is not", False), ("Yes. No.", True),
        ("There is no dog", False), ("nothing", True), ("", True), ("It is not there.", False),
    ],
)  # fmt: skip
def test_yes_and_no_are_read_as_popes_own_script_reads_them(answer: str, is_yes: bool) -> None:
    assert says_yes(answer) is is_yes


def test_the_questions_are_read_as_they_are_published(tmp_path: Path) -> None:
    seed = BENCHMARKS["seed-bench"].read(write_seed_bench(tmp_path / "seed"), "image").problems
    assert [each.id for each in seed] == ["101", "102", "103", "104"]
    assert seed[0].text == "How many towels are in the image?"
    assert seed[0].choices == ("One", "2", "Three", "a river below")
    assert [each.correct for each in seed] == [0, 3, 0, 1]
    pope = BENCHMARKS["absent"].read(write_pope(tmp_path / "pope"), "random").problems
    assert [each.phrase for each in pope][:2] == ["a dog", "an apple"]
    birds = write_birds(tmp_path / "birds")
    first = BENCHMARKS["classify-described"].read(birds, "test").problems[0]
    assert first.choices == ("downy woodpecker", "three-toed woodpecker")
    assert first.text == (
        "downy woodpecker: It has white spots on its black wings. three-toed woodpecker: It has "
        "stripes and a yellow crown. Question:what is the name of woodpecker in the picture? "
        "Answer:"
    )
    raven = BENCHMARKS["raven"]
    problem = raven.read(write_raven(tmp_path / "raven"), "test").problems[1]
    assert raven.options is not None
    shown = [option.pictures for option in raven.options(problem, LocationGrid())]
    assert shown == [(*"abcd", name) for name in "xyz"]
    assert prompt_text(raven.prompt(problem, LocationGrid())) == (
        "Here are four images:<image><image><image><image>The following image is:<image>"
        "Is it correct?"
    )


def test_of_two_classes_with_one_name_either_is_right() -> None:
    birds = ("crane", "gull", "crane")
    for best, right in ((0, 1.0), (1, 0.0), (2, 1.0)):
        weights = tuple(-1.0 if number == best else -2.0 for number in range(3))
        problem = Problem(
            id="1", picture="a.jpg", width=9, height=9, text="", end=0, choices=birds, correct=2
        )
        said = Prediction(id="1", prompt="", answer="", text="", boxes=(), logprobs=weights)
        assert judge_name(problem, said) == {"accuracy": right}


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "complaint"),
    [
        ("seed-bench", "SEED-Bench.json", '"D"', '"E"', "one of A, B, C and D"),
        (
            "seed-bench",
            "SEED-Bench.json",
            '"question_type_id": 5',
            '"question_type_id": 9',
            "no num",
        ),
        ("pope", "coco_pope_random.json", '"yes"', '"maybe"', "yes or no"),
        ("absent", "coco_pope_random.json", "Is there a dog", "Where is a dog", "thing to find"),
        ("classify-described", "classes.json", "It has a white stripe.", "", "no description of"),
        ("raven", "raven.json", '"answer": 1', '"answer": 2', "one of 0 to 1"),
    ],
)
def test_a_fault_of_a_file_is_named(
    tmp_path: Path, name: str, file: str, old: str, new: str, complaint: str
) -> None:
    write, split = WRITERS[name]
    data = write(tmp_path / "data")
    text = (data / file).read_text(encoding="utf-8")
    assert old in text
    (data / file).write_text(text.replace(old, new), encoding="utf-8")
    code, said = run(name, "--data", data, "--split", split, "--own-data")
    assert code == 2 and complaint in said, said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["seed-bench", "absent", "raven", "classify-asked"])
def test_a_real_model_is_asked_in_any_batch(
    tmp_path: Path, tiny_tokenizer: Tokenizer, name: str
) -> None:
    model = save_tiny_model(tmp_path / "model", tiny_tokenizer)
    more = ("--model", model, "--device", "cpu", "--dtype", "fp32")
    together = evaluated(name, tmp_path, *more)
    rows = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").open()]
    assert len(rows) == together["n"] and rows[0]["weights"].startswith("sha256:")
    assert rows[0]["answer_form"] == str(BENCHMARKS[name].forms[0])
    alone = evaluated(name, tmp_path, *more, "--fresh", "--set", "batch_size=1")
    assert values(alone) == pytest.approx(values(together), abs=1e-6)
    if name == "absent":
        told = evaluated(name, tmp_path, *more, "--fresh", "--answer", "absent")
        assert told["run"]["answer_form"] == "absent"
        row = json.loads((tmp_path / "out" / "predictions.jsonl").open().readline())
        assert len(row["logprobs"]) == 2


def test_a_choice_weighs_the_mean_of_its_tokens_behind_the_question(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    data = write_seed_bench(tmp_path / "data")
    model = Kosmos2.load(save_tiny_model(tmp_path / "model", tiny_tokenizer), device="cpu")
    benchmark = BENCHMARKS["seed-bench"]
    problem = benchmark.read(data, "image").problems[0]
    picture = data / "SEED-Bench-image" / problem.picture
    weigher = Weigher(model, benchmark, {problem.picture: picture})
    ((prediction,),) = weigher.answers([picture], [[problem]])
    scores = model.score([model.look(picture)], ask(problem.text), problem.choices)
    assert prediction.logprobs == pytest.approx([score.mean for score in scores], abs=1e-5)
    best = max(range(4), key=lambda place: prediction.logprobs[place])
    assert prediction.text == problem.choices[best]


def test_a_choice_behind_its_question_is_the_tokens_of_both_together(
    real_tokenizer: Tokenizer,
) -> None:
    question, choice = "Question: How many towels are in the image? Answer:", "Two towels"
    apart = real_tokenizer.encode_text(question) + real_tokenizer.encode_text(choice)
    assert apart == real_tokenizer.encode_text(f"{question} {choice}")
    place = apart.index(20032)  # as the original finds where the choice begins
    assert apart[place : place + 2] == [20032, 55]
    assert len(real_tokenizer.encode_text("Yes")) == 1
