"""docs/results/evaluation.md: everything on it is computed from the JSON file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest import Lane, Race
from benchmarks.evaluation_sides import BEST, LOOP, OURS, ROWS
from benchmarks.page import markdown
from benchmarks.samples import Spread

REQUIRED = 3.0
NAMES = {
    OURS: "**`kosmos2 eval`**",
    LOOP: "transformers, one question after the other",
    BEST: "transformers, each picture once, equal lengths together",
}
TITLES = {
    "refcoco": "Referring expressions (RefCOCO's files)",
    "flickr30k": "Phrase grounding (the files of Flickr30k Entities)",
}
SPEED_HEADER = ("", "questions/s", "quartiles", "ours is faster by", "of the limit", "same answers")
PICTURE = "evaluation-reliability.svg"
SCENE_HEADER = ("", "value", "95 %", "n")


def keep(results: Path, name: str, section: Mapping[str, Any]) -> None:
    """Put a section into the results, beside those that are there."""
    text = json.dumps({**read(results), name: section}, indent=1, ensure_ascii=False)
    results.write_text(text + "\n", encoding="utf-8")


def read(results: Path) -> dict[str, Any]:
    """Return the sections that there are."""
    if not results.is_file():
        return {}
    sections: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return sections


def write(results: Path) -> None:
    """Write the page beside the results."""
    results.with_suffix(".md").write_text(page(read(results)), encoding="utf-8")


def page(sections: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    blocks = [
        "# Evaluation, measured",
        "The commands of [docs/evaluation.md](../evaluation.md) run on illustrated scenes, written "
        "in the files of the public data sets, and how fast they are. The data sets themselves "
        "were not reachable where this was made, nor were the released weights: no number here "
        "says how good Kosmos-2 is. Those of the embedded model say that each command works from "
        "its files to its scores.",
    ]
    if "scenes" in sections:
        blocks += scenes(sections["scenes"])
    if "calibration" in sections:
        blocks += calibration(sections["calibration"])
    if "speed" in sections:
        blocks += speed(sections["speed"])
    return "\n\n".join(blocks) + "\n"


# --- the embedded model on scenes


def scenes(section: Mapping[str, Any]) -> list[str]:
    """Return what each command said of the embedded model."""
    runs = section["runs"]
    blocks = [
        "## The embedded model on scenes",
        f"Split `{section['split']}`: scenes like those of training, none of them seen in it, "
        f"written by `{section['written']}` (`--examples` where there is a split of examples). "
        f"Weights `{runs[0]['weights'][:19]}`. Intervals hold 95 % (bootstrap over pictures). "
        "Shares are in %, CIDEr and the like as their field prints them.",
        _made(section["command"], section["stamp"]),
        markdown(
            ("command", "what it says first", "value", "95 %", "n", "s"),
            [_first(run) for run in runs],
        ),
    ]
    without = "; ".join(f"`{name}`: {why}" for name, why in section["without"].items())
    blocks.append(
        f"Without scenes, tested on small files alone: {without}. "
        "The three sets of referring expressions have the same scenes and words. The "
        "embedded model has learnt from one solved example before a question, never from more."
    )
    for run in runs:
        about = f"{run['title']}; {run['protocol']}."
        blocks += [f"### `{run['name']}`", f"```bash\n{run['command']}\n```", escaped(about)]
        blocks.append(markdown(SCENE_HEADER, [_number(run, name) for name in run["numbers"]]))
    return blocks


def calibration(section: Mapping[str, Any]) -> list[str]:
    """Return what the scores of boxes are worth."""
    return [
        "## What the scores of its boxes are worth",
        f"```bash\n{section['command']}\n```",
        section["table"],
        f"![Share of right boxes at each score]({PICTURE})",
    ]


def escaped(words: str) -> str:
    """Return words whose tags a browser shows."""
    return words.replace("<", "&lt;").replace(">", "&gt;")


def _first(run: Mapping[str, Any]) -> list[str]:
    name = next(iter(run["numbers"]))
    return [f"`{run['name']}`", *_number(run, name), f"{run['seconds']:.0f}"]


def _number(run: Mapping[str, Any], name: str) -> list[str]:
    number = run["numbers"][name]
    value, low, high = (f"{100 * number[key]:.1f}" for key in ("value", "low", "high"))
    return [number["title"], value, f"{low} – {high}", f"{number['n']:,}"]


# --- speed


def speed(section: Mapping[str, Any]) -> list[str]:
    """Return the races."""
    blocks = [
        "## Speed",
        "`kosmos2 eval` against loops of transformers on the same pictures, prompts and weights, "
        "float32, greedy. The loop that the requirement means is the model card's and that of the "
        "original's evaluators: one question after the other, each with its picture. *Of the "
        "limit*: the least time that pictures encoded once, prompts read once as far as they are "
        f"alike, and {ROWS} answers written at a time could take, by the machine's best matrix "
        "product and memory bandwidth in the same round.",
        _made(section["command"], section["stamp"]),
    ]
    for heat in section["heats"]:
        blocks += heat_lines(heat)
    return blocks


def heat_lines(heat: Mapping[str, Any]) -> list[str]:
    """Return one heat as a heading, a table and a line on what was run."""
    race, asked = Race.from_dict(heat["race"]), sum(heat["questions"])
    rows = [_lane(race, lane, heat) for lane in race.lanes]
    return [
        f"### {heat['model']}: {TITLES[heat['benchmark']]}",
        markdown(SPEED_HEADER, rows),
        f"{asked:,} questions in {heat['rounds']} rounds about {heat['pictures']} pictures each "
        f"({asked / heat['rounds'] / heat['pictures']:.1f} a picture), "
        f"{heat['written'] / asked:.1f} tokens an answer; prompts equal to the last token: "
        f"{heat['same_prompts']:,} of {asked:,}; others took {100 * race.others:.0f} % of the "
        f"processors. Required: {REQUIRED:g} × the loop, "
        f"**{'met' if ratio(race).median >= REQUIRED else 'not met'}**.",
    ]


def ratio(race: Race) -> Spread:
    """Return how many times longer the loop took than ours."""
    found = race.ratio(LOOP, OURS)
    assert found is not None
    return found


def _lane(race: Race, lane: Lane, heat: Mapping[str, Any]) -> list[str]:
    asked = sum(heat["questions"])
    rates = sorted(
        questions / seconds
        for questions, seconds in zip(heat["questions"], lane.seconds, strict=True)
    )
    found = race.ratio(lane.name, OURS) if lane.name != OURS else None
    return [
        NAMES[lane.name],
        _rate(asked / sum(lane.seconds)),
        f"{_rate(rates[len(rates) // 4])} – {_rate(rates[-1 - len(rates) // 4])}",
        f"{found.median:.1f} × ({found.low:.1f} – {found.high:.1f})" if found else "",
        f"{100 * race.share(lane).median:.0f} %",
        f"{heat['same'][lane.name]:,} of {asked:,}" if found else "",
    ]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _made(command: str, stamp: Mapping[str, Any]) -> str:
    features: Sequence[str] = stamp["features"]
    return (
        f"```bash\n{command}\n```\n\n"
        f"- {stamp['processor']}, {stamp['cores']} cores, {stamp['memory_gb']:g} GB; "
        f"{', '.join(features)}; {stamp['threads']} threads\n"
        f"- torch {stamp['torch']}, transformers {stamp['transformers']}, Python "
        f"{stamp['python']}; native kernels: {stamp['native']}\n"
        f"- commit {stamp['commit']}, {stamp['date']}"
    )
