"""Columns of what was measured: beside their boxes, the filters on them, and choosing again."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kosmos2 import config
from kosmos2.boxes import Box
from kosmos2.errors import ConfigError
from kosmos2.grit.build import DROPPED, FUNNEL, RECORDS, Build, build, select
from kosmos2.grit.detectors import Asked, Refused
from kosmos2.grit.linking import Candidate
from kosmos2.grit.measures import Measured, Seen
from kosmos2.grit.phrases import Phrase
from kosmos2.grit.quality import Scorers
from kosmos2.grit.recipe import Detection, Filters, GritRecipe, Linking, Quality
from kosmos2.grit.select import ALL_REFUSED, UNSURE, Selection
from kosmos2.grit.steps import LEVELS, Discarded, Funnel, Looked
from kosmos2.records.record import GroundedRecord
from kosmos2.shards import Driver, Local, Pool

CAPTION = "A dog, a cat and a hen"
SPANS = ((0, 5), (7, 12), (17, 22))
SECOND = Detection(name="oracle", model="truth.jsonl")
QUALITY = Quality(nsfw="a.onnx", similarity="b", round_trip="c", second=SECOND)


def looked(
    *boxes: tuple[int, float, float | None], id: str = "1", extra: Any = None, **measured: Any
) -> Looked:
    """Return a pair with boxes (phrase, score, round trip), none overlapping."""
    places = [Box(n / 8, 0, (n + 1) / 8, 1) for n in range(len(boxes))]
    return Looked(
        record=GroundedRecord(
            id=id, caption=CAPTION, noun_chunks=None, ref_exps=None, extra=extra or {}
        ),
        phrases=tuple(Phrase(chunk=span, expression=span) for span in SPANS),
        candidates=tuple(
            Candidate(phrase=phrase, box=box, score=score)
            for (phrase, score, _), box in zip(boxes, places, strict=True)
        ),
        measured=Measured(round_trip=tuple(trip for *_, trip in boxes), **measured),
    )


def chosen(
    *pairs: Looked, linking: Linking | None = None, **filters: float
) -> tuple[list[GroundedRecord | Discarded], Funnel]:
    recipe = GritRecipe(
        linking=linking or Linking(),
        filters=Filters(**filters),  # type: ignore[arg-type]
        quality=QUALITY,
    )
    selection = Selection(recipe, None)
    made = [selection.record(pair) for pair in pairs]
    return made, selection.funnel


def record(pair: Looked, **filters: float) -> GroundedRecord:
    (made,), _ = chosen(pair, **filters)
    assert isinstance(made, GroundedRecord)
    return made


def test_a_column_of_boxes_lies_beside_ref_exps() -> None:
    # The surest first: not as they were seen.
    pair = looked((0, 0.6, 0.1), (1, 0.9, 0.2), (2, 0.3, None), (2, 0.7, 0.4))
    made = record(pair)
    assert made.ref_exps is not None
    assert [entry.score for entry in made.ref_exps] == [0.9, 0.7, 0.6]
    assert made.extra["round_trip"] == [0.2, 0.4, 0.1]


def test_columns_of_a_pair_are_numbers_and_those_not_asked_for_are_not_there() -> None:
    pair = looked((0, 0.6, 0.1), nsfw=0.25, similarity=0.5)
    assert {"nsfw": 0.25, "similarity": 0.5}.items() <= record(pair).extra.items()
    alone = Selection(GritRecipe(), None).record(pair)
    assert isinstance(alone, GroundedRecord) and alone.extra == {}


def test_what_the_source_measured_goes_on_also_under_a_name_of_ours() -> None:
    extra = {"clip_similarity_vitb32": 0.3, "similarity": 0.7}
    made = record(looked((0, 0.6, 0.1), similarity=0.5, extra=extra))
    assert made.extra["clip_similarity_vitb32"] == 0.3
    assert (made.extra["similarity"], made.extra["source_similarity"]) == (0.5, 0.7)


@pytest.mark.parametrize(
    ("filters", "measured", "reason"),
    [
        ({"max_nsfw": 0.4}, {"nsfw": 0.41}, "not safe for work"),
        ({"min_similarity": 0.2}, {"similarity": 0.19}, "caption unlike the picture"),
    ],
)
def test_a_pair_beyond_a_threshold_goes_and_one_on_it_stays(
    filters: dict[str, float], measured: dict[str, float], reason: str
) -> None:
    (name,) = measured
    bad = looked((0, 0.6, 0.1), **measured)
    good = looked((0, 0.6, 0.1), **{name: next(iter(filters.values()))})
    (gone, stays), funnel = chosen(bad, good, **filters)
    assert gone == Discarded("1", reason) and isinstance(stays, GroundedRecord)
    assert funnel.pairs.dropped == funnel.boxes.dropped == {reason: 1}


def test_boxes_that_do_not_come_back_go_with_their_values() -> None:
    pair = looked((0, 0.9, 0.1), (1, 0.8, 0.6), (2, 0.7, None), (2, 0.6, 0.5))
    (made,), funnel = chosen(pair, min_round_trip=0.5)
    assert isinstance(made, GroundedRecord) and made.ref_exps is not None
    assert [entry.score for entry in made.ref_exps] == [0.8, 0.6]
    assert made.extra["round_trip"] == [0.6, 0.5]
    assert funnel.boxes.dropped == {"lost on the round trip": 1, "round_trip not measured": 1}


def test_agreement_is_the_best_overlap_with_a_sure_box_of_the_same_phrase() -> None:
    pair = looked((0, 0.9, None), (1, 0.8, None), (2, 0.7, None))
    mine = [each.box for each in pair.candidates]
    half = Box(mine[0].x0, 0, mine[0].x1, 0.5)
    second = (
        Candidate(phrase=0, box=half, score=0.9),
        Candidate(phrase=0, box=mine[0], score=0.5),  # no more than the threshold
        Candidate(phrase=2, box=mine[1], score=0.9),  # of another phrase
    )
    pair = replace(pair, measured=Measured(second=second))
    assert record(pair).extra["agreement"] == [0.5, 0.0, 0.0]
    assert record(pair, second_threshold=0.49).extra["agreement"] == [1.0, 0.0, 0.0]
    (made,), funnel = chosen(pair, min_agreement=0.5)
    assert isinstance(made, GroundedRecord) and made.extra["agreement"] == [0.5]
    assert funnel.boxes.dropped == {"the second detector disagrees": 2}


def test_a_second_detector_that_cannot_read_a_pair_leaves_no_number() -> None:
    pair = replace(looked((0, 0.9, None)), measured=Measured())
    assert record(pair).extra["agreement"] == [None]
    (gone,), funnel = chosen(pair, min_agreement=0.1)
    assert gone == Discarded("1", ALL_REFUSED)
    assert funnel.boxes.dropped == {"agreement not measured": 1}


def test_a_pair_without_a_sure_box_is_told_from_one_whose_boxes_were_refused() -> None:
    made, _ = chosen(looked((0, 0.1, None)), looked((0, 0.9, 0.0)), min_round_trip=0.5)
    assert [each.reason for each in made if isinstance(each, Discarded)] == [UNSURE, ALL_REFUSED]


VALUES = st.one_of(st.none(), st.floats(0, 1))
BOXES = st.lists(st.tuples(st.integers(0, 2), st.floats(0.05, 1), VALUES), max_size=6)


@given(
    st.lists(st.builds(lambda boxes, n, s: looked(*boxes, nsfw=n, similarity=s), BOXES, VALUES,
                       VALUES), max_size=4),
    *[st.floats(0, 1)] * 4,
)  # fmt: skip
def test_whatever_filters_refuse_is_counted(
    pairs: list[Looked], nsfw: float, similarity: float, trip: float, agreement: float
) -> None:
    _, funnel = chosen(
        *pairs, max_nsfw=nsfw, min_similarity=similarity, min_round_trip=trip,
        min_agreement=agreement,
    )  # fmt: skip
    for level, entered in (
        ("pairs", len(pairs)),
        ("phrases", 3 * len(pairs)),
        ("boxes", sum(len(pair.candidates) for pair in pairs)),
    ):
        ledger = getattr(funnel, level)
        ledger.entered = entered
        assert ledger.balances, level


@given(BOXES, VALUES, VALUES, st.booleans())
def test_a_row_of_the_side_table_gives_back_what_was_measured(
    boxes: list[tuple[int, float, float | None]],
    nsfw: float | None,
    similarity: float | None,
    second: bool,
) -> None:
    pair = looked(*boxes, nsfw=nsfw, similarity=similarity)
    measured = replace(pair.measured, second=pair.candidates if second else None)
    pair = replace(pair, measured=measured)
    assert Looked.from_dict(json.loads(json.dumps(pair.to_dict()))).measured == measured


# --- measuring


class Told:
    """Tells the number in a picture's first pixel; counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def score(self, images: Sequence[Image.Image], captions: Sequence[str] = ()) -> list[float]:
        self.calls += 1
        return [image.getpixel((0, 0))[0] / 255 for image in images]  # type: ignore[index]

    def measure(
        self, images: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]
    ) -> list[list[float]]:
        self.calls += 1
        return [[box.x0 / 2 for box in own] for own in boxes]


class Second:
    identity: Mapping[str, str] = {"detector": "second"}
    score = "made up"

    def detect(self, asked: Sequence[Asked]) -> list[list[Candidate] | Refused]:
        return [
            Refused("no")
            if each.id == "2"
            else [
                Candidate(phrase=0, box=Box(0.12345678, 0, 1, 1), score=0.123456),
                Candidate(phrase=0, box=Box(0, 0, 1, 1), score=0.01),
            ]
            for each in asked
        ]


def seen(pair: Looked, shade: int = 0) -> Seen:
    image = Image.new("RGB", (8, 8), (shade, 0, 0))
    id = str(pair.record.id)
    asked = Asked(id=id, image=image, caption=CAPTION, spans=SPANS)
    return Seen(asked=asked, phrases=pair.phrases, candidates=pair.candidates)


def test_boxes_that_linking_leaves_are_measured_all_in_one_call() -> None:
    told = Told()
    linking = Linking(threshold=0.5)
    scorers = Scorers(linking=linking, nsfw=told, similarity=told, round_trip=told)
    pairs = [
        looked((0, 0.6, None), (1, 0.4, None), (2, 0.7, None), id="1"),
        looked((0, 0.1, None), id="2"),
        looked((0, 0.9, None), (1, 0.8, None), id="3"),
    ]
    found = scorers.measure([seen(pair, 51 * n) for n, pair in enumerate(pairs)])
    assert [each.nsfw for each in found] == [each.similarity for each in found] == [0, 0.2, 0.4]
    assert told.calls == 3
    assert [each.round_trip for each in found] == [(0.0, None, 0.125), (None,), (0.0, 0.0625)]


def test_the_second_detector_has_its_boxes_above_the_floor_kept_rounded() -> None:
    pairs = [seen(looked((0, 0.6, None), id=id)) for id in ("1", "2")]
    found = Scorers(linking=Linking(floor=0.05), second=Second()).measure(pairs)
    box = Candidate(phrase=0, box=Box(0.123457, 0, 1, 1), score=0.1235)
    assert [each.second for each in found] == [(box,), None]


# --- recipes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("filters.max_nsfw=0.5", r"quality\.nsfw"),
        ("filters.min_similarity=0.2", r"quality\.similarity"),
        ("filters.min_round_trip=0.5", r"quality\.round_trip"),
        ("filters.min_agreement=0.5", r"quality\.second"),
        ("filters.max_nsfw=1.5", r"0\.\.1"),
        ("filters.min_similarity=-2", r"-1\.\.1"),
        ("linking.precision=0.9", r"detection\.calibration"),
        ("linking.as_of=glip.json", r"detection\.calibration"),
        ("quality.batch_size=0", r"quality\.batch_size"),
        ("quality.nsfv=x", "nsfw"),
        ("quality.second.name=owlv2", r"detection\.model"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_by_name(change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.changed(GritRecipe(), [change])


# --- runs


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pairs.jsonl, pictures, truth.jsonl, and another truth, second.jsonl."""
    pytest.importorskip("spacy", reason='needs pip install "kosmos2[grit]"')
    folder = tmp_path_factory.mktemp("quality")
    caption = "A dog in a field of flowers"
    rows: dict[str, list[dict[str, Any]]] = {"pairs": [], "truth": [], "second": []}
    for number in range(5):
        Image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5 - number / 4), 50).save(
            folder / f"{number}.png"
        )
        row = {"id": str(number), "caption": caption}
        rows["pairs"].append({**row, "image": f"{number}.png"})
        for name, shift in (("truth", 0.0), ("second", number / 10)):
            boxes = [[0, 5, shift, 0.1, 0.4 + shift, 0.6, 1.0], [9, 16, 0.0, 0.5, 1.0, 1.0, 1.0]]
            rows[name].append({**row, "noun_chunks": boxes, "ref_exps": []})
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (folder / "recipe.toml").write_text(
        f'[detection]\nname = "oracle"\nmodel = "{folder / "truth.jsonl"}"\n'
        '[quality]\nround_trip = "embedded"\ndevice = "cpu"\ndtype = "fp32"\n'
        f'[quality.second]\nname = "oracle"\nmodel = "{folder / "second.jsonl"}"\n'
    )
    return folder


def built(source: Path, out: Path, *changes: str, driver: Driver | None = None) -> Path:
    recipe = config.load(GritRecipe, source / "recipe.toml", changes)
    job = Build(
        source=str(source / "pairs.jsonl"), out=out, recipe=recipe, driver=driver or Local(), unit=2
    )
    build(job, lambda done: None, lambda total: None)
    return out


def outcome(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in (RECORDS, DROPPED, FUNNEL)]


@pytest.fixture(scope="module")
def plain(source: Path) -> Path:
    return built(source, source / "plain")


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]


def test_columns_come_with_what_measured_them(plain: Path) -> None:
    rows = rows_of(plain)
    assert len(rows) == 5
    for row in rows:
        assert len(row["round_trip"]) == len(row["agreement"]) == len(row["ref_exps"]) == 2
        assert all(0 <= value <= 1 for value in row["round_trip"])
        told = row["provenance"]["decoding"]
        assert told["round_trip.model"] == "embedded"
        assert told["round_trip.weights"].startswith("sha256:")
        assert told["second.detector"] == "oracle"
    agreements = {row["id"]: max(row["agreement"]) == min(row["agreement"]) for row in rows}
    assert agreements["0"] and not agreements["4"]


def copied(plain: Path, name: str) -> Path:
    """Return the same folder under another name beside it, as paths in records start from it."""
    return Path(shutil.copytree(plain, plain.with_name(name)))


@pytest.mark.parametrize(
    "changes",
    [["filters.min_agreement=0.5"], ["filters.min_round_trip=0.2", "filters.second_threshold=1.0"]],
)
def test_choosing_again_by_what_was_measured_equals_building_so(
    source: Path, plain: Path, changes: list[str]
) -> None:
    name = changes[0].partition("=")[0]
    fresh = built(source, source / f"{name}-fresh", *changes)
    again = copied(plain, f"{name}-again")
    select(again, config.load(GritRecipe, source / "recipe.toml", changes))
    assert outcome(again) == outcome(fresh) != outcome(plain)
    funnel = Funnel.from_counts(json.loads((again / FUNNEL).read_text()))
    assert all(getattr(funnel, level).balances for level in LEVELS)


def test_several_processes_measure_what_one_measures(source: Path, plain: Path) -> None:
    assert outcome(built(source, source / "pool", driver=Pool(2, 0))) == outcome(plain)


def test_boxes_that_were_not_described_are_told_by_null(source: Path) -> None:
    strict = built(source, source / "strict", "linking.nms_iou=0.01")
    before = {row["id"]: row for row in rows_of(strict)}
    select(strict, config.load(GritRecipe, source / "recipe.toml"))
    after = {row["id"]: row for row in rows_of(strict)}
    unknown = sum(row["round_trip"].count(None) for row in after.values())
    more = [len(row["ref_exps"]) - len(before[id]["ref_exps"]) for id, row in after.items()]
    assert unknown == sum(more) > 0


def test_other_models_of_quality_need_another_look(source: Path, plain: Path) -> None:
    with pytest.raises(ConfigError, match=r"quality\.round_trip"):
        select(plain, config.load(GritRecipe, source / "recipe.toml", ['quality.round_trip=""']))
