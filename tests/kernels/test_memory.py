"""Memory is taken when it is used, not when it is asked for."""

from pathlib import Path

import pytest
import torch

from kosmos2.kernels.memory import zeros

CPU = torch.device("cpu")
STATUS = Path("/proc/self/status")


def anonymous() -> int:
    """Return the bytes of this process that lie in no file."""
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


@pytest.mark.skipif(not STATUS.is_file(), reason="only Linux says it")
def test_zeros_take_memory_only_where_they_are_written_to() -> None:
    before = anonymous()
    memory_XD = zeros((1 << 10, 1 << 18), torch.float32, CPU)
    assert anonymous() - before < 64 << 20
    memory_XD[:128] = 1
    assert 128 << 20 <= anonymous() - before < 192 << 20


@pytest.mark.parametrize("shape", [(0, 3), (2, 3), (3, 1 << 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_are_zeros_of_any_size_and_can_be_written_to(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    memory_XD = zeros(shape, dtype, CPU)
    assert torch.equal(memory_XD, torch.zeros(shape, dtype=dtype))
    memory_XD += 1
    assert torch.equal(memory_XD, torch.ones(shape, dtype=dtype))
