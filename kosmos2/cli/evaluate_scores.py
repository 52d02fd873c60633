"""`eval calibration` and `eval threshold`: what the scores of saved predictions are worth."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kosmos2.cli.console import say
from kosmos2.cli.evaluate_benchmarks import DataOption, LimitOption, OwnDataOption, saved, show_rows
from kosmos2.errors import RequestError

if TYPE_CHECKING:
    from kosmos2.evaluation.calibration import Reliability
    from kosmos2.evaluation.results import Scored

PICTURE = "reliability.svg"

RunsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="PREDICTIONS", help="Folders of runs, or their files."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("calibration", no_args_is_help=True)(calibration)
    app.command("threshold", no_args_is_help=True)(threshold)


def calibration(
    predictions: RunsArgument,
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            metavar="DIR",
            help="The data that was asked: once for all runs, or once for each in their order.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")] = Path(
        "eval/calibration"
    ),
    limit: LimitOption = None,
    own_data: OwnDataOption = False,
) -> None:
    """Tell what the scores of boxes are worth: error of calibration, precision at thresholds.

    Of saved predictions of refcoco, refcoco+, refcocog and flickr30k, without the model; writes
    calibration.json, calibration.md and a picture, reliability.svg.

    Example:  kosmos2 eval calibration eval/refcoco-val eval/flickr30k-val --data refs --data flickr
    """
    from kosmos2.evaluation import reliability as shown
    from kosmos2.evaluation.calibration import all_boxes, first_boxes, reliability

    if len(data) not in (1, len(predictions)):
        raise RequestError(
            f"say --data once, or once for each of the {len(predictions)} runs; got {len(data)}"
        )
    own = data if len(data) > 1 else data * len(predictions)
    named = _named(
        [saved([p], d, limit, own_data=own_data) for p, d in zip(predictions, own, strict=True)]
    )
    first = {f"{name}, first boxes": reliability(first_boxes(r.pairs)) for name, r in named.items()}
    every = {f"{name}, all boxes": reliability(all_boxes(r.pairs)) for name, r in named.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / PICTURE).write_text(shown.picture(first), encoding="utf-8")
    facts = [_fact(name, run) for name, run in named.items()]
    page = shown.markdown(first | every, facts, drawing=PICTURE)
    (out / "calibration.md").write_text(page, encoding="utf-8")
    _write(out / "calibration.json", named, first | every)
    show_rows(shown.summary(first | every))
    for name, each in first.items():
        say(name)
        show_rows(shown.cuts(each))
    say(f"written: {out / 'calibration.json'}, {out / 'calibration.md'}, {out / PICTURE}")


def _named(runs: "list[Scored]") -> "dict[str, Scored]":
    """Return runs by benchmark and split."""
    from kosmos2.evaluation.benchmark import Kind

    named: dict[str, Scored] = {}
    for run in runs:
        if run.benchmark.kind is not Kind.BOXES:
            raise RequestError(f"{run.benchmark.name} asks for no boxes, so they have no scores")
        name = f"{run.setting.benchmark} {run.setting.split}"
        named[name if name not in named else f"{name} ({len(named) + 1})"] = run
    return named


def threshold(
    predictions: RunsArgument,
    data: DataOption,
    recall: Annotated[
        float | None,
        typer.Option("--recall", min=0, max=1, help="Keep this share of what is there."),
    ] = None,
    at: Annotated[
        float | None,
        typer.Option("--at", min=0, max=1, help="Judge this threshold, chosen on other answers."),
    ] = None,
    limit: LimitOption = None,
    own_data: OwnDataOption = False,
) -> None:
    """Choose a score from which a thing counts as there, or judge one; from runs of `eval absent`.

    Example:  kosmos2 eval threshold eval/absent-random --data pope --recall 0.95
    """
    from kosmos2.evaluation.absent import decide, presence, thresholds
    from kosmos2.evaluation.pope import is_there

    if (recall is None) == (at is None):
        raise RequestError("say either --recall, to choose a threshold, or --at, to judge one")
    scored = saved(predictions, data, limit, own_data=own_data)
    if scored.benchmark.name != "absent":
        raise RequestError(f"these are predictions of {scored.benchmark.name}, wanted are absent's")
    there = [is_there(problem) for problem, _ in scored.pairs]
    if all(there) or not any(there):
        raise RequestError("all questions are of one kind: nothing can be told apart")
    if at is None:
        assert recall is not None
        scores = [presence(prediction) for _, prediction in scored.pairs]
        pictures = [problem.picture for problem, _ in scored.pairs]
        chosen, _ = thresholds(scores, there, pictures, [recall])[0]
        at = chosen.value
        say(f"threshold {at:.4f} ({chosen.low:.4f} – {chosen.high:.4f}) keeps {recall:.1%}")
    decided = decide(scored.pairs, at)
    rows = [[f"at a score of {at:.4f}", "value", "95 %", "n"]]
    for name, number in (
        ("kept of what is there (recall)", decided.recall),
        ("refused of what is not there", decided.refused),
        ("there, of what is kept (precision)", decided.precision),
    ):
        interval = f"{number.low:.1%} – {number.high:.1%}"
        rows.append([name, f"{number.value:.1%}", interval, f"{number.n:,}"])
    show_rows(rows)


def _fact(name: str, run: "Scored") -> str:
    setting = run.setting
    return (
        f"{name}: {len(run.pairs):,} questions, model {setting.model}, weights {setting.weights}, "
        f"{setting.dtype}, answers {setting.answer_form}"
    )


def _write(file: Path, runs: "dict[str, Scored]", found: "dict[str, Reliability]") -> None:
    told: dict[str, Any] = {
        "runs": {name: asdict(run.setting) for name, run in runs.items()},
        "scored_by": asdict(next(iter(runs.values())).code),
        "calibration": {name: each.to_dict() for name, each in found.items()},
    }
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
