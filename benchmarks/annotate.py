"""`kosmos2 annotate` against the loop of a model card, and against what bounds it.

    python -m benchmarks.annotate make PICTURES --count 1000
    python -m benchmarks.annotate model FOLDER --tokenizer TOKENIZER     (full size, random weights)
    python -m benchmarks.annotate ours PICTURES --results FILE     (also: engine, decoding, card)
    python -m benchmarks.annotate ours SMALL --small 10000 --results FILE
    python -m benchmarks.annotate page --results FILE

Each lane is a process of its own, so that its memory is its own, and adds a line to the results:

    ours      the command itself, from the first look at the folder to the finished file; the time
              in which weights are loaded is left out here and below
    engine    the engine alone, all questions in one call, on pictures that lie ready as tensors
    decoding  the pictures alone: read, decoded, made ready, by as many threads as there are cores
    card      the loop of transformers' model card: one picture after the other

`ours` needs the processors for what `engine` and for what `decoding` needs, so the most that it can
reach is 1 / (1 / engine + 1 / decoding), wherever the engine keeps all cores busy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageChops

from benchmarks import peer, weights
from benchmarks.machine import ROOT, Load, peak_memory, stamp
from kosmos2.annotate import Job, Looking, Outputs, Plan, Task, annotate, job, resolved
from kosmos2.annotate.worker import Annotator
from kosmos2.api import Kosmos2, View, questions
from kosmos2.api.decoding import Decoding
from kosmos2.api.looking import prepare
from kosmos2.api.settings import Settings
from kosmos2.model import ModelConfig
from kosmos2.records.formats.registry import FORMATS
from kosmos2.shards import Local
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface
from kosmos2.weights.pretrained import resolve

ROWS, TOKENS = 32, 128
SCENES = 384
"""Pixels of the scenes that pictures are made of."""
GRAIN = 7.0
"""Standard deviation of the noise on them, so that a file has about as many bytes as a photo's."""
SHEET = 5200
"""Pixels at each side of the sheet that every picture takes its own piece of grain from."""
MEGAPIXELS = (1.0, 12.0)
ASPECTS = (4 / 3, 3 / 2, 1.0, 3 / 4, 16 / 9)
REQUIRED = 0.9

Found = dict[str, Any]


# --- pictures


def make(folder: Path, count: int) -> None:
    """Write pictures that are like photographs to a decoder: enlarged scenes with grain."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = ROOT / "recipes" / "train" / "embedded.toml"
    with tempfile.TemporaryDirectory() as scenes:
        words = ["scenes", "sample", scenes, "--count", str(count), "--size", str(SCENES)]
        words = [sys.executable, "-m", "kosmos2", *words, "--recipe", str(recipe)]
        subprocess.run(words, check=True, cwd=ROOT)
        noise = np.random.default_rng(0).normal(128, GRAIN, (SHEET, SHEET))
        grain = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
        for number, scene in enumerate(sorted(Path(scenes).glob("*.png"))):
            _enlarged(scene, grain, random.Random(number)).save(
                folder / f"{number:05d}.jpg", quality=88
            )


def _enlarged(scene: Path, grain: Image.Image, draw: random.Random) -> Image.Image:
    pixels, aspect = draw.uniform(*MEGAPIXELS) * 1e6, draw.choice(ASPECTS)
    width, height = round((pixels * aspect) ** 0.5), round((pixels / aspect) ** 0.5)
    image = Image.open(scene).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    x, y = draw.randrange(SHEET - width), draw.randrange(SHEET - height)
    own = grain.crop((x, y, x + width, y + height)).convert("RGB")
    return ImageChops.add(image, own, offset=-128)


def make_small(folder: Path, count: int) -> None:
    """Write so many small pictures, no two alike, to see whether memory grows with their number."""
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = draw.integers(0, 255, (6, 8, 3)).astype(np.uint8)
        image = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
        path = folder / f"{number // 1000:03d}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def make_model(folder: Path, tokenizer: Path) -> None:
    """Write random weights at full size; they make answers of as many tokens as may be."""
    config = ModelConfig()
    network = weights.as_ours(peer.build(config).model.state_dict(), config)
    huggingface.save(network, Tokenizer.from_folder(tokenizer), folder, dtype=torch.bfloat16)


# --- lanes


def ours(folder: Path, model: str, tokens: int, limit: int | None) -> Found:
    """Run the job as the command does."""
    loading = [0.0]

    def load(plan: Plan) -> Annotator:
        begun = time.perf_counter()
        annotator = Annotator(plan)
        loading[0] += time.perf_counter() - begun
        return annotator

    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "out.jsonl"
        digest, device, dtype = resolved(model, "cpu", "auto")
        plan = Plan(
            task=Task.CAPTION,
            model=model,
            weights=digest,
            device=device,
            dtype=dtype,
            decoding=Decoding(batch_size=ROWS, max_new_tokens=tokens),
            base=output.parent,
        )
        todo = Job(
            source=str(folder),
            outputs=Outputs(
                records=output,
                format=FORMATS["jsonl"],
                errors=output.with_name("errors.jsonl"),
            ),
            plan=plan,
            looking=Looking(),
            driver=Local(),
            limit=limit,
        )
        job.Annotator = load  # type: ignore[assignment,misc]
        begun = time.perf_counter()
        report = annotate(todo, lambda progress: None)
        seconds = time.perf_counter() - begun - loading[0]
    found = {"pictures": report.annotated, "seconds": seconds, "waiting": report.waiting}
    return {**found, "failed": report.failed, "dtype": dtype}


def engine(folder: Path, model: str, tokens: int, limit: int | None) -> Found:
    """Answer about pictures that lie ready, all in one call."""
    settings = Settings(batch_size=ROWS, max_new_tokens=tokens)
    loaded = Kosmos2.load(model, device="cpu", settings=settings)
    paths = pictures(folder, limit)
    size = loaded.engine.config.vision.image_size
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ready = list(pool.map(lambda path: prepare(path, size).pixels_CYX, paths))
    _answer(loaded, ready[: min(len(ready), 4)])
    begun = time.perf_counter()
    _answer(loaded, ready)
    return {"pictures": len(paths), "seconds": time.perf_counter() - begun}


def _answer(model: Kosmos2, ready: Sequence[torch.Tensor]) -> None:
    asked = []
    for start in range(0, len(ready), ROWS):
        latents = model.engine.encode_images(torch.stack(list(ready[start : start + ROWS])))
        asked += [((View(model, each, 1, 1),), questions.caption()) for each in latents]
    model.answer(asked)


def decoding(folder: Path, model: str, tokens: int, limit: int | None) -> Found:
    """Make pictures ready for the model, and nothing else."""
    config = json.loads((resolve(model) / "config.json").read_text(encoding="utf-8"))
    size = config["vision_config"]["image_size"]
    paths = pictures(folder, limit)
    begun = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda path: prepare(path.read_bytes(), size).pixels_CYX.sum(), paths):
            pass
    return {"pictures": len(paths), "seconds": time.perf_counter() - begun}


def card(folder: Path, model: str, tokens: int, limit: int | None) -> Found:
    """Do as the model card of Kosmos-2 does, picture by picture."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    place = resolve(model)
    loaded = AutoModelForImageTextToText.from_pretrained(place)
    processor = AutoProcessor.from_pretrained(place)
    latents = loaded.config.latent_query_num
    paths = pictures(folder, limit)
    begun = time.perf_counter()
    for path in paths:
        image = Image.open(path)
        inputs = processor(
            text="<grounding>An image of", images=image, num_image_tokens=latents,
            return_tensors="pt",
        )  # fmt: skip
        ids = loaded.generate(
            pixel_values=inputs["pixel_values"].to(loaded.dtype),
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            image_embeds=None,
            image_embeds_position_mask=inputs["image_embeds_position_mask"],
            use_cache=True,
            max_new_tokens=tokens,
        )
        text = processor.batch_decode(ids, skip_special_tokens=True)[0]
        processor.post_process_generation(text)
    seconds = time.perf_counter() - begun
    dtype = str(loaded.dtype).removeprefix("torch.")
    return {"pictures": len(paths), "seconds": seconds, "dtype": dtype}


LANES: Mapping[str, Callable[[Path, str, int, int | None], Found]] = {
    "ours": ours,
    "engine": engine,
    "decoding": decoding,
    "card": card,
}


def pictures(folder: Path, limit: int | None) -> list[Path]:
    """Return the pictures of a folder, in the order of the command."""
    return list(itertools.islice(sorted(folder.rglob("*.jpg")), limit))


def measure(lane: str, folder: Path, options: argparse.Namespace) -> Found:
    """Run one lane; return what it did, how fast, with how much memory, and who else worked."""
    with Load() as load:
        found = LANES[lane](folder, options.model, options.tokens, options.limit)
    return {
        "lane": lane,
        "model": options.name or options.model,
        "small": options.small,
        **found,
        "rate": found["pictures"] / found["seconds"],
        "peak": peak_memory()["peak"],
        "others": load.others,
        "command": f"python -m benchmarks.annotate {' '.join(sys.argv[1:])}",
        "stamp": asdict(stamp()),
    }


# --- the page


def page(lines: Sequence[Found]) -> str:
    """Return the results as Markdown, the newest of each kind."""
    newest: dict[tuple[str, str, int], Found] = {}
    for line in lines:
        newest[line["lane"], line["model"], line["small"] or 0] = line
    stamped = lines[-1]["stamp"]
    parts = [
        "# Annotating folders\n",
        "Pictures a second of `kosmos2 annotate`, weights already loaded, on "
        f"{stamped['processor']}, {stamped['cores']} cores; torch {stamped['torch']}, transformers "
        f"{stamped['transformers']}, native kernels: {stamped['native']}. Commit "
        f"`{stamped['commit']}`, {stamped['date'][:10]}. The lanes and the pictures (JPEGs of 1 to "
        "12 megapixels, no two alike) are those of `benchmarks/annotate.py`.\n",
    ]
    for model in dict.fromkeys(key[1] for key in newest):
        rows = {key[0]: line for key, line in newest.items() if key[1] == model and not key[2]}
        if rows:
            parts.append(_speeds(model, rows))
    small = sorted((key[2], line) for key, line in newest.items() if key[2])
    if small:
        parts.append(_memory(small))
    commands = dict.fromkeys(line["command"] for line in newest.values())
    parts.append("## Commands\n\n```\n" + "\n".join(commands) + "\n```\n")
    return "\n".join(parts)


def _speeds(model: str, rows: Mapping[str, Found]) -> str:
    names = {
        "ours": "`kosmos2 annotate`",
        "engine": "the engine alone, on ready tensors",
        "decoding": "decoding alone",
        "card": "the loop of the model card (transformers)",
    }
    table = [
        f"## {model}\n",
        "| | pictures | pictures/s | peak memory | others on the machine |",
        "|---|---:|---:|---:|---:|",
    ]
    for lane, name in names.items():
        if lane in rows:
            row = rows[lane]
            table.append(
                f"| {name} | {row['pictures']:,} | {row['rate']:.2f} | {row['peak']:.2f} GB | "
                f"{row['others']:.0%} |"
            )
    return "\n".join([*table, "", *_verdict(rows)])


def _verdict(rows: Mapping[str, Found]) -> list[str]:
    if "ours" not in rows or "engine" not in rows:
        return []
    rate, alone = rows["ours"]["rate"], rows["engine"]["rate"]
    share = rate / alone
    said = [
        f"{share:.0%} of the engine alone ({REQUIRED:.0%} required: "
        f"{'met' if share >= REQUIRED else 'not met'}); the model waited for pictures "
        f"{rows['ours']['waiting']:.0%} of the time."
    ]
    if "decoding" in rows:
        bound = 1 / (1 / alone + 1 / rows["decoding"]["rate"])
        said.append(
            f"Engine and decoding share the cores, which allows {bound:.2f} pictures/s at most "
            f"({bound / alone:.0%} of the engine alone); this is {rate / bound:.0%} of that."
        )
    if "card" in rows:
        said.append(f"{rate / rows['card']['rate']:.1f} times the loop of the model card.")
    return [" ".join(said), ""]


def _memory(small: Sequence[tuple[int, Found]]) -> str:
    rows = [f"| {count:,} | {line['peak']:.3f} GB |" for count, line in small]
    head = ["## Memory and the number of pictures\n", "| small pictures | peak |", "|---:|---:|"]
    long = [line["peak"] for count, line in small if count >= job.SMALL]
    growth = f"{long[-1] / long[0] - 1:+.1%}" if long else "not measured"
    said = (
        f"Lists of {job.SMALL} pictures or more are done in units of {job.UNIT}, shorter ones in "
        f"units of {job.SMALL_UNIT}, with less memory. From the first such list to the last: "
        f"{growth}."
    )
    return "\n".join([*head, *rows, "", said, ""])


def main() -> None:
    """Make pictures, run one lane, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["make", "model", *LANES, "page"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--small", type=int, help="the folder has, or gets, so many small ones")
    parser.add_argument("--tokenizer", type=Path, help="a folder with the released tokenizer")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--name", help="what the page calls the model")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    if options.what == "make":
        make(options.folder, options.count)
        return
    if options.what == "model":
        make_model(options.folder, options.tokenizer)
        return
    if options.what == "page":
        lines = [json.loads(line) for line in options.results.read_text().splitlines()]
        sys.stdout.write(page(lines))
        return
    if options.small and not options.folder.is_dir():
        make_small(options.folder, options.small)
    found = measure(options.what, options.folder, options)
    shown = {name: value for name, value in found.items() if name not in ("stamp", "command")}
    sys.stdout.write(json.dumps(shown) + "\n")
    if options.results:
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
