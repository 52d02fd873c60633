"""Similarity of pictures and captions: the cosine that a slow reference computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_detectors import picture
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from kosmos2.errors import ConfigError
from kosmos2.grit import similarity
from kosmos2.grit.recipe import Quality

WORDS = ["<pad>", "<end>", "<unk>", "a", "dog", "cat", "on", "the", "mat"]
LONGEST = 8
TOWER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
TEXT = {**TOWER, "vocab_size": len(WORDS), "max_position_embeddings": LONGEST}
TEXT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
VISION = {**TOWER, "image_size": 32, "patch_size": 8}
CAPTIONS = ["a dog", "the cat on the mat", "a dog on a mat on the cat on the dog"]


def tokenizer() -> Any:
    one = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, "<unk>"))
    one.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    one.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", 1)]
    )  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=one, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )


def network(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "clip":
        config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)
        model: Any = CLIPModel(config)
    else:
        model = SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION))
    with torch.no_grad():  # its own first numbers make all pictures and texts alike
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    return model.eval()


def processor(kind: str) -> Any:
    side = {"height": 32, "width": 32}
    if kind == "clip":
        return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side)
    return SiglipImageProcessorPil(size=side)


@pytest.fixture(params=["clip", "siglip"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    kind: str = request.param
    for part in (network(kind), tokenizer(), processor(kind)):
        part.save_pretrained(tmp_path)
    return kind, tmp_path


def quality(path: Path, **changes: Any) -> Quality:
    return Quality(similarity=str(path), device="cpu", dtype="fp32", **changes)


@torch.no_grad()
def slow(kind: str, image: Image.Image, caption: str) -> float:
    """Return the cosine by the two towers, one picture and one text at a time."""
    model = network(kind)
    pixels = processor(kind)(images=[image], return_tensors="pt")["pixel_values"]
    ids = [*[WORDS.index(word) for word in caption.split()][: LONGEST - 1], 1]
    if kind == "clip":  # causal: what is behind the end changes nothing
        seen = model.vision_model(pixels).pooler_output @ model.visual_projection.weight.T
        states = model.text_model(torch.tensor([ids])).last_hidden_state[:, len(ids) - 1]
        read = states @ model.text_projection.weight.T
    else:  # padding is read, and the last place tells
        ids += [0] * (LONGEST - len(ids))
        seen = model.vision_model(pixels).pooler_output
        read = model.text_model.head(model.text_model(torch.tensor([ids])).last_hidden_state[:, -1])
    return float((seen * read).sum() / (seen.norm() * read.norm()))


PICTURES = [picture(48, 32, 1), picture(32, 64, 2), picture(20, 20, 3)]


def test_similarity_is_the_cosine_of_the_towers_features(folder: tuple[str, Path]) -> None:
    kind, path = folder
    scores = similarity.load(quality(path)).score(PICTURES, CAPTIONS)
    expected = [slow(kind, *each) for each in zip(PICTURES, CAPTIONS, strict=True)]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert max(scores) - min(scores) > 0.05  # the reference tells them apart


def test_neighbours_and_batches_change_no_similarity(folder: tuple[str, Path]) -> None:
    _, path = folder
    together = similarity.load(quality(path, batch_size=3)).score(PICTURES, CAPTIONS)
    one = similarity.load(quality(path, batch_size=1))
    alone = [one.score([each], [said])[0] for each, said in zip(PICTURES, CAPTIONS, strict=True)]
    assert together == pytest.approx(alone, abs=1e-6)
    assert one.score([], []) == []


def test_its_identity_has_the_weights_and_changes_with_them(folder: tuple[str, Path]) -> None:
    _, path = folder
    before = similarity.identity(quality(path))
    assert before["weights"].startswith("sha256:") and before["precision"] == "fp32"
    with (path / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert similarity.identity(quality(path))["weights"] != before["weights"]


def test_a_model_without_two_towers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quality\.similarity"):
        similarity.load(quality(tmp_path))
    with pytest.raises(ConfigError, match="CLIP or SigLIP"):
        similarity.load(Quality(similarity=str(embedded()), device="cpu"))


def embedded() -> Path:
    """Return the model in the package, which is a Kosmos-2."""
    from kosmos2.weights.pretrained import EMBEDDED_FOLDER

    return EMBEDDED_FOLDER
