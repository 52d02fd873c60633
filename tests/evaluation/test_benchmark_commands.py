"""`kosmos2 eval refcoco`, `flickr30k`, `score`: whole runs with models whose score is known."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import (
    write_entities,
    write_mdetr_flickr,
    write_mdetr_refcoco,
    write_refcoco,
)
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from kosmos2.boxes import Box
from kosmos2.cli import app, evaluate_benchmarks
from kosmos2.evaluation.benchmark import Benchmark, Prediction, Problem, prompt_text
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.tokenizer import Tokenizer

WHOLE = Box(0, 0, 1, 1)


@dataclass
class Known:
    """A model that answers by rule; it counts what it was asked."""

    rule: Callable[[Problem], Sequence[Box]]
    benchmark: Benchmark = BENCHMARKS["refcoco"]
    pictures: list[str] = field(default_factory=list)

    def answers(
        self, pictures: Sequence[Path], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        assert all(path.is_file() for path in pictures)
        self.pictures += [path.name for path in pictures]
        return [[self._answer(problem) for problem in own] for own in asked]

    def _answer(self, problem: Problem) -> Prediction:
        boxes = tuple(self.rule(problem))
        return Prediction(
            id=problem.id,
            prompt=prompt_text(self.benchmark.prompt(problem, LocationGrid())),
            answer="<object>",
            boxes=boxes,
            scores=tuple(0.5 for _ in boxes),
        )


def oracle(problem: Problem) -> Sequence[Box]:
    return problem.boxes


def constant(problem: Problem) -> Sequence[Box]:
    return (WHOLE,)


def silent(problem: Problem) -> Sequence[Box]:
    return ()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Problem], Sequence[Box]]], Known]:
    def put(rule: Callable[[Problem], Sequence[Box]]) -> Known:
        known = Known(rule)

        def load(benchmark: Benchmark, *_: object) -> Known:
            known.benchmark = benchmark
            return known

        monkeypatch.setattr(evaluate_benchmarks, "_load", load)
        return known

    return put


Use = Callable[[Callable[[Problem], Sequence[Box]]], Known]


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def evaluated(name: str, data: Path, out: Path, *more: str | Path) -> dict[str, Any]:
    code, said = run(name, "--data", data, "--own-data", "--out", out, *more)
    assert code == 0, said
    results: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return results


def data_of(kind: str, folder: Path) -> tuple[str, Path]:
    """Return a benchmark's name and its data in one of the formats."""
    if kind == "refer":
        return "refcoco", write_refcoco(folder)
    if kind == "flickr":
        return "flickr30k", write_entities(folder)
    if kind == "mdetr-refcoco":
        write_refcoco(folder)
        return "refcoco", write_mdetr_refcoco(folder / "m.json")
    write_entities(folder / "flickr30k_entities")
    return "flickr30k", write_mdetr_flickr(folder / "m.json")


KINDS = ("refer", "mdetr-refcoco", "flickr", "mdetr-flickr")


@pytest.mark.parametrize("kind", KINDS)
def test_who_answers_from_the_annotations_scores_everything(
    tmp_path: Path, use: Use, kind: str
) -> None:
    name, data = data_of(kind, tmp_path / "data")
    model = use(oracle)
    results = evaluated(name, data, tmp_path / "out")
    n = 4 if name == "refcoco" else 7
    for metric, number in results["numbers"].items():
        # Two of the seven phrases have two boxes, and neither is the box around both.
        share = 5 / 7 if metric.startswith("merged") else 1.0
        assert number["value"] == pytest.approx(share), metric
        assert number["n"] == n
    assert len(model.pictures) == len(set(model.pictures)) == 2  # each looked at once


@pytest.mark.parametrize("kind", KINDS)
def test_who_always_names_the_whole_picture_scores_what_arithmetic_says(
    tmp_path: Path, use: Use, kind: str
) -> None:
    name, data = data_of(kind, tmp_path / "data")
    use(constant)
    results = evaluated(name, data, tmp_path / "out")
    numbers = {metric: number["value"] for metric, number in results["numbers"].items()}
    if name == "refcoco":
        # The dog fills its picture; the man covers 90,945.125 of 307,200 pixels, the lady 4 %.
        assert numbers["accuracy"] == numbers["accuracy_0.9"] == 0.25
        assert numbers["mean_iou"] == pytest.approx((0.04 + 0.04 + 239.5 * 379.75 / 307200 + 1) / 4)
    else:
        # Only the red car (332 x 499 of 333 x 500) and the road (half of it) are that large.
        assert numbers["any_r1"] == numbers["merged_r10"] == pytest.approx(1 / 7)
        kinds = {kind: each["any_r1"]["value"] for kind, each in results["slices"]["kind"].items()}
        assert kinds["vehicles"] == 1
        assert sum(kinds.values()) == 1


def test_who_writes_no_box_gets_nothing(tmp_path: Path, use: Use) -> None:
    use(silent)
    results = evaluated("refcoco", write_refcoco(tmp_path / "data"), tmp_path / "out")
    assert {number["value"] for number in results["numbers"].values()} == {0.0}


def test_a_run_goes_on_where_it_was_killed_at_any_byte(tmp_path: Path, use: Use) -> None:
    data, out = write_refcoco(tmp_path / "data"), tmp_path / "out"
    use(constant)
    first = evaluated("refcoco", data, out)
    whole = (out / "predictions.jsonl").read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == 10]
    for cut in (0, 5, ends[0] - 1, ends[0], ends[1] + 7, ends[-1] - 1):
        (out / "predictions.jsonl").write_bytes(whole[:cut])
        model = use(constant)
        assert evaluated("refcoco", data, out)["numbers"] == first["numbers"]
        assert (out / "predictions.jsonl").read_bytes() == whole
        asked = len(ends) - sum(end <= cut for end in ends)
        assert bool(model.pictures) == bool(asked)
    model = use(constant)
    evaluated("refcoco", data, out)
    assert model.pictures == []  # all was answered: no model needed


def test_another_run_in_the_same_folder_is_refused_and_fresh_begins_anew(
    tmp_path: Path, use: Use
) -> None:
    data, out = write_refcoco(tmp_path / "data"), tmp_path / "out"
    use(constant)
    evaluated("refcoco", data, out)
    changed = ("refcoco", "--data", data, "--own-data", "--out", out, "--answer", "boxes")
    code, said = run(*changed)
    assert code == 2
    assert "answer_form is 'free' there and 'boxes' here" in said
    assert said.count("\n") == 1
    code, said = run(*changed, "--fresh")
    assert code == 0, said
    code, said = run(*changed, "--set", "no_repeat=off")
    assert code == 2 and "decoding is" in said


def test_decoding_that_is_not_the_published_one_is_told(tmp_path: Path, use: Use) -> None:
    data, out = write_refcoco(tmp_path / "data"), tmp_path / "out"
    use(constant)
    run("refcoco", "--data", data, "--own-data", "--out", out, "--set", "beams=3")
    told = json.loads((out / "results.json").read_text(encoding="utf-8"))["differences"]
    assert [each for each in told if "published protocol has" in each] == [
        "beams 3, where the published protocol has 1"
    ]


def test_scores_come_again_from_predictions_alone(tmp_path: Path, use: Use) -> None:
    data, out = write_refcoco(tmp_path / "data"), tmp_path / "out"
    use(constant)
    first = evaluated("refcoco", data, out)
    for file in ("results.json", "results.md", "gallery.html"):
        (out / file).unlink()
    for picture in (data / "train2014").iterdir():
        picture.unlink()
    code, said = run("score", out, "--data", data, "--own-data")
    assert code == 0, said
    assert json.loads((out / "results.json").read_text()) == first
    assert (out / "gallery.html").is_file()


def lines_of(out: Path) -> list[str]:
    return (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:1] + lines[2:], r"no prediction: 1 \(801\)"),
        (lambda lines: [*lines, lines[2]], r"more than once: 1 \(802\)"),
        (
            lambda lines: [*lines, lines[0].replace('"id": "800"', '"id": "xyz"')],
            r"does not ask: 1 \(xyz\)",
        ),
        (lambda lines: [lines[0].replace("the lady", "a lady"), *lines[1:]], "other words"),
        (lambda lines: [line.replace('"version": 1', '"version": 9') for line in lines], "anew"),
        (lambda lines: [lines[0].replace("fp32", "int8"), *lines[1:]], "another run: dtype"),
        (lambda lines: [lines[0][:-9] + "\n", *lines[1:]], "jsonl:1 is no prediction"),
        (lambda lines: [lines[0].replace("[0.0,", "[7.0,"), *lines[1:]], "jsonl:1 is no predict"),
    ],
)
def test_predictions_that_do_not_fit_the_questions_are_no_score(
    tmp_path: Path, use: Use, change: Callable[[list[str]], list[str]], said: str
) -> None:
    data, out = write_refcoco(tmp_path / "data"), tmp_path / "out"
    use(constant)
    evaluated("refcoco", data, out, "--dtype", "fp32")
    (out / "predictions.jsonl").write_text("".join(change(lines_of(out))), encoding="utf-8")
    code, output = run("score", out, "--data", data, "--own-data")
    assert code == 2
    assert re.search(said, output), output
    assert output.count("\n") == 1


def test_parts_together_are_the_whole_and_one_of_them_is_not(tmp_path: Path, use: Use) -> None:
    data, parts = write_entities(tmp_path / "data"), tmp_path / "parts"
    model = use(constant)
    whole = evaluated("flickr30k", data, tmp_path / "whole")
    model.pictures.clear()
    for part in ("1/2", "2/2"):
        code, said = run(
            *("flickr30k", "--data", data, "--own-data", "--out", parts, "--shard", part)
        )
        assert code == 0, said
        assert "kosmos2 eval score" in said
    assert sorted(model.pictures) == ["1000.jpg", "2000.jpg"]  # no picture in two parts
    assert not (parts / "results.json").exists()
    code, said = run("score", parts, "--data", data, "--own-data")
    assert code == 0, said
    assert json.loads((parts / "results.json").read_text())["numbers"] == whole["numbers"]
    code, said = run("score", parts / "predictions-1-of-2.jsonl", "--data", data, "--own-data")
    assert code == 2 and "no prediction: 2 (2000-0-0, 2000-0-13)" in said


def test_a_limit_is_no_whole_split_and_says_so(tmp_path: Path, use: Use) -> None:
    data, out = write_refcoco(tmp_path / "data"), tmp_path / "out"
    use(constant)
    results = evaluated("refcoco", data, out, "--limit", "3")
    assert results["n"] == 3
    assert not results["whole_split"]
    page = (out / "results.md").read_text(encoding="utf-8")
    assert "NOT a published split: 3 sentences instead of the 10,834" in page
    code, said = run("score", out, "--data", data, "--own-data")
    assert code == 2 and "no prediction: 1 (804)" in said
    assert run("score", out, "--data", data, "--own-data", "--limit", "3")[0] == 0


def test_the_published_numbers_stand_beside_ours_with_their_sources(
    tmp_path: Path, use: Use
) -> None:
    use(oracle)
    evaluated("flickr30k", write_entities(tmp_path / "data"), tmp_path / "out")
    page = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    for wanted in ("| Kosmos-2 | 77.8 | 79.2 | 79.3 |", "arXiv 2306.14824, table 2", "merged-box"):
        assert wanted in page
    assert "ours: embedded | 100.0 | 100.0 | 100.0 |" in page


def test_the_gallery_shows_the_surest_errors_with_both_boxes(tmp_path: Path, use: Use) -> None:
    use(constant)
    out = tmp_path / "out"
    evaluated("refcoco", write_refcoco(tmp_path / "data"), out, "--worst", "2")
    page = (out / "gallery.html").read_text(encoding="utf-8")
    assert page.count('<article class="card"') == 2
    assert "2 of 3 errors among 4 answers" in page
    assert "IoU of the first box 0." in page
    assert page.count('class="box"') == 4
    assert "data:image/" in page and "http://" not in page


@pytest.mark.parametrize("form", ["free", "boxes"])
@pytest.mark.parametrize("kind", ["refer", "flickr"])
def test_a_real_model_is_asked_read_and_scored(
    tmp_path: Path, tiny_tokenizer: Tokenizer, kind: str, form: str
) -> None:
    name, data = data_of(kind, tmp_path / "data")
    model, out = save_tiny_model(tmp_path / "model", tiny_tokenizer), tmp_path / "out"
    results = evaluated(
        *(name, data, out, "--model", model, "--device", "cpu", "--answer", form),
        *("--set", "max_new_tokens=12"),
    )
    rows = [json.loads(line) for line in lines_of(out)]
    assert len(rows) == results["n"]
    for row in rows:
        assert row["weights"].startswith("sha256:")
        assert row["prompt"].startswith("<grounding>")
        assert row["decoding"]["max_new_tokens"] == 12
        assert len(row["boxes"]) == len(row["scores"])
        assert form == "free" or row["boxes"]
    alone = evaluated(
        *(name, data, tmp_path / "alone", "--model", model, "--device", "cpu", "--answer", form),
        *("--set", "max_new_tokens=12", "--set", "batch_size=1"),
    )
    assert alone["numbers"] == results["numbers"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["refcoco", "--data", "nothing"], "nothing at --data"),
        (["refcoco", "--data", "."], "has neither"),
        (["flickr30k", "--data", "."], "Annotations/"),
        (["refcoco", "--data", "data"], "10,834"),
        (["refcoco", "--data", "data", "--split", "test"], "val, testA, testB"),
        (["refcoco", "--data", "data", "--own-data", "--images", "elsewhere"], "is no folder"),
        (["refcoco", "--data", "data", "--own-data", "--images", "empty"], "2 (COCO_train2014_"),
        (["refcoco", "--data", "data", "--own-data", "--shard", "3/2"], "got 3/2"),
        (["refcoco", "--data", "data", "--own-data", "--shard", "half"], "I/N"),
        (["refcoco", "--data", "data", "--own-data", "--set", "beam=3"], "beam"),
        (["score", "empty", "--data", "data"], "predictions*.jsonl"),
        (["score", "none.jsonl", "--data", "data"], "none.jsonl"),
    ],
)
def test_a_wrong_request_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_refcoco(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    code, said = run(*arguments)
    assert code == 2
    assert complaint in said
    assert said.count("\n") == 1


def test_there_is_a_command_with_help_for_each_benchmark() -> None:
    assert evaluate_benchmarks.NAMES.keys() == BENCHMARKS.keys()
    for name in (*BENCHMARKS, "score"):
        code, said = run(name, "--help")
        assert code == 0
        assert "Example:" in said and "--data" in said
