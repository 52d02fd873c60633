"""Readers of the benchmarks' own files: every quirk of the formats, and what is refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import (
    SENTENCES,
    SPANS,
    write_entities,
    write_mdetr_flickr,
    write_mdetr_refcoco,
    write_refcoco,
)

from kosmos2.boxes import Box
from kosmos2.errors import Kosmos2Error, RecordError, RequestError
from kosmos2.evaluation.benchmark import Problem, prompt_text, read_split
from kosmos2.evaluation.flickr import read_entities, read_sentences
from kosmos2.evaluation.plain_pickle import read_plain_pickle
from kosmos2.evaluation.registry import BENCHMARKS, benchmark_named
from kosmos2.vocab.locations import LocationGrid

REFCOCO, FLICKR = BENCHMARKS["refcoco"], BENCHMARKS["flickr30k"]


def problems(name: str, path: Path, split: str = "val") -> tuple[Problem, ...]:
    return read_split(BENCHMARKS[name], path, split, own_data=True).problems


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_refer_gives_a_question_for_each_sentence_of_the_split(
    tmp_path: Path, protocol: int
) -> None:
    read = problems("refcoco", write_refcoco(tmp_path, protocol=protocol))
    assert [(each.id, each.phrase) for each in read] == [
        ("800", "the lady"),
        ("801", "woman on  left"),
        ("802", "man"),
        ("804", "the dog that fills the whole picture"),
    ]
    assert read[0].boxes == (Box(0.1, 0.1, 0.3, 0.3),)
    assert read[3].boxes == (Box(0, 0, 1, 1),)  # 0.4 pixels beyond the border
    assert read[0].picture == "COCO_train2014_000000581857.jpg"  # not the reference's file_name
    assert [each.categories for each in read] == [("person",)] * 3 + [("dog",)]


def test_distractors_are_the_other_things_of_the_same_noun_in_the_picture(tmp_path: Path) -> None:
    read = problems("refcoco", write_refcoco(tmp_path))
    assert [each.distractors for each in read] == [2, 2, 2, 0]


def test_mdetr_and_refer_ask_the_same(tmp_path: Path) -> None:
    ours = problems("refcoco", write_refcoco(tmp_path))
    theirs = problems("refcoco", write_mdetr_refcoco(tmp_path / "finetune.json"))

    def told(each: Problem) -> tuple[object, ...]:
        return each.phrase, each.boxes, each.picture, each.categories, each.width, each.height

    assert list(map(told, ours)) == list(map(told, theirs))
    assert {each.distractors for each in theirs} == {None}
    assert not {each.id for each in ours} & {each.id for each in theirs}


def test_other_splits_are_other_questions(tmp_path: Path) -> None:
    read = problems("refcoco", write_refcoco(tmp_path), "testA")
    assert [each.phrase for each in read] == ["car"]


def test_a_pickle_that_names_anything_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "touched",)

    file = tmp_path / "refs(unc).p"
    for value in (Hostile(), [{"split": Path("x")}], {1, 2}.union):
        file.write_bytes(pickle.dumps(value))
        with pytest.raises(RecordError, match="asks for"):
            read_plain_pickle(file)
    assert not (tmp_path / "touched").exists()
    file.write_bytes(pickle.dumps([1, 2])[:-2])
    with pytest.raises(RecordError, match="no complete pickle"):
        read_plain_pickle(file)


def test_a_pickle_of_python_2_with_any_letters_is_read(tmp_path: Path) -> None:
    file = tmp_path / "old.p"
    # protocol 2 of Python 2: {'sent': 'caf\xe9', 'id': 5L}
    file.write_bytes(b"\x80\x02}q\x00(U\x04sentq\x01U\x04caf\xe9q\x02U\x02idq\x03\x8a\x01\x05u.")
    assert read_plain_pickle(file) == {"sent": "caf\ufffd", "id": 5}


@pytest.mark.parametrize("name", ["refcoco", "flickr30k"])
def test_less_than_the_published_split_is_refused(tmp_path: Path, name: str) -> None:
    write_refcoco(tmp_path)
    write_entities(tmp_path / "flickr30k_entities")
    with pytest.raises(RecordError, match=r"10,834 .* gives 4\.|14,433 .* gives 7\."):
        read_split(BENCHMARKS[name], tmp_path, "val", own_data=False)


def test_the_published_sizes_are_those_of_the_specification() -> None:
    assert REFCOCO.splits == {"val": 10834, "testA": 5657, "testB": 5095}
    assert BENCHMARKS["refcoco+"].splits == {"val": 10758, "testA": 5726, "testB": 4889}
    assert BENCHMARKS["refcocog"].splits == {"val": 4896, "test": 9602}
    assert FLICKR.splits == {"val": 14433, "test": 14481}


def test_entities_are_read_with_every_quirk(tmp_path: Path) -> None:
    shown = read_entities(write_entities(tmp_path) / "Annotations" / "1000.xml")
    assert (shown.picture, shown.width, shown.height) == ("1000.jpg", 500, 375)
    assert shown.boxes.keys() == {"1", "2", "9", "4", "5"}  # neither scene nor nobndbox
    assert len(shown.boxes["1"]) == 2
    assert shown.boxes["2"] == shown.boxes["9"] == (Box(0.6, 0.8, 0.8, 1.0),)


def test_sentences_are_read_as_words_with_single_blanks(tmp_path: Path) -> None:
    folder = write_entities(tmp_path)
    for id in SENTENCES:
        read = read_sentences(folder / "Sentences" / f"{id}.txt")
        assert [each.text for each in read] == [
            text for (of, _), (text, _) in SPANS.items() if of == id
        ]
    first = read_sentences(folder / "Sentences" / "1000.txt")[0]
    assert [first.text[each.start : each.end] for each in first.mentions] == [
        "Two men",
        "a dog",
        "the sea",
    ]
    assert first.mentions[1].kinds == ("people", "animals")


def test_phrases_with_a_box_are_asked_with_the_words_before_them_untagged(tmp_path: Path) -> None:
    read = problems("flickr30k", write_entities(tmp_path))
    assert [prompt_text(FLICKR.prompt(each, LocationGrid())) for each in read] == [
        "<grounding><phrase> Two men</phrase>",
        "<grounding>Two men and<phrase> a dog</phrase>",
        "<grounding><phrase> A ball</phrase>",
        "<grounding>A ball lies beside<phrase> a ball</phrase>",
        "<grounding>a hat and<phrase> the pair of men</phrase>",
        "<grounding><phrase> A red car</phrase>",
        "<grounding>A red car on<phrase> a road</phrase>",
    ]
    assert [len(each.boxes) for each in read] == [2, 1, 1, 1, 2, 1, 1]
    assert read[1].categories == ("people", "animals")
    assert read[6].boxes[0].corners[2:] == (1.0, 1.0)  # a pixel beyond the border


def test_the_same_words_twice_in_a_sentence_keep_their_own_boxes(tmp_path: Path) -> None:
    folder = write_entities(tmp_path)
    text = (folder / "Sentences" / "1000.txt").read_text(encoding="utf-8")
    (folder / "Sentences" / "1000.txt").write_text(text.replace("A ball", "a ball"))
    mdetr = json.loads(write_mdetr_flickr(tmp_path / "m.json").read_text(encoding="utf-8"))
    mdetr["images"][1]["caption"] = mdetr["images"][1]["caption"].replace("A ball", "a ball")
    (tmp_path / "m.json").write_text(json.dumps(mdetr), encoding="utf-8")
    for path in (folder, tmp_path / "m.json"):
        balls = [each for each in problems("flickr30k", path) if each.phrase == "a ball"]
        assert len(balls) == 2
        assert balls[0].boxes != balls[1].boxes
        assert all(each.said_again for each in balls)


def test_mdetr_and_entities_ask_the_same_about_the_same_pictures(tmp_path: Path) -> None:
    ours = problems("flickr30k", write_entities(tmp_path / "flickr30k_entities"))
    theirs = problems("flickr30k", write_mdetr_flickr(tmp_path / "final_flickr.json"))
    assert ours == theirs
    assert len({each.picture for each in ours}) == 2  # not one for each sentence


def test_the_split_is_what_is_asked_for_whatever_folders_are_called(tmp_path: Path) -> None:
    folder = write_entities(tmp_path / "eval" / "val")
    assert [each.id for each in problems("flickr30k", folder, "test")] == ["2000-0-0", "2000-0-13"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data["images"].pop(), "3 images but 4"),
        (lambda data: data["annotations"][1].update(image_id=0), "annotation is that of image 0"),
        (lambda data: data["annotations"][1].pop("bbox"), "no 'bbox'"),
        (lambda data: data["annotations"][1].update(bbox=[600, 0, 90, 9]), "leaves the picture"),
        (lambda data: data["images"][0].update(caption=" "), "has words"),
        (lambda data: data["images"][0].update(width="wide"), "side is a number"),
        (lambda data: data["images"][0].update(dataset_name="refcoco+"), "asked for is refcoco"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(
    tmp_path: Path, damage: Callable[[Any], object], said: str
) -> None:
    file = write_mdetr_refcoco(tmp_path / "m.json")
    data = json.loads(file.read_text(encoding="utf-8"))
    damage(data)
    file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(RecordError, match=said):
        problems("refcoco", file)


def test_two_sources_in_one_folder_are_told_apart_by_the_user(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    write_mdetr_refcoco(tmp_path / "finetune_refcoco_val.json")
    with pytest.raises(RecordError, match="say with --data which"):
        problems("refcoco", tmp_path)
    assert len(problems("refcoco", tmp_path / "finetune_refcoco_val.json")) == 4


@pytest.mark.parametrize(
    ("name", "split", "error"),
    [("refcoco", "test", RequestError), ("refcocog", "val", RecordError)],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, name: str, split: str, error: type[Kosmos2Error]
) -> None:
    with pytest.raises(error, match=r"val, testA, testB|refs\(umd\).p"):
        read_split(BENCHMARKS[name], write_refcoco(tmp_path), split, own_data=False)


def test_an_unknown_benchmark_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RequestError, match="refcoco, refcoco\\+, refcocog, flickr30k"):
        benchmark_named("refclef")
