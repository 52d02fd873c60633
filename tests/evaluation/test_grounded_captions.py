"""Captions with boxes judged: head nouns, pairs counted one to one, all through the command."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import write_entities
from typer.testing import CliRunner

from kosmos2.boxes import Box
from kosmos2.cli import app, evaluate_benchmarks
from kosmos2.evaluation.benchmark import Prediction, Problem, prompt_text, read_split
from kosmos2.evaluation.grounded import judge_pairs
from kosmos2.evaluation.heads import head, singular
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.vocab.locations import LocationGrid

GROUNDED = BENCHMARKS["flickr30k-grounded"]
LEFT, RIGHT = Box(0.0, 0.0, 0.4, 1.0), Box(0.6, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("phrase", "noun"),
    [
        ("a young man", "man"),
        ("Two men", "man"),
        ("the women", "woman"),
        ("policemen", "policeman"),
        ("a group of young people", "person"),
        ("A group", "group"),
        ("a pair of scissors", "scissor"),
        ("scissors", "scissor"),
        ("the woman in a red hat", "woman"),
        ("a man and a woman", "man"),
        ("his father's hat", "hat"),
        ("three dishes", "dish"),
        ("a glass of wine", "glass"),
        ("two glasses", "glass"),
        ("cherries", "cherry"),
        ("cookies", "cookie"),
        ("shoes", "shoe"),
        ("a bus", "bus"),
        ("a dress", "dress"),
        ("a traffic light", "light"),
        ("A boy wearing a hat", "boy"),
        ("", ""),
    ],
)
def test_the_head_is_what_a_phrase_is_about(phrase: str, noun: str) -> None:
    assert head(phrase) == noun


@pytest.mark.parametrize("noun", ["ox", "gas", "children", "shelves", "lots"])
def test_the_singular_of_a_singular_is_itself(noun: str) -> None:
    assert singular(singular(noun)) == singular(noun)


def said(text: str, *things: tuple[str, Box]) -> Prediction:
    spans = tuple((text.index(words), text.index(words) + len(words)) for words, _ in things)
    boxes = tuple(box for _, box in things)
    return Prediction(id="1", prompt="", answer="", boxes=boxes, spans=spans, text=text)


def shown(*things: tuple[Box, tuple[str, ...]], sentences: int = 4) -> Problem:
    return Problem(
        id="1",
        picture="1.jpg",
        width=10,
        height=10,
        boxes=tuple(box for box, _ in things),
        named=tuple(phrases for _, phrases in things),
        references=("",) * sentences,
    )


def numbers(problem: Problem, prediction: Prediction) -> dict[str, float]:
    judged = judge_pairs([(problem, prediction)])
    assert judged.each[0]["f1"] == pytest.approx(judged.numbers["f1"].value)
    return {name: number.value for name, number in judged.numbers.items()}


TRUTH = shown((LEFT, ("a man", "a guy", "the guy")), (RIGHT, ("two dogs",)))


def test_a_pair_is_right_by_any_word_that_people_use_for_the_box() -> None:
    assert numbers(TRUTH, said("a guy and a dog", ("a guy", LEFT), ("a dog", RIGHT))) == {
        "f1": 1,
        "precision": 1,
        "recall": 1,
        "common_recall": 1,
        "noun_precision": 1,
    }


def test_a_right_noun_in_a_wrong_place_is_no_pair() -> None:
    assert numbers(TRUTH, said("a guy", ("a guy", RIGHT))) == {
        "f1": 0,
        "precision": 0,
        "recall": 0,
        "common_recall": 0,
        "noun_precision": 1,
    }


def test_a_right_place_with_another_noun_is_no_pair() -> None:
    found = numbers(TRUTH, said("a cat", ("a cat", LEFT)))
    assert (found["precision"], found["recall"], found["noun_precision"]) == (0, 0, 0)


def test_a_thing_is_found_once() -> None:
    found = numbers(TRUTH, said("a man and a guy", ("a man", LEFT), ("a guy", LEFT)))
    assert (found["precision"], found["recall"]) == (0.5, 0.5)
    assert found["f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["common_recall"] == 1  # the man is in three of four sentences, the dogs in one


def test_an_overlap_of_a_half_is_enough() -> None:
    truth = shown((Box(0.0, 0.0, 1.0, 1.0), ("a wall",)))
    half = Box(0.0, 0.0, 1.0, 0.5)
    assert numbers(truth, said("a wall", ("a wall", half)))["f1"] == 1
    less = Box(0.0, 0.0, 1.0, 0.49)
    assert numbers(truth, said("a wall", ("a wall", less)))["f1"] == 0


def test_shares_are_over_all_pictures_together() -> None:
    one = shown((LEFT, ("a man",)))
    pairs = [
        (one, said("a man", ("a man", LEFT))),
        (TRUTH, said("a cat and a dog", ("a cat", LEFT), ("a dog", LEFT))),
    ]
    judged = judge_pairs(pairs)
    assert judged.numbers["precision"].value == pytest.approx(1 / 3)
    assert judged.numbers["recall"].value == pytest.approx(1 / 3)
    assert judged.numbers["noun_precision"].value == pytest.approx(2 / 3)
    assert [each["f1"] for each in judged.each] == [1, 0]


def test_things_are_boxes_with_all_their_words_of_entities(tmp_path: Path) -> None:
    read = read_split(GROUNDED, write_entities(tmp_path), "val", own_data=True).problems
    assert [problem.id for problem in read] == ["1000", "2000"]
    named = dict(zip(read[0].boxes, read[0].named, strict=True))
    # Two men are two boxes, named in two sentences; what has no box is not among the truth.
    assert sorted(named.values()) == [
        ("A ball",),
        ("Two men", "the pair of men"),
        ("Two men", "the pair of men"),
        ("a ball",),
        ("a dog",),
    ]
    assert len(read[0].references) == 4
    assert prompt_text(GROUNDED.prompt(read[0], LocationGrid())) == "<grounding>An image of"


def names_all(problem: Problem) -> Prediction:
    text, boxes, spans = "", [], []
    for box, phrases in zip(problem.boxes, problem.named, strict=True):
        spans.append((len(text), len(text) + len(phrases[0])))
        boxes.append(box)
        text += f"{phrases[0]} "
    return Prediction(
        id=problem.id,
        prompt="<grounding>An image of",
        answer=text,
        boxes=tuple(boxes),
        spans=tuple(spans),
        text=text,
    )


def names_a_car(problem: Problem) -> Prediction:
    return Prediction(
        id=problem.id,
        prompt="<grounding>An image of",
        answer="a car",
        boxes=(Box(0, 0, 1, 1),),
        spans=((0, 5),),
        text="a car",
    )


class Knows:
    def __init__(self, rule: Any) -> None:
        self._rule = rule

    def answers(
        self, pictures: Sequence[Path], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        return [[self._rule(problem) for problem in own] for own in asked]


def test_who_names_all_things_scores_everything_and_a_constant_what_arithmetic_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_entities(tmp_path / "data")
    values = {}
    for rule in (names_all, names_a_car):
        monkeypatch.setattr(evaluate_benchmarks, "_load", lambda *_, rule=rule: Knows(rule))
        out = tmp_path / rule.__name__
        words = ["eval", "flickr30k-grounded", "--data", str(data), "--own-data", "--out", str(out)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
        values[rule.__name__] = {
            name: number["value"] for name, number in results["numbers"].items()
        }
        assert "the truth" in (out / "gallery.html").read_text(encoding="utf-8")
    assert set(values["names_all"].values()) == {1.0}
    # The car fills its picture: one right of two said, of seven things (five; a car, a road).
    assert values["names_a_car"] == pytest.approx(
        {
            "f1": 2 / 9,
            "precision": 1 / 2,
            "recall": 1 / 7,
            # Half of the sentences name: the two men (two of four), the car and the road.
            "common_recall": 1 / 4,
            "noun_precision": 1 / 2,
            "answered": 1.0,
        }
    )
