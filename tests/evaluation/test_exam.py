"""The exam: everybody is asked the same, truth gets full marks, silence gets none."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from scene_shapes import recipe, shapes
from tiny_model import save_tiny_model

from kosmos2.api import Kosmos2, Settings
from kosmos2.boxes import Box, iou
from kosmos2.errors import RecordError
from kosmos2.evaluation import report
from kosmos2.evaluation.metrics import Thing
from kosmos2.evaluation.scenes import ASK, FIND_ONE, Answered, Case, Kind, ModelExaminee, examine
from kosmos2.evaluation.scores import BASELINES, baseline, head_noun, measure, verdict
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.scenes import Scene, SceneMaker
from kosmos2.scenes.nouns import all_nouns
from kosmos2.vocab.tokenizer import Tokenizer

COUNT = 80
BETWEEN_0_AND_1 = ("score_right", "score_wrong", "score_auroc")

Answers = list[list[GroundedText]]


@dataclass(frozen=True)
class Knowing:
    """Answers the truth, and is as sure of it as it is told to be."""

    score: float

    def answers(self, pictures: Sequence[Image.Image], cases: Sequence[Sequence[Case]]) -> Answers:
        return [[self._answer(case) for case in own] for own in cases]

    def _answer(self, case: Case) -> GroundedText:
        if not case.things:
            return GroundedText(text=case.answer.upper() + ".")
        text, phrases = "It shows ", []
        for thing in case.things:
            words = f"a {thing.colour} {thing.noun}"
            phrases.append(
                Phrase(
                    start=len(text),
                    end=len(text) + len(words),
                    boxes=(thing.box,),
                    scores=(self.score,),
                )
            )
            text += f"{words} on "
        return GroundedText(text=text, phrases=tuple(phrases))


class Silent:
    def answers(self, pictures: Sequence[Image.Image], cases: Sequence[Sequence[Case]]) -> Answers:
        return [[GroundedText(text="") for _ in own] for own in cases]


@pytest.fixture(scope="module")
def maker() -> SceneMaker:
    return SceneMaker(recipe(split="iid", size=48), shapes())


@pytest.fixture(scope="module")
def known(maker: SceneMaker) -> list[Answered]:
    examined = examine(maker, COUNT, Knowing(0.75), at_a_time=30)
    return [answer for one in examined for answer in one.answers]


@pytest.fixture(scope="module")
def scenes(maker: SceneMaker) -> dict[str, Scene]:
    made = [maker.scene(index) for index in range(COUNT)]
    return {scene.id: scene for scene in made}


def test_who_answers_the_truth_gets_full_marks_everywhere(known: list[Answered]) -> None:
    numbers = measure(known)
    assert numbers.keys() >= report.TITLES.keys() - {"score_wrong", "score_auroc"}
    for name, number in numbers.items():
        assert number.value == pytest.approx(0.75 if name == "score_right" else 1), name
        assert number.n > 0
    assert all(verdict(answer).right for answer in known)


def test_who_says_nothing_gets_nothing(maker: SceneMaker) -> None:
    examined = examine(maker, COUNT, Silent(), at_a_time=COUNT)
    numbers = measure([answer for one in examined for answer in one.answers])
    told_apart = numbers.pop("shown_auroc")
    assert told_apart.value == 0.5
    assert {number.value for number in numbers.values()} == {0.0}
    assert numbers.keys() >= {"find", "find_all_f1", "caption_precision", "describe", *ASK}


def test_everybody_is_asked_the_same_however_many_at_a_time(
    maker: SceneMaker, known: list[Answered]
) -> None:
    again = examine(maker, COUNT, Silent(), at_a_time=7)
    assert [a.case for one in again for a in one.answers] == [a.case for a in known]


def test_every_kind_of_question_is_asked(known: list[Answered]) -> None:
    assert {answer.case.kind for answer in known} == set(Kind)


def test_each_phrase_to_find_is_true_of_what_its_case_says(
    known: list[Answered], scenes: dict[str, Scene]
) -> None:
    for answer in known:
        case, scene = answer.case, scenes[answer.case.scene]
        meant = {e: g.boxes for g in scene.groups for e in g.expressions}
        meant |= {item.expression: (item.box,) for item in scene.referring}
        if case.kind in (*FIND_ONE, Kind.FIND_ALL):
            assert meant[case.asked] == tuple(thing.box for thing in case.things)
            assert (len(case.things) > 1) == (case.kind is Kind.FIND_ALL)


def test_a_distinguishing_phrase_is_asked_only_where_there_are_others_of_the_noun(
    known: list[Answered], scenes: dict[str, Scene]
) -> None:
    for answer in known:
        case, scene = answer.case, scenes[answer.case.scene]
        if case.kind in FIND_ONE:
            noun = case.things[0].noun
            of_noun = sum(group.count for group in scene.groups if group.noun == noun)
            assert (of_noun > 1) == (case.kind is Kind.FIND_DISTINGUISHING)
        if case.kind is Kind.FIND_PLAIN:
            assert case.asked.split(" ", 1) in (["a", noun], ["an", noun], ["the", noun])


def test_caption_truth_is_every_thing_of_the_scene(
    known: list[Answered], scenes: dict[str, Scene]
) -> None:
    captions = {a.case.scene: a.case for a in known if a.case.kind is Kind.CAPTION}
    assert captions.keys() == scenes.keys()
    for name, case in captions.items():
        shown = [(g.noun, box) for g in scenes[name].groups for box in g.boxes]
        assert [(thing.noun, thing.box) for thing in case.things] == shown


def test_no_is_as_frequent_as_yes(known: list[Answered]) -> None:
    said = [a.case.answer for a in known if a.case.kind is Kind.ASK_IS_THERE]
    assert 0.3 < said.count("no") / len(said) < 0.7


def test_the_noun_of_a_phrase_is_read_whatever_stands_around_it() -> None:
    for noun in all_nouns().values():
        for name in (noun.singular, noun.plural):
            for phrase in (f"a small red {name}", f"the {name} on the left.", f"Two {name} above"):
                assert head_noun(phrase) == noun.singular
            assert head_noun(f"the {name} next to a wolf") == noun.singular
    assert head_noun("a thing of beauty") == ""
    assert head_noun("two top hats on a red book") == "top hat"


def answer_to(case: Case, *boxes: Box, scores: tuple[float, ...] = ()) -> Answered:
    phrase = Phrase(start=0, end=len(case.asked), boxes=boxes, scores=scores)
    return Answered(case=case, predicted=GroundedText(text=case.asked, phrases=(phrase,)))


LEFT, RIGHT = Box(0, 0, 0.4, 1), Box(0.6, 0, 1, 1)


def test_only_the_first_box_of_a_found_phrase_counts() -> None:
    case = Case(scene="s", kind=Kind.FIND_PLAIN, asked="a dog", things=(Thing("dog", LEFT),))
    assert verdict(answer_to(case, LEFT, RIGHT)).right
    assert not verdict(answer_to(case, RIGHT, LEFT)).right


def test_half_of_the_union_is_just_enough() -> None:
    thing = Thing("dog", Box(0, 0, 0.5, 1))
    case = Case(scene="s", kind=Kind.FIND_PLAIN, asked="a dog", things=(thing,))
    group = Case(scene="s", kind=Kind.FIND_ALL, asked="a dog", things=(thing,))
    caption = Case(scene="s", kind=Kind.CAPTION, asked="a dog", things=(thing,))
    for each in (case, group, caption):
        assert verdict(answer_to(each, Box(0, 0, 0.25, 1))).right
        assert not verdict(answer_to(each, Box(0, 0, 0.24, 1))).right


def test_micro_f1_counts_boxes_of_all_groups() -> None:
    pair = (Thing("dog", LEFT), Thing("dog", RIGHT))
    cases = [
        Case(scene=name, kind=Kind.FIND_ALL, asked="two dogs", things=pair) for name in ("a", "b")
    ]
    numbers = measure([answer_to(cases[0], LEFT, RIGHT), answer_to(cases[1], LEFT, LEFT)])
    # 3 of 4 predicted are right, 3 of 4 true are found.
    assert numbers["find_all_f1"].value == pytest.approx(0.75)
    assert numbers["find_all_f1"].n == 4
    assert numbers["find_all_exact"].value == 0.5


def test_a_caption_needs_noun_and_box_together() -> None:
    case = Case(
        scene="s",
        kind=Kind.CAPTION,
        things=(Thing("dog", LEFT, "red"), Thing("cat", RIGHT)),
    )
    swapped = GroundedText(
        text="a red cat, a dog and a house",
        phrases=(
            Phrase(start=0, end=9, boxes=(LEFT,)),
            Phrase(start=11, end=16, boxes=(RIGHT,)),
            Phrase(start=21, end=28, boxes=(RIGHT,)),
        ),
    )
    numbers = measure([Answered(case=case, predicted=swapped)])
    assert numbers["caption_precision"].value == numbers["caption_recall"].value == 0
    assert numbers["caption_noun_precision"].value == pytest.approx(2 / 3)
    assert numbers["caption_noun_recall"].value == 1
    assert numbers["caption_noun_iou"].value == iou(LEFT, RIGHT) == 0
    assert "caption_colour" not in numbers


def test_scores_are_judged_by_whether_they_tell_right_from_wrong() -> None:
    case = Case(scene="s", kind=Kind.FIND_PLAIN, asked="a dog", things=(Thing("dog", LEFT),))
    numbers = measure([answer_to(case, LEFT, scores=(0.8,)), answer_to(case, RIGHT, scores=(0.2,))])
    assert numbers["score_right"].value == pytest.approx(0.8)
    assert numbers["score_wrong"].value == pytest.approx(0.2)
    assert numbers["score_auroc"].value == 1


def test_baselines_answer_each_case_with_their_box_and_the_most_frequent_words(
    known: list[Answered],
) -> None:
    cases = [answer.case for answer in known]
    for box in BASELINES.values():
        answered = baseline(cases, box)
        assert [answer.case for answer in answered] == cases
        assert {b for a in answered for p in a.predicted.phrases for b in p.boxes} == {box}
        numbers = measure(answered)
        described = [case.things[0].noun for case in cases if case.kind is Kind.DESCRIBE]
        assert numbers["describe"].value <= max(map(described.count, described)) / len(described)
        counted = [case.answer for case in cases if case.kind is Kind.ASK_HOW_MANY]
        assert numbers["ask_how_many"].value == pytest.approx(
            max(map(counted.count, counted)) / len(counted)
        )


def saved(folder: Path, known: list[Answered]) -> Path:
    report.save_answers(folder / "iid.jsonl", known)
    machine = report.Machine(processor="p", cores=2, device="cpu", torch="2", python="3")
    run = report.Run(
        command="kosmos2 eval scenes",
        date="2026-01-01",
        code=report.Code(commit="c", changed=False),
        machine=machine,
        model="embedded",
        weights={"model.safetensors": "00"},
        recipe="r.toml",
        count=COUNT,
        seed=3,
        seconds={"iid": 1.0},
    )
    report.save_run(folder, run)
    return folder


def test_saved_answers_give_the_same_numbers_again(tmp_path: Path, known: list[Answered]) -> None:
    saved(tmp_path, known)
    assert report.read_answers(tmp_path / "iid.jsonl") == known
    results = report.write_results(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    numbers = results["splits"]["iid"]["numbers"]
    assert {name: number["value"] for name, number in numbers.items()} == {
        name: number.value for name, number in measure(known).items()
    }
    table = (tmp_path / "results.md").read_text()
    assert all(report.TITLES[name] in table for name in numbers)


def test_what_a_line_says_of_itself_is_not_believed(tmp_path: Path, known: list[Answered]) -> None:
    path = saved(tmp_path, known) / "iid.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, "right": False}) + "\n" for line in lines))
    numbers = report.write_results(tmp_path)["splits"]["iid"]["numbers"]
    assert numbers["find"]["value"] == 1


def test_a_folder_that_cannot_be_scored_says_which_line_is_wrong(
    tmp_path: Path, known: list[Answered]
) -> None:
    with pytest.raises(RecordError, match=r"run\.json"):
        report.write_results(tmp_path)
    path = saved(tmp_path, known) / "iid.jsonl"
    path.write_text(path.read_text() + '{"scene": "s"}\n')
    with pytest.raises(RecordError, match=rf"line {len(known) + 1}: .*kind"):
        report.write_results(tmp_path)


def test_the_model_is_asked_every_kind_of_question(
    tmp_path: Path, maker: SceneMaker, tiny_tokenizer: Tokenizer
) -> None:
    folder = save_tiny_model(tmp_path, tiny_tokenizer)
    settings = Settings(batch_size=16, max_new_tokens=2)
    examinee = ModelExaminee(Kosmos2.load(folder, device="cpu", settings=settings))
    answered = [a for one in examine(maker, 3, examinee, at_a_time=2) for a in one.answers]
    for answer in answered:
        if answer.case.kind in (*FIND_ONE, Kind.FIND_ALL):  # it must point at something
            assert answer.predicted.text == answer.case.asked
            assert answer.predicted.phrases[0].scores
        if answer.case.kind is Kind.DESCRIBE:
            assert answer.predicted.phrases[0].boxes == (answer.case.things[0].box,)
    assert measure(answered)["find"].n > 0
