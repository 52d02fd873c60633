"""Fine-tuning shown: 50 records of blueprints, a kind of picture that the embedded model never saw.

    python -m benchmarks.finetuning runs/blueprints              # 50 to learn from, 200 to be asked
    python -m benchmarks.finetuning runs/blueprints --publish    # its numbers into docs/results
    python -m benchmarks.finetuning runs/unseen --kind openmoji

The records are made from illustrated scenes of some vehicles: as white lines on blue paper, or in
the drawing style that training holds out. Needs the artwork (`kosmos2 scenes prepare`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.machine import ROOT
from kosmos2.evaluation.own import NOT_A_SHARE, TITLES
from kosmos2.scenes import Sprites, default_cache
from kosmos2.scenes.maker import SceneMaker
from kosmos2.scenes.recipe import SceneRecipe
from kosmos2.scenes.sprites import TRAINING_STYLES

RESULTS = ROOT / "docs" / "results"
BEGIN, END = "<!-- numbers -->", "<!-- end of numbers -->"
LEARNT, ASKED = 50, 200
SIZE = 224
NOUNS = (
    "car", "bus", "truck", "tractor", "bicycle", "train", "airplane", "helicopter", "rocket",
    "sailboat",
)  # fmt: skip
SEED = 20_261
PAPER, INK = np.array((28, 66, 128.0)), np.array((226, 236, 248.0))
RULED = 28
"""Pixels between two lines of the paper's grid."""


def blueprint(image: Image.Image) -> Image.Image:
    """Return a picture as white lines on blue, ruled paper."""
    grey = image.convert("L").filter(ImageFilter.GaussianBlur(1.0))
    steps_YX = np.asarray(grey, dtype=np.float64)
    dy_YX, dx_YX = np.gradient(steps_YX)
    line_YX = np.clip((np.hypot(dx_YX, dy_YX) - 4) / 12, 0, 1)
    line_YX[::RULED] = np.maximum(line_YX[::RULED], 0.15)
    line_YX[:, ::RULED] = np.maximum(line_YX[:, ::RULED], 0.15)
    pixels_YXC: NDArray[np.float64] = PAPER + line_YX[..., None] * (INK - PAPER)
    return Image.fromarray(pixels_YXC.round().astype(np.uint8))


def write_records(folder: Path, kind: str, count: int, seed: int) -> None:
    """Write so many pictures and their records.jsonl."""
    unseen = kind == "openmoji"
    styles = ("openmoji",) if unseen else TRAINING_STYLES
    sprites = Sprites.load(default_cache(), styles=styles, nouns=NOUNS, side=256)
    recipe = SceneRecipe(
        size=SIZE,
        nouns=NOUNS,
        styles=styles,
        seed=seed,
        split="style" if unseen else "iid",
        colour_share=0.0,
    )
    maker = SceneMaker(recipe, sprites)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        scene = maker.scene(index)
        image = Image.fromarray(scene.image)
        (image if unseen else blueprint(image)).save(folder / f"{index:04d}.png")
        row = {**scene.record().to_dict(), "id": f"{kind}-{seed}-{index}"}
        rows.append(json.dumps({**row, "image": f"{index:04d}.png"}) + "\n")
    (folder / "records.jsonl").write_text("".join(rows), encoding="utf-8")


def table(report: dict[str, Any]) -> str:
    """Return the numbers of a report as a table of Markdown, and what was run."""
    lines = ["| | n | before | after | change |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, title in TITLES.items():
        each = report["numbers"][name]
        cells = [shown(name, each[part]) for part in ("before", "after", "change")]
        lines.append(f"| {title} | {each['after']['n']:,} | {' | '.join(cells)} |")
    facts = [f"- {name}: {text}" for name, text in report["facts"].items()]
    return "\n".join([*lines, "", *facts])


def shown(name: str, number: dict[str, float] | None) -> str:
    """Return a number with its interval."""
    if number is None:
        return ""
    places, times, unit = (3, 1, "") if name in NOT_A_SHARE else (1, 100, " %")
    value, low, high = (f"{times * number[key]:.{places}f}" for key in ("value", "low", "high"))
    return f"**{value}{unit}** ({low} … {high})"


def publish(run: Path, seconds: float, arguments: list[str]) -> None:
    """Write docs/results/finetune.json, .png, and the table of the page."""
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    words = ["python -m benchmarks.finetuning OUT", *arguments]
    report["facts"]["command"] = " ".join(words)
    report["facts"]["time"] = f"{seconds / 60:.0f} minutes, before and after asked included"
    (RESULTS / "finetune.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    with Image.open(run / "report.png") as image:
        first = image.crop((0, 0, image.width, image.height // 2))  # four records of eight
        first.quantize(96).save(RESULTS / "finetune.png", optimize=True)
    page = RESULTS / "finetune.md"
    head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n{table(report)}\n{END}{tail}", encoding="utf-8")


def command(out: Path, more: list[str]) -> list[str]:
    """Return the fine-tuning as a user would type it, but for the first word."""
    own, held_out = out / "own/records.jsonl", out / "held-out/records.jsonl"
    return ["finetune", str(own), "--eval-records", str(held_out), "--out", str(out / "run"), *more]


def main() -> None:
    """Make the records, fine-tune, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=("blueprints", "openmoji"), default="blueprints")
    parser.add_argument("--asked", type=int, default=ASKED)
    parser.add_argument("--publish", action="store_true", help="write docs/results/finetune.*")
    known, more = parser.parse_known_args()
    if known.publish and known.kind != "blueprints":
        parser.error("only blueprints may be published: OpenMoji's licence keeps it out")
    write_records(known.out / "own", known.kind, LEARNT, SEED)
    write_records(known.out / "held-out", known.kind, known.asked, SEED + 1)
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "kosmos2", *command(known.out, more)], check=True, cwd=ROOT
    )
    seconds = time.monotonic() - start
    print(f"{seconds:.0f} s")  # noqa: T201
    if known.publish:
        publish(
            known.out / "run", seconds, [each for each in sys.argv[1:] if each != str(known.out)]
        )


if __name__ == "__main__":
    main()
