"""Answers of VQAv2: every rule of the official vqaEval.py, its quirks included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.evaluation.vqa_answers import accuracy, normal, without_punctuation


# What the official code (GT-Vision-Lab/VQA, c4e6a0e) returns for these.
@pytest.mark.parametrize(
    ("said", "compared"),
    [
        ("Yes.", "yes"),
        ("  Yes!\n", "yes"),
        ("The dog", "dog"),
        ("an apple and a pear", "apple and pear"),
        ("Two", "2"),
        ("none", "0"),
        ("ten o'clock", "10 o'clock"),
        ("eleven", "eleven"),
        ("dont know", "don't know"),
        ("its", "its"),
        ("shes", "shes"),
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("Im here", "im here"),
        ("somebody'd", "somebodyd"),
        ("somebodyd", "somebodyd"),
        ("t-shirt", "t shirt"),
        ("t -shirt", "t shirt"),
        ("a- b-c", "bc"),
        ("1,000", "1000"),
        ("1,000 (feet)", "1000 feet"),
        ("red,blue", "red blue"),
        ("red, blue", "red blue"),
        ("3.5", "3.5"),
        ("3. 5", "3 5"),
        ("U.S.", "us"),
        ("left/right", "left right"),
        ("what's this?", "what's this"),
        ("it's 5:30", "it's 5:30"),
        ("'hello'", "'hello'"),
        ("the", ""),
        ("", ""),
    ],
)
def test_answers_are_compared_as_the_official_code_compares_them(said: str, compared: str) -> None:
    assert normal(said) == compared


def test_a_mark_goes_everywhere_where_a_blank_stands_beside_it_anywhere() -> None:
    assert without_punctuation("a-b") == "a b"
    assert without_punctuation("a-b c- d") == "ab c d"


def test_no_more_than_32_points_go() -> None:
    assert without_punctuation("." * 40) == "." * 8


@pytest.mark.parametrize(
    ("agree", "share"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)]
)
def test_accuracy_is_the_mean_over_nine_of_ten_people(agree: int, share: float) -> None:
    people = ["yes"] * agree + [f"other {number}" for number in range(10 - agree)]
    assert accuracy("Yes.", people) == pytest.approx(share)


def test_what_all_people_say_alike_is_taken_as_it_stands() -> None:
    # The answer loses its article, the people's keep it: as in the original, nobody is right.
    assert accuracy("the beach", ["the beach"] * 10) == 0.0
    assert accuracy("t-shirt", ["t-shirt"] * 10) == 0.0
    # Where one says something else, marks go on both sides, articles still on one alone.
    assert accuracy("t-shirt", ["t-shirt"] * 9 + ["shirt"]) == 1.0
    assert accuracy("the beach", ["the beach"] * 9 + ["sea"]) == 0.0
    assert accuracy("two", ["2"] * 10) == 1.0


@given(st.lists(st.sampled_from(["yes", "no", "2", "red"]), min_size=10, max_size=10))
def test_accuracy_is_the_sum_over_people_left_out_one_by_one(people: list[str]) -> None:
    for answer in ("yes", "no", "3"):
        total = 0.0
        for left_out in range(10):
            others = [said for place, said in enumerate(people) if place != left_out]
            total += min(1.0, others.count(answer) / 3)
        assert accuracy(answer, people) == pytest.approx(total / 10)
