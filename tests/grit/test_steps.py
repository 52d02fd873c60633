"""From pairs to records: the funnel balances whatever happens, and the truth comes back."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from kosmos2 import config
from kosmos2.boxes import Box
from kosmos2.grit.detectors import Asked, Oracle, Refused
from kosmos2.grit.language import Parser
from kosmos2.grit.linking import Candidate
from kosmos2.grit.recipe import Filters, GritRecipe, Linking
from kosmos2.grit.select import DUPLICATE, EXCLUDED, Selection
from kosmos2.grit.steps import LEVELS, Discarded, Funnel, Looked, Pair, look
from kosmos2.records.record import Grounded, GroundedRecord

pytest.importorskip("spacy", reason='needs pip install "kosmos2[grit]"')

RECIPE = GritRecipe(linking=Linking(threshold=0.65))
CAPTIONS = {
    "dog": "A dog in a field of flowers.",
    "love": "Love and peace.",
    "blank": "   ",
    "unread": "A cat on a mat.",
    "unsure": "A bird on a tree.",
}


class Half:
    """Gives every phrase one box, whose score falls with its number; refuses and doubts by id."""

    score = "made up"
    identity: Mapping[str, str] = {"detector": "half"}

    def detect(self, asked: Sequence[Asked]) -> list[list[Candidate] | Refused]:
        return [self._one(each) for each in asked]

    def _one(self, asked: Asked) -> list[Candidate] | Refused:
        if asked.id == "unread":
            return Refused("not read")
        scores = [0.01, 0.3] if asked.id == "unsure" else [0.9, 0.7, 0.6]
        return [
            Candidate(phrase=number, box=Box(number / 4, 0, (number + 1) / 4, 1), score=score)
            for number, (_, score) in enumerate(zip(asked.spans, scores, strict=False))
        ]


@pytest.fixture(scope="module")
def parser() -> Parser:
    return Parser(RECIPE.language)


def pair(id: str, caption: str) -> Pair:
    record = GroundedRecord(id=id, caption=caption, noun_chunks=None, ref_exps=None)
    return Pair(id=id, caption=caption, image=Image.new("RGB", (8, 8)), record=record)


def run(
    pairs: Sequence[Pair], parser: Parser, detector: Half | Oracle, recipe: GritRecipe = RECIPE
) -> tuple[list[GroundedRecord | Discarded], list[Looked | Discarded], Funnel]:
    funnel = Funnel()
    looked = look(pairs, recipe, parser, detector, funnel)
    return selected(looked, recipe, funnel), looked, funnel


def selected(
    looked: Sequence[Looked | Discarded], recipe: GritRecipe, funnel: Funnel
) -> list[GroundedRecord | Discarded]:
    selection = Selection(recipe, None)
    made = [selection.record(each) if isinstance(each, Looked) else each for each in looked]
    funnel.add(selection.funnel)
    return made


def test_every_pair_phrase_and_box_is_kept_or_has_a_counted_reason(parser: Parser) -> None:
    made, _, funnel = run([pair(*item) for item in CAPTIONS.items()], parser, Half())
    reasons = {each.id: each.reason for each in made if isinstance(each, Discarded)}
    assert reasons == {
        "love": "no phrase to look for",
        "blank": "no phrase to look for",
        "unread": "not read",
        "unsure": "no box is sure enough",
    }
    assert [each.id for each in made] == list(CAPTIONS)
    for level in LEVELS:
        assert getattr(funnel, level).balances, level
    assert funnel.pairs.entered == 5 and funnel.pairs.left == 1
    assert Funnel.from_counts(funnel.to_counts()) == funnel


def test_parts_counted_apart_add_up_to_the_whole(parser: Parser) -> None:
    pairs = [pair(*item) for item in CAPTIONS.items()]
    total = Funnel()
    for each in pairs:
        total.add(run([each], parser, Half())[2])
    assert total == run(pairs, parser, Half())[2]


def test_the_side_table_links_again_to_the_same_record(parser: Parser) -> None:
    made, looked, _ = run([pair("dog", CAPTIONS["dog"])], parser, Half())
    (found,) = looked
    assert isinstance(found, Looked)
    again = Looked.from_dict(found.to_dict())
    assert selected([again], RECIPE, Funnel()) == made
    (lower,) = selected([again], GritRecipe(linking=Linking(threshold=0.5)), Funnel())
    assert isinstance(lower, GroundedRecord) and lower.ref_exps is not None
    assert len(lower.ref_exps) == 3


def test_of_equal_pictures_the_first_that_gives_a_record_is_kept(
    parser: Parser, tmp_path: Path
) -> None:
    pytest.importorskip("imagehash")
    recipe = GritRecipe(linking=RECIPE.linking, filters=Filters(duplicate_bits=2, min_words=2))
    captions = {"short": "Dog.", "unsure": "A bird on a tree.", "one": CAPTIONS["dog"]}
    pairs = [pair(*item) for item in (*captions.items(), ("two", CAPTIONS["dog"]))]
    made, looked, funnel = run(pairs, parser, Half(), recipe)
    assert [each.reason if isinstance(each, Discarded) else each.id for each in made] == [
        "caption too short",
        "no box is sure enough",
        "one",
        DUPLICATE,
    ]
    assert all(getattr(funnel, level).balances for level in LEVELS)
    (one,) = (each for each in looked if isinstance(each, Looked) and each.record.id == "one")
    again = Looked.from_dict(one.to_dict())
    assert again == one and again.phash is not None
    (tmp_path / "eval.txt").write_text(f"{again.phash:016x}\n")
    strict = GritRecipe(filters=Filters(excluded=(str(tmp_path / "eval.txt"),)))
    (refused,) = selected([again], strict, Funnel())
    assert isinstance(refused, Discarded) and refused.reason == EXCLUDED


def test_the_oracle_gives_the_truth_back(parser: Parser) -> None:
    truth = GroundedRecord(
        id="dog",
        caption=CAPTIONS["dog"],
        noun_chunks=(Grounded(0, 5, 0.1, 0.2, 0.5, 0.6, 1.0), Grounded(9, 16, 0, 0, 1, 1, 1.0)),
        ref_exps=(Grounded(0, 27, 0.1, 0.2, 0.5, 0.6, 1.0), Grounded(9, 27, 0, 0, 1, 1, 1.0)),
    )
    (made,), _, _ = run([pair("dog", truth.caption)], parser, Oracle({"dog": truth}))
    assert isinstance(made, GroundedRecord)
    assert made.noun_chunks is not None and truth.noun_chunks is not None
    assert sorted(made.noun_chunks) == sorted(truth.noun_chunks)
    assert sorted(made.ref_exps or ()) == sorted(truth.ref_exps or ())


@pytest.mark.parametrize("name", ["paper", "default"])
def test_the_recipes_load(name: str) -> None:
    path = Path(__file__).parents[2] / "recipes" / "grit" / f"{name}.toml"
    recipe = config.load(GritRecipe, path)
    if name == "default":
        assert recipe == GritRecipe()
    else:
        assert recipe.linking.threshold == 0.65 and not recipe.phrases.about_the_picture
