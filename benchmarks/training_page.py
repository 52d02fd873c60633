"""The results of `benchmarks.training` as a page; all of it comes from the JSON beside it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.page import markdown
from benchmarks.samples import Spread, ratios, spread
from benchmarks.training_cases import GOAL, ON_CPU, ON_GPU
from kosmos2.grounding.render import colour

PEER, EAGER = "transformers", "transformers, eager attention"
WARM = 2
"""First steps of every side that are not counted."""
CLOSE = 0.02
"""Nats between two loss curves that count as equal in bf16; the page has the distance itself."""
MFU_GOAL = 0.45
GPU_COMMAND = "python -m benchmarks.training --device cuda"

INTRODUCTION = """\
`Trainer`, as `kosmos2 train` runs it, beside transformers' `Kosmos2ForConditionalGeneration` in a
plain PyTorch loop. Same weights at the start, same samples in every step, same precision (autocast
over fp32 weights), same AdamW (fused, on both sides), learning rates and clipping."""

METHOD = """\
- **Data.** Live scenes, made before the clock runs. A sample is a picture with what is taught
  about it. Ours is one row: the picture once, then its lessons, each of which sees the picture and
  itself. The plain loop has a row for each picture and lesson, padded to the longest of the step.
- **Loss.** Both take the mean over all learnt tokens of the step: transformers by labels of -100
  elsewhere, one batch a step; ours by the step's totals. Location tokens weigh as much as words;
  what transformers has not (soft cells, what patches show) is off. No dropout.
- **Time.** Steps alternate in one process: ours, the peer's with its default attention (sdpa), and
  for the first steps once more with `attn_implementation="eager"`. A step is all from samples in
  memory to changed weights, batches included. The first {warm} of each side are not counted; times
  are medians, ratios medians of the ratios within a step, with quartiles. *CPU* is the time of all
  threads of the process, which others on the machine disturb less than the clock on the wall.
- **Memory.** The most that a process which trains one side alone ever had resident (two steps).
- **The loader** runs in one process with one thread and no workers: pictures read and decoded, ids,
  rows, batches. Files come from the system's cache."""


def page(results: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    cases: Mapping[str, Any] = results.get("cases", {})
    blocks = ["# Training, measured", INTRODUCTION, "```bash\npython -m benchmarks.training\n```"]
    blocks += ["## What was required", markdown(GOALS, judged(cases)), short(results)]
    for case in ON_CPU:
        if case.name in cases:
            found = cases[case.name]
            blocks += [f"## {case.title}", _setting(found), markdown(LANES, lanes(found))]
            blocks += [_curves(found), _conditions(found)]
    if any(case.name in cases for case in ON_CPU):
        blocks += ["## Loss curves", "![Loss curves of both sides](training-curves.svg)"]
    blocks += ["## Full size on a GPU", *_gpu(cases)]
    if loader := results.get("loader"):
        blocks += ["## The loader alone", *_loader(loader)]
    return "\n\n".join([*blocks, "## How it was measured", METHOD.format(warm=WARM)]) + "\n"


GOALS = ("", "needed", "measured (quartiles)", "by CPU time", "largest distance of losses", "")
LANES = ("", "ms a step", "samples/s", "CPU s a step", "peak memory, GB")


def ratio(found: Mapping[str, Any], peer: str, clock: str) -> Spread:
    """Return how many times our samples a second are the peer's, over the steps of both."""
    theirs, ours = found["lanes"][peer][clock], found["lanes"]["ours"][clock]
    steps = len(theirs)
    first = min(WARM, steps - 1)
    return spread(ratios(theirs[first:steps], ours[first:steps]))


def distance(found: Mapping[str, Any], one: str, other: str) -> float:
    """Return the largest difference of two losses of one step, in nats."""
    losses = [found["lanes"][name]["losses"] for name in (one, other)]
    return max(abs(a - b) for a, b in zip(*losses, strict=False))


def judged(cases: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each requirement; what was not measured is open."""
    rows = []
    for case in ON_CPU:
        if case.goal is None:
            continue
        if case.name not in cases:
            rows.append((case.title, f"≥ {case.goal} ×", "not measured", "", "", "open"))
            continue
        found = cases[case.name]
        wall, cpu = ratio(found, PEER, "seconds"), ratio(found, PEER, "cpu")
        apart = distance(found, "ours", PEER)
        verdict = _verdict(wall, case.goal) if apart <= CLOSE else "the losses differ"
        rows.append(
            (
                case.title, f"≥ {case.goal} ×", _times(wall), f"{cpu.median:.2f} ×",
                f"{apart:.4f} nats", verdict,
            )
        )  # fmt: skip
    shares = [_mfu(cases[case.name]) for case in ON_GPU if case.name in cases]
    best = max((share for share in shares if share is not None), default=None)
    measured = "not measured" if best is None else f"{best:.0%}"
    verdict = "open" if best is None else ("met" if best >= MFU_GOAL else "not met")
    goal = f"≥ {MFU_GOAL:.0%}"
    return [*rows, ("MFU at full size, bf16, one H100 (goal)", goal, measured, "", "", verdict)]


def short(results: Mapping[str, Any]) -> str:
    """Return what falls short, in sentences."""
    cases = results.get("cases", {})
    told = []
    for row in judged(cases):
        if row[-1] != "met":
            told.append(f"{row[0]}: {row[-1]} (needed {row[1]}, {row[2]}).")
    for case in ON_CPU:
        if case.name in cases and EAGER in cases[case.name]["lanes"]:
            found = ratio(cases[case.name], EAGER, "seconds")
            if case.goal and found.median < GOAL:
                told.append(
                    f"{case.title}: {found.median:.2f} × where the peer is told to use its eager "
                    "attention, which is not its default and is faster here."
                )
    return "What falls short:\n\n" + "\n".join(f"- {each}" for each in told or ["nothing"])


def lanes(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each side."""
    rows = []
    for name, lane in found["lanes"].items():
        first = min(WARM, len(lane["seconds"]) - 1)
        seconds = statistics.median(lane["seconds"][first:])
        cpu = statistics.median(lane["cpu"][first:])
        memory = found.get("memory", {}).get(name)
        rows.append(
            (
                name, f"{1000 * seconds:,.0f}", f"{found['batch'] / seconds:.1f}", f"{cpu:.2f}",
                "" if memory is None else f"{memory:.2f}",
            )
        )  # fmt: skip
    return rows


def _setting(found: Mapping[str, Any]) -> str:
    return (
        f"{found['weights'] / 1e6:.1f} million weights, {found['precision']}; "
        f"{found['batch']} pictures a step, {found['rows'] / found['batch']:.1f} lessons each; "
        f"{found['learnt']:.0%} of the plain loop's positions are learnt, "
        f"{found['padding']:.0%} are padding. {found['steps']} steps. Weights, gradients and "
        f"moments take {16 * found['weights'] / 1e9:.2f} GB on either side."
    )


def _curves(found: Mapping[str, Any]) -> str:
    losses = found["lanes"]["ours"]["losses"]
    text = (
        f"Loss from {losses[0]:.3f} to {losses[-1]:.3f} nats a token; the largest distance "
        f"between ours and the peer's in one step is {distance(found, 'ours', PEER):.5f}"
    )
    if EAGER in found["lanes"]:
        text += (
            f", between the peer's own two attentions {distance(found, PEER, EAGER):.5f} "
            f"(first {len(found['lanes'][EAGER]['losses'])} steps)"
        )
    return text + "."


def _conditions(found: Mapping[str, Any]) -> str:
    stamp = found["stamp"]
    told = ""
    if EAGER in found["lanes"]:
        told = f"Against eager attention {_times(ratio(found, EAGER, 'seconds'))}. "
    if (share := _mfu(found)) is not None:
        told += (
            f"Our steps use {share:.0%} of the {found['product_rate'] / 1e9:,.0f} GFLOP/s that "
            f"a large product in {found['precision']} reached here right before. "
        )
    return (
        f"{told}{stamp['processor']}, {stamp['threads']} of {stamp['cores']} cores; torch "
        f"{stamp['torch']}, transformers {stamp['transformers']}; commit {stamp['commit']}, "
        f"{stamp['date']}. Others on this shared machine took {found['others']:.0%} of its time."
    )


def _gpu(cases: Mapping[str, Any]) -> list[str]:
    found = [cases[case.name] for case in ON_GPU if case.name in cases]
    if not found:
        return [
            "**Never run**: no GPU was at hand. Where there is one with 80 GB, this measures ours "
            "(also with compiled blocks) and the plain loop, each in a process of its own, states "
            "the MFU and adds it to this page:",
            f"```bash\n{GPU_COMMAND}\n```",
        ]
    rows = []
    for each in found:
        for name, lane in each["lanes"].items():
            seconds = statistics.median(lane["seconds"][WARM:])
            share = _mfu(each) if name == "ours" else None
            rows.append(
                (
                    f"{each['title']}: {name}", f"{1000 * seconds:,.0f}",
                    f"{each['batch'] / seconds:.1f}", f"{lane['memory_gb']:.1f}",
                    "" if share is None else f"{share:.0%}",
                )
            )  # fmt: skip
    header = ("", "ms a step", "samples/s", "peak memory, GB", "MFU")
    return [f"{found[0]['card']}; `{GPU_COMMAND}`.", markdown(header, rows)]


def _mfu(found: Mapping[str, Any]) -> float | None:
    shares = [each for each in found["lanes"]["ours"]["mfu"][WARM:] if each is not None]
    return statistics.median(shares) if shares else None


def _loader(loader: Mapping[str, Any]) -> list[str]:
    rows, needs = [], loader["gpu_samples"]
    for line in loader["lines"]:
        cpu, wall = spread(line["cpu"]), spread(line["wall"])
        rows.append(
            (
                line["name"], f"{cpu.median:.0f} ({cpu.low:.0f} – {cpu.high:.0f})",
                f"{wall.median:.0f}", f"{needs / cpu.median:.1f}",
            )
        )  # fmt: skip
    header = ("", "samples/s of one core's time (quartiles)", "by the wall", "cores for a GPU")
    return [
        markdown(header, rows),
        f"*Cores for a GPU*: what {needs:.0f} samples a second need. So many pairs of the paper "
        "would one GPU train on at 40 % of 989e12 flops a second, by the arithmetic of "
        "[training at scale](../training-at-scale.md), which no GPU has confirmed. Stored pictures "
        f"are JPEG of {loader['picture_kb']:.0f} kB on average. "
        f"{loader['rounds']} rounds of {loader['count']} samples; commit "
        f"{loader['stamp']['commit']}, {loader['stamp']['date']}; others took "
        f"{loader['others']:.0%} of the machine's time.",
    ]


def _times(found: Spread) -> str:
    return f"{found.median:.2f} × ({found.low:.2f} – {found.high:.2f})"


def _verdict(found: Spread, goal: float) -> str:
    if found.low >= goal:
        return "met"
    return "met by the median, not by the lower quartile" if found.median >= goal else "not met"


WIDTH, HEIGHT, LEFT, TOP = 300, 200, 40, 30


def curves(cases: Mapping[str, Any]) -> str:
    """Return both sides' losses as SVG, a panel for each case."""
    found = [(case.title, cases[case.name]) for case in ON_CPU if case.name in cases]
    panels = [
        f'<g transform="translate({WIDTH * (number % 2)},{HEIGHT * (number // 2)})">'
        f"{_panel(title, each)}</g>"
        for number, (title, each) in enumerate(found)
    ]
    height = HEIGHT * (len(found) + 1) // 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="9"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(panels)}</svg>\n"
    )


def _panel(title: str, found: Mapping[str, Any]) -> str:
    ours, theirs = (found["lanes"][name]["losses"] for name in ("ours", PEER))
    highest = max(*ours, *theirs)
    across, down = WIDTH - LEFT - 12, HEIGHT - TOP - 24

    def places(losses: Sequence[float]) -> list[tuple[float, float]]:
        last = max(1, len(losses) - 1)
        return [
            (LEFT + across * number / last, TOP + down * (1 - loss / highest))
            for number, loss in enumerate(losses)
        ]

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places(ours))
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="none" stroke="{colour(1)}"/>'
        for x, y in places(theirs)
    )
    grid = "".join(
        f'<path d="M{LEFT} {TOP + down * (1 - part / 4):.1f}h{across}" stroke="#ddd"/>'
        f'<text x="{LEFT - 4}" y="{TOP + down * (1 - part / 4) + 3:.1f}" text-anchor="end">'
        f"{highest * part / 4:.1f}</text>"
        for part in range(5)
    )
    return (
        f'<text x="6" y="12" font-weight="bold">{title}</text>'
        f'<text x="6" y="23" fill="{colour(0)}">ours (line)</text>'
        f'<text x="70" y="23" fill="{colour(1)}">transformers (rings)</text>{grid}'
        f'<polyline points="{line}" fill="none" stroke="{colour(0)}" stroke-width="1.4"/>{dots}'
        f'<text x="{LEFT + across / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{len(ours)} steps; nats a token</text>"
    )
