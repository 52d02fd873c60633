"""What both the report and the card of a data set say of it, as plain text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kosmos2 import config
from kosmos2.errors import one_line
from kosmos2.grit.recipe import GritRecipe
from kosmos2.grit.survey import Survey
from kosmos2.records.stats import Stats, Tally

PAPER = "Kosmos-2 paper, arXiv 2306.14824, table 1"
FROM_TOTALS = f"{PAPER}, from its totals"
IMAGES, SPANS, BOXES = 90_614_680, 114_978_233, 137_349_210
"""Of GRIT: table 1 of the paper."""
EXPRESSION_WORDS = 4.7
NOT_RECORDED = "not recorded"
RUNS_SHOWN = 50
OFTEN = (100, 20, 5, 2)
"""How often a word must have been looked for before its share says anything; see `shares`."""
Cells = tuple[str, ...]


def compared(stats: Stats) -> list[Cells]:
    """Return what, of this set, of GRIT as published, and where that is published."""
    words = stats.expression_words.mean
    return [
        ("records (GRIT: images)", f"{stats.records:,}", f"{IMAGES:,}", PAPER),
        ("spans", f"{stats.spans:,}", f"{SPANS:,}", PAPER),
        ("boxes", f"{stats.boxes:,}", f"{BOXES:,}", PAPER),
        (
            "spans per record",
            _ratio(stats.spans, stats.records),
            _ratio(SPANS, IMAGES),
            FROM_TOTALS,
        ),
        (
            "boxes per record",
            _ratio(stats.boxes, stats.records),
            _ratio(BOXES, IMAGES),
            FROM_TOTALS,
        ),
        ("boxes per span", _ratio(stats.boxes, stats.spans), _ratio(BOXES, SPANS), FROM_TOTALS),
        (
            "words per expression",
            "–" if words is None else f"{words:.2f}",
            f"{EXPRESSION_WORDS}",
            PAPER,
        ),
    ]


def made_by(survey: Survey) -> list[tuple[str, str]]:
    """Return what made a set, as names and texts."""
    detector = dict(survey.settings["detector"])
    first = (detector.pop("detector", None), detector.pop("model", None))
    quality = survey.settings.get("quality", {})
    named = [
        ("detector", ", ".join(str(part) for part in first if part)),
        ("weights", detector.pop("weights", NOT_RECORDED)),
        *((f"detector's {name}", str(value)) for name, value in sorted(detector.items())),
        ("score", score_of(survey)),
        ("threshold", _threshold(survey)),
        ("language model", survey.recipe.language.model),
        *((f"measured: {name}", str(value)) for name, value in sorted(quality.items())),
        ("code", str(survey.settings.get("code", NOT_RECORDED))),
        ("commit", str(survey.settings.get("commit", NOT_RECORDED))),
    ]
    return [(name, one_line(text)) for name, text in named]


def score_of(survey: Survey) -> str:
    """Return what the scores of the detector are, as it said when it was asked."""
    return one_line(survey.settings.get("score") or NOT_RECORDED)


def _threshold(survey: Survey) -> str:
    rules = survey.recipe.linking
    told = f"{survey.chosen.linking.threshold:g}, in the units of that score"
    if rules.precision:
        return f"{told}; by calibration, for a precision of {rules.precision:g}"
    if rules.as_of:
        return f"{told}; by calibration, as {rules.threshold:g} of another detector"
    return told


def command(survey: Survey) -> str:
    """Return the command that builds such a set; folders by their names alone."""
    told = survey.settings
    source = str(told.get("input", "SOURCE")).rpartition("/")[2]
    words = ["kosmos2 grit build", _word(source), _word(survey.name), "--recipe recipe.toml"]
    words.append(f"--shard-size {told['unit']}")
    if told.get("limit") is not None:
        words.append(f"--limit {told['limit']}")
    if told.get("images") not in (None, "None"):
        words.append(f"--images {_word(str(told['images']).rpartition('/')[2])}")
    return one_line(" ".join(words))


def toml(recipe: GritRecipe) -> str:
    """Return a recipe as the file that `config.load` reads back to an equal one."""
    return "\n".join(_tables(config.as_tree(recipe), ""))


def runs(survey: Survey) -> tuple[Cells, list[Cells]]:
    """Return the head and the rows of a table of the runs that looked at pairs."""
    heads = (
        "ended", "units", "pairs", "workers", "by the clock", "pairs/s", "waiting for pictures",
        "quarantined units",
    )  # fmt: skip
    return heads, [_run(survey, run) for run in survey.runs[-RUNS_SHOWN:]]


def pace(survey: Survey) -> str:
    """Return how fast the whole set was looked at, where the runs tell of all of it."""
    units = sum(_number(run, "units") for run in survey.runs)
    seconds = sum(_number(run, "seconds") for run in survey.runs)
    pairs = survey.told.pairs.entered
    if units != survey.units or not seconds:
        return f"runs.jsonl tells of {units:g} units, and {survey.units:,} are done: no speed"
    return f"{pairs:,} pairs in {_time(seconds)}: {pairs / seconds:,.2f} pairs/s in all"


def shares(asked: Tally, found: Tally) -> tuple[int, list[tuple[str, int, int]]]:
    """Return how often words were asked for at least, and these with found and asked, best first.

    The least number is the largest that leaves ten words; () where none does.
    """
    had = dict(found.most(len(found)))
    for least in OFTEN:
        often = [(word, had.get(word, 0), n) for word, n in asked.most(len(asked)) if n >= least]
        if len(often) >= 10:
            return least, sorted(often, key=lambda each: (-each[1] / each[2], -each[2], each[0]))
    return 0, []


def _run(survey: Survey, run: Mapping[str, Any]) -> Cells:
    units, seconds, waited = (_number(run, name) for name in ("units", "seconds", "waited"))
    busy = _number(run, "worked") + waited
    known = "pairs" in run or (len(survey.runs) == 1 and units == survey.units)
    pairs = _number(run, "pairs") if "pairs" in run else survey.told.pairs.entered
    return (
        one_line(run.get("ended", NOT_RECORDED)),
        f"{units:g}",
        f"{pairs:,.0f}" if known else f"at most {units * int(survey.settings['unit']):,.0f}",
        f"{_number(run, 'workers'):g}",
        _time(seconds),
        f"{pairs / seconds:,.2f}" if known and seconds else "–",
        f"{waited / busy:.0%}" if busy else "–",
        f"{_number(run, 'quarantined'):g}",
    )


def _number(run: Mapping[str, Any], name: str) -> float:
    value = run.get(name, 0)
    return value if isinstance(value, int | float) else 0


def _time(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    if hours:
        return f"{hours:,} h {rest // 60} min"
    return f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{seconds:.1f} s"


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "–"


def _word(text: str) -> str:
    return text if text and all(c.isalnum() or c in "._-" for c in text) else json.dumps(text)


def _tables(tree: Mapping[str, Any], name: str) -> Iterator[str]:
    inner = {key: value for key, value in tree.items() if isinstance(value, Mapping)}
    own = {key: value for key, value in tree.items() if key not in inner and value is not None}
    if own:
        yield f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in own.items())
    for key, value in inner.items():
        yield from _tables(value, f"{name}.{key}" if name else key)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
