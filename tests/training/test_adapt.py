"""A trained network for another resolution, number of latents or vocabulary keeps what it can."""

from __future__ import annotations

import torch

from kosmos2.training.adapt import regrid, with_latents, with_resolution, with_vocabulary
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer, train_tokenizer


def plane(side: int) -> torch.Tensor:
    """rows_PD that say their own column and row, in 0..1, at the centres of cells."""
    place = (torch.arange(side) + 0.5) / side
    return torch.stack([place.repeat(side), place.repeat_interleave(side)], dim=1)


def test_a_grid_of_another_size_says_the_same_of_the_same_place() -> None:
    # Bicubic reading is exact on a plane, away from the border.
    finer = regrid(plane(8), 16).view(16, 16, 2)[3:-3, 3:-3]
    torch.testing.assert_close(finer, plane(16).view(16, 16, 2)[3:-3, 3:-3])
    coarser = regrid(plane(16), 8).view(8, 8, 2)[2:-2, 2:-2]
    torch.testing.assert_close(coarser, plane(8).view(8, 8, 2)[2:-2, 2:-2])
    assert torch.equal(regrid(plane(8), 8), plane(8))


def test_another_resolution_keeps_the_class_token() -> None:
    positions = torch.cat([torch.full((1, 2), 7.0), plane(4)])
    state = with_resolution({"vision.positions": positions}, 6)
    assert state["vision.positions"].shape == (37, 2)
    assert torch.equal(state["vision.positions"][0], positions[0])
    assert torch.equal(with_resolution(state, 6)["vision.positions"], state["vision.positions"])


def test_more_latents_keep_the_old_ones_and_fewer_are_spread_over_them() -> None:
    latents = torch.randn(9, 5)
    state = {"resampler.latents": latents}
    generator = torch.Generator().manual_seed(0)
    more = with_latents(state, 12, generator)["resampler.latents"]
    assert torch.equal(more[:9], latents)
    assert not torch.equal(more[9:], latents[:3])
    torch.testing.assert_close(more[9:], latents[:3], rtol=0, atol=0.2)
    fewer = with_latents(state, 3, generator)["resampler.latents"]
    assert torch.equal(fewer, latents[[0, 4, 8]])
    assert torch.equal(with_latents(state, 9, generator)["resampler.latents"], latents)


def embedding(tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(tokenizer.vocabulary.size, 6, generator=generator)
    return {"decoder.embedding.weight": rows}


def test_the_same_vocabulary_keeps_every_row(tiny_tokenizer: Tokenizer) -> None:
    state = embedding(tiny_tokenizer)
    after = with_vocabulary(state, tiny_tokenizer, tiny_tokenizer)
    assert torch.equal(after["decoder.embedding.weight"], state["decoder.embedding.weight"])


def test_other_bins_keep_the_words_and_read_locations_off_the_old_grid(
    tiny_tokenizer: Tokenizer,
) -> None:
    state, new = embedding(tiny_tokenizer), tiny_tokenizer.with_bins(16)
    after = with_vocabulary(state, tiny_tokenizer, new)["decoder.embedding.weight"]
    first = tiny_tokenizer.vocabulary.first_location
    assert len(after) == new.vocabulary.size
    assert torch.equal(after[:first], state["decoder.embedding.weight"][:first])
    expected = regrid(state["decoder.embedding.weight"][first:], 16)
    assert torch.equal(after[first:], expected)


def test_a_new_word_begins_as_the_mean_of_the_old_pieces_that_spell_it(
    tiny_tokenizer: Tokenizer,
) -> None:
    new = train_tokenizer(["a quokka and a dog"] * 40, num_pieces=130, bins=8)
    rows = embedding(tiny_tokenizer)["decoder.embedding.weight"]
    after = with_vocabulary(embedding(tiny_tokenizer), tiny_tokenizer, new)
    after_VD = after["decoder.embedding.weight"]

    (quokka,) = new.encode_text("quokka")
    spelt = [id for id in tiny_tokenizer.encode_text("quokka") if id not in tiny_tokenizer.blanks]
    assert len(spelt) > 1
    torch.testing.assert_close(after_VD[quokka], rows[spelt].mean(0))
    old_tag, new_tag = (each.vocabulary.tag(Tag.GROUNDING) for each in (tiny_tokenizer, new))
    assert torch.equal(after_VD[new_tag], rows[old_tag])
    for piece in ("z", "▁a"):
        old_id, new_id = (4 + each.pieces.index(piece) for each in (tiny_tokenizer, new))
        assert torch.equal(after_VD[new_id], rows[old_id])
