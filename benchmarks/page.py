"""Results as a page: everything on it is computed from the numbers in the JSON file beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.contest import Lane, Race
from benchmarks.names import BF16, FP32, is_ours
from benchmarks.requirements import judged, races
from benchmarks.samples import Spread
from benchmarks.tables import TABLES

Sections = Mapping[str, Any]

INTRODUCTION = """\
Ours beside transformers' Kosmos-2 (sdpa attention, key-value cache, inference mode, the same
threads) at full size: 1,664,485,376 parameters, random, the same numbers on both sides. Speed does
not depend on the values; exactness does, and random weights have none of the outliers of trained
ones, so the figures for rounding are those of a well-behaved model."""

METHOD = """\
Contestants of a table take turns in one process, round after round, each round beginning with
another. A time is the median over rounds, with quartiles; a ratio is the median over rounds of the
ratio within a round. *Limit* is the least possible time: bytes of weights and of keys and values
over the memory's read bandwidth (all threads, huge pages; read right before and after each
sample), or operations over the rate of the best matrix product in that number type (read each
round), whichever is longer, summed over stages. int8 and int4 are held to the rate of int8
products. There are up to three heats, because all contestants would not fit in 24 GB; ratios are
within a heat. *Native* are the optional C kernels; everything else is plain PyTorch. *Others* is
the share of the processors that other processes and other machines took."""


def page(results: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    sections: Sections = results["sections"]
    blocks = ["# Speed, memory and exactness, measured", INTRODUCTION, *_facts(sections)]
    blocks += ["## What was required", markdown(REQUIREMENT_HEADER, judged(sections))]
    for table in TABLES:
        if table.name in sections:
            blocks += [f"## {table.title}", f"{table.setting[0].upper()}{table.setting[1:]}."]
            blocks += _heats(sections, table.name)
    for name, render in EXTRA.items():
        if name in sections:
            blocks += render(sections[name])
    return "\n\n".join([*blocks, "## How it was measured", METHOD]) + "\n"


def terminal(name: str, sections: Sections) -> str:
    """Return one section as it is printed when it is done."""
    if name in EXTRA:
        return "\n\n".join(EXTRA[name](sections[name]))
    table = next(table for table in TABLES if table.name == name)
    return "\n\n".join([f"## {table.title}: {table.setting}", *_heats(sections, name)])


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; all columns but the first to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


REQUIREMENT_HEADER = ("", "compared with", "needed", "measured (quartiles)", "")
RACE_HEADER = ("", "ms", "quartiles", "× faster than fp32", "than bf16", "limit, ms", "share")


def _heats(sections: Sections, name: str) -> list[str]:
    blocks = []
    for race in races(sections, name):
        blocks += [markdown(RACE_HEADER, _race(race)), _conditions(race)]
    return blocks


def _race(race: Race) -> list[list[str]]:
    return [_lane(race, lane) for lane in race.lanes]


def _lane(race: Race, lane: Lane) -> list[str]:
    time, share = lane.spread, race.share(lane)
    return [
        f"**{lane.name}**" if is_ours(lane.name) else lane.name,
        _milliseconds(time.median),
        f"{_milliseconds(time.low)} – {_milliseconds(time.high)}",
        *(_ratio(race.ratio(peer, lane.name)) for peer in (FP32, BF16)),
        _milliseconds(share.median * time.median),
        _percent(share.median),
    ]


def _conditions(race: Race) -> str:
    bandwidth = race.bandwidth
    said = [
        f"{len(race.lanes[0].seconds)} rounds",
        f"bandwidth {bandwidth.median / 1e9:.1f} GB/s "
        f"({bandwidth.low / 1e9:.1f} – {bandwidth.high / 1e9:.1f})",
    ]
    if race.rates:
        rates = race_rates(race)
        said.append(", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in rates.items()) + " G/s")
    return "; ".join([*said, f"others {_percent(race.others)}."])


def race_rates(race: Race) -> dict[str, float]:
    """Return the median rate of each number type, operations a second."""
    return {name: sorted(values)[len(values) // 2] for name, values in race.rates.items()}


def _facts(sections: Sections) -> list[str]:
    """Return how to repeat it, and the machine; sections measured at another commit are named."""
    stamps = {name: section["stamp"] for name, section in sections.items()}
    first = next(iter(stamps.values()))
    lines = [
        f"- {first['processor']}, {first['cores']} cores, {first['memory_gb']:g} GB; "
        f"{', '.join(first['features'])}",
        f"- {first['threads']} threads; torch {first['torch']}, transformers "
        f"{first['transformers']}, Python {first['python']}",
        f"- native kernels: {first['native']}",
        f"- environment: {', '.join(first['settings']) or 'nothing set'}",
        f"- commit {first['commit']}, {first['date']}",
    ]
    lines += [
        f"- {name}: commit {stamp['commit']}, {stamp['date']}"
        for name, stamp in stamps.items()
        if stamp["commit"] != first["commit"]
    ]
    return ["```bash\nmake bench\n```", "\n".join(lines)]


def _growth(section: Mapping[str, Any]) -> list[str]:
    blocks = [
        "## How it grows",
        "Straight lines through the points marked *fit*, held against the others.",
    ]
    for line in section["lines"]:
        terms = " + ".join(
            f"{value:.4g} ms" + (f" × {name}" if name else "")
            for name, value in line["terms"].items()
        )
        rows = [
            [
                ", ".join(map(str, point["point"])),
                f"{point['measured']:.1f}",
                f"{point['predicted']:.1f}",
                _percent(point["predicted"] / point["measured"] - 1),
                "**held out**" if point["held_out"] else "fit",
            ]
            for point in line["points"]
        ]
        header = (", ".join(line["inputs"]), "measured, ms", "line, ms", "off by", "")
        blocks += [f"{line['contestant']}, {line['growth']}: {terms}.", markdown(header, rows)]
    return [*blocks, f"Others {_percent(section['others'])}."]


def _exactness(section: Mapping[str, Any]) -> list[str]:
    header = (
        "", "relative error", "same first choice", "first choice in top 5", "its worst rank", "KL",
    )  # fmt: skip
    rows = [
        [
            row["name"],
            f"{row['error']:.4f}",
            _percent(row["top1"], 1),
            _percent(row["top5"], 1),
            str(row["worst_rank"]),
            f"{row['divergence']:.2g}",
        ]
        for row in section["agreement"]
    ]
    count = section["agreement"][0]["positions"] if rows else 0
    blocks = [
        "## Exactness at full size",
        f"Logits beside those of transformers fp32 at {count} positions behind pictures, random "
        "text; each precision also encodes the pictures. KL in nats.",
        markdown(header, rows),
    ]
    if same := section.get("tokens"):
        blocks += [
            "Greedy tokens of a caption that are equal before the first that is not: "
            + ", ".join(
                f"{each['ours']} and {each['peer']} {each['same']} of {each['of']}" for each in same
            )
            + "."
        ]
    return blocks


def _memory(section: Mapping[str, Any]) -> list[str]:
    header = ("", "peak, GB", "loading, s", "first caption of 16 tokens, s", "file, GB")
    rows = [
        [
            row["name"],
            f"{row['peak']:.2f}",
            f"{row['load']:.1f}",
            f"{row['caption']:.1f}",
            f"{row['file']:.2f}",
        ]
        for row in section["rows"]
    ]
    return [
        "## Memory and loading",
        "Each in a fresh process: loads its folder, encodes a picture, writes 16 tokens. The peak "
        "is that of the whole process (VmHWM), pages of mapped files included. Files were written "
        "just before, so they come from the page cache.",
        markdown(header, rows),
    ]


def _scenes(section: Mapping[str, Any]) -> list[str]:
    precisions = list(section["precisions"])
    blocks = [
        "## Exactness on scenes",
        f"The embedded model in each precision, {section['count']} scenes of each split, by "
        "`kosmos2 eval scenes`:",
        f"```bash\n{section['command']}\n```",
    ]
    for split in section["splits"]:
        rows = [
            [title, *(_percent(section["precisions"][p][split][key], 1) for p in precisions)]
            for key, title in section["titles"].items()
        ]
        blocks.append(markdown((f"**{split}**", *precisions), rows))
    return blocks


EXTRA: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "growth": _growth,
    "memory": _memory,
    "exactness": _exactness,
    "scenes": _scenes,
}


def _milliseconds(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(ratio: Spread | None) -> str:
    return f"{ratio.median:.2f}" if ratio else ""


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"
