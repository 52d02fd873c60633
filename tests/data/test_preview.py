"""The page of batches: every token once, coloured by what the loss does with it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from data_cases import MODEL, opened, ramp, row_of, save, square, write_lines

from kosmos2.boxes import Box
from kosmos2.data.collate import Row, collate, joined, pack
from kosmos2.data.ledger import Ledger, Rejected
from kosmos2.data.lessons import Teacher
from kosmos2.data.patches import unknown
from kosmos2.data.preview import Preview, Seen, padding_share, page, samples_of
from kosmos2.grounding.spans import mark
from kosmos2.vocab.tokenizer import Tokenizer

BOX = Box(0.1, 0.1, 0.6, 0.6)


@pytest.fixture
def teacher(tiny_tokenizer: Tokenizer) -> Teacher:
    return Teacher(tiny_tokenizer, num_latents=3)


def scene_row(teacher: Teacher, shift: int = 0) -> Row:
    text = mark("An image of a dog.", "a dog", [BOX])
    lessons = [
        teacher.grounded_caption(text),
        teacher.find("a dog", [BOX]),
        teacher.ask("What is it?", "A dog."),
    ]
    pixels = torch.tensor(square(ramp(shift=shift)).copy())
    return pack(pixels, unknown(4), teacher.prefix(), lessons)


def document_row(folder: Path, teacher: Teacher) -> Row:
    for number in (0, 1):
        save(folder / f"{number}.png", ramp(shift=number))
    row = {"images": ["1.png", None, "0.png", None], "texts": [None, "A dog.", None, "A cat."]}
    return row_of(opened(write_lines(folder / "x.jsonl", [row]), teacher, "documents"), 0)


def text_row(teacher: Teacher) -> Row:
    empty = torch.zeros(3, 16, 16, dtype=torch.uint8)
    row = pack(empty, unknown(4), teacher.begin(), [teacher.plain_caption("A dog.")] * 2)
    none = {name: getattr(row, name)[:0] for name in ("pixels_ICYX", "noun_IP", "sides_IP4")}
    return Row(**{**{name: getattr(row, name) for name in Row.__slots__}, **none})


def rows(folder: Path, teacher: Teacher) -> list[Row]:
    return [scene_row(teacher), document_row(folder, teacher), text_row(teacher)]


def flat(seen: Seen) -> tuple[list[int], list[int]]:
    """What is read, and what is learnt, in order."""
    tokens = [*seen.prefix, *(token for passage in seen.passages for token in passage)]
    read = [token.id for token in tokens if token.position is not None]
    return read, [token.id for token in tokens if token.is_learnt]


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_is_taken_apart_into_the_samples_that_it_was_made_of(
    tmp_path: Path, teacher: Teacher, packed: bool
) -> None:
    made = rows(tmp_path, teacher)
    batch = collate([joined(made[:2]), made[2]] if packed else made, multiple=8)
    found = list(samples_of(batch, teacher.tokenizer, 3))
    assert [flat(seen) for seen in found] == [(row.ids, row.targets) for row in made]
    for seen, row in zip(found, made, strict=True):
        shown = [np.asarray(picture).transpose(2, 0, 1).tolist() for picture in seen.pictures]
        assert shown == row.pixels_ICYX.tolist()
        assert seen.latents == {place for place, slot in enumerate(row.image_mask) if slot}
        assert len(seen.passages) == max(row.lesson)
    total = sum(seen.padding for seen in found)
    assert total == batch.ids_BT.numel() - sum(map(len, made))
    assert padding_share([batch]) == pytest.approx(total / batch.ids_BT.numel())


def page_of(folder: Path, teacher: Teacher, *, most_samples: int = 9) -> str:
    ledger = Ledger()
    ledger.used[0] = 3
    ledger.reject(1, [Rejected("box flipped", "x.jsonl: row 7: <b>"), Rejected("box flipped", "")])
    preview = Preview(
        title="tiny.toml",
        steps=[[collate(rows(folder, teacher), multiple=8)], []],
        sources=["0: scenes", "1: records a&b.jsonl"],
        ledger=ledger,
        location_weight=2.5,
    )
    return page(preview, teacher.tokenizer, 3, most_samples=most_samples)


def test_every_token_is_coloured_by_what_the_loss_does_with_it(
    tmp_path: Path, teacher: Teacher
) -> None:
    html = page_of(tmp_path, teacher)
    made = rows(tmp_path, teacher)
    vocabulary = teacher.vocabulary
    learnt = [target for row in made for target in row.targets]
    places = [target for target in learnt if vocabulary.cell_of(target) is not None]

    def weights(kind: str) -> list[str]:
        found = re.findall(rf'class="token {kind}" title="[^"]*weight ([0-9.]+)"', html)
        assert found
        return found

    assert weights("place") == ["2.5"] * len(places)
    assert weights("text") == ["1"] * (len(learnt) - len(places))
    assert set(weights("read")) == {"0"}
    assert html.count("3 × latent") == 3


def test_the_page_counts_what_was_left_out_with_one_case_of_each(
    tmp_path: Path, teacher: Teacher
) -> None:
    html = page_of(tmp_path, teacher)
    assert "1: records a&amp;b.jsonl" in html
    assert '<td>box flipped</td><td class="number">2</td>' in html
    assert "x.jsonl: row 7: &lt;b&gt;" in html
    assert re.search(r"3 samples in 3 rows of \d+ positions, 3 pictures, \d+ learnt tokens", html)
    assert 'data-links="0"' in html  # boxes over the picture, linked to their words


def test_a_page_draws_no_more_samples_than_asked_and_says_so(
    tmp_path: Path, teacher: Teacher
) -> None:
    html = page_of(tmp_path, teacher, most_samples=1)
    assert html.count("<article") == 1
    assert "2 more samples are not drawn" in html
    assert MODEL.num_latents == 3
