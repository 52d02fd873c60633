"""What every test may use: made in-process, no network. Boxes come from `st.from_type(Box)`."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import strategies as st

from kosmos2.boxes import Box
from kosmos2.vocab.tokenizer import Tokenizer, train_tokenizer

_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

_FRACTIONS = st.one_of(
    st.floats(0, 1, allow_subnormal=False),
    # The edges of cells, where codecs differ.
    st.integers(0, 32).map(lambda edge: edge / 32),
)
_INTERVALS = st.tuples(_FRACTIONS, _FRACTIONS).map(sorted)

st.register_type_strategy(
    Box, st.builds(lambda x, y: Box(x[0], y[0], x[1], y[1]), _INTERVALS, _INTERVALS)
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of facts beside the repository, which a user's machine may lack."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("needs the folder ../shared/data beside the repository")
    return _SHARED_DATA


@pytest.fixture(scope="session")
def real_tokenizer(shared_data: Path) -> Tokenizer:
    """The tokenizer of the released model."""
    return Tokenizer.from_folder(shared_data / "kosmos2-tokenizer")


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """Some 200 pieces that know a few English words, and a location grid of 8x8."""
    return train_tokenizer(tiny_texts(), num_pieces=400, bins=8)


def tiny_texts() -> list[str]:
    counts = ("a", "the", "two", "three", "an image of")
    colours = (*"red green blue yellow white black brown purple orange golden silver".split(),)
    sizes = (*"small large tiny huge happy sleepy old young wooden plastic striped".split(),)
    nouns = (
        *"dog cat snowman fire ball car tree house bird horse apple table chair bottle "
        "umbrella giraffe elephant bicycle airplane guitar pencil mountain river sandwich "
        "banana camera kitchen window garden flower".split(),
    )
    places = (
        *"next to|in front of|behind|above|below|to the left of|to the right of|beside|on|"
        "under|near|inside|between|warming himself by".split("|"),
    )
    texts = [
        f"{count} {size} {colour} {noun} {place} the {other}."
        for (count, colour, noun), size, place, other in zip(
            product(counts, colours, nouns), sizes * 200, places * 200, nouns * 100, strict=False
        )
    ]
    questions = [
        f"Question: What is {place} the {noun}? Answer:" for place, noun in zip(places, nouns)
    ]
    return [*texts, *questions, "Describe this image in detail:", "It is a picture."]
