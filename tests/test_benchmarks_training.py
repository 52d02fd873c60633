"""The training benchmark: fair, and counted rightly; nothing depends on how fast anything is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scene_shapes import NOUNS, shapes

from benchmarks import training, training_loader
from benchmarks.training_cases import ON_CPU, PAIRS, Artwork, Case, Job, job_of, tokenizer
from benchmarks.training_page import (
    EAGER,
    PEER,
    curves,
    distance,
    judged,
    lanes,
    page,
    ratio,
)
from benchmarks.training_peer import IGNORED, Peer, examples, padded
from benchmarks.training_race import race
from kosmos2.data.collate import pack
from kosmos2.data.lessons import Lesson
from kosmos2.data.patches import unknown
from kosmos2.model import ModelConfig, TextConfig, VisionConfig
from kosmos2.scenes.sprites import TRAINING_STYLES
from kosmos2.training.recipe import ScenesRecipe

TINY = ModelConfig(
    text=TextConfig(
        vocab_size=1528, width=32, feedforward_width=64, num_layers=2, num_heads=2,
        dropout=0.0, attention_dropout=0.0,
    ),
    vision=VisionConfig(
        width=32, feedforward_width=64, num_layers=1, num_heads=2, image_size=32, patch_size=8
    ),
    num_latents=4,
)  # fmt: skip
STAMP = {
    "commit": "abc", "date": "2026-01-01T00:00:00", "processor": "P", "cores": 2, "threads": 2,
    "torch": "2", "transformers": "5",
}  # fmt: skip


@pytest.fixture(scope="module")
def artwork() -> Artwork:
    return Artwork(ScenesRecipe(nouns=NOUNS, styles=TRAINING_STYLES[:2]), shapes())


def tiny(**changes: Any) -> Case:
    case = dataclasses.replace(PAIRS, model=TINY, batch=3, steps=3, lessons=4, precision="fp32")
    return dataclasses.replace(case, **changes)


@pytest.mark.parametrize("max_tokens", [0, 400])
def test_both_sides_have_the_same_losses_step_after_step(
    max_tokens: int, artwork: Artwork, tmp_path: Path
) -> None:
    job = job_of(tiny(max_tokens=max_tokens), artwork, "cpu", torch.get_num_threads())
    job.write(tmp_path)
    read = Job.read(tmp_path)
    found = race(read, {PEER: (Peer(read, tmp_path, "sdpa"), 3)})
    ours, theirs = (found["lanes"][name]["losses"] for name in ("ours", PEER))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[0] != pytest.approx(ours[2], rel=1e-3)


def test_the_plain_rows_of_a_packed_row_are_its_lessons_behind_the_picture() -> None:
    prefix = ((0, 90, 91, 92), (False, True, True, False))
    lessons = [
        Lesson(prompt=(), answer=(10, 11, 2)),
        Lesson(prompt=(20, 21), answer=(22, 2)),
        Lesson(prompt=(), answer=(30, 2)),
    ]
    pixels = torch.zeros(3, 32, 32, dtype=torch.uint8)
    rows = examples(pack(pixels, unknown(4), prefix, lessons))

    assert [row.ids for row in rows] == [
        [*prefix[0], *lesson.prompt, *lesson.answer] for lesson in lessons
    ]
    assert [row.labels for row in rows] == [
        [IGNORED] * (4 + len(lesson.prompt)) + list(lesson.answer) for lesson in lessons
    ]
    assert all(row.image_mask == [*prefix[1], *[False] * (len(row.ids) - 4)] for row in rows)
    batch = padded(rows)
    assert batch.ids_BT.shape == (3, 8)
    assert batch.keep_BT.sum(1).tolist() == [len(row.ids) for row in rows]
    assert (batch.labels_BT[batch.keep_BT == 0] == IGNORED).all()


def test_a_job_reads_as_it_was_written(artwork: Artwork, tmp_path: Path) -> None:
    job = job_of(tiny(), artwork, "cpu", 1)
    job.write(tmp_path)
    read = Job.read(tmp_path)
    assert read.case == job.case and read.recipe == job.recipe
    assert [row.ids for row in read.rows] == [row.ids for row in job.rows]
    assert [row.ids for row in read.samples(3)] == [row.ids for row in read.samples(0)]


def test_all_cases_have_room_for_the_vocabulary() -> None:
    words = tokenizer().vocabulary.size
    assert all(case.model.text.vocab_size >= words for case in ON_CPU)


def known(seconds: list[float], losses: list[float]) -> dict[str, Any]:
    return {"seconds": seconds, "cpu": seconds, "losses": losses, "mfu": [None] * len(seconds)}


def found(*, slower: float, apart: float) -> dict[str, Any]:
    """Return a case in which the peer's steps take so many times longer."""
    ours = [9.0, 9.0, 1.0, 2.0, 1.0]
    theirs = [1.0, 1.0, *(slower * each for each in ours[2:])]
    losses = [5.0, 4.0, 3.0, 2.0, 1.0]
    return {
        "title": "a case", "weights": 10**6, "precision": "bf16", "batch": 4, "steps": 5,
        "rows": 8, "learnt": 0.25, "padding": 0.1, "others": 0.5, "stamp": STAMP,
        "memory": {"ours": 1.0, PEER: 2.0},
        "lanes": {
            "ours": known(ours, losses),
            PEER: known(theirs, [each + apart for each in losses]),
            EAGER: known(ours[:3], losses[:3]),
        },
    }  # fmt: skip


def test_a_ratio_is_of_steps_of_the_same_samples_without_the_first() -> None:
    case = found(slower=1.5, apart=0.0)
    assert ratio(case, PEER, "seconds").median == pytest.approx(1.5)
    assert ratio(case, PEER, "seconds").count == 3
    assert ratio(case, EAGER, "seconds").median == pytest.approx(1.0)
    assert lanes(case)[0][1:4] == ("1,000", "4.0", "1.00")


@pytest.mark.parametrize(
    ("slower", "apart", "verdict"),
    [(1.5, 0.001, "met"), (1.2, 0.001, "not met"), (1.5, 0.5, "the losses differ")],
)
def test_speed_counts_only_where_the_losses_are_equal(
    slower: float, apart: float, verdict: str
) -> None:
    case = found(slower=slower, apart=apart)
    assert distance(case, "ours", PEER) == pytest.approx(apart)
    rows = judged({PAIRS.name: case})
    assert [row[-1] for row in rows if row[0] == PAIRS.title] == [verdict]
    assert {row[-1] for row in rows if row[0] != PAIRS.title} == {"open"}


def test_the_page_says_what_falls_short_and_that_no_gpu_was_used() -> None:
    cases = {PAIRS.name: found(slower=1.2, apart=0.001)}
    loader = {
        "lines": [{"name": "tars", "wall": [50.0, 50.0], "cpu": [100.0, 100.0]}],
        "gpu_samples": 320.0, "picture_kb": 40.0, "others": 0.1, "rounds": 2, "count": 16,
        "stored": 32, "stamp": STAMP,
    }  # fmt: skip
    text = page(json.loads(json.dumps({"cases": cases, "loader": loader})))
    assert f"- {PAIRS.title}: not met (needed ≥ 1.3 ×, 1.20 × (1.20 – 1.20))." in text
    assert "**Never run**" in text
    assert "| tars | 100 (100 – 100) | 50 | 3.2 |" in text
    drawn = curves(cases)
    assert drawn.count("<circle") == 5 and drawn.count("<polyline") == 1


def test_the_loader_is_asked_for_every_kind_of_source(artwork: Artwork) -> None:
    told = training_loader.measure(artwork, 1, 16, 4)
    assert len(told["lines"]) == 4
    assert all(rate > 0 for line in told["lines"] for rate in (*line["wall"], *line["cpu"]))


def test_the_command_walks_through_without_keeping_anything(
    artwork: Artwork, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "prepared", lambda: True)
    monkeypatch.setattr(Artwork, "load", lambda: artwork)
    assert training.main(["--quick", "--only", PAIRS.name, "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert f"## {PAIRS.title}" in said and "| transformers |" in said
    assert "written" not in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "prepared", lambda: True)
    assert training.main(["--device", "cuda"]) == 1
    assert capsys.readouterr().out == "nothing was measured: torch sees no GPU\n"
