"""Attention as it is trained on a processor is attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kosmos2.training.attention import PlainAttention, plain


def inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    return query, key, value


@pytest.mark.parametrize("masked", ["whole", "causal"])
def test_plain_products_give_the_values_and_gradients_of_torchs_attention(masked: str) -> None:
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril() if masked == "causal" else None
    given = inputs(torch.float64)
    expected = F.scaled_dot_product_attention(*given, attn_mask=mask)
    found = plain(*given, attn_mask=mask)
    torch.testing.assert_close(found, expected)

    weight = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * weight).sum(), given),
        torch.autograd.grad((expected * weight).sum(), given),
    )


def test_bf16_is_multiplied_as_it_is_and_fp32_is_left_to_torch() -> None:
    half, whole = inputs(torch.bfloat16), inputs(torch.float32)
    with PlainAttention():
        ours = F.scaled_dot_product_attention(*half, attn_mask=None, dropout_p=0.0)
        left = F.scaled_dot_product_attention(*whole)
    assert torch.equal(ours, plain(*half))
    assert torch.equal(left, F.scaled_dot_product_attention(*whole))
    assert ours.dtype == torch.bfloat16


def test_dropout_drops_shares() -> None:
    query, key, _ = inputs(torch.float64)
    mixed = plain(query, key, torch.ones_like(key), dropout_p=0.5)
    assert not torch.allclose(mixed, torch.ones_like(mixed))
