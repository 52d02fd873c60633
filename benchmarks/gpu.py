"""Speed on a GPU at full size, random weights: `python -m benchmarks.gpu`, some ten minutes.

Writes docs/results/performance-gpu.md. Without a GPU it says what is missing and ends with 1;
`--tiny --device cpu` walks the same code over a toy and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from benchmarks import gpu_kernels
from benchmarks.gpu_card import Card, missing
from benchmarks.gpu_stages import (
    FULL,
    TINY,
    Goal,
    Line,
    Scale,
    Sides,
    Table,
    caption_offline,
    decode_many,
    decode_one,
    read_prompts,
)
from benchmarks.machine import ROOT
from benchmarks.samples import Spread

PAGE = ROOT / "docs" / "results" / "performance-gpu.md"
STAGES: tuple[Callable[[Sides], Table], ...] = (
    decode_one,
    decode_many,
    read_prompts,
    caption_offline,
)
METHOD = """\
Ours beside transformers' Kosmos-2 (bf16, sdpa, key-value cache, inference mode) over the same
random weights. Contestants take turns, round after round; a time is the median with its quartiles,
a ratio the median over rounds of the ratio within a round. The limits are measured on the same card
in the same run: a plain sum over 4 GiB, and a bf16 product of 8192³. *On the device* means that
each token goes to the next step without the host; *read by the host* that each is copied back
first, as a scheduler must. int8 and fp8 are weights alone; activations stay bf16."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and (lack := missing()):
        say(f"nothing was measured: {lack}")
        return 1
    scale = TINY if options.tiny else FULL
    card = Card(device, scale.probe)
    blocks = ["# Speed on a GPU, measured", _bullets(card.facts())]
    say("\n\n".join(blocks) + "\n")
    blocks += _measure(scale, card, sweep=options.sweep)
    if device.type == "cuda" and not options.tiny:
        blocks[2:2] = ["```bash\nmake bench-gpu\n```", METHOD]
        target: Path = options.page
        target.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
        say(f"written: {target}")
    return 0


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _measure(scale: Scale, card: Card, *, sweep: bool) -> list[str]:
    """Return the page's sections, each said as soon as it is there."""
    sides = Sides(scale, card)
    tables = []
    blocks: list[str] = []
    for stage in STAGES:
        tables.append(stage(sides))
        blocks.append(_said(_section(tables[-1])))
    goals = [goal for table in tables for goal in table.goals]
    blocks.insert(0, _said("## Goals\n\n" + _goals(goals)))
    blocks.append(_said(_profile(sides)))
    if sweep:
        for table in (*gpu_kernels.splits(card), *gpu_kernels.tiles(card)):
            blocks.append(_said(_section(table)))
    return blocks


def _said(block: str) -> str:
    say(block + "\n")
    return block


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu only to walk")
    parser.add_argument("--tiny", action="store_true", help="a toy model and few repeats, no page")
    parser.add_argument("--sweep", action="store_true", help="also tiles of kernels, for tuning")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the results are written")
    return parser


def _section(table: Table) -> str:
    header = ("", "ms", "quartiles", "share of limit", "× faster than transformers", "")
    return "\n\n".join(
        [
            f"## {table.title}",
            f"{table.setting[0].upper()}{table.setting[1:]}.",
            _markdown(header, map(_cells, table.lines)),
        ]
    )


def _cells(line: Line) -> tuple[str, ...]:
    time = line.seconds
    return (
        line.name,
        _milliseconds(time.median),
        f"{_milliseconds(time.low)} – {_milliseconds(time.high)}",
        f"{100 * line.share:.0f} %" if line.share else "",
        _ratio(line.faster),
        line.rate,
    )


def _goals(goals: Iterable[Goal]) -> str:
    rows = [
        (
            goal.name,
            f"{goal.wanted:g} {goal.unit}".strip(),
            f"{goal.found:.3g} {goal.unit}".strip(),
            "reached" if goal.reached else "**missed**",
        )
        for goal in goals
    ]
    return _markdown(("", "goal", "measured", ""), rows)


def _profile(sides: Sides) -> str:
    rows = [
        (f"`{name[:90]}`", str(calls), f"{time:.3f}", f"{100 * share:.0f} %")
        for name, calls, time, share in gpu_kernels.profiled(sides)
    ]
    title = f"## Where {sides.scale.steps} steps of one row in bf16 spend their time"
    return title + "\n\n" + _markdown(("kernel", "calls", "ms", "share"), rows)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:,.0f}"


def _ratio(ratio: Spread | None) -> str:
    return f"{ratio.median:.1f}" if ratio else ""


if __name__ == "__main__":
    raise SystemExit(main())
