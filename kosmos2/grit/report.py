"""A folder of `grit build` as one HTML file, which loads nothing from anywhere.

The funnel first: how many pairs, phrases and boxes came in, went out, and why the others did not,
with examples of each reason. Then what was found, beside what is published of GRIT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import count

from kosmos2.grit import facts, figures
from kosmos2.grit.examples import Album, box_card, pair_card, record_card
from kosmos2.grit.survey import GALLERY, UNDER_THE_FLOOR, Survey
from kosmos2.grounding.page import PageItem, card, head
from kosmos2.grounding.page_assets import SCRIPT
from kosmos2.records import report as records_report
from kosmos2.records.report import chart, histograms, panel, percent, rank, section, table

SHARES = 12
"""Phrases of each list of those found most and least often."""
UNITS = 200
"""Quarantined units that are named."""
REASON = 4_000
"""Characters of the reason of a quarantined unit."""


def report(survey: Survey, album: Album) -> str:
    """Return the HTML."""
    title = f"Report of {survey.name}"
    numbers = count()

    def cards(items: Iterator[PageItem]) -> list[str]:
        return [card(next(numbers), item) for item in items]

    sections = [
        section("", "tiles", _tiles(survey)),
        section("", "", [_verdict(survey)]),
        section("The funnel", "panels thirds", _funnel(survey)),
        section("Beside GRIT", "", [_beside(survey)]),
        section("Scores", "", [_scores(survey)]),
        section("Counts and sizes", "panels", _charts(survey)),
        *_columns(survey),
        section("Phrases", "stacks", list(_phrases(survey))),
        *_dropped("Pairs that were dropped", "pairs", survey, album, cards),
        *_dropped("Boxes that were dropped", "boxes", survey, album, cards),
        *_gallery(survey, album, cards),
        section("Where it comes from", "stacks", _sources(survey)),
        section("Runs", "rows", _runs(survey)),
        section("What made it", "", [_made(survey)]),
    ]
    return f"""{head(title, records_report.STYLE + figures.STYLE)}
<body>
<header><h1>{escape(title)}</h1>
<p>{escape(_subtitle(survey))}</p>
</header>
<main>
{"".join(sections)}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _subtitle(survey: Survey) -> str:
    made = dict(facts.made_by(survey))
    return (
        f"Detector {made['detector']}, language model {made['language model']}, {made['code']}. "
        "Point at a bar for its number, at a phrase for its boxes."
    )


def _tiles(survey: Survey) -> list[str]:
    stats, pairs = survey.stats, survey.funnel.pairs
    numbers = [
        ("pairs looked at", f"{pairs.entered:,}"),
        ("records", f"{stats.records:,}"),
        ("of the pairs became records", percent(pairs.left, pairs.entered)),
        ("spans", f"{stats.spans:,}"),
        ("boxes", f"{stats.boxes:,}"),
        ("units in quarantine", f"{len(survey.quarantined):,}"),
    ]
    return [f'<div class="tile"><b>{value}</b> {name}</div>' for name, value in numbers]


def _verdict(survey: Survey) -> str:
    """Return whether the funnel balances and is what the files hold."""
    if not survey.faults:
        return (
            '<p class="verdict"><b>The funnel balances:</b> what came in went out or was dropped '
            "for a counted reason, and a recount of the files gives the same numbers. "
            f"{_missing(survey)}</p>"
        )
    lines = "".join(f"<li>{escape(each)}</li>" for each in survey.faults)
    return (
        '<div class="verdict bad"><b>The funnel does not balance,</b> so this set must not be '
        f"trusted. Build or select it again.<ul>{lines}</ul></div>"
    )


def _missing(survey: Survey) -> str:
    if not survey.missing:
        return ""
    return f"{survey.missing:,} of the source's {survey.listed:,} pairs were not looked at."


def _funnel(survey: Survey) -> list[str]:
    told = survey.told
    return [
        figures.funnel("Image–text pairs", told.pairs),
        figures.funnel("Phrases", told.phrases),
        figures.funnel("Boxes", told.boxes),
    ]


def _beside(survey: Survey) -> str:
    rows = facts.compared(survey.stats)
    inside = figures.plain(("", "here", "GRIT", "source"), rows)
    return panel("Against the published data set", "Spans and boxes of expressions.", inside)


def _scores(survey: Survey) -> str:
    linking = survey.chosen.linking
    note = (
        f"a score is: {facts.score_of(survey)}. Boxes under the floor of "
        f"{linking.floor:g} are not kept to be counted. The paper's 0.65 is for GLIP's score and "
        "says nothing about another's."
    )
    return figures.scores(survey.kept_scores, survey.dropped_scores, linking.threshold, note)


def _charts(survey: Survey) -> list[str]:
    told = [each for each in histograms(survey.stats) if each[-1].n and each[0] != "Scores"]
    return [chart(*each) for each in told]


def _columns(survey: Survey) -> list[str]:
    charts = []
    for name, spread in sorted(survey.columns.spreads.items()):
        histogram = spread.histogram()
        wide = histogram.edges[1] - histogram.edges[0] if len(histogram.edges) > 1 else 0
        axis = f"from this on, bars {wide:.6g} wide" if wide else "the only value, or near it"
        charts.append(chart(name, "numbers", axis, histogram))
    if not charts:
        return []
    left_out = survey.columns.left_out
    more = f" (others left out: {', '.join(sorted(left_out))})" if left_out else ""
    return [section(f"Columns with numbers{more}", "panels", charts)]


def _phrases(survey: Survey) -> Iterator[str]:
    yield rank("Phrases with a box", survey.found, survey.found.total)
    yield rank(
        "Last words of phrases with a box (mostly the noun)",
        survey.found_nouns,
        survey.found_nouns.total,
    )
    pairs = (
        ("Phrases", survey.asked, survey.found),
        ("Last words", survey.asked_nouns, survey.found_nouns),
    )
    for what, asked, found in pairs:
        least, ranked = facts.shares(asked, found)
        half = min(SHARES, len(ranked) // 2)
        note = f"found of asked for; of those asked for at least {least} times"
        if asked.missed or found.missed:
            note += f"; counts too low by at most {max(asked.missed, found.missed):,}"
        if half:
            yield panel(f"{what} found most often", note, _shares(ranked[:half]))
            yield panel(f"{what} found least often", note, _shares(ranked[-half:][::-1]))


def _shares(ranked: Sequence[tuple[str, int, int]]) -> str:
    return table(
        [
            f'<tr style="--long:{min(found / asked, 1):.2%}"><th scope="row">{escape(word)}</th>'
            f"<td>{found:,} of {asked:,}</td><td>{percent(found, asked)}</td></tr>"
            for word, found, asked in ranked
        ]
    )


Cards = Callable[[Iterator[PageItem]], list[str]]


def _dropped(title: str, level: str, survey: Survey, album: Album, cards: Cards) -> list[str]:
    """Return a heading and the examples of each reason, the most frequent first."""
    ledger = getattr(survey.funnel, level)
    parts = []
    for reason, n in sorted(ledger.dropped.items(), key=lambda pair: (-pair[1], pair[0])):
        shown = survey.samples.of((level, reason))
        items = (
            pair_card(each, album, survey.chosen)
            if level == "pairs"
            else box_card(each, reason, album, survey.chosen)
            for each in shown
        )
        told = f"{n:,} of {ledger.entered:,}, {percent(n, ledger.entered)}"
        if reason == UNDER_THE_FLOOR:
            told += "; these are not kept, so there is nothing to show"
        parts.append(
            f'<h3 class="reason">{escape(reason)} <span>{escape(told)}</span></h3>'
            f'<div class="few">{"".join(cards(items))}</div>'
        )
    return [section(title, "", parts)] if parts else []


def _gallery(survey: Survey, album: Album, cards: Cards) -> list[str]:
    shown = survey.samples.of((GALLERY, ""))
    items = (record_card(each, album) for each in shown)
    return [section("Some of the records", "cards thirds", cards(items))] if shown else []


def _sources(survey: Survey) -> list[str]:
    records = survey.stats.records
    return [
        rank("Licences, as the source's own column says", survey.licences, records),
        rank("Hosts of the pictures' addresses", survey.hosts, records),
    ]


def _runs(survey: Survey) -> list[str]:
    heads, rows = facts.runs(survey)
    parts = [panel("Runs that looked at pairs", facts.pace(survey), figures.plain(heads, rows))]
    if survey.quarantined:
        units = "".join(
            f"<details><summary>unit {escape(each.name)}: "
            f"{escape((each.reason.strip().splitlines() or ['no reason'])[-1][:REASON])}</summary>"
            f"<pre>{escape(each.reason[-REASON:])}</pre></details>"
            for each in survey.quarantined[:UNITS]
        )
        note = f"They failed every time, and building again tries them again. {_missing(survey)}"
        parts.append(panel(f"Units in quarantine: {len(survey.quarantined):,}", note, units))
    return parts


def _made(survey: Survey) -> str:
    rows = figures.plain(("", ""), facts.made_by(survey))
    recipe = (
        f"<details><summary>the whole recipe</summary><pre>{escape(facts.toml(survey.recipe))}"
        "</pre></details>"
    )
    return panel("Settings", facts.command(survey), rows + recipe)
