"""Predictions of a benchmark scored: numbers with intervals and slices, beside published ones.

results.json   every number with n and interval, all slices, what was run, what is published
results.md     the same as tables
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kosmos2 import config
from kosmos2.api.decoding import Decoding
from kosmos2.evaluation.benchmark import Benchmark, Data, Form, Judged, Kind, Pair, Problem
from kosmos2.evaluation.bootstrap import Bootstrap
from kosmos2.evaluation.metrics import Number
from kosmos2.evaluation.predictions import Run, Setting, matched
from kosmos2.evaluation.published import Published, printed, published
from kosmos2.evaluation.report import Code, code_now
from kosmos2.evaluation.slices import slices_of

CHOOSING = (
    "beams", "temperature", "best_of", "length_penalty", "repetition_penalty", "ngram_size",
)  # fmt: skip
"""Settings that decide which tokens are written, but for those with sentences of their own."""
MOST_LABELS = 12
"""Of a slice in a table for people; results.json has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Everything that results say."""

    benchmark: Benchmark
    setting: Setting
    source: str
    """The format of the data, in words."""
    whole: bool
    """Whether these are all questions of the published split."""
    pairs: tuple[Pair, ...]
    judged: tuple[Judged, ...]
    numbers: Mapping[str, Number]
    slices: Mapping[str, Mapping[str, Mapping[str, Number]]]
    """Slice → label → metric."""
    peers: tuple[Published, ...]
    code: Code


def score(benchmark: Benchmark, data: Data, problems: Sequence[Problem], run: Run) -> Scored:
    """Return the numbers of a run over these questions, all of which it must have answered."""
    pairs = matched(benchmark, problems, run)
    judgement = benchmark.judge(pairs)
    judged = judgement.each
    columns = {
        name: [each[name] for each in judged] for name in benchmark.titles if name in judged[0]
    }
    asked = [problem for problem, _ in pairs]
    bootstrap = Bootstrap([problem.picture for problem in asked])
    split = run.setting.split

    def of_slice(places: Sequence[int]) -> Mapping[str, Number]:
        numbers = bootstrap.means(columns, places)
        if judgement.numbers:
            numbers |= benchmark.judge([pairs[place] for place in places]).numbers
        return numbers

    whole = _with_whole(bootstrap.means(columns, range(len(asked))), judgement.whole)
    whole |= judgement.numbers
    return Scored(
        benchmark=benchmark,
        setting=run.setting,
        source=data.source,
        whole=sum(problem.sentences for problem in asked) == benchmark.splits.get(split),
        pairs=tuple(pairs),
        judged=judged,
        numbers={name: whole[name] for name in benchmark.titles if name in whole},
        slices={
            name: {label: of_slice(places) for label, places in labels.items()}
            for name, labels in slices_of(asked).items()
        },
        peers=published(benchmark.name, split),
        code=code_now(),
    )


def _with_whole(numbers: Mapping[str, Number], whole: Mapping[str, float]) -> dict[str, Number]:
    """Return numbers some of which are no means; their intervals are moved with their values."""
    moved = dict(numbers)
    for name, value in whole.items():
        mean = numbers[name]
        shift = value - mean.value
        moved[name] = Number(
            value=value, n=mean.n, low=max(0.0, mean.low + shift), high=mean.high + shift
        )
    return moved


def differences(scored: Scored) -> list[str]:
    """Return how these numbers depart from the published protocol."""
    setting, decoding = scored.setting, scored.setting.decoding
    told = list(scored.benchmark.differences)
    if not scored.whole:
        whole = scored.benchmark.splits.get(setting.split)
        of = f" instead of the {whole:,} of the published one" if whole else ""
        sentences = sum(problem.sentences for problem, _ in scored.pairs)
        told.insert(
            0,
            f"NOT a published split: {sentences:,} sentences{of}; published numbers are for "
            "orientation only",
        )
    if "meteor" in scored.benchmark.titles and "meteor" not in scored.numbers:
        told.append(
            "METEOR was not counted: its official scorer needs Java, which is not here; that of "
            "NLTK is another, and comparable with no published number"
        )
    if setting.shots:
        told.append(
            f"{setting.shots['count']} solved examples of the split "
            f"{setting.shots['split']!r} before each question, drawn for each anew with seed "
            f"{setting.shots['seed']}; which ones others took is not published"
        )
    if setting.answer_form == "boxes" and Form.FREE in scored.benchmark.forms:
        told.append(
            "answers are boxes and nothing else, at least one; in the paper the model writes on, "
            "and may write no box"
        )
    if setting.dtype != "fp32":
        told.append(f"computed in {setting.dtype}, the original in fp32 (--dtype fp32)")
    if setting.answer_form == "choice":
        return told
    if decoding.get("no_repeat") != "original":
        told.append(
            f"repetition: {decoding.get('no_repeat')!r}; the original never writes three tokens "
            "twice, location tokens among them (--set no_repeat=original)"
        )
    wanted = asdict(config.from_overrides(Decoding, scored.benchmark.decoding))
    told += [
        f"{name} {decoding[name]}, where the published protocol has {wanted[name]}"
        for name in CHOOSING
        if decoding.get(name, wanted[name]) != wanted[name]
    ]
    told.append(
        f"at most {decoding.get('max_new_tokens')} new tokens; the original stops at 500 with the "
        "prompt's"
    )
    return told


def to_dict(scored: Scored) -> dict[str, Any]:
    """Return what results.json says."""
    return {
        "benchmark": scored.benchmark.name,
        "version": scored.benchmark.version,
        "split": scored.setting.split,
        "data": scored.source,
        "whole_split": scored.whole,
        "n": len(scored.pairs),
        "pictures": len({problem.picture for problem, _ in scored.pairs}),
        "run": asdict(scored.setting),
        "scored_by": asdict(scored.code),
        "numbers": _numbers(scored.numbers),
        "slices": {
            name: {label: _numbers(numbers) for label, numbers in labels.items()}
            for name, labels in scored.slices.items()
        },
        "protocol": scored.benchmark.protocol,
        "differences": differences(scored),
        "published": [asdict(each) for each in scored.peers],
    }


def write(scored: Scored, folder: Path) -> None:
    """Write results.json and results.md."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_dict(scored), indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(scored), encoding="utf-8")


def markdown(scored: Scored) -> str:
    """Return the tables of a page."""
    setting = scored.setting
    decoding = ", ".join(f"{name} {value}" for name, value in setting.decoding.items())
    changed = " with changes that are not committed" if scored.code.changed else ""
    examples = ", ".join(f"{name} {value}" for name, value in setting.shots.items())
    facts = [
        f"# {scored.benchmark.title}: {setting.split}",
        "",
        f"- benchmark: {scored.benchmark.name} version {scored.benchmark.version}; "
        f"data: {scored.source}",
        f"- n: {len(scored.pairs):,} questions, "
        f"{len({problem.picture for problem, _ in scored.pairs}):,} pictures",
        f"- model: {setting.model}, weights {setting.weights}, {setting.dtype}",
        f"- answers: {setting.answer_form}; {decoding}; made by {setting.code}",
        f"- solved examples before each question: {examples or 'none'}",
        f"- scored by: {scored.code.commit}{changed}",
        f"- protocol: {scored.benchmark.protocol}",
        "",
        "Intervals hold 95 %: a seeded bootstrap over pictures.",
    ]
    blocks = ["\n".join(facts), _table(rows(scored))]
    if scored.peers:
        blocks += ["## Beside published numbers", _table(peer_rows(scored))]
    blocks += [
        "## Differences from the published protocol",
        "\n".join(f"- {each}" for each in differences(scored)),
        f"## Slices: {scored.benchmark.titles[scored.benchmark.headline]}",
    ]
    blocks += [_table(slice_rows(scored, name)) for name in scored.slices]
    return "\n\n".join(blocks) + "\n"


def rows(scored: Scored) -> list[list[str]]:
    """Return the numbers as a table with a header."""
    table = [["", "value", "95 %", "n"]]
    for name, number in scored.numbers.items():
        title = scored.benchmark.titles[name]
        table.append([title, _shown(number.value, scored), _interval(number), f"{number.n:,}"])
    return table


def peer_rows(scored: Scored) -> list[list[str]]:
    """Return our numbers and the published ones as a table with a header, ours first."""
    metrics = list(dict.fromkeys(metric for each in scored.peers for metric in each.numbers))
    ours = [_ours(scored, metric) for metric in metrics]
    titles = [_title(scored, metric) for metric in metrics]
    table = [["", *titles, "trained on it", "source"]]
    table.append([f"ours: {scored.setting.model}", *ours, "", f"n = {len(scored.pairs):,}"])
    for each in scored.peers:
        numbers = [printed(each.numbers[m]) if m in each.numbers else "" for m in metrics]
        note = f"; {each.note}" if each.note else ""
        trained = "yes" if each.trained_on_it else "no"
        table.append([each.model, *numbers, trained, each.source + note])
    return table


def slice_rows(scored: Scored, name: str) -> list[list[str]]:
    """Return one slice of the headline as a table with a header, the largest labels of many."""
    labels, metric = scored.slices[name], scored.benchmark.headline
    shown = list(labels)
    if len(labels) > MOST_LABELS:
        largest = sorted(labels, key=lambda label: -labels[label][metric].n)[:MOST_LABELS]
        shown = [label for label in labels if label in largest]
    table = [[name, "value", "95 %", "n"]]
    for label in shown:
        number = labels[label][metric]
        table.append([label, _shown(number.value, scored), _interval(number), f"{number.n:,}"])
    if len(shown) < len(labels):
        table.append([f"{len(labels) - len(shown)} more in results.json", "", "", ""])
    return table


def _ours(scored: Scored, metric: str) -> str:
    """Return our value of a metric, of one kind where the metric says "NAME KIND"."""
    name, _, kind = metric.partition(" ")
    numbers = scored.slices.get("kind", {}).get(kind) if kind else scored.numbers
    return f"{100 * numbers[name].value:.1f}" if numbers and name in numbers else ""


def _title(scored: Scored, metric: str) -> str:
    name, _, kind = metric.partition(" ")
    return f"{scored.benchmark.titles[name]}: {kind}" if kind else scored.benchmark.titles[name]


def _numbers(numbers: Mapping[str, Number]) -> dict[str, Any]:
    return {name: asdict(number) for name, number in numbers.items()}


def _shown(value: float, scored: Scored) -> str:
    """Return a value as its field prints it: shares with their sign, CIDEr and the like without."""
    sign = "" if scored.benchmark.kind is Kind.WORDS else " %"
    return f"{100 * value:.1f}{sign}"


def _interval(number: Number) -> str:
    return f"{100 * number.low:.1f} – {100 * number.high:.1f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *lines = rows
    ruled = [header, ["---", *("---:" for _ in header[1:])], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)
