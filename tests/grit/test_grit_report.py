"""The report of a built folder: every number a recount of the files, every reason with a picture,
what people wrote never markup, the same bytes every time.
"""

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from kosmos2 import config
from kosmos2.boxes import Box
from kosmos2.cli import app
from kosmos2.errors import ConfigError, RecordError
from kosmos2.grit import card, facts
from kosmos2.grit.build import FUNNEL, RECORDS, RUNS, select
from kosmos2.grit.linking import Candidate
from kosmos2.grit.measures import Measured
from kosmos2.grit.outcomes import Outcome, lost
from kosmos2.grit.phrases import Phrase
from kosmos2.grit.recipe import Detection, Filters, GritRecipe, Linking, Quality
from kosmos2.grit.reporting import CARD, REPORT, write
from kosmos2.grit.select import Selection
from kosmos2.grit.spread import SHOWN, Spread
from kosmos2.grit.steps import LEVELS, Discarded, Funnel, Looked
from kosmos2.grit.survey import Samples, Wish, survey
from kosmos2.grit.worker import LOOKED
from kosmos2.records.record import GroundedRecord
from kosmos2.records.stats import Tally
from kosmos2.shards import JobFolder
from kosmos2.shards.folder import seal
from kosmos2.sources.inputs import write_list
from kosmos2.sources.places import Place
from kosmos2.sources.rows import Item

COUNT, UNIT = 40, 8
BAD, SILENT, TWIN = 4, 6, 9
"""Pairs without a picture, without a caption, and one whose picture is that of the pair before."""
HOSTILE = '</p><script>alert(1)</script><img src=x onerror=alert(1)>"|`[a](javascript:x)'
RECIPE = GritRecipe(
    linking=Linking(nms_iou=0.5, threshold=0.5, contained="drop", boxes_per_phrase=2),
    filters=Filters(duplicate_bits=0, min_round_trip=0.2),
    quality=Quality(round_trip="embedded"),
)


def candidates(draw: random.Random) -> tuple[Candidate, ...]:
    def one() -> Candidate:
        x, y = draw.choice([0.0, 0.05, 0.3, 0.6]), draw.choice([0.0, 0.1, 0.5])
        box = Box(x, y, round(x + 0.4, 6), round(y + 0.4, 6))
        score = draw.choice([0.0, 0.5, 0.8, round(draw.random(), 4), round(draw.random(), 4)])
        return Candidate(phrase=draw.randrange(2), box=box, score=score)

    return tuple(dict.fromkeys(one() for _ in range(draw.randrange(8))))


def looked_at(number: int, draw: random.Random) -> Looked:
    """Return a pair of which two phrases were looked for, the second inside the first."""
    found = candidates(draw)
    caption = f"A red dog on a mat, {number} {HOSTILE if number == 11 else ''}"
    license = {} if number % 3 == 0 else {"license": HOSTILE if number % 3 == 1 else "CC0"}
    return Looked(
        record=GroundedRecord(
            id=HOSTILE if number == 13 else f"pair {number}",
            caption=caption,
            image=f"../pictures/{number}.png",
            width=32,
            height=24,
            noun_chunks=None,
            ref_exps=None,
            url=f"https://host-{number % 2}.example/{number}",
            extra={**license, "weight": number / 10},
        ),
        phrases=(
            Phrase(chunk=(0, 9), expression=(0, 18)),
            Phrase(chunk=(13, 18), expression=(13, 18)),
        ),
        candidates=found,
        phash=number - 1 if number == TWIN else number,
        measured=Measured(round_trip=tuple(round(draw.random(), 4) for _ in found)),
    )  # fmt: skip


def unit_of(first: int, draw: random.Random) -> tuple[list[Looked | Discarded], Funnel]:
    """Return the rows of a unit and the ledger of its looking."""
    funnel = Funnel()
    rows: list[Looked | Discarded] = []
    for number in range(first, first + UNIT):
        funnel.pairs.entered += 1
        if number in (BAD, SILENT):
            reason = "no picture" if number == BAD else "no caption"
            funnel.pairs.dropped[reason] += 1
            rows.append(Discarded(f"pair {number}", reason, f"why {number}"))
            continue
        looked = looked_at(number, draw)
        rows.append(looked)
        funnel.phrases.entered += len(looked.phrases) + 1
        funnel.phrases.dropped["pronoun"] += 1
        funnel.boxes.entered += len(looked.candidates) + 3
        funnel.boxes.dropped["under the floor"] += 3
    return rows, funnel


def line_of(row: Looked | Discarded) -> str:
    if isinstance(row, Discarded):
        return json.dumps({"dropped": {"id": row.id, "reason": row.reason, "detail": row.detail}})
    return json.dumps(row.to_dict())


def make(folder: Path) -> Path:
    """Write a folder as `grit build` does, with a random detector; return it."""
    out, draw = folder / "my <b>grit", random.Random(5)
    (folder / "pictures").mkdir()
    items = []
    for number in range(COUNT):
        path = folder / "pictures" / f"{number}.png"
        Image.new("RGB", (32, 24), (number * 5, 80, 0)).save(path)
        id = HOSTILE if number == 13 else f"pair {number}"
        items.append(Item(id=id, name=str(path), place=Place(path=str(path)), caption="a <i>b"))
    out.mkdir()
    settings = {
        "recipe": config.as_tree(GritRecipe(
            linking=Linking(floor=RECIPE.linking.floor),
            filters=Filters(duplicate_bits=0),
            quality=RECIPE.quality,
        )),
        "detector": {"detector": "dice", "model": "six-sided", "weights": "sha256:00ff"},
        "score": "a roll of the dice",
        "quality": {},
        "input": "somewhere/pairs.jsonl", "images": "None", "limit": None, "unit": UNIT,
        "code": "kosmos2 0",
    }  # fmt: skip
    with JobFolder.open(out / "looked", settings) as job:
        write_list(iter(items), job.path / "parts" / "pairs.jsonl")
        (job.path / "parts" / "pairs.count").write_text(json.dumps({"count": COUNT + 3}))
        for number in range(COUNT // UNIT):
            rows, funnel = unit_of(number * UNIT, draw)
            made = job.making(f"{number:08d}")
            made.mkdir()
            text = "".join(line_of(row) + "\n" for row in rows).encode()
            (made / LOOKED).write_bytes(gzip.compress(text, mtime=0))
            job.commit(f"{number:08d}", made, funnel.to_counts(), seal(made))
        job.quarantine(f"{COUNT // UNIT:08d}", "Traceback\n<script>alert(2)</script> broke")
    select(out, RECIPE)
    run = {"ended": "2026-11-22T20:00:00+00:00", "seconds": 8.0, "worked": 7.5, "waited": 2.5,
           "workers": 1, "units": COUNT // UNIT, "kept": 0, "quarantined": 1}  # fmt: skip
    (out / RUNS).write_text(json.dumps(run) + '\n{"ended": "2026-1')
    return out


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def html(built: Path) -> str:
    return written(built)


def silent(done: int, total: int) -> None:
    pass


def written(out: Path, wish: Wish = Wish()) -> str:  # noqa: B008 (frozen)
    assert not write(out, wish, silent).faults
    return (out / REPORT).read_text(encoding="utf-8")


def rows_of(out: Path) -> list[dict[str, Any]]:
    paths = sorted((out / "looked" / "parts").glob(f"*/{LOOKED}"))
    return [json.loads(line) for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()]  # fmt: skip # noqa: E501


def records_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]


def panel(html: str, title: str) -> str:
    found = re.search(rf"<h3>{re.escape(title)}</h3>.*?</article>", html, re.DOTALL)
    assert found, title
    return found[0]


def bars(html: str, title: str) -> dict[str, int]:
    rows = re.findall(r'<th scope="row">(.*?)</th><td>([\d,]+)', panel(html, title))
    return {name.removeprefix("– "): int(number.replace(",", "")) for name, number in rows}


def chart(html: str, title: str) -> list[str]:
    return re.findall(r"<title>(.*?)</title>", panel(html, title))


def test_the_funnel_shown_is_the_one_written_and_balances(built: Path, html: str) -> None:
    told = json.loads((built / FUNNEL).read_text())
    titles = {"pairs": "Image–text pairs", "phrases": "Phrases",
              "boxes": "Boxes"}  # fmt: skip
    for level, title in titles.items():
        shown = bars(html, title)
        prefix = f"{level}.dropped."
        dropped = {k.removeprefix(prefix): n for k, n in told.items() if k.startswith(prefix)}
        assert shown == {"in": told[f"{level}.in"], "out": told[f"{level}.out"], **dropped}
        assert shown["in"] == shown["out"] + sum(dropped.values())
    assert "The funnel balances" in html


def test_the_tiles_and_the_ratios_are_recounts_of_the_records(built: Path, html: str) -> None:
    records = records_of(built)
    spans = sum(len({tuple(entry[:2]) for entry in row["ref_exps"]}) for row in records)
    boxes = sum(len(row["ref_exps"]) for row in records)
    tiles = dict((name, value) for value, name in re.findall(r'"tile"><b>(.*?)</b> (.*?)<', html))
    assert tiles["records"] == str(len(records))
    assert (tiles["spans"], tiles["boxes"]) == (str(spans), str(boxes))
    assert tiles["pairs looked at"] == str(COUNT)
    shown = dict(re.findall(r'<th scope="row">(.*?)</th><td class="figure">(.*?)</td>', html))
    assert shown["spans per record"] == f"{spans / len(records):.2f}"
    assert shown["boxes per record"] == f"{boxes / len(records):.2f}"
    assert shown["boxes per span"] == f"{boxes / spans:.2f}"


def test_the_numbers_of_grit_are_those_of_the_papers_table(html: str) -> None:
    assert "114,978,233" in html
    assert html.count("Kosmos-2 paper, arXiv 2306.14824, table 1") == 7
    ratios = re.findall(r'<td class="figure">[\d.]+</td><td class="figure">([\d.]+)</td>', html)
    assert ratios[:4] == ["1.27", "1.52", "1.19", "4.7"]


def test_scores_of_kept_and_dropped_boxes_are_those_of_the_side_table(
    built: Path, html: str
) -> None:
    kept = Counter(
        (str(row["id"]), *entry[2:]) for row in records_of(built) for entry in row["noun_chunks"]
    )
    refused = {json.loads(line)["id"] for line in (built / "dropped.jsonl").read_text().splitlines()
               if json.loads(line)["reason"] == "duplicate picture"}  # fmt: skip
    good, bad = [0] * 20, [0] * 20
    for row in rows_of(built):
        id = str(row.get("record", {}).get("id"))
        for _, *rest in row.get("candidates", ()) if id not in refused else ():
            bar = min(int(rest[-1] * 20), 19)
            (good if kept[(id, *rest)] else bad)[bar] += 1
    titles = chart(html, "Scores of boxes")
    shown = [tuple(map(int, re.findall(r"(\d+) (?:kept|dropped)", title))) for title in titles]
    assert shown == list(zip(good, bad, strict=True))
    assert sum(good) == sum(kept.values())
    assert "threshold 0.5" in panel(html, "Scores of boxes")


def test_phrases_are_counted_as_asked_and_found(built: Path, html: str) -> None:
    kept = Counter(
        row["caption"][start:end].lower()
        for row in records_of(built)
        for start, end in {tuple(entry[:2]) for entry in row["noun_chunks"]}
    )
    assert bars(html, "Phrases with a box") == {
        "mat": kept["a mat"], "red dog": kept["a red dog"]
    }  # fmt: skip
    made = survey(built, Wish(), silent)
    refused = sum(row.reason == "duplicate picture" for row in _discarded(built))
    asked = sum("record" in row for row in rows_of(built)) - refused
    assert dict(made.asked.most(5)) == {"red dog": asked, "mat": asked}


def _discarded(out: Path) -> list[Discarded]:
    return [Discarded(**json.loads(x)) for x in (out / "dropped.jsonl").read_text().splitlines()]


def test_licences_and_hosts_are_counted_from_the_sources_columns(built: Path, html: str) -> None:
    records = records_of(built)
    counted = Counter(row.get("license", "unknown") for row in records)
    title = "Licences, as the source&#x27;s own column says"
    found = re.search(rf"<h3>{title}</h3>.*?</article>", html, re.DOTALL)
    assert found
    rows = dict(re.findall(r'<th scope="row">(.*?)</th><td>(\d+)', found[0]))
    assert sorted(map(int, rows.values())) == sorted(counted.values())
    assert int(rows["CC0"]) == counted["CC0"]
    assert int(rows["unknown"]) == counted["unknown"]
    hosts = bars(html, "Hosts of the pictures&#x27; addresses")
    assert hosts == Counter(row["url"].split("/")[2] for row in records)


def test_a_numeric_column_has_a_histogram_whatever_its_name(built: Path, html: str) -> None:
    records = records_of(built)
    for name, values in (
        ("weight", [row["weight"] for row in records]),
        ("round_trip", [value for row in records for value in row["round_trip"]]),
    ):
        counts = [int(re.findall(r": (\d+) \(", title)[0]) for title in chart(html, name)]
        assert sum(counts) == len(values) > 0
        assert f"{len(values):,} numbers" in panel(html, name)


def test_every_reason_of_pairs_and_boxes_has_its_examples(built: Path) -> None:
    made = survey(built, Wish(examples=3), silent)
    html = written(built, Wish(examples=3))
    reasons = [
        (level, reason)
        for level in ("pairs", "boxes")
        for reason in getattr(made.funnel, level).dropped
    ]
    assert {reason for _, reason in reasons} >= {
        "overlap", "under the threshold", "more boxes than a phrase may have",
        "contained in another expression", "lost on the round trip", "duplicate picture",
        "no box is sure enough", "no picture", "no caption",
    }  # fmt: skip
    for level, reason in reasons:
        start = html.index(f"<h2>{level.capitalize()} that were dropped</h2>")
        start = html.index(f'<h3 class="reason">{reason} ', start)
        section = re.split("<h3|</section>", html[start + 1 :])[0]
        shown = section.count('<article class="card"')
        assert shown == (0 if reason == "under the floor" else min(3, shown_at_most(built, reason)))
    assert html.count('<img src="data:image/') == html.count('<article class="card"')


def shown_at_most(out: Path, reason: str) -> int:
    """Return how many pairs have a reason, their own or that of a box."""
    found = [Looked.from_dict(row) for row in rows_of(out) if "record" in row]
    whole = [row.id for row in _discarded(out) if row.reason == reason]
    return len(whole) or sum(reason in lost(looked, RECIPE) for looked in found)


@given(st.randoms(use_true_random=False))
def test_the_boxes_lost_for_a_reason_are_as_many_as_selecting_counts(draw: random.Random) -> None:
    looked = looked_at(7, draw)
    selection = Selection(RECIPE, None)
    selection.record(looked)
    gone = lost(looked, RECIPE)
    assert {reason: len(boxes) for reason, boxes in gone.items()} == dict(
        selection.funnel.boxes.dropped
    )
    for boxes in gone.values():
        assert [each.score for each in boxes] == sorted((e.score for e in boxes), reverse=True)


def test_an_example_says_why_in_numbers(html: str) -> None:
    assert re.search(r"surest: “.*?” 0\.\d+, and it needs more than 0\.5<", html)
    assert re.search(r">“.*?” [\d.]+ needs more than 0\.5<", html)
    assert re.search(r"overlaps “.*?” [\d.]+ by [\d.]+, more than 0\.5", html)
    assert re.search(r", round trip 0\.[01]\d* of at least 0\.2", html)
    assert "lies inside “A red dog on a mat”" in html


def test_a_moved_picture_does_not_end_the_report(tmp_path: Path) -> None:
    out = make(tmp_path)
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    html = written(out)
    assert html.count("no picture: ") == html.count('<article class="card"') > 10


def test_a_moved_folder_still_finds_its_pictures_through_the_list_of_pairs(tmp_path: Path) -> None:
    out = make(tmp_path)
    (tmp_path / "deeper" / "still").mkdir(parents=True)
    moved = out.rename(tmp_path / "deeper" / "still" / "grit")
    assert "no picture: " not in written(moved)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}


def test_what_people_wrote_is_never_markup(built: Path, html: str) -> None:
    tags = Tags()
    tags.feed(html)
    assert tags.tags["script"] == 1
    assert not {name for name in tags.attributes if name.startswith("on")}
    assert not tags.tags.keys() & {"b>", "i", "iframe", "object", "form"} - {"i"}
    assert tags.tags["i"] == 2  # the colours of the legend
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "&lt;script&gt;alert(2)" in html
    readme = (built / CARD).read_text(encoding="utf-8")
    assert "alert(1)" in readme
    shown = re.sub(r"```.*?```", "", readme, flags=re.DOTALL)
    assert not re.search(r"<(?!!-- kosmos2)", shown.replace('["n<1K"]', ""))
    assert not re.search(r"(?<!\\)\]\(javascript", shown)
    for line in readme.splitlines():
        if line.startswith("|") and "alert" in line:
            assert len(re.findall(r"(?<!\\)\|", line)) == 4


@given(st.text(max_size=40))
def test_escaped_text_is_one_line_without_tags_links_or_cells(text: str) -> None:
    line = card.escaped(text)
    assert line.isprintable()
    assert not re.search(r"<|>|://|(?i:www\.)", line)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|]", line)


def test_the_report_loads_nothing_from_anywhere(html: str) -> None:
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", re.sub("&[^;]+;", "", html))
    loaded = [source for source in sources if source != "x"]
    assert loaded
    assert all(source.startswith("data:image/") for source in loaded)
    assert "default-src &#x27;none&#x27;" in html


def test_the_same_folder_makes_the_same_bytes(built: Path) -> None:
    first = [written(built), (built / CARD).read_bytes()]
    assert [written(built), (built / CARD).read_bytes()] == first


def test_another_seed_shows_other_examples_and_the_same_numbers(built: Path, html: str) -> None:
    other = written(built, Wish(seed=1))
    assert other != html
    before, after = (text[: text.index("Pairs that were dropped")] for text in (html, other))
    assert before == after
    written(built)


@given(st.permutations(range(30)), st.integers(1, 5))
def test_examples_are_the_same_in_whatever_order_pairs_come(order: list[int], most: int) -> None:
    def kept(numbers: list[int]) -> list[int]:
        samples = Samples(0)
        for number in numbers:
            gone = Discarded(str(number), "x")
            samples.offer(("pairs", "x"), Outcome(number=number, looked=gone, became=gone), most)
        return [each.number for each in samples.of(("pairs", "x"))]

    assert kept(order) == kept(sorted(order))
    assert len(kept(order)) == most


@given(st.lists(st.floats(-1e6, 1e6) | st.floats(0, 1), min_size=1, max_size=60))
def test_a_spread_counts_every_number_in_the_bar_where_it_lies(values: list[float]) -> None:
    spread = Spread()
    for value in values:
        spread.add(value)
    histogram = spread.histogram()
    assert 1 <= len(histogram.counts) <= SHOWN
    assert sum(histogram.counts) == histogram.n == len(values)
    assert (histogram.low, histogram.high) == (min(values), max(values))
    edges = [*histogram.edges, float("inf")]
    for number, count in enumerate(histogram.counts):
        assert count == sum(edges[number] <= value < edges[number + 1] for value in values)


def test_a_spread_takes_any_range_in_bounded_memory() -> None:
    spread = Spread()
    for value in (1e-12, -1e300, 1e300, 0.1, 0.3, *range(5000)):
        spread.add(value)
    assert len(spread._counts) <= 1000
    assert sum(spread.histogram().counts) == 5005


def test_runs_and_quarantined_units_are_told(html: str) -> None:
    assert f"{COUNT} pairs in 8.0 s: {COUNT / 8:.2f} pairs/s in all" in html
    assert "25%" in panel(html, "Runs that looked at pairs")
    assert "unit 00000005: &lt;script&gt;alert(2)" in html
    assert html.count(f"s {COUNT + 3} pairs were not looked at.") == 2


def test_the_card_is_yaml_and_its_recipe_is_the_one_that_was_used(
    built: Path, html: str, tmp_path: Path
) -> None:
    readme = (built / CARD).read_text(encoding="utf-8")
    front = yaml.safe_load(readme.split("---\n")[1])
    assert front["license"] == "other"
    assert front["pretty_name"] == built.name
    assert front["configs"][0]["data_files"] == RECORDS
    (tmp_path / "recipe.toml").write_text(readme.split("```toml\n")[1].split("```")[0])
    assert config.load(GritRecipe, tmp_path / "recipe.toml") == RECIPE
    assert "sha256:00ff" in readme
    assert "a roll of the dice" in readme


def test_a_recipe_with_a_second_detector_is_read_back(tmp_path: Path) -> None:
    asked = GritRecipe(quality=Quality(second=Detection(model='a "b"\\c\n')))
    (tmp_path / "recipe.toml").write_text(facts.toml(asked))
    assert config.load(GritRecipe, tmp_path / "recipe.toml") == asked


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ([], {"license": "unknown"}),
        (["unknown"] * 3, {"license": "unknown"}),
        (["CC-BY-4.0"] * 3, {"license": "cc-by-4.0"}),
        (["Mine"], {"license": "other", "license_name": "Mine"}),
        (["mit", "unknown"], {"license": "other", "license_name": "several-see-the-card"}),
    ],
)
def test_the_card_names_a_licence_only_where_all_records_have_it(
    said: list[str], licence: dict[str, str]
) -> None:
    tally = Tally(10)
    for each in said:
        tally.add(each)
    assert dict(card._licence(tally)) == licence


def altered(tmp_path: Path, change: Callable[[Path], object]) -> Path:
    out = make(tmp_path)
    change(out)
    return out


def test_a_funnel_that_does_not_balance_is_flagged_and_the_exit_code_is_3(tmp_path: Path) -> None:
    def lie(out: Path) -> None:
        told = json.loads((out / FUNNEL).read_text())
        told["boxes.out"] += 1
        (out / FUNNEL).write_text(json.dumps(told))

    out = altered(tmp_path, lie)
    result = CliRunner().invoke(app, ["grit", "report", str(out)])
    assert result.exit_code == 3, result.output
    html = (out / REPORT).read_text()
    assert 'class="verdict bad"' in html
    assert "do not trust this set" in html
    assert "must not be trusted" in (out / CARD).read_text()


def test_a_funnel_that_balances_but_is_not_what_the_files_hold_is_flagged(tmp_path: Path) -> None:
    def lie(out: Path) -> None:
        told = json.loads((out / FUNNEL).read_text())
        told["phrases.out"] += 1
        told["phrases.in"] += 1
        (out / FUNNEL).write_text(json.dumps(told))

    faults = write(altered(tmp_path, lie), Wish(), silent).faults
    assert len(faults) == 1
    assert "phrases: the funnel says" in faults[0]


def test_records_that_were_not_chosen_here_are_refused(tmp_path: Path) -> None:
    def cut(out: Path) -> None:
        lines = (out / RECORDS).read_bytes().splitlines(keepends=True)
        (out / RECORDS).write_bytes(b"".join(lines[1:]))

    with pytest.raises(ConfigError, match="grit select"):
        write(altered(tmp_path, cut), Wish(), silent)


def test_a_torn_list_of_dropped_pairs_is_named(tmp_path: Path) -> None:
    def tear(out: Path) -> None:
        (out / "dropped.jsonl").write_text('{"id": "pair 4", "rea')

    with pytest.raises(RecordError, match=r"dropped\.jsonl:1"):
        write(altered(tmp_path, tear), Wish(), silent)


def test_a_card_that_somebody_wrote_is_not_overwritten(tmp_path: Path) -> None:
    out = altered(tmp_path, lambda out: (out / CARD).write_text("# mine"))
    with pytest.raises(ConfigError, match="rename it"):
        write(out, Wish(), silent)
    assert (out / CARD).read_text() == "# mine"
    assert not (out / REPORT).exists()


def test_the_command_writes_both_files_and_ends_with_0(built: Path) -> None:
    result = CliRunner().invoke(app, ["grit", "report", str(built), "--examples", "1"])
    assert result.exit_code == 0, result.output
    assert str(built / REPORT) in result.output
    assert str(built / CARD) in result.output
    written(built)


def test_what_is_no_built_folder_is_refused_with_2_and_left_as_it_was(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        result = CliRunner().invoke(app, ["grit", "report", str(path)])
        assert result.exit_code == 2
        assert "no folder of `kosmos2 grit build`" in result.output
    assert not list(tmp_path.iterdir())


def test_a_build_that_did_not_end_is_refused(tmp_path: Path) -> None:
    out = altered(tmp_path, lambda out: (out / RECORDS).unlink())
    with pytest.raises(ConfigError, match=r"no records\.jsonl: the build there did not end"):
        write(out, Wish(), silent)


def test_levels_are_those_of_the_funnel() -> None:
    assert LEVELS == ("pairs", "phrases", "boxes")


def test_a_folder_that_the_command_built_is_reported_without_faults(tmp_path: Path) -> None:
    pytest.importorskip("spacy", reason='needs pip install "kosmos2[grit]"')
    source, out = tmp_path / "pictures", tmp_path / "grit"
    source.mkdir()
    box = [0.1, 0.1, 0.4, 0.5, 1.0]
    truth = []
    for name in ("a", "b", "c"):
        Image.new("RGB", (32, 24)).save(source / f"{name}.png")
        (source / f"{name}.txt").write_text("A dog in a field" if name != "b" else "")
        row = {"id": name, "caption": "A dog in a field", "ref_exps": []}
        truth.append(json.dumps({**row, "noun_chunks": [[0, 5, *box], [9, 16, *box]]}))
    (tmp_path / "truth.jsonl").write_text("\n".join(truth))
    oracle = ["--set", "detection.name=oracle", "--set", f"detection.model={tmp_path}/truth.jsonl"]
    for words in (
        ["build", str(source), str(out), "--shard-size", "2", *oracle],
        ["report", str(out)],
    ):
        result = CliRunner().invoke(app, ["grit", *words])
        assert result.exit_code == 0, result.output
    html = (out / REPORT).read_text(encoding="utf-8")
    assert bars(html, "Image–text pairs") == {"in": 3, "no caption": 1, "out": 2}
    assert bars(html, "Boxes") == {"in": 4, "overlap": 2, "out": 2}
    assert "1 for every box of the truth" in (out / CARD).read_text(encoding="utf-8")
