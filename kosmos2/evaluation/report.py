"""What an evaluation leaves in its folder, and how it is read again without the model.

    run.json       what was run: command, commit, machine, weights, seconds
    SPLIT.jsonl    one answer a line, with its truth, overlap and score
    SPLIT.png      some scenes with the boxes and words of their captions
    results.json   every number with n and interval, beside the baselines
    results.md     the same as tables

One line of SPLIT.jsonl (a thing is [noun, colour, x0, y0, x1, y1]):

    {"scene": "scene:iid:1000004:0", "kind": "find_plain", "asked": "a dog",
     "things": [["dog", "", 0.1, 0.2, 0.5, 0.6]], "answer": "", "predicted": {"text": "a dog",
     "phrases": [{"start": 0, "end": 5, "text": "a dog", "boxes": [{"x0": 0.1, ...}],
     "scores": [0.9]}], "malformed": []}, "right": true, "iou": 0.92, "score": 0.9}
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import kosmos2
from kosmos2.errors import RecordError
from kosmos2.evaluation.scenes import Answered
from kosmos2.evaluation.scores import BASELINES, baseline, measure, verdict

TITLES = {
    "find": "find a phrase: right at IoU 0.5",
    "find_plain": "– a noun alone is enough, and is all that is said",
    "find_detailed": "– more is said than needed",
    "find_distinguishing": "– told from others of its noun by attribute or place",
    "find_mean_iou": "– mean IoU",
    "find_all_f1": "find a group: F1 of its boxes at IoU 0.5",
    "find_all_exact": "– all boxes right, none too many",
    "caption_f1": "caption: F1 of (noun, box), IoU 0.5",
    "caption_precision": "– precision of (noun, box), IoU 0.5",
    "caption_recall": "– recall of (noun, box), IoU 0.5",
    "caption_noun_precision": "– precision of nouns, boxes aside",
    "caption_noun_recall": "– recall of nouns, boxes aside",
    "caption_noun_iou": "– mean IoU where the noun is right",
    "caption_colour": "– right colour, of painted things named and found",
    "caption_exact": "– each thing named and found, none else",
    "describe": "describe a box: right noun",
    "ask_how_many": "ask: how many … are there?",
    "ask_what_color": "ask: what color is …?",
    "ask_is_there": "ask: is there a …?",
    "shown_auroc": "is a phrase shown at all: AUROC of its probability",
    "score_right": "mean score of right boxes (find)",
    "score_wrong": "mean score of wrong boxes (find)",
    "score_auroc": "the score as a judge of IoU 0.5: AUROC",
}
NOT_A_PERCENTAGE = (
    "find_mean_iou",
    "caption_noun_iou",
    "score_right",
    "score_wrong",
    "score_auroc",
    "shown_auroc",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    commit: str
    changed: bool
    """Whether the files differed from the commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    processor: str
    cores: int
    device: str
    """Where the network ran."""
    torch: str
    python: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    command: str
    date: str
    code: Code
    machine: Machine
    model: str
    weights: Mapping[str, str]
    """File → sha256."""
    recipe: str
    count: int
    """Scenes of each split."""
    seed: int
    """Of the scenes."""
    seconds: Mapping[str, float]
    """Split → time for its scenes and answers; the splits in the order of the tables."""


def code_now() -> Code:
    """Return the commit that this package's files are of, "unknown" where they are of none."""
    if not _git("ls-files", "__init__.py"):  # installed, perhaps inside somebody's own repository
        return Code(commit="unknown", changed=False)
    return Code(commit=_git("rev-parse", "HEAD"), changed=bool(_git("status", "--porcelain")))


def machine_now(device: torch.device) -> Machine:
    """Return what this process runs on."""
    is_cuda = device.type == "cuda"
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        device=torch.cuda.get_device_name(device) if is_cuda else str(device),
        torch=torch.__version__,
        python=platform.python_version(),
    )


def save_run(folder: Path, run: Run) -> None:
    """Write `run.json`."""
    _write_json(folder / "run.json", asdict(run))


def save_answers(path: Path, answered: Sequence[Answered]) -> None:
    """Write one split's JSONL."""
    with path.open("w", encoding="utf-8") as file:
        for answer in answered:
            judged = verdict(answer)
            line = {
                **answer.to_dict(),
                "right": judged.right,
                "iou": judged.overlap,
                "score": judged.score,
            }
            file.write(json.dumps(line) + "\n")


def read_answers(path: Path) -> list[Answered]:
    """Return what `save_answers` wrote; the judgements in the lines are not believed."""
    answered = []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        try:
            answered.append(Answered.from_dict(json.loads(line)))
        except (json.JSONDecodeError, RecordError) as wrong:
            raise RecordError(f"{path}, line {number}: {wrong}") from wrong
    return answered


def write_results(folder: Path) -> dict[str, Any]:
    """Compute every number from the saved answers; write and return `results.json`."""
    run = _read_run(folder)
    splits: dict[str, Any] = {}
    for split in run["seconds"]:
        answered = read_answers(folder / f"{split}.jsonl")
        splits[split] = {
            "scenes": len({answer.case.scene for answer in answered}),
            "numbers": _numbers(answered),
        }
    results = {"run": run, "scored_by": asdict(code_now()), "splits": splits}
    _write_json(folder / "results.json", results)
    (folder / "results.md").write_text(markdown(results), encoding="utf-8")
    return results


def markdown(results: Mapping[str, Any]) -> str:
    """Return the tables of a page: all splits beside each other, then each with its baselines."""
    run, splits = results["run"], results["splits"]
    header, *lines = _rows(splits)
    summary = _lines([header, ["---", *("---:" for _ in splits)], *lines])
    blocks = [_facts(run), "## All splits", summary]
    for split, part in splits.items():
        blocks += [f"## {split} ({part['scenes']} scenes)", _table(part["numbers"])]
    return "\n\n".join(blocks) + "\n"


def _rows(splits: Mapping[str, Any]) -> list[list[str]]:
    table = [["", *splits]]
    for name, title in TITLES.items():
        found = [part["numbers"].get(name) for part in splits.values()]
        if any(found):
            table.append([title, *(_with_interval(name, number) for number in found)])
    return table


def _numbers(answered: Sequence[Answered]) -> dict[str, Any]:
    cases = [answer.case for answer in answered]
    trivial = {name: measure(baseline(cases, box)) for name, box in BASELINES.items()}
    numbers: dict[str, Any] = {}
    for name, number in measure(answered).items():
        beside = {key: found[name].value for key, found in trivial.items() if name in found}
        numbers[name] = {**asdict(number), "baselines": beside}
    return numbers


def _facts(run: Mapping[str, Any]) -> str:
    code, machine = run["code"], run["machine"]
    changed = " with changes that are not committed" if code["changed"] else ""
    seconds = ", ".join(f"{split} {taken:.0f} s" for split, taken in run["seconds"].items())
    lines = [
        "# Evaluation on scenes",
        "",
        f"- command: `{run['command']}`",
        f"- model: {run['model']}; " + ", ".join(f"{k} {v}" for k, v in run["weights"].items()),
        f"- scenes: {run['recipe']}, seed {run['seed']}, {run['count']} of each split",
        f"- code: {code['commit']}{changed}; {run['date']}",
        f"- machine: {machine['processor']}, {machine['cores']} cores; on {machine['device']}; "
        f"torch {machine['torch']}, Python {machine['python']}",
        f"- time: {seconds}",
        "",
        "Intervals hold 95 %: Wilson's for shares, wider where answers of a scene go together; a "
        "bootstrap over scenes for means and AUROC. "
        "The baselines answer everything with one box (the whole image, or the middle half of each "
        "side) and the most frequent words of the split.",
    ]
    return "\n".join(lines)


def _table(numbers: Mapping[str, Any]) -> str:
    table = [["", "value", "95 %", "n", "whole image", "centre box"], ["---", *["---:"] * 5]]
    for name, title in TITLES.items():
        if name not in numbers:
            continue
        number = numbers[name]
        trivial = [number["baselines"].get(key) for key in BASELINES]
        table.append(
            [
                title,
                f"**{shown(name, number['value'])}**",
                _interval(name, number),
                str(number["n"]),
                *("" if value is None else shown(name, value) for value in trivial),
            ]
        )
    return _lines(table)


def _with_interval(name: str, number: Mapping[str, float] | None) -> str:
    if number is None:
        return ""
    return f"{shown(name, number['value'])} ({_interval(name, number)})"


def _interval(name: str, number: Mapping[str, float]) -> str:
    low, high = (shown(name, number[key]).removesuffix(" %") for key in ("low", "high"))
    return f"{low} – {high}"


def shown(name: str, value: float) -> str:
    """Return a value of a number of this name, as people read it."""
    return f"{value:.3f}" if name in NOT_A_PERCENTAGE else f"{100 * value:.1f} %"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _read_run(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        run: dict[str, Any] = json.loads(_read(path))
    except json.JSONDecodeError as wrong:
        raise RecordError(f"{path} is no JSON: {wrong}") from wrong
    if missing := Run.__dataclass_fields__.keys() - run.keys():
        raise RecordError(f"{path} lacks {sorted(missing)}; is it of `kosmos2 eval`?")
    return run


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read {path}, which `kosmos2 eval` writes: {error}") from error


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(kosmos2.__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
