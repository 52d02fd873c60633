"""Which own records are learnt, which are held out, and by which recipe."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from own_cases import record, squares, write

from kosmos2 import config
from kosmos2.data.album import Album
from kosmos2.data.ledger import Ledger
from kosmos2.data.lines import lines_of
from kosmos2.data.own import (
    OwnRecord,
    held_out,
    rows_of,
    spelt_by_letters,
    unspelt,
    usable,
    with_words,
    without_pictures_of,
)
from kosmos2.records.record import GroundedRecord
from kosmos2.records.select import Parts
from kosmos2.training.finetune import LEAST_STEPS, MOST_STEPS, recipe_for, steps_for
from kosmos2.training.recipe import TrainRecipe
from kosmos2.vocab.tokenizer import Tokenizer

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "train" / "finetune.toml"


def looked_at(path: Path) -> tuple[list[OwnRecord], Ledger]:
    ledger = Ledger()
    cache = path.parent / "cache"
    album = Album(path.parent, cache)
    return list(usable(rows_of(lines_of(path, cache)), album, ledger)), ledger


def reasons(ledger: Ledger) -> Counter[str]:
    return Counter({reason: count for (_, reason), count in ledger.rejected.items()})


def test_the_recipe_to_be_read_is_the_one_that_is_run() -> None:
    ours = recipe_for(
        Path("finetuned/train.jsonl"), Path("my-records"), "embedded", steps=steps_for(50)
    )
    assert config.load(TrainRecipe, RECIPE) == ours


def test_more_records_are_never_learnt_in_fewer_steps() -> None:
    steps = [steps_for(count) for count in (10, 50, 200, 1000, 10_000)]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (LEAST_STEPS, MOST_STEPS)


def test_what_cannot_be_learnt_is_counted_by_reason_and_the_rest_is_kept(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [record(tmp_path, number) for number in range(6)]
    rows[0]["image"] = "nowhere.png"
    rows[1]["caption"] = " "
    rows[2]["ref_exps"][0][2:6] = [0.5, 0.5, 0.5, 0.9]
    rows[3]["ref_exps"][0][2:6] = [0.9, 0.1, 0.2, 0.9]
    (tmp_path / "4.png").write_bytes(b"no picture")
    records, ledger = looked_at(write(tmp_path, rows))

    assert [each.name for each in records] == ["2", "3", "5"]
    assert [len(each.text.phrases) for each in records] == [0, 0, 1]
    assert reasons(ledger) == {
        "picture missing": 1,
        "no caption": 1,
        "box without area": 1,
        "box flipped": 1,
        "picture unreadable": 1,
    }
    assert ledger.used[0] == 3


def test_the_held_out_part_is_that_of_records_split(tmp_path: Path) -> None:
    records, _ = looked_at(squares(tmp_path, 30))
    learnt, kept = held_out(records, 0.3)
    parts = Parts((0.7, 0.3))
    by_id = [GroundedRecord(caption="", noun_chunks=None, ref_exps=None, id=n) for n in range(30)]
    assert {each.name for each in kept} == {str(each.id) for each in by_id if parts.of(each)}
    assert len(learnt) + len(kept) == 30


def test_neither_order_nor_new_records_move_a_record_to_the_other_part(tmp_path: Path) -> None:
    records, _ = looked_at(squares(tmp_path, 40))
    _, kept = held_out(records, 0.25)
    _, backwards = held_out(records[::-1], 0.25)
    _, fewer = held_out(records[:25], 0.25)
    assert {each.name for each in backwards} == {each.name for each in kept}
    assert {each.name for each in fewer} == {each.name for each in kept if int(each.name) < 25}


def test_records_of_one_picture_stay_on_one_side_whatever_the_files_are_called(
    tmp_path: Path,
) -> None:
    rows = [record(tmp_path, number) for number in range(20)]
    copies = []
    for row in rows:
        name = f"copy of {row['image']}.bmp"
        from PIL import Image

        with Image.open(tmp_path / row["image"]) as image:
            image.save(tmp_path / name)
        copies.append({**row, "id": f"copy {row['id']}", "image": name})
    records, _ = looked_at(write(tmp_path, rows + copies))
    assert len(records) == 40
    learnt, kept = held_out(records, 0.4)
    assert kept
    assert not {each.content for each in learnt} & {each.content for each in kept}


def test_of_few_records_one_is_held_out_at_least(tmp_path: Path) -> None:
    records, _ = looked_at(squares(tmp_path, 10))
    for record_count in range(2, 11):
        learnt, kept = held_out(records[:record_count], 0.01)
        assert kept
        assert len(learnt) + len(kept) == record_count


def test_pictures_that_are_asked_about_are_not_learnt(tmp_path: Path) -> None:
    records, _ = looked_at(squares(tmp_path, 12))
    ledger = Ledger(used=Counter({0: 12}))
    rest = list(without_pictures_of(records, records[:4], ledger))
    assert [each.name for each in rest] == [str(number) for number in range(4, 12)]
    assert reasons(ledger) == {"picture is held out": 4}
    assert ledger.used[0] == 8


def test_words_with_unknown_characters_are_named_and_their_records_left_out(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    assert unspelt("a dog by a naïve 犬", tiny_tokenizer) == ["naïve", "犬"]
    assert unspelt("An image of a dog.", tiny_tokenizer) == []
    rows = [record(tmp_path, number, word) for number, word in enumerate(("dog", "犬", "cat"))]
    records, ledger = looked_at(write(tmp_path, rows))
    kept = list(with_words(records, tiny_tokenizer, ledger))
    assert [each.name for each in kept] == ["0", "2"]
    assert reasons(ledger) == {"words cannot be spelt": 1}
    assert "犬" in ledger.examples[0, "words cannot be spelt"]


def test_words_that_are_spelt_letter_by_letter_are_counted(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    rows = [record(tmp_path, n, word) for n, word in enumerate(("dog", "yaffle", "yaffle"))]
    records, _ = looked_at(write(tmp_path, rows))
    counts = spelt_by_letters(records, tiny_tokenizer)
    assert counts["yaffle"] == 2
    assert "image" not in counts
