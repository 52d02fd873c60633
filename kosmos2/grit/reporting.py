"""The report and the card of a folder, written into it; each file appears whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kosmos2.errors import ConfigError, one_line
from kosmos2.grit.card import MARK, card
from kosmos2.grit.examples import Album
from kosmos2.grit.report import report
from kosmos2.grit.survey import Wish, survey

REPORT, CARD = "report.html", "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    files: tuple[Path, ...]
    faults: tuple[str, ...]
    """What does not agree in the folder."""


def write(out: Path, wish: Wish, tell: Callable[[int, int], None]) -> Written:
    """Read a folder of `grit build` once and write its report and its card.

    `tell` hears of units read, and of how many. The same folder makes the same bytes.
    """
    _refuse_to_overwrite(out / CARD)
    made = survey(out, wish, tell)
    album = Album(out, made.samples.all())
    texts = {out / REPORT: report(made, album), out / CARD: card(made)}
    for path, text in texts.items():
        _write(path, text)
    return Written(files=tuple(texts), faults=tuple(made.faults))


def _refuse_to_overwrite(path: Path) -> None:
    if path.is_file() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(
            f"{one_line(path)} is there and was not written by `kosmos2 grit report`: rename it"
        )


def _write(path: Path, text: str) -> None:
    half = path.with_name(f".{path.name}.half")
    with half.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half.rename(path)
