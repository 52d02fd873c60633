"""VQAv2: its two files read, whole runs with known answers, the file to hand in."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from kosmos2.cli import app, evaluate_benchmarks
from kosmos2.errors import RecordError
from kosmos2.evaluation.benchmark import Prediction, Problem, prompt_of, prompt_text, read_split
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.evaluation.vqa import most_said
from kosmos2.vocab.locations import LocationGrid

VQA = BENCHMARKS["vqav2"]
# image, question, answer type, question type, the answers of ten people
QUESTIONS = (
    (
        262148,
        "Where is he\nlooking?",
        "other",
        "none of the above",
        ["down"] * 8 + ["at table"] * 2,
    ),
    (262148, "Is it day?", "yes/no", "is it", ["yes"] * 10),
    (262148, "How many dogs are there?", "number", "how many", ["2"] * 3 + ["3"] * 7),
    (393225, "Is this a dog?", "yes/no", "is this a", ["no"] * 9 + ["yes"]),
)


def write_vqa(folder: Path, name: str, *, secret: bool = False) -> Path:
    """Write both files of a split, and its pictures."""
    images = name.replace("test-dev", "test")
    (folder / images).mkdir(parents=True, exist_ok=True)
    asked, answered = [], []
    for number, (image, question, kind, opening, people) in enumerate(QUESTIONS):
        ids = {"image_id": image, "question_id": 1000 * image + number}
        asked.append({**ids, "question": question})
        answers = [
            {"answer": said, "answer_confidence": "maybe", "answer_id": person}
            for person, said in enumerate(people, start=1)
        ]
        kinds = {"answer_type": kind, "question_type": opening}
        answered.append({**ids, **kinds, "multiple_choice_answer": people[0], "answers": answers})
        picture = folder / images / f"COCO_{images}_{image:012d}.jpg"
        Image.new("RGB", (40, 30)).save(picture)
    common = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": name}
    (folder / f"v2_OpenEnded_mscoco_{name}_questions.json").write_text(
        json.dumps({**common, "task_type": "Open-Ended", "questions": asked})
    )
    if not secret:
        (folder / f"v2_mscoco_{name}_annotations.json").write_text(
            json.dumps({**common, "annotations": answered[::-1]})  # in another order
        )
    return folder


def test_questions_are_paired_with_their_answers_by_number(tmp_path: Path) -> None:
    read = read_split(VQA, write_vqa(tmp_path, "val2014"), "val", own_data=True).problems
    assert [each.id for each in read] == [
        str(1000 * row[0] + number) for number, row in enumerate(QUESTIONS)
    ]
    assert read[0].picture == "COCO_val2014_000000262148.jpg"
    assert read[0].text == "Where is he looking?"
    assert [list(each.references) for each in read] == [row[4] for row in QUESTIONS]
    assert [each.categories for each in read] == [(row[2],) for row in QUESTIONS]
    assert [each.opening for each in read] == [row[3] for row in QUESTIONS]
    assert prompt_text(VQA.prompt(read[0], LocationGrid())) == (
        "Question: Where is he looking? Answer:"
    )
    assert [most_said(each) for each in read] == ["down", "yes", "3", "no"]


def changed(folder: Path, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> Path:
    file = folder / f"v2_mscoco_{name}_annotations.json"
    content = json.loads(file.read_text())
    change(content["annotations"])
    file.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows.pop(), "nobody answered question"),
        (lambda rows: rows[0]["answers"].pop(), "has 9 answers, there are 10"),
        (lambda rows: rows[0].update(image_id=5), "is of image 5, the question of"),
        (lambda rows: rows.append({**rows[0], "question_id": 5}), "has 4 questions, .* answers 5"),
        (lambda rows: rows[0].pop("answer_type"), "no 'answer_type'"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, change: Callable[[list[dict[str, Any]]], Any], told: str
) -> None:
    folder = changed(write_vqa(tmp_path, "val2014"), "val2014", change)
    with pytest.raises(RecordError, match=told):
        read_split(VQA, folder, "val", own_data=True)


def test_a_split_with_a_public_truth_needs_its_file(tmp_path: Path) -> None:
    write_vqa(tmp_path, "val2014", secret=True)
    with pytest.raises(RecordError, match=r"cannot read .*v2_mscoco_val2014_annotations"):
        read_split(VQA, tmp_path, "val", own_data=True)
    with pytest.raises(RecordError, match=r"val has 214,354 sentences, .* gives 4"):
        read_split(VQA, write_vqa(tmp_path, "val2014"), "val", own_data=False)


class Says:
    """Answers by rule, with whatever examples a question has."""

    def __init__(self, rule: Callable[[Problem], str]) -> None:
        self._rule = rule

    def answers(
        self, pictures: Sequence[Path], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        return [[self._answer(problem) for problem in own] for own in asked]

    def _answer(self, problem: Problem) -> Prediction:
        text = self._rule(problem)
        return Prediction(
            id=problem.id,
            prompt=prompt_text(prompt_of(VQA, problem, LocationGrid())),
            answer=text,
            boxes=(),
            text=text,
            examples=tuple(shot.problem.id for shot in problem.shots),
        )


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def evaluated(data: Path, out: Path, *more: str) -> dict[str, Any]:
    code, said = run("vqav2", "--data", data, "--own-data", "--out", out, *more)
    assert code == 0, said
    read: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return read


def test_who_says_what_most_people_say_scores_what_they_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_benchmarks, "_load", lambda *_: Says(most_said))
    data = write_vqa(tmp_path / "d", "val2014")
    results = evaluated(data, tmp_path / "o")
    # Eight, ten, seven and nine of ten people: four that agree are all that is needed.
    assert results["numbers"]["accuracy"]["value"] == 1.0
    handed = json.loads((tmp_path / "o" / "result.json").read_text())
    assert handed[0] == {"question_id": 262148000, "answer": "down"}
    assert [row["answer"] for row in handed] == ["down", "yes", "3", "no"]
    page = (tmp_path / "o" / "results.md").read_text()
    assert "| Kosmos-2 | 51.1 | no |" in page


def test_who_always_says_yes_scores_what_arithmetic_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_benchmarks, "_load", lambda *_: Says(lambda _: "Yes."))
    data, out = write_vqa(tmp_path / "d", "val2014"), tmp_path / "o"
    results = evaluated(data, out)
    assert results["numbers"]["accuracy"]["value"] == pytest.approx((1 + 0.3) / 4)
    kinds = {kind: each["accuracy"]["value"] for kind, each in results["slices"]["kind"].items()}
    assert kinds == pytest.approx({"number": 0.0, "other": 0.0, "yes/no": 0.65})
    types = results["slices"]["question type"]
    assert types["is this a"]["accuracy"]["value"] == pytest.approx(0.3)
    assert "×9" in (out / "gallery.html").read_text() or "×8" in (out / "gallery.html").read_text()
    first = results["numbers"]
    assert run("score", out, "--data", data, "--own-data")[0] == 0
    assert json.loads((out / "results.json").read_text())["numbers"] == first


def test_where_the_truth_is_secret_answers_are_written_to_be_handed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_benchmarks, "_load", lambda *_: Says(lambda _: "Yes"))
    data, out = write_vqa(tmp_path / "d", "test-dev2015", secret=True), tmp_path / "o"
    code, said = run("vqav2", "--data", data, "--split", "test-dev", "--own-data", "--out", out)
    assert code == 0, said
    assert "no score" in said
    handed = json.loads((out / "result.json").read_text())
    assert [row["answer"] for row in handed] == ["Yes"] * 4
    assert not (out / "results.json").exists()
    # A question that is missing is an error here too.
    lines = (out / "predictions.jsonl").read_text().splitlines(keepends=True)
    (out / "predictions.jsonl").write_text("".join(lines[:-1]))
    code, said = run("score", out, "--data", data, "--own-data")
    assert code == 2 and "have no prediction" in said


def test_solved_examples_are_of_the_training_split_and_kept_with_each_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_benchmarks, "_load", lambda *_: Says(most_said))
    data = write_vqa(write_vqa(tmp_path / "d", "val2014"), "train2014")
    out = tmp_path / "o"
    evaluated(data, out, "--shots", "2", "--seed", "5")
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["shots"] == {"count": 2, "seed": 5, "split": "train"}
        assert len(row["examples"]) == 2
        assert row["prompt"].count("<image>Question:") == 2  # the first picture is left out
        assert row["prompt"].startswith("Question: ") and row["prompt"].endswith(" Answer:")
    assert "2 solved examples of the split 'train'" in (out / "results.md").read_text()
    # Scored again without the model, with the same examples.
    assert run("score", out, "--data", data, "--own-data")[0] == 0
    code, said = run("vqav2", "--data", data, "--own-data", "--out", out, "--shots", "2")
    assert code == 2 and "shots is" in said  # another seed is another run
