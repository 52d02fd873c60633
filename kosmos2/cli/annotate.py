"""`annotate`: every picture of a folder, list, table or tar into grounded records."""

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.asking import ModelChoice
from kosmos2.cli.console import bar, complain, note, say
from kosmos2.cli.jobs import SOME_FAILED, AddressOption, Driver, DriverOption, FreshOption
from kosmos2.cli.options import Device, DeviceOption, Dtype, DtypeOption, ModelOption, SetOption
from kosmos2.errors import RequestError

if TYPE_CHECKING:
    from kosmos2.annotate import Job, Plan, Progress, Report
    from kosmos2.annotate.outputs import Outputs
    from kosmos2.records.formats.format import Format
    from kosmos2.shards import Driver as Crews
    from kosmos2.sources.inputs import Looking

STOPPED = 130
ROWS = "batch_size=32"
"""Rows that are answered at a time, where --set says nothing else."""


class Task(StrEnum):
    CAPTION = "caption"
    DETAIL = "detail"
    GROUND = "ground"
    FIND = "find"
    DESCRIBE = "describe"


SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="Pictures: a folder, a glob, a list of paths (.txt), records or a table (.jsonl, "
        ".parquet), WebDataset tars (.tar).",
        show_default=False,
    ),
]
OutputArgument = Annotated[
    Path, typer.Argument(metavar="OUTPUT", help="The file or folder to write.")
]
TaskOption = Annotated[
    Task,
    typer.Option(
        "--task",
        help="caption: a sentence; detail: a paragraph; ground: the boxes of a given caption; "
        "find: the boxes of given phrases; describe: words for given boxes.",
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="FORMAT", help="As in `kosmos2 records convert`; else by OUTPUT's name."
    ),
]
PhrasesOption = Annotated[
    Path | None,
    typer.Option("--phrases", metavar="FILE", help="What to find, one phrase on each line."),
]
AllowAbsentOption = Annotated[
    bool, typer.Option("--allow-absent", help="Find: let the model say that it is not there.")
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images", metavar="DIR", help="Where paths in INPUT start; else at INPUT's folder."
    ),
]
FetchOption = Annotated[
    bool, typer.Option("--fetch", help="Download pictures that INPUT names by their url.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", help="The first so many pictures only.")
]
DrawingsOption = Annotated[
    Path | None,
    typer.Option("--draw", metavar="DIR", help="Write every picture with its boxes."),
]
CropsOption = Annotated[
    Path | None,
    typer.Option("--crops", metavar="DIR", help="Write what is inside each box."),
]
PageOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page to look at, for each hundred."),
]
ErrorsOption = Annotated[
    Path | None,
    typer.Option(
        "--errors", metavar="FILE", help="Pictures without a record; else errors.jsonl beside."
    ),
]
ShardOption = Annotated[
    str, typer.Option("--shard", metavar="I/N", help="Only the I-th of N parts, from 1.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", help="Processes, each with the model; else one for each GPU."),
]
KeepOption = Annotated[bool, typer.Option("--keep", help="Keep the folder OUTPUT.job.")]


def annotate(
    source: SourceArgument,
    output: OutputArgument,
    task: TaskOption = Task.CAPTION,
    to: ToOption = None,
    phrases: PhrasesOption = None,
    allow_absent: AllowAbsentOption = False,
    images: ImagesOption = None,
    fetch: FetchOption = False,
    limit: LimitOption = None,
    drawings: DrawingsOption = None,
    crops: CropsOption = None,
    page: PageOption = None,
    errors: ErrorsOption = None,
    shard: ShardOption = "1/1",
    driver: DriverOption = Driver.LOCAL,
    workers: WorkersOption = None,
    address: AddressOption = None,
    keep: KeepOption = False,
    fresh: FreshOption = False,
    model: ModelOption = "embedded",
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    overrides: SetOption = None,
) -> None:
    """Ask the model about every picture of a folder, list, table or tar, and write records.

    The same command goes on where it was stopped. Where pictures failed the exit code is 3.

    Example:  kosmos2 annotate photos/ photos.jsonl --html photos.html
    """
    choice = ModelChoice(model, device, dtype, (ROWS, *(overrides or ())))
    part = _part(shard)
    outputs = _outputs(output, to, errors or _errors(output, part), drawings, crops, page)
    plan = _plan(choice, task, _phrases(phrases, task), outputs, allow_absent=allow_absent)
    from kosmos2.annotate import Job

    job = Job(
        source=source,
        outputs=outputs,
        plan=plan,
        looking=_looking(task, images, outputs),
        driver=_driver(driver, workers, address, plan.device),
        shard=part,
        limit=limit,
        download=fetch,
        anew=fresh,
        keep=keep,
    )
    _conclude(job, _watched(job))


def _outputs(
    output: Path,
    to: str | None,
    errors: Path,
    drawings: Path | None,
    crops: Path | None,
    page: Path | None,
) -> "Outputs":
    form = _format(to, output)
    from kosmos2.annotate import Outputs

    return Outputs(
        records=output, format=form, errors=errors, drawings=drawings, crops=crops, page=page
    )


def _looking(task: Task, images: Path | None, outputs: "Outputs") -> "Looking":
    from kosmos2.annotate import Looking

    made = (outputs.drawings, outputs.crops)
    return Looking(
        images=images,
        captions=task is Task.GROUND,
        leave_out=tuple(folder for folder in made if folder is not None),
    )


def _part(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise RequestError(f"--shard is I/N, such as 2/8 for the second of eight, got {text!r}")
    return int(part), int(parts)


def _errors(output: Path, part: tuple[int, int]) -> Path:
    """Parts of a job may lie in one folder."""
    name = "errors.jsonl" if part == (1, 1) else "errors-{}-of-{}.jsonl".format(*part)
    return output.with_name(name)


def _format(to: str | None, output: Path) -> "Format":
    from kosmos2.records.formats.registry import format_named, format_of

    # What lies there may be the result of this very job, or what --fresh replaces: names count.
    is_lines = not output.suffix or re.search(r"\.(jsonl|ndjson)(\.gz|\.zst)?$", output.name)
    if to is None and is_lines:
        to = "jsonl"
    form = format_of(output) if to is None else format_named(to)
    if form.write is None:
        raise RequestError(f"the format {form.name} can only be read; name another with --to")
    return form


def _phrases(path: Path | None, task: Task) -> tuple[str, ...] | None:
    if path is None:
        return None
    if task is not Task.FIND:
        raise RequestError(f"--phrases is for --task find, and the task is {task}")
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    phrases = tuple(line.strip() for line in lines if line.strip())
    if not phrases:
        raise RequestError(f"{path} has no phrases; write one on each line")
    return phrases


def _plan(
    choice: ModelChoice,
    task: Task,
    phrases: tuple[str, ...] | None,
    outputs: "Outputs",
    *,
    allow_absent: bool,
) -> "Plan":
    from kosmos2.annotate import Making, Plan, resolved
    from kosmos2.annotate import Task as OfPlan

    decoding = choice.decoding()
    decoding.settings()  # says what is wrong with them, if anything is
    weights, device, dtype = resolved(choice.name, choice.device, choice.dtype)
    wanted = {
        Making.DRAWING: outputs.drawings,
        Making.CROPS: outputs.crops,
        Making.THUMBNAIL: outputs.page,
    }
    return Plan(
        task=OfPlan(task),
        model=choice.name,
        weights=weights,
        device=device,
        dtype=dtype,
        decoding=decoding,
        phrases=phrases,
        allow_absent=allow_absent,
        base=Path(os.path.abspath(outputs.base)),
        makings=frozenset(making for making, path in wanted.items() if path is not None),
    )


def _driver(name: Driver, workers: int | None, address: str | None, device: str) -> "Crews":
    import torch

    from kosmos2.shards import driver_named

    gpus = torch.cuda.device_count() if device.startswith("cuda") else 0
    several = 1 if name is Driver.LOCAL else max(gpus, 1)
    gpus = 0 if name is Driver.LOCAL else gpus
    return driver_named(name, workers=workers or several, gpus=gpus, address=address)


def _watched(job: "Job") -> "Report":
    """Do the job while a line shows how it goes."""
    from kosmos2.annotate import annotate

    if (job.folder / "job.json").is_file() and not job.anew:
        note(f"going on with the unfinished work in {job.folder}")
    try:
        with bar("annotating", 0) as line:

            def show(now: "Progress") -> None:
                line.reach(now.done, now.total, _line(now))

            return annotate(job, show)
    except KeyboardInterrupt:
        complain(f"stopped; the same command goes on, what is done lies in {job.folder}")
        raise typer.Exit(STOPPED) from None


def _line(now: "Progress") -> str:
    left = now.seconds_left
    parts = [f"{now.rate:.1f} pictures/s" if now.rate else "starting"]
    if left is not None:
        parts.append(f"{_duration(left)} left")
    parts.append(f"waited {now.waiting:.0%}")
    return ", ".join([*parts, f"{now.failed} failed"] if now.failed else parts)


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _conclude(job: "Job", report: "Report") -> None:
    """Tell what was done, and where it lies; exit with 3 if some pictures failed."""
    outputs = job.outputs
    say(
        f"{report.annotated:,} of {report.total:,} pictures annotated, {report.boxes:,} boxes: "
        f"{outputs.records}"
    )
    for path in (outputs.drawings, outputs.crops):
        if path is not None:
            say(f"  {path}{os.sep}")
    if pages := report.written.pages:
        more = f" and {len(pages) - 1} more" if len(pages) > 1 else ""
        say(f"  {pages[0]}{more}")
    for loss in report.written.losses:
        note(f"{outputs.format.name} does not keep everything: {loss}")
    if report.written.refused:
        complain(f"{report.written.refused:,} records cannot be said in {outputs.format.name}")
    if report.made:
        rate = report.made / report.seconds
        say(
            f"{report.made:,} pictures in {_duration(report.seconds)}, {rate:.1f} a second; "
            f"the model waited for pictures {report.waiting:.0%} of the time"
        )
    if report.failed:
        complain(f"{report.failed:,} of {report.total:,} pictures failed: see {outputs.errors}")
    if report.failed or report.written.refused:
        raise typer.Exit(SOME_FAILED)
