"""How right a data set is where there is a truth: scenes, stripped bare, through `grit build`.

A pair is a noun chunk of a caption and a box. A pair of a record is right if the truth has one for
characters of the same chunk whose box has IoU of at least 0.5 with it; each of the truth's
is used up by one, the surest first, which takes the one it overlaps most. Precision is the share of
the records' pairs that are right; recall the share of the truth's pairs that are found, those of
scenes without a record included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from kosmos2 import config
from kosmos2.boxes import iou
from kosmos2.evaluation.metrics import wilson
from kosmos2.grit.build import recipe_of, select
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.store import read

SAME = 0.5
"""IoU from which on two boxes are of one thing."""
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
CAPTIONS = "captions.jsonl"

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """The pairs of one scene: those of its record by whether they are right, and the truth's."""

    right: tuple[Grounded, ...]
    wrong: tuple[Grounded, ...]
    missed: tuple[Grounded, ...]
    """Of the truth: with no right pair."""


def judge(truth: Sequence[Grounded], said: Sequence[Grounded]) -> Judged:
    """Return which pairs are right, by the rule above."""
    left, right, wrong = list(truth), [], []
    for each in sorted(said, key=lambda entry: -(entry.score or 0.0)):
        near = [
            other
            for other in left
            if other.start < each.end
            and each.start < other.end
            and iou(other.box, each.box) >= SAME
        ]
        if near:
            left.remove(max(near, key=lambda other: iou(other.box, each.box)))
            right.append(each)
        else:
            wrong.append(each)
    return Judged(tuple(right), tuple(wrong), tuple(left))


def judged(truth: Sequence[GroundedRecord], out: Path) -> list[Judged]:
    """Return every scene's pairs; a scene without a record has only missed ones."""
    said = {record.id: record.noun_chunks or () for record in read(out / "records.jsonl")}
    return [judge(each.noun_chunks or (), said.get(each.id, ())) for each in truth]


def shares(scenes: Sequence[Judged]) -> Found:
    """Return precision, recall and their harmonic mean, with what they are made of."""
    right = sum(len(each.right) for each in scenes)
    said = right + sum(len(each.wrong) for each in scenes)
    true = right + sum(len(each.missed) for each in scenes)
    precision, recall = right / said if said else 0.0, right / true if true else 0.0
    return {
        "right": right,
        "said": said,
        "true": true,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if right else 0.0,
        "precision_range": list(wilson(precision, said)) if said else [0.0, 1.0],
        "recall_range": list(wilson(recall, true)) if true else [0.0, 1.0],
    }


def strip(scenes: Path, out: Path) -> int:
    """Write pictures and captions alone, without a span or a box; return how many."""
    rows = (scenes / "records.jsonl").read_text(encoding="utf-8").splitlines()
    with out.open("w", encoding="utf-8") as file:
        for row in map(json.loads, rows):
            place = str((scenes / row["image"]).absolute())
            file.write(
                json.dumps({"id": row["id"], "image": place, "caption": row["caption"]}) + "\n"
            )
    return len(rows)


def measure(scenes: Path, work: Path) -> Found:
    """Build with each detector and judge; sweep the embedded model's threshold by selecting."""
    work.mkdir(parents=True, exist_ok=True)
    count = strip(scenes, work / CAPTIONS)
    truth = list(read(scenes / "records.jsonl"))
    found: Found = {"scenes": count}
    detectors = {
        "oracle": ("detection.name=oracle", f"detection.model={scenes / 'records.jsonl'}"),
        "embedded": ("detection.name=kosmos2", "detection.model=embedded"),
    }
    for name, settings in detectors.items():
        begun = time.perf_counter()
        _build(work / CAPTIONS, work / name, settings)
        seconds = time.perf_counter() - begun
        funnel = json.loads((work / name / "funnel.json").read_text(encoding="utf-8"))
        own = shares(judged(truth, work / name))
        found[name] = {**own, "seconds": seconds, "funnel": funnel}
    found["sweep"] = sweep(truth, work / "embedded")
    found["default"] = recipe_of(work / "embedded").linking.threshold
    return found


def sweep(truth: Sequence[GroundedRecord], out: Path) -> list[Found]:
    """Return the shares at every threshold, each chosen again from what was looked at."""
    before = recipe_of(out)
    rows = []
    for threshold in THRESHOLDS:
        begun = time.perf_counter()
        selected = select(out, config.changed(before, [f"linking.threshold={threshold}"]))
        seconds = time.perf_counter() - begun
        rows.append(
            {
                "threshold": threshold,
                "records": selected.funnel.pairs.left,
                "seconds": seconds,
                **shares(judged(truth, out)),
            }
        )
    select(out, before)
    return rows


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the row of the highest F1."""
    return max(rows, key=lambda row: row["f1"])


def _build(source: Path, out: Path, settings: Sequence[str]) -> None:
    words = ["grit", "build", str(source), str(out), "--fresh"]
    words += [word for each in settings for word in ("--set", each)]
    subprocess.run(
        [sys.executable, "-m", "kosmos2", *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
    )
