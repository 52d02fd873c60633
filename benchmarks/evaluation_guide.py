"""docs/evaluation.md: what can be evaluated, by which protocol, with which data.

    python -m benchmarks.evaluation_guide    writes the page

Versions, protocols, readers of answers, metrics, splits, differences and published numbers come
from the registry and from `kosmos2.evaluation.published`; a test compares the page with them. What
no code knows, where data comes from and how its files lie, stands in `evaluation_data`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from benchmarks.evaluation_data import ABOUT, BESIDE, OPENING, PAPER, About
from benchmarks.evaluation_page import escaped
from benchmarks.machine import ROOT
from benchmarks.page import markdown
from kosmos2.evaluation.benchmark import Benchmark
from kosmos2.evaluation.published import printed, published
from kosmos2.evaluation.registry import BENCHMARKS

PAGE = ROOT / "docs" / "evaluation.md"
OF_THE_PAPER = "Kosmos-2"


def page() -> str:
    """Return the page as Markdown."""
    blocks = [OPENING.strip(), _overview(), PAPER.strip()]
    for name, benchmark in BENCHMARKS.items():
        blocks += _section(benchmark, ABOUT[name])
    blocks += [BESIDE.strip()]
    return "\n\n".join(blocks) + "\n"


def _overview() -> str:
    """Return the one table: a line for each benchmark."""
    header = ("name", "benchmark", "version", "asked", "counted first", "published, Kosmos-2")
    rows = [
        (
            f"`{name}`",
            benchmark.title,
            str(benchmark.version),
            escaped(benchmark.protocol.partition(";")[0].removeprefix("prompt ")),
            benchmark.titles[benchmark.headline],
            _published_shortly(benchmark),
            ABOUT[name].shortly,
            f"`kosmos2 eval {name} --data {ABOUT[name].folder}`",
        )
        for name, benchmark in BENCHMARKS.items()
    ]
    return _table((*header, "data", "run"), rows)


def _section(benchmark: Benchmark, about: About) -> list[str]:
    facts = [
        f"- **Protocol**, version {benchmark.version}: {escaped(benchmark.protocol)}.",
        f"- **Counted**: {'; '.join(benchmark.titles.values())}.",
        f"- **Splits**, sentences of the whole: {_splits(benchmark)}.",
    ]
    if benchmark.options is None:
        facts.insert(1, f"- **Read**: {_first_sentence(benchmark.parse)}")
    if benchmark.decoding:
        facts.append(f"- **Decoding**: {', '.join(f'`{each}`' for each in benchmark.decoding)}.")
    facts += [f"- **Differs**: {escaped(each)}." for each in benchmark.differences]
    facts.append(f"- **Data**: {about.data}")
    files = "\n".join(about.files)
    commands = "\n".join(about.commands)
    blocks = [
        f"## {benchmark.name}: {benchmark.title}",
        "\n".join(facts),
        f"```text\n{files}\n```",
        f"```bash\n{commands}\n```",
    ]
    if told := _published(benchmark):
        header = ("published", "numbers", *benchmark.splits, "trained on it", "source")
        blocks.append(_table(header, told))
    return blocks


def _splits(benchmark: Benchmark) -> str:
    told = (f"{split} {count:,}" for split, count in benchmark.splits.items())
    return ", ".join(told) or "none is published (--own-data)"


def _published_shortly(benchmark: Benchmark) -> str:
    """Return what the paper's model reached, split by split, by the metric that comes first."""
    by_note: dict[str, dict[str, str]] = {}
    for split in benchmark.splits:
        for each in published(benchmark.name, split):
            number = each.numbers.get(benchmark.headline)
            if each.model == OF_THE_PAPER and number is not None:
                by_note.setdefault(each.note.partition(";")[0], {})[split] = printed(number)
    told = []
    for note, numbers in by_note.items():
        behind = f" ({note})" if note else ""
        if len(numbers) == len(benchmark.splits) and len(set(numbers.values())) == 1:
            told.append(next(iter(numbers.values())) + behind)
        else:
            told += [f"{split} {number}{behind}" for split, number in numbers.items()]
    return ", ".join(told)


def _published(benchmark: Benchmark) -> list[tuple[str, ...]]:
    """Return the rows of what is published, one for each source, its splits beside each other."""
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for split in benchmark.splits:
        for each in published(benchmark.name, split):
            names = " / ".join(_metric(name, benchmark) for name in each.numbers)
            trained = "yes" if each.trained_on_it else "no"
            source = each.source + (f"; {each.note}" if each.note else "")
            numbers = " / ".join(printed(number) for number in each.numbers.values())
            cells.setdefault((each.model, names, trained, source), {})[split] = numbers
    return [
        (model, names, *(found.get(split, "") for split in benchmark.splits), trained, source)
        for (model, names, trained, source), found in cells.items()
    ]


def _metric(metric: str, benchmark: Benchmark) -> str:
    name, _, kind = metric.partition(" ")
    return kind or benchmark.titles[name]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of words: all columns to the left."""
    first, _, *lines = markdown(header, rows).split("\n")
    return "\n".join([first, "| --- " * len(header) + "|", *lines])


def _first_sentence(function: object) -> str:
    words = (function.__doc__ or "").strip().partition("\n")[0].removeprefix("Return ")
    return words if words.endswith(".") else f"{words}."


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"written: {PAGE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
