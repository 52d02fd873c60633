"""`eval refcoco`, `eval flickr30k`, ... and `eval score`: benchmarks of others, their own files."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kosmos2.cli.asking import ModelChoice
from kosmos2.cli.console import bar, note, say
from kosmos2.cli.options import Device, DeviceOption, Dtype, DtypeOption, ModelOption, SetOption
from kosmos2.errors import RequestError

if TYPE_CHECKING:
    from kosmos2.evaluation.asking import Answerer, Share
    from kosmos2.evaluation.benchmark import Benchmark, Data, Form, Problem
    from kosmos2.evaluation.predictions import Setting
    from kosmos2.evaluation.results import Scored

NAMES = {
    "refcoco": "Find what an expression refers to: RefCOCO (val, testA, testB).",
    "refcoco+": "Find what an expression refers to: RefCOCO+ (val, testA, testB).",
    "refcocog": "Find what an expression refers to: RefCOCOg (val, test).",
    "flickr30k": "Find the phrases of captions: Flickr30k Entities (val, test).",
    "refcocog-reg": "Say what is in a box so that it is told from others: RefCOCOg (val, test).",
    "refcocog-round-trip": "Describe what is in a box, and find it again: RefCOCOg (val, test).",
    "flickr30k-captions": "Say what a picture shows: Flickr30k, Karpathy's split (test).",
    "coco-captions": "Say what a picture shows: COCO, Karpathy's split (val, test).",
    "flickr30k-grounded": "Say what a picture shows, with boxes: Flickr30k Entities (val, test).",
    "vqav2": "Answer questions about pictures: VQAv2 (val, test-dev, test).",
    "seed-bench": "Choose one of four answers: SEED-Bench, questions about pictures (image).",
    "pope": "Is there such a thing? Yes or no: POPE (random, popular, adversarial).",
    "absent": "Find things that may not be there: questions of POPE, told apart by the score.",
    "classify": "Name what is in a picture: a folder for each class, as ImageNet (val).",
    "classify-asked": "Name what is in a picture, asked for it: a folder for each class.",
    "classify-described": "Name what is in a picture, told how each class looks.",
    "raven": "Which picture goes on a row of pictures? Told by the probability of Yes (test).",
}
"""Of the benchmarks that have files of their own; the same as in the registry."""
DEFAULTS = ("batch_size=32", "max_new_tokens=128")
"""Where --set says nothing else."""
WORST = 40


class AnswerForm(StrEnum):
    FREE = "free"
    BOXES = "boxes"
    ABSENT = "absent"
    CHOICE = "choice"


DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder of the annotations, or one JSON file of MDETR's.",
        show_default=False,
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images", metavar="DIR", help="Folder of the pictures; else at usual places below DIR."
    ),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="The first so many questions only.")
]
OwnDataOption = Annotated[
    bool, typer.Option("--own-data", help="Another set in this format: of any size, any split.")
]
ShotsOption = Annotated[
    int, typer.Option("--shots", min=0, help="Solved examples before each question.")
]
ShotsSplitOption = Annotated[
    str, typer.Option("--shots-split", help="Which split the examples are of.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Other examples.")]
WorstOption = Annotated[
    int, typer.Option("--worst", min=0, help="Answers to show in gallery.html; 0: no page.")
]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The questions of one run of a benchmark."""

    benchmark: "Benchmark"
    data: "Data"
    problems: "list[Problem]"
    examples: Mapping[str, Any]
    """Of solved examples before each, as a setting has them."""


def add_to(app: typer.Typer) -> None:
    """Add a command for each benchmark, and `score`."""
    for name, help in NAMES.items():
        example = f"Example:  kosmos2 eval {name} --data {name.rstrip('+')}-data --split val"
        app.command(name, no_args_is_help=True, help=f"{help}\n\n{example}")(_command(name))
    app.command("score", no_args_is_help=True)(score)


def _command(name: str) -> Callable[..., None]:
    def run(
        data: DataOption,
        split: Annotated[str, typer.Option("--split", help="Which questions.")] = "val",
        images: ImagesOption = None,
        out: Annotated[
            Path | None,
            typer.Option("--out", metavar="DIR", help="Folder to write; else eval/NAME-SPLIT."),
        ] = None,
        limit: LimitOption = None,
        shard: Annotated[
            str, typer.Option("--shard", metavar="I/N", help="Only the I-th of N parts, from 1.")
        ] = "1/1",
        answer: Annotated[
            AnswerForm | None,
            typer.Option(
                "--answer",
                help="free: the model writes what it likes, as in the paper; boxes: boxes alone, "
                "which is faster; absent: boxes or none; choice: one of several, weighed. Without "
                "it, as was published.",
                show_default=False,
            ),
        ] = None,
        shots: ShotsOption = 0,
        shots_split: ShotsSplitOption = "train",
        seed: SeedOption = 0,
        own_data: OwnDataOption = False,
        fresh: Annotated[
            bool, typer.Option("--fresh", help="Throw away the predictions of an earlier run.")
        ] = False,
        worst: WorstOption = WORST,
        model: ModelOption = "embedded",
        device: DeviceOption = Device.AUTO,
        dtype: DtypeOption = Dtype.AUTO,
        overrides: SetOption = None,
    ) -> None:
        examples = {"count": shots, "seed": seed, "split": shots_split} if shots else {}
        asked = _asked(name, data, split, images, limit, examples, own_data=own_data)
        folder = out or Path("eval") / f"{name}-{split}{f'-{shots}-shots' if shots else ''}"
        settings = (*DEFAULTS, *asked.benchmark.decoding, *(overrides or ()))
        choice = ModelChoice(model, device, dtype, settings)
        share, form = _share(shard), _form(asked.benchmark, answer)
        _answer(asked, choice, form, share, folder, split=split, fresh=fresh)
        if share[1] > 1:
            say(f"score all {share[1]} parts with: kosmos2 eval score {folder} --data {data}")
            return
        _score(asked, [folder / "predictions.jsonl"], folder, worst)

    return run


def score(
    predictions: Annotated[
        list[Path],
        typer.Argument(metavar="PREDICTIONS", help="Their files, or the folder of a run."),
    ],
    data: DataOption,
    images: ImagesOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder to write; else beside PREDICTIONS."),
    ] = None,
    limit: LimitOption = None,
    own_data: OwnDataOption = False,
    worst: WorstOption = WORST,
) -> None:
    """Compute the numbers of saved predictions again, without the model.

    Every question must be answered once: with what is missing or double there is no score.

    Example:  kosmos2 eval score eval/refcoco-val --data refcoco-data
    """
    from kosmos2.evaluation.predictions import prediction_files, read_run

    setting = read_run(prediction_files(predictions)).setting
    asked = _asked(
        *(setting.benchmark, data, setting.split, images, limit, setting.shots),
        own_data=own_data,
    )
    first = predictions[0]
    _score(asked, predictions, out or (first if first.is_dir() else first.parent), worst)


def _asked(
    name: str,
    data: Path,
    split: str,
    images: Path | None,
    limit: int | None,
    examples: Mapping[str, Any],
    *,
    own_data: bool,
) -> _Asked:
    from dataclasses import replace

    from kosmos2.evaluation.benchmark import Kind, read_split
    from kosmos2.evaluation.registry import benchmark_named
    from kosmos2.evaluation.shots import Examples, check_solvable, with_examples
    from kosmos2.evaluation.words import check_installed

    benchmark = benchmark_named(name)
    if benchmark.kind is Kind.WORDS:
        check_installed()
    if not data.exists():
        raise RequestError(f"there is nothing at --data {data}")
    if images is not None and not images.is_dir():
        raise RequestError(f"--images {images} is no folder")
    if examples:
        check_solvable(benchmark)
    read = read_split(benchmark, data, split, own_data=own_data)
    read = replace(read, problems=read.problems[:limit])
    if examples:
        drawn = Examples(**examples)
        solved = read_split(benchmark, data, drawn.split, own_data=True)
        read = with_examples(benchmark, read, solved, drawn)
    if images is not None:
        read = replace(read, folders=(images,))
    return _Asked(benchmark, read, list(read.problems), examples)


def _share(text: str) -> "Share":
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise RequestError(f"--shard is I/N, such as 2/8 for the second of eight, got {text!r}")
    return int(part), int(parts)


def _answer(
    asked: _Asked,
    choice: ModelChoice,
    form: "Form",
    share: "Share",
    folder: Path,
    *,
    split: str,
    fresh: bool,
) -> None:
    """Answer what is not answered yet, and write it as it comes."""
    from kosmos2.evaluation.asking import AT_A_TIME, ask, part_of, pictures_of
    from kosmos2.evaluation.predictions import Writer, file_name

    own = part_of(asked.problems, share)
    pictures = pictures_of(asked.data, own)
    file = folder / file_name(*share)
    if fresh:
        file.unlink(missing_ok=True)
    writer = Writer(file, _setting(asked, choice, form, split))
    left = [problem for problem in own if problem.id not in writer.done]
    if writer.done and left:
        note(f"going on: {len(own) - len(left):,} of {len(own):,} are answered in {file}")
    done = len(own) - len(left)
    at_a_time = AT_A_TIME * choice.decoding().batch_size
    answers = ask(
        left,
        pictures,
        lambda: _load(asked.benchmark, choice, form, pictures),
        at_a_time=at_a_time,
    )
    with bar(asked.benchmark.name, len(own), done=done) as progress:
        for predictions in answers:
            writer.write(predictions)
            done += len(predictions)
            progress.reach(done, len(own), asked.benchmark.name)
    say(f"{done:,} questions about {len(pictures):,} pictures answered: {file}")


def _form(benchmark: "Benchmark", wanted: AnswerForm | None) -> "Form":
    """Return what answers look like: what is wanted of them, or what was published."""
    from kosmos2.evaluation.benchmark import Form

    form = benchmark.forms[0] if wanted is None else Form(wanted)
    if form not in benchmark.forms:
        raise RequestError(
            f"{benchmark.name} takes --answer {' or '.join(benchmark.forms)}, got {form}"
        )
    return form


def _load(
    benchmark: "Benchmark", choice: ModelChoice, form: "Form", pictures: dict[str, Path]
) -> "Answerer":
    from kosmos2.evaluation.asking import ModelAnswerer
    from kosmos2.evaluation.benchmark import Form
    from kosmos2.evaluation.round_trip import RoundTripper
    from kosmos2.evaluation.weighing import Weigher

    if benchmark.then is not None:
        return RoundTripper(choice.load(), benchmark, form, pictures)
    if form is Form.CHOICE:
        return Weigher(choice.load(), benchmark, pictures)
    return ModelAnswerer(choice.load(), benchmark, form, pictures)


def _setting(asked: _Asked, choice: ModelChoice, form: "Form", split: str) -> "Setting":
    import kosmos2
    from kosmos2.evaluation.predictions import Setting
    from kosmos2.weights.pretrained import resolve, weights_hash

    decoding: dict[str, Any] = asdict(choice.decoding())
    decoding.pop("batch_size")  # changes no answer
    return Setting(
        benchmark=asked.benchmark.name,
        version=asked.benchmark.version,
        split=split,
        model=choice.name,
        weights=weights_hash(resolve(choice.name)),
        dtype=choice.precision(),
        bins=_bins(choice.name),
        answer_form=str(form),
        decoding=decoding,
        code=f"kosmos2 {kosmos2.__version__}",
        shots=asked.examples,
    )


def _bins(model: str) -> int:
    from kosmos2.vocab.tokenizer import Tokenizer
    from kosmos2.weights.pretrained import resolve

    path = resolve(model)
    return Tokenizer.from_folder(path if path.is_dir() else path.parent).grid.bins


def saved(predictions: list[Path], data: Path, limit: int | None, *, own_data: bool) -> "Scored":
    """Return the saved predictions of one run beside the questions of its data, scored."""
    from kosmos2.evaluation import results
    from kosmos2.evaluation.predictions import prediction_files, read_run

    run = read_run(prediction_files(predictions))
    setting = run.setting
    asked = _asked(
        *(setting.benchmark, data, setting.split, None, limit, setting.shots),
        own_data=own_data,
    )
    return results.score(asked.benchmark, asked.data, asked.problems, run)


def _score(asked: _Asked, predictions: list[Path], folder: Path, worst: int) -> None:
    from kosmos2.evaluation import gallery, results, submission
    from kosmos2.evaluation.predictions import prediction_files, read_run

    run = read_run(prediction_files(predictions))
    handed = submission.write_submission(asked.benchmark, asked.problems, run, folder)
    if handed:
        say(f"written: {handed}, to be handed in")
    if submission.is_secret(asked.benchmark, asked.problems):
        note("only the benchmark's server knows the truth: no score")
        return
    scored = results.score(asked.benchmark, asked.data, asked.problems, run)
    results.write(scored, folder)
    written = [folder / "results.json", folder / "results.md"]
    if worst:
        page = folder / "gallery.html"
        page.write_text(gallery.gallery(scored, worst, asked.data.folders), encoding="utf-8")
        written.append(page)
    show_rows(results.rows(scored))
    if scored.peers:
        show_rows(results.peer_rows(scored))
    for each in results.differences(scored):
        note(f"not as published: {each}")
    say(f"written: {', '.join(map(str, written))}")


def show_rows(rows: list[list[str]]) -> None:
    """Print a table with a header."""
    header, *lines = rows
    table = Table(*header)
    for line in lines:
        table.add_row(*line)
    Console().print(table)
