"""Calibration: error, precision at thresholds and the picture, by hand and through the command."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmark_files import write_entities, write_refcoco
from choice_files import write_pope
from typer.testing import CliRunner

from kosmos2.boxes import Box
from kosmos2.cli import app, evaluate_benchmarks
from kosmos2.errors import RecordError
from kosmos2.evaluation.benchmark import Benchmark, Prediction, Problem, prompt_text
from kosmos2.evaluation.calibration import ScoredBox, all_boxes, reliability
from kosmos2.vocab.locations import LocationGrid


class Truthful:
    """Says the true box and a wrong one, each with a score."""

    def __init__(self, benchmark: Benchmark, right: float, wrong: float) -> None:
        self.benchmark, self.scores = benchmark, (right, wrong)

    def answers(
        self, pictures: Sequence[Path], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        return [[self._answer(problem) for problem in own] for own in asked]

    def _answer(self, problem: Problem) -> Prediction:
        prompt = prompt_text(self.benchmark.prompt(problem, LocationGrid()))
        boxes = (problem.boxes[0], Box(0.99, 0.0, 1.0, 0.01)) if problem.boxes else ()
        scores = self.scores if boxes else ()
        return Prediction(
            id=problem.id, prompt=prompt, answer="", text="no", boxes=boxes, scores=scores
        )


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        evaluate_benchmarks, "_load", lambda benchmark, *_: Truthful(benchmark, 0.75, 0.25)
    )


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_numbers_are_those_of_a_count_by_hand() -> None:
    boxes = [ScoredBox(str(n), 0.95, n < 3) for n in range(4)]  # three of four right
    boxes += [ScoredBox(str(n), 0.35, n == 0) for n in range(4)]  # one of four
    boxes += [ScoredBox("9", 1.0, True)]  # in the same bin as 0.95
    found = reliability(boxes)
    bins = {each.low: (each.right.n, each.right.value, each.score) for each in found.bins}
    assert bins == {
        0.3: (4, 0.25, pytest.approx(0.35)),
        0.9: (5, 0.8, pytest.approx(0.96)),
    }
    assert found.ece.value == pytest.approx((4 * 0.10 + 5 * 0.16) / 9)
    assert found.ece.low <= found.ece.value <= found.ece.high
    brier = 3 * 0.05**2 + 0.95**2 + 0.65**2 + 3 * 0.35**2
    assert found.brier.value == pytest.approx(brier / 9)
    cuts = {cut.threshold: (cut.precision.value, cut.kept) for cut in found.cuts}
    assert cuts[0.0] == (pytest.approx(5 / 9), 1.0)
    assert cuts[0.4] == cuts[0.9] == (0.8, pytest.approx(5 / 9))


def test_scores_that_are_the_share_of_right_boxes_have_no_error() -> None:
    boxes = [ScoredBox(str(n), 0.75, n % 4 > 0) for n in range(400)]
    boxes += [ScoredBox(str(n), 0.25, n % 4 == 0) for n in range(400)]
    assert reliability(boxes).ece.value == pytest.approx(0.0, abs=1e-12)
    surest = reliability([ScoredBox(str(n), 1.0, False) for n in range(10)])
    assert surest.ece.value == 1.0 and surest.auroc is None
    with pytest.raises(RecordError, match="nothing to calibrate"):
        reliability([])


def test_saved_predictions_of_several_benchmarks_are_one_page_and_picture(tmp_path: Path) -> None:
    refs, flickr = write_refcoco(tmp_path / "refs"), write_entities(tmp_path / "flickr")
    for name, data in (("refcoco", refs), ("flickr30k", flickr)):
        code, said = run(name, "--data", data, "--own-data", "--out", tmp_path / name)
        assert code == 0, said
    out = tmp_path / "calibration"
    code, said = run(
        *("calibration", tmp_path / "refcoco", tmp_path / "flickr30k", "--own-data"),
        *("--data", refs, "--data", flickr, "--out", out),
    )
    assert code == 0, said
    told = json.loads((out / "calibration.json").read_text(encoding="utf-8"))["calibration"]
    assert told["refcoco val, first boxes"]["n"] == 4
    assert told["refcoco val, first boxes"]["ece"]["value"] == pytest.approx(0.25)
    every = told["refcoco val, all boxes"]
    assert (every["n"], every["auroc"]["value"]) == (8, 1.0)
    assert told["flickr30k val, first boxes"]["n"] == 7
    drawn = ET.fromstring((out / "reliability.svg").read_text(encoding="utf-8"))
    titles = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "refcoco val, first boxes" in titles and "flickr30k val, first boxes" in titles
    page = (out / "calibration.md").read_text(encoding="utf-8")
    assert "reliability.svg" in page and page.count("sha256:") == 2


def test_boxes_without_scores_among_others_are_refused() -> None:
    box = Box(0.1, 0.1, 0.5, 0.5)
    problem = Problem(id="7", picture="a", width=9, height=9, text="", end=0, boxes=(box,))
    said = [
        Prediction(id="7", prompt="", answer="", text="", boxes=(box,), scores=scores)
        for scores in ((0.5,), ())
    ]
    with pytest.raises(RecordError, match="1 answers have boxes without scores, the first to '7'"):
        all_boxes([(problem, each) for each in said])
    assert all_boxes([(problem, said[1])]) == []


def test_what_cannot_be_calibrated_is_one_line(tmp_path: Path) -> None:
    data = write_pope(tmp_path / "pope")
    code, said = run(
        *("pope", "--data", data, "--split", "random", "--own-data", "--out", tmp_path / "out")
    )
    assert code == 0, said
    code, said = run("calibration", tmp_path / "out", "--data", data, "--own-data")
    assert code == 2 and "asks for no boxes" in said and said.count("\n") == 1
    code, said = run("calibration", tmp_path / "out", "--data", data, "--data", data)
    assert code == 2 and "once for each of the 1 runs" in said
    code, said = run("threshold", tmp_path / "out", "--data", data, "--own-data", "--at", "0.5")
    assert code == 2 and "wanted are absent's" in said
