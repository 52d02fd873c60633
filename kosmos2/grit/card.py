"""The data card of a folder of `grit build`: Markdown with YAML on top, as hubs show it.

It says what is known from the folder itself and from the columns of its source, and "unknown" or
"not recorded" of the rest. What others wrote (licences, hosts, reasons) never becomes markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from kosmos2.errors import one_line
from kosmos2.grit import facts
from kosmos2.grit.steps import LEVELS
from kosmos2.grit.survey import UNKNOWN, Survey
from kosmos2.records.report import percent
from kosmos2.records.stats import Tally

MARK = "<!-- kosmos2 grit report writes this file again; without this line, it does not -->"
LISTED = 30
"""Licences and hosts that are named."""
LICENCES = (
    "apache-2.0", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc0-1.0", "mit", "ms-pl", "odbl", "odc-by", "pddl",
)  # fmt: skip
"""Names of licences that a card's `license` may have; others go under "other" with their name."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"),
         (10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))  # fmt: skip


def card(survey: Survey) -> str:
    """Return the Markdown."""
    parts = (
        _front(survey),
        _opening(survey),
        _made(survey),
        _counts(survey),
        _sources(survey),
        _limits(survey),
        _loading(),
        _reference(),
        MARK,
    )
    return "\n\n".join(parts) + "\n"


def escaped(text: object) -> str:
    """Return a text on one line in which nothing is a tag, a mark, a link or a cell's end.

    For the middle of a line: what has a meaning only where a line begins stays as it is.
    """
    line = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|~$@])", r"\\\1", line)
    return re.sub(r"(?i)(://|www\.)", lambda found: f"{found[1][:-1]}\\{found[1][-1]}", line)


def _front(survey: Survey) -> str:
    fields: list[tuple[str, object]] = [
        ("pretty_name", one_line(survey.name)),
        *_licence(survey.licences),
    ]
    language = survey.recipe.filters.language
    if language:
        fields.append(("language", [language]))
    fields += [
        ("tags", ["grounding", "phrase-grounding", "grit", "kosmos-2"]),
        ("size_categories", [_size(survey.stats.records)]),
        ("configs", [{"config_name": "default", "data_files": "records.jsonl"}]),
    ]
    return "\n".join(("---", *(f"{name}: {_yaml(value)}" for name, value in fields), "---"))


def _yaml(value: object) -> str:
    """Return a value as JSON, which is YAML; what others wrote without the beginning of a tag."""
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("<", "\\u003c") if isinstance(value, str) else text


def _licence(licences: Tally) -> list[tuple[str, object]]:
    """Return `license`, and its name where it is none of the known ones or one of several."""
    named = licences.most(2)
    if len(licences) > 1 or licences.missed:
        return [("license", "other"), ("license_name", "several-see-the-card")]
    if not named or named[0][0] == UNKNOWN:
        return [("license", UNKNOWN)]
    if named[0][0].lower() in LICENCES:
        return [("license", named[0][0].lower())]
    return [("license", "other"), ("license_name", named[0][0])]


def _size(records: int) -> str:
    return next((name for limit, name in SIZES if records < limit), "n>1T")


def _opening(survey: Survey) -> str:
    stats = survey.stats
    verdict = (
        "The funnel below balances, and a recount of the files gives the same numbers."
        if not survey.faults
        else "**The funnel does not balance, so this set must not be trusted:** "
        + "; ".join(map(escaped, survey.faults))
    )
    return (
        f"# {escaped(survey.name)}\n\n"
        f"Pictures with captions whose phrases have boxes: {stats.records:,} records, "
        f"{stats.spans:,} spans, {stats.boxes:,} boxes, made by `kosmos2 grit build` from "
        f"image–text pairs as GRIT was made. No person has looked at the boxes.\n\n{verdict} "
        "`report.html` beside this file shows all of it with examples."
    )


def _made(survey: Survey) -> str:
    rows = [(escaped(name), escaped(text)) for name, text in facts.made_by(survey)]
    recipe = _fenced(facts.toml(survey.recipe), "toml")
    return (
        f"## What made it\n\n{_fenced(facts.command(survey), 'bash')}\n\n{_table(('', ''), rows)}"
        f"\n\nwith `recipe.toml`:\n\n{recipe}"
    )


def _counts(survey: Survey) -> str:
    compared = [tuple(map(escaped, row)) for row in facts.compared(survey.stats)]
    quarantined = len(survey.quarantined)
    units = f"{survey.units:,} units are done, {quarantined:,} failed every time."
    if survey.missing:
        units += f" {survey.missing:,} of the source's {survey.listed:,} pairs were not looked at."
    return (
        f"## Counts\n\n{_table(('', 'here', 'GRIT', 'source'), compared)}\n\n"
        f"### The funnel\n\n{_table(('', 'in', 'out', 'dropped', 'because'), _funnel(survey))}\n\n"
        f"{units} {facts.pace(survey)}."
    )


def _funnel(survey: Survey) -> Iterator[Sequence[str]]:
    for level in LEVELS:
        ledger = getattr(survey.told, level)
        dropped = f"{ledger.dropped.total():,}"
        yield level, f"{ledger.entered:,}", f"{ledger.left:,}", dropped, ""
        for reason, n in sorted(ledger.dropped.items(), key=lambda pair: (-pair[1], pair[0])):
            if n:
                yield "", "", "", f"{n:,}", escaped(reason)


def _sources(survey: Survey) -> str:
    records = survey.stats.records
    source = str(survey.settings.get("input", UNKNOWN)).rpartition("/")[2]
    return (
        "## Licences and provenance\n\n"
        f"The pairs were read from `{_code(source)}`. Nobody has checked what its columns say. "
        "Pictures and captions belong to whoever made them; the boxes were computed.\n\n"
        "What the source's own licence column (`license`, `licence`) says of the records:\n\n"
        f"{_tallied('licence', survey.licences, records)}\n\n"
        "Hosts of the pictures' addresses, where the source has a `url`:\n\n"
        f"{_tallied('host', survey.hosts, records)}"
    )


def _tallied(what: str, tally: Tally, whole: int) -> str:
    ranked = tally.most(LISTED)
    rows = [(escaped(word), f"{n:,}", percent(n, whole)) for word, n in ranked]
    more = f"\n\nand {len(tally) - len(ranked):,} more." if len(tally) > len(ranked) else ""
    off = f" Counts are too low by at most {tally.missed:,}." if tally.missed else ""
    return _table((what, "records", ""), rows) + more + off


def _limits(survey: Survey) -> str:
    linking = survey.chosen.linking
    made = dict(facts.made_by(survey))
    return f"""## Known limits

- The boxes are those of one detector ({escaped(made["detector"])}) and have its faults: things that
  it does not know have no box, and it may be sure and wrong. Nothing here says how often.
- A score is: {escaped(facts.score_of(survey))}.
  It is no probability, and comparable only with scores of the same detector and weights. The
  threshold ({linking.threshold:g}) is in its units; the paper's 0.65 is for GLIP.
- Phrases come from a parser ({escaped(made["language model"])}); where it errs, spans are wrong.
- A phrase without a box need not be absent from its picture: its box may have been dropped."""


def _loading() -> str:
    return """## Loading

```python
from pathlib import Path

from kosmos2.records.store import read

for record in read(Path("records.jsonl")):
    print(record.caption, record.grounded("ref_exps").phrases)
```

`noun_chunks` and `ref_exps` are lists of `[start, end, x0, y0, x1, y1, score]`: characters of the
caption with the end exclusive, corners as shares of the picture. Paths in `image` and `shard`
start from the folder of this file. Other layouts:

```bash
kosmos2 records formats
kosmos2 records convert records.jsonl set.jsonl --to odvg
```"""


def _reference() -> str:
    return """## Reference

The method is that of GRIT: Peng, Wang, Dong, Hao, Huang, Ma and Wei, *Kosmos-2: Grounding
Multimodal Large Language Models to the World*, 2023, arXiv 2306.14824, section 2."""


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    """Return cells, escaped before, as a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(text: str, kind: str) -> str:
    """Return a block of code that nothing in it can end."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}{kind}\n{text.rstrip()}\n{ticks}"


def _code(text: str) -> str:
    return one_line(text).replace("`", "'")
