"""Language tasks without a picture, through lm-evaluation-harness: its tasks, prompts and metrics.

    results.json             each task's numbers with n and interval, beside the published ones
    results.md               the same as a table
    predictions-TASK.jsonl   one question a line: prompts, log-likelihoods, what was right
    setting.json             model, weights, precision: a folder is of one of them
    tasks/TASK.yaml          where the data was, if it was a local copy
    answered_rank0.db        the harness's own cache of answers, from which a killed run goes on

The harness names two of the tasks of the paper's table 6 otherwise; `TASKS` has both names.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from kosmos2.api import Kosmos2
from kosmos2.errors import MissingExtraError, RecordError, RequestError, one_line
from kosmos2.evaluation.metrics import Number, Part, share
from kosmos2.evaluation.published import KOSMOS2
from kosmos2.evaluation.report import code_now

TASKS = {
    "storycloze": "storycloze_2016",
    "hellaswag": "hellaswag",
    "winograd": "wsc273",
    "winogrande": "winogrande",
    "piqa": "piqa",
    "boolq": "boolq",
    "cb": "cb",
    "copa": "copa",
}
"""Our name → the harness's."""
PUBLISHED = {
    "storycloze": 72.0,
    "hellaswag": 49.4,
    "winograd": 69.1,
    "winogrande": 55.6,
    "piqa": 72.9,
    "boolq": 62.0,
    "cb": 30.4,
    "copa": 67.0,
}
"""Zero-shot accuracy of Kosmos-2 without instruction tuning, in percent."""
SOURCE = f"{KOSMOS2}, table 6"
METRICS = {"acc": "accuracy", "acc_norm": "accuracy, by log-likelihood per byte"}
DIFFERENCES = (
    "prompts and metrics are the harness's; the paper does not publish its own",
    "the released weights are those after instruction tuning, table 6 is without it",
)
_SETTING = "setting.json"
_FOLDERS = ("storycloze", "hellaswag", "wsc273", "winogrande", "piqa", "super_glue")
"""Of the harness, with our tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all answers in a folder have in common."""

    model: str
    """As the user names it."""
    weights: str
    dtype: str
    shots: int
    harness: str
    """Its version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which questions are asked."""

    tasks: tuple[str, ...]
    """Our names, or any that the harness has."""
    data: Path | None
    """Folder with a folder for each task; None: the harness downloads, or takes its cache."""
    include: Path | None
    """Folder of further tasks, as YAML files of the harness."""
    limit: int | None
    shots: int
    """Examples before each question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    task: str
    harness_task: str
    version: str
    """Of the harness's task."""
    numbers: Mapping[str, Number]
    others: Mapping[str, float]
    """What else the harness counts, without an interval of ours."""
    samples: Sequence[Mapping[str, Any]]


def harness_version() -> str:
    """Return the harness's version; an error tells how to get one."""
    try:
        return metadata.version("lm_eval")
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(
            'language tasks are asked by lm-evaluation-harness: pip install "kosmos2[language]"'
        ) from error


def claim(folder: Path, setting: Setting) -> None:
    """Refuse a folder that has answers of another model, else write whose answers it has."""
    file = folder / _SETTING
    own = asdict(setting)
    if file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RecordError(f"{file} is no JSON: {error}") from error
        for name in own:
            if name != "model" and before.get(name) != own[name]:
                raise RecordError(
                    f"{folder} has answers of another run: {name} is {before.get(name)!r} there "
                    f"and {own[name]!r} here. Name another folder with --out, or begin anew with "
                    "--fresh"
                )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")


def clear(folder: Path) -> None:
    """Throw away what an earlier run left."""
    for pattern in (
        _SETTING,
        "answered_rank*.db*",
        "tasks/*.yaml",
        "predictions-*.jsonl",
        "results.*",
    ):
        for file in folder.glob(pattern):
            file.unlink()


def run(
    wanted: Wanted,
    folder: Path,
    load: Callable[[], Kosmos2],
    progress: Callable[[int, int], None],
) -> list[TaskResult]:
    """Ask the questions of some tasks and return what came of them, in the order of the tasks."""
    harness_version()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from lm_eval import simple_evaluate  # type: ignore[import-untyped]

    from kosmos2.evaluation.harness import HarnessModel

    for name in ("lm_eval", "lm-eval", "datasets", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    manager = _manager(wanted)
    loaded = [_loaded(name, wanted, manager, folder) for name in wanted.tasks]
    found = simple_evaluate(
        model=HarnessModel(load, progress),
        tasks=loaded,
        num_fewshot=wanted.shots,
        limit=wanted.limit,
        use_cache=str(folder / "answered"),
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=True,
    )
    assert found is not None
    return [
        _result(name, task.task_name, found)
        for name, task in zip(wanted.tasks, loaded, strict=True)
    ]


def _manager(wanted: Wanted) -> Any:  # noqa: ANN401  (the harness's own)
    """Return an index of tasks: of all that the harness has only where others than ours are meant.

    Its thousands of files take a while to read.
    """
    import lm_eval.tasks  # type: ignore[import-untyped]

    root = Path(lm_eval.tasks.__file__).parent
    paths = [root / folder for folder in _FOLDERS] + ([wanted.include] if wanted.include else [])
    few = lm_eval.tasks.TaskManager(include_path=paths, include_defaults=False)
    if all(TASKS.get(name, name) in few.all_subtasks for name in wanted.tasks):
        return few
    return lm_eval.tasks.TaskManager(include_path=paths)


def _loaded(name: str, wanted: Wanted, manager: Any, folder: Path) -> Any:  # noqa: ANN401
    """Return a task of the harness with its data."""
    task = TASKS.get(name, name)
    if task not in manager.all_subtasks:
        raise RequestError(
            f"the harness has no task {task!r}; ours are {', '.join(TASKS)}, for others see its "
            "list, for your own use --include"
        )
    spec = task
    if wanted.data is not None:
        spec = str(_with_local_data(manager.task_index[task].yaml_path, name, wanted, folder))
    try:
        return manager.load([spec])["tasks"][task]
    except Exception as error:
        way = "look at its files" if wanted.data else "without a network, give copies with --data"
        raise RequestError(
            f"the data of {name} cannot be had ({one_line(error)}); {way}"
        ) from error


def _with_local_data(task_file: Path, name: str, wanted: Wanted, folder: Path) -> Path:
    """Write a task that is another with its data at a place of ours; return its file."""
    assert wanted.data is not None
    place = _local(wanted.data, name, TASKS.get(name, name))
    told: dict[str, Any] = {"include": str(task_file), "dataset_path": str(place)}
    if not (place / "README.md").exists():  # in which a copied data set names its parts
        told["dataset_name"] = None
    if not wanted.shots:  # then nothing is read but what is asked
        told["training_split"] = None
    file = folder / "tasks" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return file


def _local(data: Path, name: str, task: str) -> Path:
    places = [data / name, data / task]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise RequestError(f"{data} has no folder {name} with the data of this task")
    return found.resolve()


def _result(name: str, task: str, found: Mapping[str, Any]) -> TaskResult:
    samples, counted = found["samples"][task], found["n-samples"][task]["effective"]
    # Some tasks of the harness read each answer in several ways, its filters; the first is kept.
    samples = [each for each in samples if each.get("filter") == samples[0].get("filter")]
    ids = [sample["doc_id"] for sample in samples]
    if len(set(ids)) != len(ids) or len(ids) != counted:
        raise RecordError(f"{name}: {counted} questions were asked, {len(set(ids))} are answered")
    numbers = {
        metric: share([Part(str(s["doc_id"]), float(s[metric]), 1.0) for s in samples])
        for metric in METRICS
        if metric in samples[0]
    }
    others = {
        key.removesuffix(",none"): float(value)
        for key, value in found["results"][task].items()
        if isinstance(value, float) and "stderr" not in key and key.split(",")[0] not in numbers
    }
    version = str(found["versions"].get(task, ""))
    return TaskResult(
        task=name, harness_task=task, version=version, numbers=numbers, others=others,
        samples=samples,
    )  # fmt: skip


def write(folder: Path, setting: Setting, results: Sequence[TaskResult], limit: int | None) -> None:
    """Write predictions, results.json and results.md."""
    for each in results:
        rows = [_row(sample, each, setting) for sample in each.samples]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        file = folder / f"predictions-{each.task}.jsonl"
        file.write_text("".join(lines), encoding="utf-8")
    told = {
        "run": asdict(setting),
        "scored_by": asdict(code_now()),
        "limit": limit,
        "tasks": {each.task: _told(each) for each in results},
        "differences": DIFFERENCES,
    }
    (folder / "results.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(setting, results, limit), encoding="utf-8")


def _told(each: TaskResult) -> dict[str, Any]:
    return {
        "harness_task": each.harness_task,
        "version": each.version,
        "n": len(each.samples),
        "numbers": {name: asdict(number) for name, number in each.numbers.items()},
        "others": each.others,
        "published": PUBLISHED.get(each.task),
        "source": SOURCE if each.task in PUBLISHED else None,
    }


def _row(sample: Mapping[str, Any], each: TaskResult, setting: Setting) -> dict[str, Any]:
    return {
        "benchmark": each.harness_task,
        "version": each.version,
        **asdict(setting),
        "id": str(sample["doc_id"]),
        "prompts": [list(map(str, each)) for each in sample["arguments"]],
        "answers": sample["filtered_resps"],
        "target": str(sample["target"]),
        **{name: sample[name] for name in METRICS if name in sample},
    }


def rows(results: Sequence[TaskResult]) -> list[list[str]]:
    """Return the numbers as a table with a header."""
    table = [["task", "metric", "value", "95 %", "n", "Kosmos-2, table 6 (metric not told)"]]
    for each in results:
        for metric, number in each.numbers.items():
            paper = PUBLISHED.get(each.task)
            interval = f"{100 * number.low:.1f} – {100 * number.high:.1f}"
            shown = f"{paper:.1f}" if paper else ""
            value = f"{100 * number.value:.1f} %"
            table.append([each.task, METRICS[metric], value, interval, f"{number.n:,}", shown])
        table += [[each.task, name, f"{value:.4f}", "", f"{len(each.samples):,}", ""]
                  for name, value in each.others.items()]  # fmt: skip
    return table


def markdown(setting: Setting, results: Sequence[TaskResult], limit: int | None) -> str:
    """Return the page."""
    header, *lines = rows(results)
    ruled = [header, ["---", "---", *("---:" for _ in header[2:])], *lines]
    told = [f"- {each}" for each in DIFFERENCES]
    if limit is not None:
        told.insert(0, f"- NOT whole tasks: the first {limit:,} questions of each")
    facts = [
        "# Language tasks",
        "",
        f"- model: {setting.model}, weights {setting.weights}, {setting.dtype}, no picture",
        f"- asked by lm-evaluation-harness {setting.harness}, {setting.shots} examples before "
        "each; " + ", ".join(f"{each.harness_task} version {each.version}" for each in results),
        f"- published: {SOURCE}",
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in ruled)
    return "\n".join([*facts, "", table, "", "## Differences", "", *told]) + "\n"
