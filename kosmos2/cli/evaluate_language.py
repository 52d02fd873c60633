"""`eval language`: tasks without a picture, asked by lm-evaluation-harness."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.asking import ModelChoice
from kosmos2.cli.console import bar, note, say
from kosmos2.cli.evaluate_benchmarks import show_rows
from kosmos2.cli.options import Device, DeviceOption, Dtype, DtypeOption, ModelOption
from kosmos2.errors import RequestError

if TYPE_CHECKING:
    from kosmos2.evaluation.language import Setting, Wanted

ALL = "storycloze,hellaswag,winograd,winogrande,piqa,boolq,cb,copa"


CopiesOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="A folder for each task, DIR/piqa and so on: a copy of its data set, or its "
        "splits as validation.jsonl, test.parquet, ... Else they are downloaded.",
        show_default=False,
    ),
]
IncludeOption = Annotated[
    Path | None,
    typer.Option(
        "--include",
        metavar="DIR",
        help="Folder of further tasks, YAML files as the harness reads them.",
        show_default=False,
    ),
]


def language(
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks", metavar="A,B,...", help=f"Some of {ALL}, or any task of the harness."
        ),
    ] = ALL,
    data: CopiesOption = None,
    include: IncludeOption = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")] = Path(
        "eval/language"
    ),
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="The first so many questions of a task.")
    ] = None,
    shots: Annotated[int, typer.Option("--shots", min=0, help="Examples before each.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw away the answers of an earlier run.")
    ] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 16,
    model: ModelOption = "embedded",
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
) -> None:
    """Ask language tasks through lm-evaluation-harness; a killed run goes on where it was.

    Needs the extra `language` of this package.

    Example:  kosmos2 eval language --tasks piqa,copa --data language-data
    """
    from kosmos2.evaluation.language import Wanted, clear

    for name, folder in (("--data", data), ("--include", include)):
        if folder is not None and not folder.is_dir():
            raise RequestError(f"{name} {folder} is no folder")
    names = tuple(dict.fromkeys(part.strip() for part in tasks.split(",") if part.strip()))
    if not names:
        raise RequestError(f"--tasks names some of {ALL}, got {tasks!r}")
    if fresh:
        clear(out)
    wanted = Wanted(tasks=names, data=data, include=include, limit=limit, shots=shots)
    _ask(wanted, out, ModelChoice(model, device, dtype, [f"batch_size={batch_size}"]))


def _ask(wanted: "Wanted", out: Path, choice: ModelChoice) -> None:
    from kosmos2.evaluation.language import claim, rows, run, write

    setting = _setting(choice, wanted.shots)
    claim(out, setting)
    with bar("language", None) as progress:
        results = run(
            wanted, out, choice.load, lambda done, total: progress.reach(done, total, "texts")
        )
    write(out, setting, results, wanted.limit)
    show_rows(rows(results))
    if wanted.limit is not None:
        note(f"not whole tasks: the first {wanted.limit:,} questions of each")
    say(f"written: {out / 'results.json'}, {out / 'results.md'}, predictions-TASK.jsonl beside")


def _setting(choice: ModelChoice, shots: int) -> "Setting":
    from kosmos2.evaluation.language import Setting, harness_version
    from kosmos2.weights.pretrained import resolve, weights_hash

    return Setting(
        harness=harness_version(),
        model=choice.name,
        weights=weights_hash(resolve(choice.name)),
        dtype=choice.precision(),
        shots=shots,
    )
