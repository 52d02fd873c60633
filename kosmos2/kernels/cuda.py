"""Which kernels a decode step uses on a device: Triton's where Triton is, plain ones elsewhere.

CUDA builds of torch bring Triton along; the package does not ask for it.
"""

from __future__ import annotations

import importlib.util

import torch

from kosmos2.kernels.operations import Operations, PlainOperations

HAS_TRITON = importlib.util.find_spec("triton") is not None

if HAS_TRITON:
    from kosmos2.kernels.triton_operations import TritonOperations


def operations_for(device: torch.device, dtype: torch.dtype) -> Operations:
    """Return the fastest operations of a device for activations of this type."""
    if device.type != "cuda" or not HAS_TRITON or dtype is torch.float64:
        return PlainOperations()
    return TritonOperations(torch.cuda.get_device_properties(device).multi_processor_count)
