"""Instructions in the layouts in which they are public: read as questions, learnt as answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_cases import answers, opened, ramp, rejection, row_of, save, square

from kosmos2 import tasks
from kosmos2.data.collate import Row
from kosmos2.data.lessons import Teacher
from kosmos2.vocab.tokenizer import Tokenizer


@pytest.fixture
def teacher(tiny_tokenizer: Tokenizer) -> Teacher:
    return Teacher(tiny_tokenizer, num_latents=3)


def llava(**changes: Any) -> dict[str, Any]:
    return {
        "id": "000000033471",
        "image": "one.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "A red bus."},
            {"from": "human", "value": "Is it red?"},
            {"from": "gpt", "value": "It is."},
        ],
        **changes,
    }


def saved(folder: Path, rows: Any, name: str = "x.json", indent: int | None = None) -> Path:
    save(folder / "one.png", ramp())
    path = folder / name
    path.write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    return path


def read(row: Row, teacher: Teacher) -> str:
    """All that the row reads, without the picture and with its last token."""
    text = [id for id, slot in zip(row.ids, row.image_mask, strict=True) if not slot]
    eos, words = teacher.vocabulary.eos, []
    start = 0
    for place, id in enumerate([*text, eos]):
        if id == eos:
            words.append(teacher.tokenizer.decode([*text, eos][start:place]))
            start = place + 1
    return " | ".join(words)


def test_a_conversation_is_read_in_turn_and_its_answers_alone_are_learnt(
    tmp_path: Path, teacher: Teacher
) -> None:
    row = row_of(opened(saved(tmp_path, [llava()]), teacher, "instructions"), 0)
    assert read(row, teacher) == (
        "<image></image> Question: What is it? Answer: A red bus. "
        "| Question: Is it red? Answer: It is."
    )
    assert answers(row, teacher) == ["A red bus.", "It is."]
    assert np.array_equal(row.pixels_ICYX[0].numpy(), square(ramp()))
    asked = teacher.tokenizer.encode(tasks.ask("What is it?").segments, num_latents=3)
    assert tuple(row.ids[: len(asked.ids)]) == asked.ids
    assert set(row.lesson) == {0, 1}  # the second turn sees the first


@pytest.mark.parametrize("value", ["What is it?\n<image>", "<image>\nWhat is it?", "What is it?"])
def test_the_picture_comes_first_wherever_its_mark_is(
    tmp_path: Path, teacher: Teacher, value: str
) -> None:
    said = [{"from": "human", "value": value}, {"from": "gpt", "value": "A red bus."}]
    path = saved(tmp_path, [llava(conversations=said)])
    row = row_of(opened(path, teacher, "instructions"), 0)
    assert read(row, teacher).endswith("</image> Question: What is it? Answer: A red bus.")


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_any_length_is_read_row_by_row(
    tmp_path: Path, teacher: Teacher, indent: int | None
) -> None:
    hard = 'brackets ] } [ { and "quotes" \\" \\\\ end\\'
    rows = [llava(id=str(n), note=[[hard], {"a": hard}]) for n in range(5)]
    source = opened(saved(tmp_path, rows, indent=indent), teacher, "instructions")
    assert [source.lines.fields(n) for n in range(len(source))] == rows  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fields", "question", "answer"),
    [
        ({"inputs": "Is it red?\n", "targets": "yes", "task_name": "x"}, "Is it red?", "yes"),
        ({"instruction": "Count.", "input": "", "output": "3"}, "Count.", "3"),
        ({"instruction": "Count.", "input": "a cat", "output": "1"}, "Count. a cat", "1"),
        ({"instruction": "Say.", "context": "a cat", "response": "cat"}, "Say. a cat", "cat"),
        (
            {
                "instruction": "Say {INPUT}.",
                "instances": [
                    {"instruction_with_input": "Say it. A dog", "input": "A dog",
                     "constraints": "None.", "output": "dog"}
                ],
            },
            "Say it. A dog",
            "dog",
        ),
        ({"instruction": "Say.", "instances": {"input": ["a"], "output": ["b"]}}, "Say. a", "b"),
    ],
)  # fmt: skip
def test_instructions_without_a_picture_are_questions_and_answers(
    tmp_path: Path, teacher: Teacher, fields: dict[str, Any], question: str, answer: str
) -> None:
    path = tmp_path / "core_data.jsonl"
    path.write_text(json.dumps(fields) + "\n")
    row = row_of(opened(path, teacher, "instructions"), 0)
    asked = teacher.ask(question, answer)
    assert row.targets == list(asked.answer)
    assert row.ids == [teacher.vocabulary.bos, *asked.prompt, *asked.answer][:-1]
    assert row.pixels_ICYX.shape == (0, 3, 16, 16)
    assert row.noun_IP.shape == (0, 16)


HUMAN, GPT = {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (llava(conversations=[HUMAN]), "no conversation"),
        (llava(conversations=[GPT, HUMAN]), "turns out of order"),
        (llava(conversations=[HUMAN, GPT, HUMAN]), "question without answer"),
        (llava(conversations=[HUMAN, {"from": "gpt", "value": ""}]), "turns out of order"),
        (llava(conversations=[HUMAN, {"from": "gpt"}]), "message without text"),
        (llava(conversations=[HUMAN, GPT, HUMAN, GPT]), "pictures do not match <image>"),
        (llava(image=None), "pictures do not match <image>"),
        (llava(image=["one.png", "two.png"]), "not one picture"),
        (llava(image="absent.png"), "picture missing"),
        ({"instruction": "", "output": "x"}, "no instruction"),
        ({"instruction": "x", "output": " "}, "no answer"),
        ({"instruction": "x", "instances": []}, "no instance"),
        ({"prompt": "x"}, "no layout that is known"),
    ],
)
def test_what_cannot_be_learnt_has_a_reason(
    tmp_path: Path, teacher: Teacher, row: dict[str, Any], reason: str
) -> None:
    found = rejection(opened(saved(tmp_path, [row]), teacher, "instructions"), 0)
    assert found.reason == reason
    assert "x.json: row 1" in found.detail or "not found" in found.detail
