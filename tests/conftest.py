"""What every test may use: made in-process, no network. Boxes come from `st.from_type(Box)`."""

from pathlib import Path

import pytest
from browser_cases import browser, browser_page  # noqa: F401
from hypothesis import settings
from hypothesis import strategies as st
from native_cases import built, every_set, native_cache  # noqa: F401

from kosmos2.boxes import Box
from kosmos2.vocab.tokenizer import Tokenizer, train_tokenizer

_SENTENCES = """
An image of a snowman warming himself by a fire.
An image of two happy dogs and a sleepy cat in front of a wooden house.
An image of a small red car next to a large green tree.
Describe this image in detail: The image features a yellow bird on a black table.
Question: What is to the left of the white horse? Answer: A blue ball.
Question: What is behind the old chair? Answer: A silver bottle and three apples.
It is the huge elephant under the orange umbrella, near the tiny giraffe.
A young man in a striped hat is above the river. Children play below the mountain.
There are 12 airplanes, 3 bicycles and a guitar beside the golden window.
A woman's purple flower is inside the kitchen between a banana and a camera.
"""
_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

_FRACTIONS = st.one_of(
    st.floats(0, 1, allow_subnormal=False),
    # The edges of cells, where codecs differ.
    st.integers(0, 32).map(lambda edge: edge / 32),
)
_INTERVALS = st.tuples(_FRACTIONS, _FRACTIONS).map(sorted)

# The first example of a test may pay for imports, and a busy machine is no error.
settings.register_profile("kosmos2", deadline=None)
settings.load_profile("kosmos2")

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
    sentences = [line.strip() for line in _SENTENCES.strip().splitlines()]
    return train_tokenizer(sentences * 2, num_pieces=400, bins=8)
