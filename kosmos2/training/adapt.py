"""A trained network for another resolution, number of latents or vocabulary.

What both have is kept to the bit. Positions of patches and rows of location tokens are read off
the old grid between its places (the original leaves new rows at random and cuts the latents off).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kosmos2.vocab.pieces import BLANK
from kosmos2.vocab.special import FIRST_PIECE
from kosmos2.vocab.tokenizer import Tokenizer

State = Mapping[str, Tensor]


def with_resolution(state: State, patches_per_side: int) -> State:
    """Return the weights for a tower of so many patches a side; the class token stays."""
    positions_PE = state["vision.positions"]
    grid_PE = regrid(positions_PE[1:], patches_per_side)
    return {**state, "vision.positions": torch.cat([positions_PE[:1], grid_PE])}


def with_latents(state: State, count: int, generator: torch.Generator) -> State:
    """Return the weights for so many latents.

    Fewer: a choice spread over the old ones, whose order follows the picture in our first weights.
    More: the old ones, then copies of them with a little noise, so that they can come apart.
    """
    old_QD = state["resampler.latents"]
    have = len(old_QD)
    if count <= have:
        chosen_Q = torch.linspace(0, have - 1, count).round().long()
        return {**state, "resampler.latents": old_QD[chosen_Q].clone()}
    copies_QD = old_QD[torch.arange(have, count) % have]
    noise_QD = torch.randn(copies_QD.shape, generator=generator).to(copies_QD)
    new_QD = torch.cat([old_QD, copies_QD + 0.02 * old_QD.std() * noise_QD])
    return {**state, "resampler.latents": new_QD}


def with_vocabulary(state: State, old: Tokenizer, new: Tokenizer) -> State:
    """Return the weights whose embedding has the rows of the new vocabulary.

    A known piece or tag keeps its row, a new piece begins as the mean of the old pieces that
    spell it, and a location token as what the old grid has at its place.
    """
    name = "decoder.embedding.weight"
    old_VD = state[name]
    known = {symbol: id for id, symbol in enumerate(_symbols(old))}
    mean_D = old_VD[FIRST_PIECE : old.vocabulary.mask].float().mean(0).to(old_VD)
    rows_VD = torch.stack(
        [
            old_VD[known[symbol]] if symbol in known else _spelt(symbol[1], old, old_VD, mean_D)
            for symbol in _symbols(new)
        ]
    )
    places_PD = old_VD[old.vocabulary.first_location :]
    return {**state, name: torch.cat([rows_VD, regrid(places_PD, new.vocabulary.bins)])}


def regrid(rows_PD: Tensor, side: int) -> Tensor:
    """Return rows_PD of a side x side grid, read off another square grid (bicubic)."""
    old = round(len(rows_PD) ** 0.5)
    assert old**2 == len(rows_PD)
    if old == side:
        return rows_PD
    grid_1DYX = rows_PD.float().T.reshape(1, -1, old, old)
    # With antialias PyTorch takes the cubic that is exact on planes (a = -0.5), up and down.
    new_1DYX = F.interpolate(
        grid_1DYX, size=(side, side), mode="bicubic", align_corners=False, antialias=True
    )
    return new_1DYX[0].flatten(1).T.contiguous().to(rows_PD)


def _symbols(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Return ("piece" or "special", literal) of every id below the location tokens, in order.

    A piece may be spelt like a tag.
    """
    vocabulary = tokenizer.vocabulary
    by_id = {id: ("special", literal) for id, literal in vocabulary.special_tokens()}
    for number, piece in enumerate(tokenizer.pieces):
        by_id[FIRST_PIECE + number] = ("piece", piece)
    return [by_id[id] for id in range(vocabulary.first_location)]


def _spelt(piece: str, old: Tokenizer, old_VD: Tensor, mean_D: Tensor) -> Tensor:
    """Return the mean row of the old pieces that spell a new one; of all, if none do."""
    ids = [
        id
        for id in old.encode_text(piece.replace(BLANK, " "))
        if id not in old.blanks and id != old.vocabulary.unk
    ]
    return old_VD[ids].float().mean(0).to(old_VD) if ids else mean_D
