"""The page of the data-set builder: everything on it is computed from the JSON file beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import grit_drivers, grit_quality, grit_scale
from benchmarks.page import markdown
from benchmarks.samples import spread

CHART, SHEET = "grit-threshold.svg", "grit-scenes.png"
LANGUAGE_SHARE = 0.9
GROWTH = 0.1
"""By which a peak may grow from the fewest pairs to the most and still be called flat."""
GPU_NOTE = """\
Not measured: no GPU was lent. `make bench-grit-gpu` (`python -m benchmarks.grit_gpu`) measures
pictures a second and the share of time in which the GPU is busy, for a network of the size of
Grounding-DINO-T with random weights, fp16, 800 pixels; goals are 24 pictures/s on a card of an
A100's class and 56 on an H100. Its code was walked here over a toy on the CPU
(`--tiny --device cpu`)."""

Sections = Mapping[str, Any]


def page(sections: Sections) -> str:
    """Return the page as Markdown."""
    blocks = ["# The data-set builder, measured", *_facts(sections)]
    rows = [row for judge in REQUIRED for row in judge(sections)]
    blocks += [
        "## What was required",
        markdown(("", "needed", "measured", ""), rows),
    ]
    for name, (title, render) in PARTS.items():
        if name in sections:
            blocks += [f"## {title}", *render(sections[name])]
            blocks.append(f"Others on the machine: {sections[name]['others']:.0%} of its time.")
    if {"drivers", "rate", "memory"} <= sections.keys():
        blocks += ["## A hundred million pictures, on paper", *_scale(sections)]
    blocks += ["## On a GPU", GPU_NOTE, "## Commands", _commands(sections)]
    return "\n\n".join(blocks) + "\n"


def _facts(sections: Sections) -> list[str]:
    stamps = {name: each["stamp"] for name, each in sections.items()}
    first = next(iter(stamps.values()))
    lines = [
        f"- {first['processor']}, {first['cores']} cores, {first['memory_gb']:g} GB; no GPU",
        f"- Python {first['python']}, torch {first['torch']}, native kernels: {first['native']}",
    ]
    lines += [f"- {name}: commit {each['commit']}, {each['date']}" for name, each in stamps.items()]
    return [
        "`benchmarks/grit.py` on a machine that others shared; their part stands with each table.",
        "\n".join(lines),
    ]


def _commands(sections: Sections) -> str:
    commands = "\n".join(each["command"] for each in sections.values())
    return f"```bash\n{commands}\n```"


# --- what was required


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def _verdict_of_range(share: Sequence[float]) -> str:
    median, low, _ = share
    if low < LANGUAGE_SHARE <= median:
        return "met by the median, not by the lower quartile"
    return _verdict(median >= LANGUAGE_SHARE)


def _need_language(sections: Sections) -> list[list[str]]:
    sets = sections.get("language", {}).get("sets", {})
    return [
        [
            f"language step beside bare `nlp.pipe`, {name}",
            f"≥ {LANGUAGE_SHARE:.0%} of its captions/s",
            _range(found["share"]),
            _verdict_of_range(found["share"]),
        ]
        for name, found in sets.items()
    ]


def _need_drivers(sections: Sections) -> list[list[str]]:
    return [
        [
            f"framework, driver {each['driver']}",
            f"≤ {grit_drivers.ALLOWED:.0%} of a unit of {grit_drivers.SHARD:.0f} s",
            f"{each['share']:.3%}",
            _verdict(each["share"] <= grit_drivers.ALLOWED),
        ]
        for each in sections.get("drivers", {}).get("drivers", ())
    ]


def _need_memory(sections: Sections) -> list[list[str]]:
    rows = sections.get("memory", {}).get("rows", ())
    if len(rows) < 2:
        return []
    first, last = rows[0], rows[-1]
    said = []
    for name, one, other in (
        ("build", first["peak"], last["peak"]),
        ("select", first["select"]["peak"], last["select"]["peak"]),
    ):
        grown = other / one - 1
        said.append(
            [
                f"peak memory of `grit {name}`, {first['pairs']:,} to {last['pairs']:,} pairs",
                f"flat (read as ≤ {GROWTH:+.0%})",
                f"{grown:+.1%}",
                _verdict(grown <= GROWTH),
            ]
        )
    return said


def _need_gpu(sections: Sections) -> list[list[str]]:
    return [["detector on a GPU", "≥ 24 pictures/s (A100), ≥ 56 (H100)", "not measured", "open"]]


REQUIRED: Sequence[Callable[[Sections], list[list[str]]]] = (
    _need_language, _need_drivers, _need_memory, _need_gpu,
)  # fmt: skip


# --- parts


def _language(section: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            name,
            f"{found['words']:.1f}",
            f"{found['rates']['bare']:,.0f}",
            f"{found['rates']['ours']:,.0f}",
            _range(found["share"]),
        ]
        for name, found in section["sets"].items()
    ]
    found = next(iter(section["sets"].values()))
    return [
        "Captions to phrases with their expressions (`Parser.parse` and `phrases`) beside bare "
        "`nlp.pipe` of the same pipeline object, which makes no noun chunks. Both take turns in "
        f"one process, {found['rounds']} rounds of a batch of {found['captions']}; captions per "
        "second of one core's time. The share is the median over rounds, with quartiles. Captions "
        "that are varied have one word of another in each.",
        markdown(("", "words", "bare, /s", "ours, /s", "share (quartiles)"), rows),
        f"Pipeline: {found['model']}, without ner.",
    ]


def _drivers(section: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            each["driver"],
            f"{each['unit']:.3f}",
            f"{each['plain']:.3f}",
            _milliseconds(each["beyond"]),
            f"{each['share']:.3%}",
            f"{each['start']:.2f}",
            str(each["rounds"]),
        ]
        for each in section["drivers"]
    ]
    header = (
        "driver", "a unit, s", "plain loop, s", "beyond it, ms (quartiles)", "of 60 s", "start, s",
        "rounds",
    )  # fmt: skip
    return [
        f"A worker that reads, hashes and writes {grit_drivers.PAIRS:,} pairs of a unit (a minute "
        "of a detector at 24 pictures/s), no detector. A plain loop calls the same `prepare` and "
        "`run`; beside two workers there are two such loops at once. A unit's time is the "
        f"difference between {grit_drivers.MANY} and {grit_drivers.FEW} units, so that starting "
        "(processes, imports, for Ray its daemons) is apart. What a driver adds: units travel to "
        "processes, files are hashed and forced to the disk, a marker is written.",
        markdown(header, rows),
    ]


def _rate(section: Mapping[str, Any]) -> list[str]:
    stages = section["stages"]
    whole = sum(stages.values())
    rows = [
        [name, f"{1e3 * seconds:.3f}", f"{seconds / whole:.0%}"] for name, seconds in stages.items()
    ]
    wall, core = spread(section["wall"]), spread(section["core"])
    return [
        f"`grit build` with the driver local and the oracle on {section['pictures']}, captions of "
        f"scenes: **{core.median:.0f} pairs/s per core** ({core.low:.0f} – {core.high:.0f}; pairs "
        f"over the processor's seconds), {wall.median:.0f} pairs/s by the clock on "
        f"{section['stamp']['cores']} cores. Loading and imports are left out, as a difference of "
        "two runs; records are chosen and written, too.",
        "Stages called one after the other, in a thread, processor's time:",
        markdown(("", "ms a pair", "share"), [*rows, ["together", f"{1e3 * whole:.3f}", ""]]),
    ]


def _memory(section: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            f"{row['pairs']:,}",
            f"{row['peak']:.3f}",
            f"{row['select']['peak']:.3f}",
            f"{row['pairs'] / row['seconds']:,.0f}",
            f"{row['select']['seconds']:.1f}",
        ]
        for row in section["rows"]
    ]
    disk = section["rows"][-1]["disk"]
    return [
        "Pairs of tiny pictures (256 files that come again and again), the oracle, the driver "
        "local, each in a process of its own. Captions are short (`An image of x17d`), so that "
        "200,000 take minutes with the real parser, and each has a word that no other has: bare "
        "spaCy would keep all of these.",
        "Of the growth of build, the 20,000 words that the parser keeps are a part; what a "
        "longer run adds was not looked into further.",
        markdown(("pairs", "peak of build, GB", "of select, GB", "pairs/s", "select, s"), rows),
        f"On the disk, a pair: {disk['list']:.0f} bytes in the list, {disk['looked']:.0f} in what "
        f"was found (compressed), {disk['records']:.0f} in the records; a unit: "
        f"{disk['inodes']:.0f} inodes, a marker of {disk['marker']:.0f} bytes. A run that looks "
        f"for duplicates also remembers {section['hash_bytes']['0']:.0f} bytes a picture for equal "
        f"hashes and {section['hash_bytes']['4']:.0f} for those within 4 bits: that grows.",
    ]


def _quality(section: Mapping[str, Any]) -> list[str]:
    header = ("", "precision", "recall", "F1", "pairs said", "pairs true")
    rows = [
        _shares(name, section[key])
        for name, key in (
            ("oracle", "oracle"),
            (f"embedded model, threshold {section['default']:g}", "embedded"),
        )
    ]
    sweep = section["sweep"]
    top = grit_quality.best(sweep)
    steps = [
        [
            f"{row['threshold']:.2f}", f"{row['precision']:.1%}" if row["said"] else "–",
            f"{row['recall']:.1%}", f"{row['f1']:.3f}", f"{row['said']:,}", f"{row['records']:,}",
        ]
        for row in sweep
    ]  # fmt: skip
    seconds = spread([row["seconds"] for row in sweep]).median
    return [
        f"{section['scenes']:,} scenes of the split iid (drawn as those the embedded model was "
        "trained on, but none of them), their captions stripped of every annotation, through "
        "`kosmos2 grit build`. " + _rule(),
        markdown(header, rows),
        _losses(section["oracle"]["funnel"], section["embedded"]["funnel"]),
        f"`grit select` at every threshold, {seconds:.1f} s each; the highest F1 is at "
        f"{top['threshold']:g}.",
        f"![precision, recall and F1 against the threshold]({CHART})",
        markdown(("threshold", "precision", "recall", "F1", "pairs", "records"), steps),
        "What is missed and what is wrong, seen on the pictures below and not counted: things of a "
        "group that the model does not box (boxes it is unsure of go at the threshold), and noun "
        'chunks that name no thing of their own, such as "the right" in "to the right of" or '
        '"coffee" in "a cup of coffee".',
        "Scenes are drawings of nouns that the model knows: on photographs it is of no use, and "
        "these figures say nothing of a detector for them.",
        f"![scenes with right, wrong and missed boxes]({SHEET})",
        "Above, the first scenes in which all is right; below, the first in which something is "
        "not. Green: right; red: wrong; yellow: of the truth, missed. Chosen by order, not by eye.",
    ]


def _rule() -> str:
    return (
        "A *pair* is a noun chunk of the caption and a box. One of a record is right if the truth "
        "has a pair whose chunk shares a character of the caption with it and whose box has IoU ≥ "
        f"{grit_quality.SAME} with it; the surest choose first, and each of the truth's is used "
        "once. Recall counts the scenes that gave no record."
    )


def _shares(name: str, found: Mapping[str, Any]) -> list[str]:
    return [
        name,
        _with_range(found["precision"], found["precision_range"]),
        _with_range(found["recall"], found["recall_range"]),
        f"{found['f1']:.3f}",
        f"{found['said']:,}",
        f"{found['true']:,}",
    ]


def _losses(oracle: Mapping[str, int], embedded: Mapping[str, int]) -> str:
    said = []
    for name, funnel in (("oracle", oracle), ("embedded model", embedded)):
        reasons = [
            f"{count:,} {level} {key.removeprefix(f'{level}.dropped.')}"
            for level in ("phrases", "boxes")
            for key, count in funnel.items()
            if key.startswith(f"{level}.dropped.") and count
        ]
        said.append(f"{name}: {', '.join(reasons)}")
    return f"What was dropped on the way, {'; '.join(said)}. In brackets: 95 % intervals (Wilson)."


# --- on paper


def _scale(sections: Sections) -> list[str]:
    known = grit_scale.Constants.of(sections)
    layouts = [grit_scale.layout(known, rate) for rate in grit_scale.RATES]
    files = [
        [
            f"{each.rate}/s", f"{each.unit_pairs:,}", f"{each.units:,}", f"{each.units:,}",
            f"{each.inodes:,.0f}", f"{each.bytes_on_disk / 1e9:.0f} GB",
            f"{grit_scale.cores_for(known, each.rate):.2f}",
        ]
        for each in layouts
    ]  # fmt: skip
    times = []
    for rate in grit_scale.RATES:
        runs = [grit_scale.run(known, rate, gpus) for gpus in grit_scale.GPUS]
        busy = f"{runs[-1].driver_busy:.1%}"
        times.append([f"{rate}/s", *(_time(each.looking) for each in runs), busy])
    return [
        f"{grit_scale.PAIRS:,} pairs; units of a minute of one GPU. Arithmetic over the constants "
        "measured above, on these two cores; nothing of this size was run.",
        markdown(
            ("a GPU", "pairs a unit", "units", "markers", "inodes", "disk", "cores a GPU"), files
        ),
        markdown(
            ("a GPU", *(f"{gpus} GPUs" for gpus in grit_scale.GPUS), "driver busy at most"), times
        ),
        "Busy at most: as if all that a unit of the pool takes beyond the plain loop, the worker's "
        "own part and the waiting included, were the one driver's. "
        f"The driver's process: {grit_scale.driver_memory(known) / 1e9:.1f} GB if what grew from "
        "the fewest to the most pairs above went on growing (its base is parser and detector, "
        "which a driver with workers elsewhere does not load). "
        f"Hashes of all pictures, only where duplicates are to be found: "
        f"{grit_scale.hashes(known) / 1e9:.0f} GB; within 4 bits the last picture would be "
        f"compared with {grit_scale.compared(4):,.0f} others, which is too slow at this size. "
        "Choosing records is one process: "
        f"{_time(grit_scale.choosing(known))} for all, so thresholds at this size are "
        "tried on a part. Writing the list of pairs, which also is one process, is not in this.",
    ]


# --- words


PARTS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], list[str]]]] = {
    "language": ("Captions into phrases", _language),
    "drivers": ("What a run costs beside a plain loop", _drivers),
    "rate": ("From end to end", _rate),
    "memory": ("Memory and the number of pairs", _memory),
    "quality": ("Right and wrong, where there is a truth", _quality),
}


def _range(share: Sequence[float]) -> str:
    median, low, high = share
    return f"{median:.1%} ({low:.1%} – {high:.1%})"


def _with_range(value: float, bounds: Sequence[float]) -> str:
    return f"{value:.1%} [{bounds[0]:.1%}, {bounds[1]:.1%}]"


def _milliseconds(seconds: Sequence[float]) -> str:
    median, low, high = (1e3 * each for each in seconds)
    return f"{median:.1f} ({low:.1f} – {high:.1f})"


def _time(seconds: float) -> str:
    if seconds >= 2 * grit_scale.DAY:
        return f"{seconds / grit_scale.DAY:.1f} days"
    return f"{seconds / grit_scale.HOUR:.1f} h"
