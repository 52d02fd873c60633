"""One answer judged: how well the boxes of a phrase lie on the true ones.

Boxes count in the order in which they were written, as in the original's evaluators. An overlap of
exactly 0.5 is enough, as in their code (the paper's text says "greater than").
"""

from __future__ import annotations

from collections.abc import Sequence

from kosmos2.boxes import Box, iou
from kosmos2.evaluation.benchmark import Judged, Prediction, Problem
from kosmos2.evaluation.metrics import IOU

CURVE = (0.3, 0.4, 0.6, 0.7, 0.8, 0.9)
RANKS = (1, 5, 10)
REC_TITLES = {
    "accuracy": "first box right at IoU 0.5",
    **{f"accuracy_{level:.1f}": f"– at IoU {level:.1f}" for level in CURVE},
    "mean_iou": "mean IoU of the first box",
    "upper_bound": "any of the boxes right at IoU 0.5 (upper bound)",
    "answered": "answers with a box",
}
_RULES = {"any": "any true box", "merged": "the box around all true ones"}
RECALL_TITLES = {
    f"{rule}_{name}": f"{title}, {words}"
    for rule, words in _RULES.items()
    for name, title in (
        *((f"r{rank}", f"R@{rank}") for rank in RANKS),
        ("upper_bound", "upper bound"),
    )
} | {"answered": "answers with a box"}


def best_overlap(predicted: Sequence[Box], true: Sequence[Box]) -> float:
    """Return the highest IoU of any predicted box with any true one; 0 without any."""
    return max((iou(one, other) for one in predicted for other in true), default=0.0)


def enclosing(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around some boxes."""
    x0, y0, x1, y1 = zip(*(box.corners for box in boxes), strict=True)
    return Box(min(x0), min(y0), max(x1), max(y1))


def judge_rec(problem: Problem, prediction: Prediction) -> Judged:
    """Return what an answer adds to each number of referring expression comprehension."""
    first = best_overlap(prediction.boxes[:1], problem.boxes)
    return {
        "accuracy": float(first >= IOU),
        **{f"accuracy_{level:.1f}": float(first >= level) for level in CURVE},
        "mean_iou": first,
        "upper_bound": float(best_overlap(prediction.boxes, problem.boxes) >= IOU),
        "answered": float(bool(prediction.boxes)),
    }


def judge_recall(problem: Problem, prediction: Prediction) -> Judged:
    """Return what an answer adds to recall at each rank, by both rules of what is true."""
    judged: dict[str, float] = {}
    rules = {"any": problem.boxes, "merged": (enclosing(problem.boxes),)}
    for rule, true in rules.items():
        for rank in RANKS:
            judged[f"{rule}_r{rank}"] = float(best_overlap(prediction.boxes[:rank], true) >= IOU)
        judged[f"{rule}_upper_bound"] = float(best_overlap(prediction.boxes, true) >= IOU)
    return {**judged, "answered": float(bool(prediction.boxes))}
