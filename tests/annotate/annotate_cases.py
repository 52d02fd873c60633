"""Small pictures, every kind of input made of them, and jobs over them on the embedded model."""

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from kosmos2.annotate import Job, Looking, Making, Outputs, Plan, Progress, Task, annotate, resolved
from kosmos2.annotate.plan import Decoding
from kosmos2.records import store
from kosmos2.records.formats.registry import FORMATS
from kosmos2.records.record import GroundedRecord
from kosmos2.shards import Local

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "purple")


def paint(path: Path, seed: int, size: tuple[int, int] = (64, 48)) -> Path:
    """Write a picture of a few shapes; each seed has its own."""
    draw = random.Random(seed)
    image = Image.new("RGB", size, draw.choice(COLOURS))
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = draw.randrange(size[0]), draw.randrange(size[1])
        shape = draw.choice((pen.rectangle, pen.ellipse))
        shape((x, y, x + draw.randrange(8, 40), y + draw.randrange(8, 30)), draw.choice(COLOURS))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def paint_many(folder: Path, count: int) -> list[Path]:
    return [paint(folder / f"{number:04d}.png", number) for number in range(count)]


def plan(base: Path, task: Task = Task.CAPTION, *, tokens: int = 24, **changes: object) -> Plan:
    """Return a plan in float32, in which answers alone and in batches agree to many digits."""
    weights, device, dtype = resolved("embedded", "cpu", "fp32")
    plain = Plan(
        task=task,
        model="embedded",
        weights=weights,
        device=device,
        dtype=dtype,
        decoding=Decoding(batch_size=8, max_new_tokens=tokens),
        base=base.absolute(),
    )
    return replace(plain, **changes)


def job(source: Path | str, output: Path, of: Plan | None = None, **changes: object) -> Job:
    plain = Job(
        source=str(source),
        outputs=Outputs(
            records=output, format=FORMATS["jsonl"], errors=output.with_name("errors.jsonl")
        ),
        plan=of or plan(output.parent),
        looking=Looking(),
        driver=Local(),
    )
    return replace(plain, **changes)


def silent(_: Progress) -> None:
    """Watch without a word."""


def records_of(this: Job) -> list[GroundedRecord]:
    annotate(this, silent)
    return list(store.read(this.outputs.records))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


EVERYTHING = frozenset(Making)
