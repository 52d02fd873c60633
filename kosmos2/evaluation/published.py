"""Numbers that others have published, with their sources, to stand beside ours.

Percentages, as printed. The paper's results are those of the instruction-tuned model in fp32 with
greedy decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KOSMOS2 = "arXiv 2306.14824"
README = "README of evaluation/ in the original repository"
_RANKS = ("any_r1", "any_r5", "any_r10")
_MERGED = ("merged_r1", "merged_r5", "merged_r10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    model: str
    source: str
    trained_on_it: bool
    """Whether the model was trained on the benchmark's own training split (not zero-shot)."""
    numbers: Mapping[str, float]
    """Metric → percentage."""
    note: str = ""


def printed(number: float) -> str:
    """Return a percentage as its source prints it: two decimals, or one where that says all."""
    return f"{number:.2f}".removesuffix("0")


def published(benchmark: str, split: str) -> tuple[Published, ...]:
    """Return what is published for a split, in the order of the paper's tables."""
    if benchmark == "refcocog-reg":
        return _REG if split in ("val", "test") else ()
    if benchmark == "raven" and split == "test":
        return _RAVEN
    tables = {
        "flickr30k": _FLICKR,
        "flickr30k-captions": _CAPTIONS,
        "seed-bench": _SEED,
        "vqav2": {"val": _VQA, "test-dev": _VQA, "test": _VQA},
    }
    if benchmark in tables:
        return tables[benchmark].get(split, ())
    return tuple(_rec(benchmark, split))


_REC_SPLITS = (
    ("refcoco", "val"),
    ("refcoco", "testA"),
    ("refcoco", "testB"),
    ("refcoco+", "val"),
    ("refcoco+", "testA"),
    ("refcoco+", "testB"),
    ("refcocog", "val"),
    ("refcocog", "test"),
)
_REC_ROWS: Mapping[str, Sequence[float | None]] = {
    "UNITER": (81.41, 87.04, 74.17, 75.90, 81.45, 66.70, 74.86, 75.77),
    "MDETR": (87.51, 90.40, 82.67, 81.13, 85.52, 72.96, 83.35, 83.31),
    "OFA": (90.05, 92.93, 85.26, 84.49, 90.10, 77.77, 84.54, 85.20),
    "FIBER": (90.68, 92.59, 87.26, 85.74, 90.13, 79.38, 87.11, 87.32),
    "VisionLLM": (86.7, None, None, None, None, None, None, None),
    "GRILL": (None, None, None, None, None, None, None, 47.5),
    "Kosmos-2": (52.32, 57.42, 47.26, 45.48, 50.73, 42.24, 60.57, 61.65),
}
_ZERO_SHOT = ("GRILL", "Kosmos-2")


def _rec(benchmark: str, split: str) -> list[Published]:
    if (benchmark, split) not in _REC_SPLITS:
        return []
    column = _REC_SPLITS.index((benchmark, split))
    odd = "60.57 % is no share of 4,896 expressions" if (benchmark, split) == _REC_SPLITS[6] else ""
    return [
        Published(
            model=model,
            source=f"{KOSMOS2}, table 3",
            trained_on_it=model not in _ZERO_SHOT,
            numbers={"accuracy": value},
            note=odd if model == "Kosmos-2" else "",
        )
        for model, row in _REC_ROWS.items()
        if (value := row[column]) is not None
    ]


def _any(model: str, trained: bool, *numbers: float) -> Published:
    return Published(
        model=model,
        source=f"{KOSMOS2}, table 2",
        trained_on_it=trained,
        numbers=dict(zip(_RANKS, numbers, strict=True)),
    )


def _mdetr_merged(*numbers: float) -> Published:
    return Published(
        model="MDETR",
        source="arXiv 2104.12763",
        trained_on_it=True,
        numbers=dict(zip(_MERGED, numbers, strict=True)),
        note="merged-box; the paper of Kosmos-2 gives any-box only",
    )


def _kinds(*numbers: float) -> Published:
    return Published(
        model="Kosmos-2",
        source=README,
        trained_on_it=False,
        numbers={
            f"any_r1 {kind}": number for kind, number in zip(FLICKR_KINDS, numbers, strict=True)
        },
        note="R@1 of each kind of phrase",
    )


FLICKR_KINDS = (
    "animals",
    "bodyparts",
    "clothing",
    "instruments",
    "other",
    "people",
    "scene",
    "vehicles",
)
_FLICKR: Mapping[str, tuple[Published, ...]] = {
    "val": (
        _any("VisualBERT", True, 70.4, 84.5, 86.3),
        _any("MDETR", True, 83.6, 93.4, 95.1),
        _any("GLIP", True, 86.7, 96.4, 97.9),
        _any("FIBER", True, 87.1, 96.1, 97.4),
        _any("Kosmos-2", False, 77.8, 79.2, 79.3),
        _mdetr_merged(82.3, 91.8, 93.7),
        _kinds(90.8222, 41.4048, 70.8779, 76.7742, 64.7077, 88.9558, 80.6262, 86.6864),
    ),
    "test": (
        _any("VisualBERT", True, 71.3, 85.0, 86.5),
        _any("MDETR", True, 84.3, 93.9, 95.8),
        _any("GLIP", True, 87.1, 96.9, 98.1),
        _any("FIBER", True, 87.4, 96.4, 97.6),
        _any("GRILL", False, 18.9, 53.4, 70.3),
        _any("Kosmos-2", False, 78.7, 80.1, 80.1),
        _mdetr_merged(83.8, 92.7, 94.4),
        _kinds(91.6988, 40.9178, 73.5473, 76.5432, 65.0563, 89.5156, 82.2112, 91.2500),
    ),
}

_NO_SPLIT = "which split is not said"
_REG = tuple(
    Published(
        model=model,
        source=f"{KOSMOS2}, table 4",
        trained_on_it=trained,
        numbers={"meteor": meteor, "cider": cider},
        note=note,
    )
    for model, trained, meteor, cider, note in (
        ("SLR", True, 15.4, 59.2, ""),
        ("SLR + rerank", True, 15.9, 66.2, ""),
        ("Kosmos-2", False, 12.2, 60.3, f"zero-shot; {_NO_SPLIT}"),
        ("Kosmos-2", False, 13.8, 62.2, f"2 examples; {_NO_SPLIT}"),
        ("Kosmos-2", False, 14.1, 62.3, f"4 examples; {_NO_SPLIT}; the README has 62.2"),
    )
)


def _caption(model: str, cider: float, source: str, note: str = "") -> Published:
    return Published(
        model=model, source=source, trained_on_it=False, numbers={"cider": cider}, note=note
    )


_CAPTIONS: Mapping[str, tuple[Published, ...]] = {
    "test": (
        _caption("FewVLM", 31.0, f"{KOSMOS2}, table 5"),
        _caption("MetaLM", 43.4, f"{KOSMOS2}, table 5"),
        _caption("Flamingo-3B", 60.6, f"{KOSMOS2}, table 5"),
        _caption("Flamingo-9B", 61.5, f"{KOSMOS2}, table 5"),
        _caption("Kosmos-1", 65.2, f"{KOSMOS2}, table 5", "no instruction tuning"),
        _caption("Kosmos-2", 66.7, f"{KOSMOS2}, table 5", "no instruction tuning"),
        _caption("Kosmos-1", 67.1, "README of the original repository"),
        _caption("Kosmos-2", 80.5, "README of the original repository", "instruction-tuned"),
    )
}

_VQA = tuple(
    Published(
        model=model,
        source=source,
        trained_on_it=False,
        numbers={"accuracy": accuracy},
        note=f"test-dev{note}",
    )
    for model, accuracy, source, note in (
        ("MetaLM", 41.1, f"{KOSMOS2}, table 5", ""),
        ("Flamingo-3B", 49.2, f"{KOSMOS2}, table 5", ""),
        ("Flamingo-9B", 51.8, f"{KOSMOS2}, table 5", ""),
        ("Kosmos-1", 46.7, f"{KOSMOS2}, table 5", "; no instruction tuning"),
        ("Kosmos-2", 45.6, f"{KOSMOS2}, table 5", "; no instruction tuning"),
        ("Kosmos-1", 51.0, "README of the original repository", ""),
        ("Kosmos-2", 51.1, "README of the original repository", "; instruction-tuned"),
    )
)

_SEED: Mapping[str, tuple[Published, ...]] = {
    "image": (
        Published(
            model="Kosmos-2",
            source="leaderboard of SEED-Bench",
            trained_on_it=False,
            numbers={"accuracy": 50.0},
            note="pictures and videos together, told at second hand; here pictures alone",
        ),
    )
}

_RAVEN = tuple(
    Published(
        model=model,
        source="arXiv 2302.14045",
        trained_on_it=False,
        numbers={"accuracy": value},
        note=note,
    )
    for model, value, note in (
        ("at random", 17.0, ""),
        ("Kosmos-1", 22.0, ""),
        ("Kosmos-1", 26.0, "without instruction tuning on language"),
    )
)
