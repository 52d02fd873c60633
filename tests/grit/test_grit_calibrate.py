"""`grit calibrate`, and thresholds that are asked for by precision."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny_detectors import dino_folder, picture
from typer.testing import CliRunner, Result

from kosmos2 import config
from kosmos2.boxes import Box, iou
from kosmos2.cli import app
from kosmos2.cli.console import FAILED
from kosmos2.errors import ConfigError
from kosmos2.grit import calibration
from kosmos2.grit.build import DROPPED, FUNNEL, RECORDS, Build, build, select
from kosmos2.grit.calibration import Calibration
from kosmos2.grit.judging import Truth, judge
from kosmos2.grit.linking import Candidate
from kosmos2.grit.phrases import Phrase
from kosmos2.grit.recipe import GritRecipe, Linking
from kosmos2.grit.steps import Looked
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.shards import Local

pytest.importorskip("spacy", reason='needs pip install "kosmos2[grit]"')

CAPTION = "a dog on a red ball"
COUNT = 24


def looked(*boxes: tuple[int, Box, float]) -> Looked:
    return Looked(
        record=GroundedRecord(id="1", caption=CAPTION, noun_chunks=None, ref_exps=None),
        phrases=tuple(Phrase(chunk=(a, b), expression=(a, 19)) for a, b in ((0, 5), (9, 19))),
        candidates=tuple(Candidate(phrase=p, box=box, score=score) for p, box, score in boxes),
    )


def true(*entries: tuple[int, int, Box]) -> Truth:
    grounded = tuple(Grounded(start, end, *box.corners, None) for start, end, box in entries)
    return Truth(caption=CAPTION, entries=grounded)


LEFT, RIGHT = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)


def test_right_is_half_an_overlap_with_a_box_of_the_same_words() -> None:
    half, less = Box(0, 0, 0.25, 1), Box(0, 0, 0.2499, 1)
    pair = looked((0, half, 0.9), (0, RIGHT, 0.8), (1, LEFT, 0.7))
    truth = true((2, 5, LEFT), (9, 10, RIGHT))
    rules = Linking(threshold=0.85, nms_iou=0.9)
    assert list(judge(pair, truth, rules)) == [(0.9, True), (0.8, False), (0.7, False)]
    assert list(judge(looked((0, less, 0.9)), truth, rules)) == [(0.9, False)]


def test_boxes_that_no_threshold_would_keep_are_not_judged() -> None:
    pair = looked((0, LEFT, 0.9), (1, LEFT, 0.8), (0, RIGHT, 0.7), (0, Box(0, 0, 1, 1), 0.3))
    rules = Linking(nms_iou=0.9, boxes_per_phrase=2, contained="drop")
    assert [score for score, _ in judge(pair, true(), rules)] == [0.9, 0.7]


# --- the command


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    rows = []
    for number in range(COUNT):
        picture(72 + number, 64, number).save(folder / f"{number}.png")
        rows.append({"id": str(number), "image": f"{number}.png", "caption": CAPTION})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = dino_folder(folder / "model", "mm-grounding-dino")
    (folder / "recipe.toml").write_text(
        f'[detection]\nname = "mm-grounding-dino"\nmodel = "{model}"\ndevice = "cpu"\n'
        'dtype = "fp32"\n[linking]\nthreshold = 0.0\nfloor = 0.0\n'
    )
    built(folder, folder / "all")
    truth = []
    for row in rows_of(folder / "all"):  # the surer a box, the oftener it is right
        draw = random.Random(int(row["id"]))
        chunks = row["noun_chunks"]
        low, high = min(entry[6] for entry in chunks), max(entry[6] for entry in chunks)
        right = [entry for entry in chunks if draw.uniform(low, high) < entry[6]]
        truth.append({**row, "noun_chunks": right, "ref_exps": []})
    (folder / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth))
    return folder


def recipe(source: Path, *changes: str) -> GritRecipe:
    return config.load(GritRecipe, source / "recipe.toml", changes)


def built(source: Path, out: Path, *changes: str) -> None:
    job = Build(
        source=str(source / "pairs.jsonl"), out=out, recipe=recipe(source, *changes), driver=Local()
    )
    build(job, lambda done: None, lambda total: None)


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]


def outcome(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in (RECORDS, DROPPED, FUNNEL)]


def calibrate(source: Path, *, truth: str = "truth.jsonl", out: str = "all") -> Result:
    words = [str(source / name) for name in (out, truth, "file.json")]
    return CliRunner().invoke(app, ["grit", "calibrate", *words])


@pytest.fixture(scope="module")
def file(source: Path) -> Path:
    result = calibrate(source)
    assert result.exit_code == 0, result.output
    assert "precision" in result.output
    return source / "file.json"


@pytest.fixture(scope="module")
def measured(file: Path) -> Calibration:
    return calibration.read(file)


def test_the_file_says_what_made_it(source: Path, measured: Calibration) -> None:
    assert measured.detector["detector"] == "mm-grounding-dino"
    assert "weights" in measured.detector
    assert measured.command.startswith("kosmos2 grit calibrate ")
    assert measured.source.startswith("truth.jsonl sha256:") and f"{COUNT} pairs" in measured.source
    assert len(measured.steps) > 2
    boxes = sum(len(row["noun_chunks"]) for row in rows_of(source / "all"))
    assert measured.boxes == pytest.approx(boxes, abs=3)  # a score of 0.0 is not above it


def test_a_precision_that_is_asked_for_is_had(source: Path, file: Path) -> None:
    measured, truth = calibration.read(file), source / "truth.jsonl"
    right_of = {row["id"]: row["noun_chunks"] for row in map(json.loads, truth.open())}
    for step in measured.steps[1:]:
        wanted = measured.precision_at(step.score)
        # Between two steps the curve is a line, no measurement: ask for what a step has.
        again = recipe(source, f"detection.calibration={file}", f"linking.precision={wanted}")
        select(source / "all", again)
        judged = [
            any(
                entry[0] < other[1] and other[0] < entry[1]
                and iou(Box(*entry[2:6]), Box(*other[2:6])) >= 0.5
                for other in right_of[row["id"]]
            )
            for row in rows_of(source / "all")
            for entry in row["noun_chunks"]
        ]  # fmt: skip
        assert sum(judged) / len(judged) == pytest.approx(wanted)


def test_a_precision_is_a_threshold_that_provenance_tells(source: Path, file: Path) -> None:
    measured = calibration.read(file)
    wanted = round(measured.precision_at(measured.steps[-1].score) - 0.01, 3)
    select(
        source / "all",
        recipe(source, f"detection.calibration={file}", f"linking.precision={wanted}"),
    )
    asked = rows_of(source / "all")
    told = asked[0]["provenance"]["decoding"]
    assert told["linking.precision"] == wanted and told["precision"] == "fp32"
    assert told["linking.calibration"].startswith("sha256:")
    select(source / "all", recipe(source, f"linking.threshold={told['threshold']}"))
    given = rows_of(source / "all")
    assert [row["ref_exps"] for row in asked] == [row["ref_exps"] for row in given]
    assert 0 < sum(len(row["ref_exps"]) for row in given) < measured.boxes


def test_choosing_by_precision_equals_building_by_it(source: Path, file: Path) -> None:
    measured = calibration.read(file)
    wanted = measured.precision_at(measured.steps[-2].score)
    changes = [f"detection.calibration={file}", f"linking.precision={wanted}"]
    built(source, source / "by", *changes)
    select(source / "all", recipe(source, *changes))
    assert outcome(source / "all") == outcome(source / "by")


def test_a_threshold_of_another_detector_becomes_one_as_precise(source: Path, file: Path) -> None:
    ours = calibration.read(file)
    other = source / "glip.json"
    first, last = ours.steps[0], ours.steps[-1]
    steps = [[0.3, first.boxes, first.right], [0.65, last.boxes, last.right]]
    row = {"detector": {"detector": "glip"}, "score": "of GLIP", "source": "", "command": ""}
    other.write_text(json.dumps({**row, "steps": steps}))
    changes = [f"detection.calibration={file}", f"linking.as_of={other}", "linking.threshold=0.65"]
    select(source / "all", recipe(source, *changes))
    kept = [entry[6] for row in rows_of(source / "all") for entry in row["ref_exps"]]
    assert min(kept) == pytest.approx(last.score) and len(kept) == last.boxes
    told = rows_of(source / "all")[0]["provenance"]["decoding"]
    assert told["linking.as_of"].startswith("0.65 of glip")


def test_the_share_of_boxes_kept_falls_from_all_to_those_of_the_last_step(
    measured: Calibration,
) -> None:
    kept = [measured.kept_at(step.score) for step in measured.steps]
    assert kept[0] == 1 and kept[-1] == measured.steps[-1].boxes / measured.boxes
    assert all(above > below for above, below in pairwise(kept))


def test_a_calibration_of_another_detector_is_refused(source: Path, file: Path) -> None:
    row = json.loads(file.read_text())
    row["detector"]["weights"] = "sha256:00"
    (source / "other.json").write_text(json.dumps(row))
    changes = [f"detection.calibration={source / 'other.json'}", "linking.precision=0.1"]
    before = outcome(source / "all")
    with pytest.raises(ConfigError, match="was measured for weights"):
        select(source / "all", recipe(source, *changes))
    assert outcome(source / "all") == before


def test_pairs_that_the_truth_has_not_are_counted_and_none_is_an_error(source: Path) -> None:
    lines = (source / "truth.jsonl").read_text().splitlines()
    other = json.dumps({**json.loads(lines[0]), "caption": CAPTION.upper()})
    (source / "part.jsonl").write_text("\n".join([other, *lines[2:]]) + "\n")
    result = calibrate(source, truth="part.jsonl")
    assert result.exit_code == 0 and "2 pairs have no true record" in result.output
    (source / "none.jsonl").write_text(other + "\n")
    result = calibrate(source, truth="none.jsonl")
    assert result.exit_code == FAILED and "the same" in result.output


def test_a_folder_that_is_none_of_ours_is_named(source: Path) -> None:
    result = calibrate(source, out="model")
    assert result.exit_code == FAILED and "grit build" in result.output
