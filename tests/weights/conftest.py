"""One tiny network, and the model folder that a user would have of it."""

from pathlib import Path

import pytest
import torch
from model_cases import TINY, random_network, with_vocabulary

from kosmos2.model import Network
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface


@pytest.fixture(scope="module")
def network(tiny_tokenizer: Tokenizer) -> Network:
    return random_network(with_vocabulary(TINY, tiny_tokenizer))


@pytest.fixture
def folder(network: Network, tiny_tokenizer: Tokenizer, tmp_path: Path) -> Path:
    huggingface.save(network, tiny_tokenizer, tmp_path / "model", dtype=torch.float32)
    return tmp_path / "model"
