"""Detectors of a few thousand random numbers, built from configurations: nothing is downloaded."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import BertWordPieceTokenizer
from transformers import (
    BertConfig,
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SwinConfig,
)

from kosmos2.grit.detectors import Asked

LONGEST_TEXT = 32
WORDS = [
    "a", "the", "dog", "cat", "red", "ball", "on", "of", "with", "and", "two", "man", "woman",
    "street", "house", "##s", "##ing", "run", "play", "blue", "st", "paul", "very", "big",
]  # fmt: skip
KINDS = {
    "grounding-dino": (GroundingDinoConfig, GroundingDinoForObjectDetection),
    "mm-grounding-dino": (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection),
}


def bert_vocabulary() -> list[str]:
    """Return 1,200 tokens; the marks have the numbers that BERT (uncased) gives them."""
    vocabulary = [f"[unused{n}]" for n in range(1200)]
    marks = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    marks |= {1012: ".", 1029: "?", 1010: ",", 999: "!", 1025: ";"}
    marks |= {1100 + n: word for n, word in enumerate(WORDS)}
    for number, token in marks.items():
        vocabulary[number] = token
    return vocabulary


def bert_tokenizer(vocabulary: list[str] | None = None) -> Any:
    tokens = {token: n for n, token in enumerate(vocabulary or bert_vocabulary())}
    return BertTokenizerFast(
        tokenizer_object=BertWordPieceTokenizer(tokens, lowercase=True)._tokenizer,
        unk_token="[UNK]", sep_token="[SEP]", pad_token="[PAD]", cls_token="[CLS]",
        mask_token="[MASK]",
    )  # fmt: skip


def dino_model(kind: str, seed: int = 0) -> Any:
    """Return a network that answers differently to different words and pictures."""
    config, network = KINDS[kind]
    torch.manual_seed(seed)
    model = network(
        config(
            backbone_config=SwinConfig(
                image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1],
                num_heads=[1, 2, 2, 2], window_size=4,
                out_features=["stage2", "stage3", "stage4"],
            ),
            text_config=BertConfig(
                vocab_size=1200, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=32, max_position_embeddings=64,
            ),
            d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32,
            decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
            num_queries=10, max_text_len=LONGEST_TEXT, disable_custom_kernels=True,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():  # its own first numbers give every query the same size
        for name, parameter in model.named_parameters():
            if "bbox_embed" in name or "word_embeddings" in name:
                parameter.normal_(0, 0.5 if "word" in name else 0.15)
    return model


def dino_processor() -> Any:
    return GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128})


def dino_folder(path: Path, kind: str) -> Path:
    for part in (dino_model(kind), bert_tokenizer(), dino_processor()):
        part.save_pretrained(path)
    return path


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return coarse coloured noise."""
    numbers = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(numbers).resize((width, height), Image.Resampling.BICUBIC)


def ask(caption: str, *phrases: str, image: Image.Image | None = None) -> Asked:
    """Return the question for words of a caption, each at its first place after the last one's."""
    spans, at = [], 0
    for words in phrases:
        start = caption.index(words, at)
        at = start + len(words)
        spans.append((start, at))
    return Asked(id=caption, image=image or picture(96, 64), caption=caption, spans=tuple(spans))
