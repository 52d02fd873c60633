"""How exact each precision is where there is a truth: the embedded model on its scenes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from kosmos2.scenes import default_cache
from kosmos2.scenes.sprites import ARCHIVE

PRECISIONS = ("fp32", "bf16", "int8", "int4")
SPLITS = ("iid", "combo", "background", "style")
TITLES = {
    "find": "find a phrase: right at IoU 0.5",
    "find_all_f1": "find a group: F1 at IoU 0.5",
    "caption_precision": "caption: precision of (noun, box)",
    "caption_recall": "caption: recall of (noun, box)",
    "describe": "describe a box: right noun",
    "ask_what_color": "ask: what color",
}
COUNT = 300
RECIPE = "recipes/train/embedded.toml"


def prepared() -> bool:
    """Tell whether the artwork of the scenes is on this machine; nothing is downloaded here."""
    return (default_cache() / ARCHIVE).is_file()


def measure(count: int = COUNT) -> dict[str, Any]:
    """Run the evaluation once for each precision; return the share of right answers."""
    precisions = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            out = Path(folder) / precision
            subprocess.run(
                [sys.executable, "-m", "kosmos2", *command(precision, count, str(out))],
                check=True, cwd=ROOT, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            precisions[precision] = read(json.loads((out / "results.json").read_text("utf-8")))
    words = " ".join(["kosmos2", *command("PRECISION", count, "OUT")])
    return {
        "precisions": precisions, "splits": SPLITS, "titles": TITLES, "count": count,
        "command": words,
    }  # fmt: skip


def command(precision: str, count: int, out: str) -> list[str]:
    """Return the arguments of the evaluation."""
    return [
        "eval", "scenes", "--recipe", RECIPE, "--dtype", precision, "--device", "cpu",
        "--count", str(count), "--figure", "0", "--out", out,
    ]  # fmt: skip


def read(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return split -> number -> value."""
    return {
        split: {key: part["numbers"][key]["value"] for key in TITLES if key in part["numbers"]}
        for split, part in results["splits"].items()
    }
