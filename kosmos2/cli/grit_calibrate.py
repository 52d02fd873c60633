"""`grit calibrate`: what a detector's scores are worth, measured against the truth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from kosmos2.cli.console import bar, note, say
from kosmos2.errors import RequestError, one_line

if TYPE_CHECKING:
    from kosmos2.grit.calibration import Calibration

ROWS = 10

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="A folder of `grit build`.")]
TruthArgument = Annotated[
    Path,
    typer.Argument(
        metavar="TRUTH",
        help="Records of the same pairs (same ids and captions) whose boxes are true.",
    ),
]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The calibration to write.")]


def calibrate(out: OutArgument, truth: TruthArgument, file: FileArgument) -> None:
    """Measure how many boxes of each score are right, so that a precision can be asked for.

    Then: kosmos2 grit select OUT --set detection.calibration=FILE --set linking.precision=0.9

    Example:  kosmos2 grit calibrate my-grit truth.jsonl kosmos2-on-mine.json
    """
    from kosmos2.grit.judging import calibrate as measure

    if not file.parent.is_dir():
        raise RequestError(f"there is no folder {one_line(file.parent)} to write the file in")
    command = f"kosmos2 grit calibrate {out} {truth} {file}"
    with bar("judging", None) as progress:
        judged = measure(
            out,
            truth,
            command=command,
            tell=lambda done, total: progress.reach(done, total, "judging"),
        )
    judged.calibration.write(file)
    Console().print(_table(judged.calibration))
    if judged.without:
        note(f"{judged.without:,} pairs have no true record with their caption: not judged")
    say(f"written: {file} ({judged.calibration.boxes:,} boxes of {judged.pairs:,} pairs)")


def _table(calibration: "Calibration") -> Table:
    """Return the thresholds where a step begins, at most ROWS of them."""
    table = Table("threshold", "precision", "boxes kept")
    scores = [each.score for each in calibration.steps]
    count = min(ROWS, len(scores))
    for number in range(count):
        score = scores[number * (len(scores) - 1) // max(count - 1, 1)]
        precision, kept = calibration.precision_at(score), calibration.kept_at(score)
        table.add_row(f"{score:.4f}", f"{precision:.3f}", f"{kept:.1%}")
    return table
