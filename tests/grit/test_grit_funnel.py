"""Whatever recipe and detector: in = out + what was dropped, in every unit and in all."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kosmos2.grit import worker
from kosmos2.grit.build import Build, Selected, build
from kosmos2.grit.language import Parser
from kosmos2.grit.recipe import Detection, Filters, GritRecipe, Linking, Phrases
from kosmos2.grit.steps import LEVELS, Discarded, Funnel
from kosmos2.shards import Local

pytest.importorskip("spacy", reason='needs pip install "kosmos2[grit]"')

CAPTIONS = [
    "A dog in a field of flowers", "love and peace", "", "a picture of two cats and their kittens",
    "It runs.", "http://x.org/a.jpg", "the man with a red hat who sits on a bench",
]  # fmt: skip
shares = st.floats(0, 1, width=16)
boxes = st.tuples(shares, shares, shares, shares).map(
    lambda box: [min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])]
)
entries = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20), boxes), max_size=4)
pairs = st.lists(
    st.tuples(st.sampled_from(CAPTIONS), entries, st.sampled_from(["good", "broken", "absent"])),
    min_size=1,
    max_size=6,
)
recipes = st.builds(
    lambda phrases, linking, filters: (phrases, linking, filters),
    st.builds(
        Phrases, drop_pronouns=st.booleans(), about_the_picture=st.sampled_from([(), ("picture",)])
    ),
    st.builds(
        Linking,
        nms_iou=shares,
        threshold=st.sampled_from([0.0, 0.5, 1.0]),
        floor=st.sampled_from([0.0, 0.05, 1.0]),
        boxes_per_phrase=st.integers(1, 2),
        contained=st.sampled_from(["keep", "drop"]),
    ),
    st.builds(
        Filters,
        min_side=st.sampled_from([0, 20]),
        max_aspect=st.sampled_from([1.0, 1000.0]),
        min_words=st.integers(0, 4),
        max_words=st.integers(4, 9),
        junk=st.booleans(),
    ),
)


@pytest.fixture(autouse=True)
def one_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the language model once: these runs are many and small."""
    known: list[Parser] = []

    def parser(language: Any) -> Parser:
        known[:] = known or [Parser(language)]
        return known[0]

    monkeypatch.setattr(worker, "Parser", parser)


def source(folder: Path, given: list[Any]) -> None:
    folder.mkdir(exist_ok=True)
    rows, truth = [], []
    for number, (caption, found, state) in enumerate(given):
        path = folder / f"{number}.png"
        path.unlink(missing_ok=True)
        if state == "broken":
            path.write_bytes(b"no picture")
        elif state == "good":
            Image.new("RGB", (30, 16 + number), (number, 0, 0)).save(path)
        rows.append({"id": number, "image": path.name, "caption": caption})
        chunks = [[start, start + length, *box, 1.0] for start, length, box in found]
        long = "x" * 40
        truth.append({"id": number, "caption": long, "noun_chunks": chunks, "ref_exps": []})
    for name, lines in (("pairs", rows), ("truth", truth)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def made(folder: Path, recipe: GritRecipe) -> Selected:
    job = Build(
        source=str(folder / "pairs.jsonl"), out=folder / "out", recipe=recipe, driver=Local(),
        unit=2, anew=True,
    )  # fmt: skip
    return build(job, lambda done: None, lambda total: None)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(pairs, recipes)
def test_the_funnel_of_every_unit_and_of_the_whole_run_balances(
    tmp_path: Path, given: list[Any], choices: Any
) -> None:
    source(tmp_path / "s", given)
    phrases, linking, filters = choices
    detection = Detection(name="oracle", model=str(tmp_path / "s" / "truth.jsonl"))
    recipe = GritRecipe(detection=detection, phrases=phrases, linking=linking, filters=filters)
    funnel = made(tmp_path / "s", recipe).funnel
    assert all(getattr(funnel, level).balances for level in LEVELS), funnel
    out = tmp_path / "s" / "out"
    for unit in range(-(-len(given) // 2)):
        marker = json.loads((out / "looked" / "done" / f"{unit:08d}.json").read_text())
        rows = list(worker.read_looked(out / "looked" / "parts" / f"{unit:08d}" / worker.LOOKED))
        of_pairs = Funnel.from_counts(marker["counts"]).pairs
        gone = [each for each in rows if isinstance(each, Discarded)]
        assert of_pairs.entered == len(rows) and of_pairs.dropped.total() == len(gone)
    lines = {
        name: (out / f"{name}.jsonl").read_text().splitlines() for name in ("records", "dropped")
    }
    assert funnel.pairs.entered == len(given) == len(lines["records"]) + len(lines["dropped"])
    assert funnel.pairs.left == len(lines["records"])
    reasons = [json.loads(line)["reason"] for line in lines["dropped"]]
    assert funnel.pairs.dropped == {reason: reasons.count(reason) for reason in reasons}
    assert funnel == Funnel.from_counts(json.loads((out / "funnel.json").read_text()))
