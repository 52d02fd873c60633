"""Predictions as JSON lines: one question each, enough to score it again without the model.

    {"benchmark": "refcoco", "version": 1, "split": "val", "model": "embedded",
     "weights": "sha256:...", "dtype": "fp32", "bins": 32, "answer_form": "free",
     "decoding": {"max_new_tokens": 128, ...}, "code": "kosmos2 0.1.0",
     "id": "816", "prompt": "<grounding><phrase> the lady</phrase>",
     "answer": "<object><patch_index_0044><patch_index_0863></object>",
     "boxes": [[0.39, 0.05, 0.98, 0.83]], "scores": [0.9], "spans": [[0, 8]], "text": "the lady",
     "logprobs": [], "examples": [], "malformed": [], "stop": "eos"}

A line is one write, so a killed run leaves at most one torn line, which the next run cuts off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kosmos2.boxes import Box
from kosmos2.errors import BoxError, RecordError
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Pair,
    Prediction,
    Problem,
    prompt_of,
    prompt_text,
    repeated,
    shown,
)
from kosmos2.vocab.locations import LocationGrid

PATTERN = "predictions*.jsonl"
_FREE_TO_DIFFER = ("model", "code")
"""Words for people: the same weights may lie at another place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all predictions of a run have in common."""

    benchmark: str
    version: int
    split: str
    model: str
    """As the user names it."""
    weights: str
    """`sha256:` and the hash of the files of the weights."""
    dtype: str
    bins: int
    """Columns of the grid of location tokens, of which boxes in prompts are made."""
    answer_form: str
    """free: the model writes what it likes, as in the paper; boxes: boxes and nothing else;
    choice: nothing is written, each choice is weighed."""
    decoding: Mapping[str, Any]
    code: str
    shots: Mapping[str, Any] = field(default_factory=dict)
    """Of solved examples before each question: their count, seed and split; {} without any."""


@dataclass(frozen=True, slots=True)
class Run:
    setting: Setting
    predictions: tuple[Prediction, ...]


def file_name(part: int, parts: int) -> str:
    """Return the name of the file of one of several parts of a run."""
    return "predictions.jsonl" if parts == 1 else f"predictions-{part}-of-{parts}.jsonl"


def prediction_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that paths mean: themselves, or those in a folder that a run has left."""
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob(PATTERN)) if path.is_dir() else [path]
        if not found:
            raise RecordError(f"{path} has no file {PATTERN}; did `kosmos2 eval` write there?")
        files += found
    return files


def read_run(files: Sequence[Path]) -> Run:
    """Return the predictions of some files, which must be of one run."""
    setting: Setting | None = None
    predictions: list[Prediction] = []
    for file in files:
        for where, line in _lines(file):
            own, prediction = _parse(line, where)
            if setting is not None:
                _check_same(setting, own, where)
            setting = setting or own
            predictions.append(prediction)
    if setting is None:
        raise RecordError(f"no predictions in {', '.join(map(str, files))}")
    return Run(setting, tuple(predictions))


def matched(benchmark: Benchmark, problems: Sequence[Problem], run: Run) -> list[Pair]:
    """Return each question with its only answer; an error names those with none or several.

    The denominator is never what happens to be answered.
    """
    setting = run.setting
    if (setting.benchmark, setting.version) != (benchmark.name, benchmark.version):
        raise RecordError(
            f"these are predictions of {setting.benchmark} version {setting.version}; scored "
            f"is {benchmark.name} version {benchmark.version}. Answer anew with `kosmos2 eval`"
        )
    by_id = {prediction.id: prediction for prediction in run.predictions}
    if twice := repeated([prediction.id for prediction in run.predictions]):
        raise RecordError(f"questions are answered more than once: {shown(twice)}")
    asked = {problem.id: problem for problem in problems}
    if missing := [id for id in asked if id not in by_id]:
        raise RecordError(
            f"of {len(asked):,} questions these have no prediction: {shown(missing)}. Let the "
            "run end, give all of its parts, or the --limit that it had"
        )
    if unknown := [id for id in by_id if id not in asked]:
        raise RecordError(
            f"there are predictions for questions that the data does not ask: {shown(unknown)}. "
            "Was the run of another split, of other data, or without --limit?"
        )
    grid = LocationGrid(setting.bins)
    pairs = [(problem, by_id[id]) for id, problem in asked.items()]
    if others := [
        problem.id
        for problem, prediction in pairs
        if prediction.prompt != prompt_text(prompt_of(benchmark, problem, grid))
        or prediction.examples != tuple(shot.problem.id for shot in problem.shots)
    ]:
        raise RecordError(
            f"these questions were asked with other words than the data has: {shown(others)}. "
            "Was the run of other data?"
        )
    return pairs


class Writer:
    """Appends to the predictions of a run; knows which questions are answered already."""

    def __init__(self, file: Path, setting: Setting) -> None:
        self._file = file
        self._setting = setting
        file.parent.mkdir(parents=True, exist_ok=True)
        self.done = self._begin()

    def _begin(self) -> frozenset[str]:
        if not self._file.exists():
            return frozenset()
        _cut_torn_line(self._file)
        ids = []
        for where, line in _lines(self._file):
            own, prediction = _parse(line, where)
            _check_same(self._setting, own, where)
            ids.append(prediction.id)
        if twice := repeated(ids):
            raise RecordError(f"{self._file} answers questions more than once: {shown(twice)}")
        return frozenset(ids)

    def write(self, predictions: Iterable[Prediction]) -> None:
        """Append predictions, each a line."""
        common = asdict(self._setting)
        lines = [json.dumps({**common, **_row(each)}) + "\n" for each in predictions]
        with self._file.open("a", encoding="utf-8") as file:
            file.write("".join(lines))


def _row(prediction: Prediction) -> dict[str, Any]:
    return {
        "id": prediction.id,
        "prompt": prediction.prompt,
        "answer": prediction.answer,
        "boxes": [list(box.corners) for box in prediction.boxes],
        "scores": list(prediction.scores),
        "spans": [list(span) for span in prediction.spans],
        "examples": list(prediction.examples),
        "text": prediction.text,
        "logprobs": list(prediction.logprobs),
        "malformed": list(prediction.malformed),
        "stop": prediction.stop,
    }


def _lines(file: Path) -> list[tuple[str, str]]:
    """Return place and text of every line."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read {file}: {error}") from error
    numbered = enumerate(text.split("\n"), start=1)
    return [(f"{file}:{number}", line) for number, line in numbered if line.strip()]


def _cut_torn_line(file: Path) -> None:
    data = file.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(file, whole)


def _parse(line: str, where: str) -> tuple[Setting, Prediction]:
    try:
        row = json.loads(line)
        setting = Setting(
            **{name: row[name] for name in Setting.__dataclass_fields__ if name in row}
        )
        prediction = Prediction(
            id=row["id"],
            prompt=row["prompt"],
            answer=row["answer"],
            boxes=tuple(Box(*corners) for corners in row["boxes"]),
            scores=tuple(float(score) for score in row["scores"]),
            spans=tuple((start, end) for start, end in row.get("spans", ())),
            examples=tuple(row.get("examples", ())),
            text=row["text"],
            logprobs=tuple(float(each) for each in row.get("logprobs", ())),
            malformed=tuple(row["malformed"]),
            stop=row["stop"],
        )
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, BoxError) as wrong:
        raise RecordError(f"{where} is no prediction of `kosmos2 eval`: {wrong!r}") from wrong
    if not isinstance(prediction.id, str):
        raise RecordError(f"{where}: an id is a text, got {prediction.id!r}")
    return setting, prediction


def _check_same(wanted: Setting, own: Setting, where: str) -> None:
    for name in Setting.__dataclass_fields__:
        before, here = getattr(wanted, name), getattr(own, name)
        if name not in _FREE_TO_DIFFER and before != here:
            raise RecordError(
                f"{where} is of another run: {name} is {here!r} there and {before!r} here. "
                "Name another folder with --out, or begin anew with --fresh"
            )
