"""Conversations: each model's own numbers, read by its own reader, and back with every span."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from format_law import assert_boxes_near, assert_law
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

from examples import HEIGHT, KNOWN_PIXELS, WIDTH, known_record
from kosmos2.errors import Kosmos2Error, RecordError
from kosmos2.records.formats.chat import FLORENCE, LLAVA, LLAVA_SQUARE, QWEN
from kosmos2.records.formats.format import Format, Reading, Writing
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord

ALL = [QWEN, FLORENCE, LLAVA, LLAVA_SQUARE]


def written(
    form: Format, records: list[GroundedRecord], folder: Path, name: str = "chat.json"
) -> Path:
    assert form.write is not None
    form.write(records, folder / name, Writing(pictures=Pictures(folder)))
    return folder / name


def read(form: Format, path: Path) -> list[GroundedRecord]:
    assert form.read is not None
    return list(form.read(path, Reading()))


def items_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read_items(form: Format, items: list[dict[str, Any]], folder: Path) -> list[GroundedRecord]:
    (folder / "theirs.json").write_text(json.dumps(items, indent=2), encoding="utf-8")
    return read(form, folder / "theirs.json")


def said(*turns: str) -> list[dict[str, str]]:
    return [
        {"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(turns)
    ]


def answers(item: dict[str, Any]) -> list[str]:
    return [turn["value"] for turn in item["conversations"] if turn["from"] == "gpt"]


@pytest.mark.parametrize("name", ["chat.json", "chat.jsonl"])
@pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)
def test_records_come_back_with_every_span_and_score(
    form: Format, name: str, examples: list[GroundedRecord], tmp_path: Path
) -> None:
    again = read(form, written(form, examples, tmp_path, name))
    assert_law(form, examples, again)
    assert_boxes_near(examples, again, pixels=0.001 * max(WIDTH, HEIGHT))


@pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)
def test_a_list_reads_like_its_lines(
    form: Format, examples: list[GroundedRecord], tmp_path: Path
) -> None:
    lines = written(form, examples, tmp_path, "chat.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in lines.splitlines()] == items_of(
        written(form, examples, tmp_path)
    )


@pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)
def test_the_library_datasets_reads_lines_of_any_records(
    form: Format, examples: list[GroundedRecord], tmp_path: Path
) -> None:
    path = written(form, examples, tmp_path, "chat.jsonl")
    loaded = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == len(examples)
    assert loaded["image"][:2] == ["1-known.png", "2-several.png"]


def test_qwen_gets_whole_thousandths_of_the_picture(tmp_path: Path) -> None:
    (item,) = items_of(written(QWEN, [known_record(tmp_path)], tmp_path))
    caption, boxes = answers(item)
    assert caption == "a white square"
    fenced = re.fullmatch(r"```json\n(.*)\n```", boxes, re.DOTALL)
    assert fenced
    assert json.loads(fenced[1]) == [{"bbox_2d": [250, 167, 750, 667], "label": "a white square"}]
    # As the cookbook of Qwen3-VL draws them.
    x0, y0, x1, y1 = json.loads(fenced[1])[0]["bbox_2d"]
    drawn = (x0 / 1000 * WIDTH, y0 / 1000 * HEIGHT, x1 / 1000 * WIDTH, y1 / 1000 * HEIGHT)
    assert tuple(round(edge) for edge in drawn) == KNOWN_PIXELS


def test_one_picture_token_stands_in_the_first_question_alone(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    # As the finetuning guides of Qwen3-VL and LLaVA ask.
    for form in (QWEN, LLAVA):
        for item in items_of(written(form, examples, tmp_path, f"{form.name}.json")):
            turns = item["conversations"]
            assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
            assert [turn["value"].count("<image>") for turn in turns] == [1] + [0] * (
                len(turns) - 1
            )


@pytest.mark.parametrize("form", [QWEN, LLAVA], ids=lambda form: form.name)
def test_a_caption_that_would_show_a_second_picture_is_refused(
    form: Format, tmp_path: Path
) -> None:
    record = replace(known_record(tmp_path), caption="an <image> in words", ref_exps=())
    with pytest.raises(RecordError, match="<image>"):
        written(form, [record], tmp_path)


def test_florence_gets_the_bins_that_the_corners_lie_in(tmp_path: Path) -> None:
    (item,) = items_of(written(FLORENCE, [known_record(tmp_path)], tmp_path))
    assert item["prefix"] == "<CAPTION_TO_PHRASE_GROUNDING>a white square"
    assert item["suffix"] == "a white square<loc_250><loc_166><loc_750><loc_666>"


def test_florences_own_reader_finds_the_phrases_and_boxes(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    words = SimpleNamespace(all_special_tokens=["<s>", "</s>", "<pad>"])
    processor = Florence2PostProcessor({"phrase_grounding": {}}, words)
    # A picture large enough that whole pixels, which that reader returns, tell bins apart.
    size = (4000, 3000)
    for record, item in zip(examples, items_of(written(FLORENCE, examples, tmp_path)), strict=True):
        if not record.entries:
            assert item["suffix"] == record.caption
            continue
        parsed = processor(text=item["suffix"], image_size=size, parse_tasks="phrase_grounding")
        found = parsed["phrase_grounding"]
        spans = sorted({(entry.start, entry.end) for entry in record.entries})
        plain = [record.caption[slice(*s)].encode("ascii", "ignore").decode() for s in spans]
        assert [each["cat_name"].strip() for each in found] == [label.strip() for label in plain]
        for span, each in zip(spans, found, strict=True):
            boxes = [entry.box for entry in record.entries if (entry.start, entry.end) == span]
            for box, corners in zip(boxes, each["bbox"], strict=True):
                moved = zip(box.to_pixels(width=4000, height=3000), corners, strict=True)
                assert all(abs(a - b) <= 3 for a, b in moved)


def test_florence_quantizes_as_its_own_processor(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    words = SimpleNamespace(all_special_tokens=[])
    bins = Florence2PostProcessor({}, words).quantize(
        torch.tensor([KNOWN_PIXELS], dtype=torch.float64), (WIDTH, HEIGHT)
    )
    (item,) = items_of(written(FLORENCE, [known_record(tmp_path)], tmp_path))
    assert [int(number) for number in re.findall(r"\d+", item["suffix"])] == bins[0].tolist()


def test_llava_gets_shares_with_three_decimals(tmp_path: Path) -> None:
    (item,) = items_of(written(LLAVA, [known_record(tmp_path)], tmp_path))
    assert answers(item) == ["a white square", "[0.250, 0.167, 0.750, 0.667]"]


def test_llava_square_counts_on_the_padded_picture(tmp_path: Path) -> None:
    # 40 x 30 is padded by 5 rows above and below: y 5..20 becomes 10..25 of 40.
    (item,) = items_of(written(LLAVA_SQUARE, [known_record(tmp_path)], tmp_path))
    assert answers(item) == ["a white square", "[0.250, 0.250, 0.750, 0.625]"]


def test_edited_text_counts_over_what_was_kept(tmp_path: Path) -> None:
    (item,) = items_of(written(QWEN, [known_record(tmp_path)], tmp_path))
    item["conversations"][1]["value"] = "look, a white square"
    (record,) = read_items(QWEN, [item], tmp_path)
    assert record.caption == "look, a white square"
    assert [(each.start, each.end) for each in record.entries] == [(6, 20)]
    boxes = [{"bbox_2d": [0, 0, 500, 500], "label": "Square"}, {"bbox_2d": [0] * 4, "label": "x"}]
    item["conversations"][3]["value"] = json.dumps(boxes)
    (record,) = read_items(QWEN, [item], tmp_path)
    assert record.caption == "look, a white square; x"
    assert [(each.start, each.end) for each in record.entries] == [(14, 20), (22, 23)]


@pytest.mark.parametrize(
    "text",
    [
        "<ref>a dog</ref><box>(250,167),(750,667)</box> by a fire",
        "<|object_ref_start|>a dog<|object_ref_end|><|box_start|>(250,167),(750,667)<|box_end|>"
        " by a fire",
    ],
)
def test_the_older_forms_of_qwen_are_read(text: str, tmp_path: Path) -> None:
    turns = said("Picture 1: <img>dogs/1.jpg</img>\nDescribe it.", text)
    (record,) = read_items(QWEN, [{"id": "a", "conversations": turns}], tmp_path)
    assert (record.id, record.image, record.caption) == ("a", "dogs/1.jpg", "a dog by a fire")
    (entry,) = record.entries
    assert (entry.start, entry.end) == (0, 5)
    assert entry.box.corners == (0.25, 0.167, 0.75, 0.667)


def test_messages_with_roles_are_read(tmp_path: Path) -> None:
    boxes = '{\n"bbox_2d": [250, 167, 750, 667], "label": "house"\n}'
    messages = [
        {"role": "user", "content": "<image>Locate house in JSON format."},
        {"role": "assistant", "content": boxes},
    ]
    (record,) = read_items(QWEN, [{"messages": messages, "images": ["a.jpg"]}], tmp_path)
    assert (record.image, record.caption) == ("a.jpg", "house")


def test_pixels_of_qwen_2_5_are_refused_loudly(tmp_path: Path) -> None:
    boxes = '[{"bbox_2d": [135, 114, 1016, 672], "label": "house"}]'
    item = {"image": "a.jpg", "conversations": said("<image>Locate house.", boxes)}
    with pytest.raises(RecordError, match=r"0 to 1000, got \[135, 114, 1016, 672\].*pixels"):
        read_items(QWEN, [item], tmp_path)


def test_llavas_own_questions_are_read(tmp_path: Path) -> None:
    turns = said(
        "<image>\nPlease provide a short description for this region: [0.1, 0.2, 0.5, 0.75].",
        "A bird",
        "Please provide the bounding box coordinate of the region this sentence describes: the sky",
        "[0.0, 0.0, 1.0, 0.35]",
    )
    (record,) = read_items(LLAVA, [{"id": "1", "image": "a.jpg", "conversations": turns}], tmp_path)
    assert record.caption == "A bird; the sky"
    assert [each.box.corners for each in record.entries] == [
        (0.1, 0.2, 0.5, 0.75),
        (0.0, 0.0, 1.0, 0.35),
    ]


def test_florences_tasks_of_others_are_read(tmp_path: Path) -> None:
    items = [
        {"image": "a.jpg", "prefix": "<OD>", "suffix": "car<loc_0><loc_1><loc_998><loc_999>"},
        {"image": "a.jpg", "prefix": "<DETAILED_CAPTION>", "suffix": "a green car"},
    ]
    boxes, caption = read_items(FLORENCE, items, tmp_path)
    assert boxes.caption == "car"
    assert boxes.entries[0].box.corners == (0.0005, 0.0015, 0.9985, 0.9995)
    assert (caption.caption, caption.entries) == ("a green car", ())


def test_a_phrase_that_florence_would_cut_is_refused_and_the_others_written(tmp_path: Path) -> None:
    good = known_record(tmp_path)
    bad = replace(good, id="cut", caption="a <b> c d e f g")
    refused: list[tuple[str, Kosmos2Error]] = []
    writing = Writing(
        pictures=Pictures(tmp_path), refuse=lambda where, error: refused.append((where, error))
    )
    assert FLORENCE.write is not None
    FLORENCE.write([bad, good], tmp_path / "a.json", writing)
    assert [where for where, _ in refused] == ["record cut"]
    assert "'<'" in str(refused[0][1])
    assert len(items_of(tmp_path / "a.json")) == 1


def test_a_picture_may_be_a_url(tmp_path: Path) -> None:
    record = replace(known_record(tmp_path), image=None, url="https://example.com/a.png")
    (again,) = read(QWEN, written(QWEN, [record], tmp_path))
    assert (again.image, again.url) == (None, record.url)


@pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)
@pytest.mark.parametrize(
    "item",
    [
        {"image": "a", "conversations": 5, "prefix": 5, "suffix": 5},
        {"image": ["a", "b"], "conversations": [], "prefix": "", "suffix": ""},
        {"image": "a", "record": "{broken", "conversations": [], "prefix": "", "suffix": ""},
    ],
)
def test_what_is_no_conversation_is_refused(
    form: Format, item: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RecordError):
        read_items(form, [item], tmp_path)
