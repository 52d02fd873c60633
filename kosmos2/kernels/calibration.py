"""Rounding to 4 bits that knows what a layer reads: what it gets wrong in one column it makes good
in the columns not yet rounded.

GPTQ (Frantar et al. 2022, arXiv:2210.17323) in the order of the columns, so that groups stay as
they are stored, with the scale of each group searched as in `quantized`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from kosmos2.errors import WeightsError
from kosmos2.kernels.quantized import (
    GROUP,
    Int4,
    fits_int4,
    groups,
    pack_int4,
    round_groups,
    search_scales,
)

DAMPING = 0.01
"""Share of the mean second moment that is added to all: few rows do not tell all directions."""


def collect_moments(
    layers: Mapping[str, nn.Module], run: Callable[[], object]
) -> Mapping[str, Tensor]:
    """Return name -> moments_KK, the mean of x xT over all rows that a layer reads during `run`.

    K x K numbers for each layer. Layers that `run` does not reach are absent.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x_MK = inputs[0].detach().flatten(0, -2).float()
            sum_KK = x_MK.T @ x_MK
            sums[name] = sums[name].add_(sum_KK) if name in sums else sum_KK
            counts[name] = counts.get(name, 0) + len(x_MK)

        return hook

    handles = [layer.register_forward_pre_hook(listen(name)) for name, layer in layers.items()]
    try:
        with torch.inference_mode():
            run()
            return {name: sums[name] / counts[name] for name in sums}
    finally:
        for handle in handles:
            handle.remove()


def round_int4_calibrated(weight_NK: Tensor, moments_KK: Tensor) -> Int4:
    """Return the matrix in 4 bits with little error of the product with rows of these moments."""
    weight_NK = weight_NK.detach().float().clone()
    if not fits_int4(weight_NK.shape[1]) or moments_KK.shape != (weight_NK.shape[1],) * 2:
        raise WeightsError(
            f"moments of {tuple(moments_KK.shape)} do not fit a matrix of "
            f"{tuple(weight_NK.shape)}, or its width is no multiple of {GROUP}"
        )
    moments_KK = moments_KK.to(device=weight_NK.device, dtype=torch.float32)
    worth_K = moments_KK.diagonal().clamp_min(1e-12 * float(moments_KK.abs().max()) + 1e-30)
    factor_KK = _factor(moments_KK, worth_K)
    packed, scales = [], []
    for start in range(0, weight_NK.shape[1], GROUP):
        part = slice(start, start + GROUP)
        scale_N1 = search_scales(groups(weight_NK[:, part]), worth_K[part])
        rounded_NG, error_NG = _round_group(weight_NK[:, part], scale_N1, factor_KK[part, part])
        weight_NK[:, part.stop :] -= error_NG @ factor_KK[part, part.stop :]
        packed.append(pack_int4(rounded_NG[:, None]))
        scales.append(scale_N1.half())
    return Int4(torch.cat(packed, dim=1), torch.cat(scales, dim=1))


def _factor(moments_KK: Tensor, worth_K: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse: a row says where a column's error goes."""
    damped_KK = moments_KK.clone()
    damped_KK.diagonal().copy_(worth_K + DAMPING * worth_K.mean())
    lower_KK = torch.linalg.cholesky(damped_KK.double())
    inverse_KK = torch.cholesky_inverse(lower_KK)
    upper_KK: Tensor = torch.linalg.cholesky(inverse_KK, upper=True)
    return upper_KK.float()


def _round_group(weight_NG: Tensor, scale_N1: Tensor, factor_GG: Tensor) -> tuple[Tensor, Tensor]:
    """Return rounded_NG and error_NG, in units of the factor's diagonal."""
    weight_NG = weight_NG.clone()
    rounded_NG, error_NG = torch.empty_like(weight_NG), torch.empty_like(weight_NG)
    for column in range(GROUP):
        here = slice(column, column + 1)
        rounded_NG[:, here] = round_groups(weight_NG[:, here, None], scale_N1)[..., 0]
        lost_N1 = weight_NG[:, here] - rounded_NG[:, here] * scale_N1
        error_NG[:, here] = lost_N1 / factor_GG[column, column]
        weight_NG[:, column:] -= error_NG[:, here] * factor_GG[here, column:]
    return rounded_NG, error_NG
