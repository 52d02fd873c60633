"""The names of those who take part: whose program, which numbers, which kernels."""

from __future__ import annotations

FP32, BF16 = "transformers fp32", "transformers bf16"
NATIVE = ("ours bf16 native", "ours int8 native", "ours int4 native")
HEATS = (
    (FP32, BF16, "ours bf16", "ours int8"),
    (BF16, "ours int8", *NATIVE),
    (FP32, "ours fp32"),
)
"""Who runs against whom: in 24 GB there is no room for all at once."""


def is_ours(name: str) -> bool:
    """Tell whether a contestant is ours."""
    return name.startswith("ours ")


def is_native(name: str) -> bool:
    """Tell whether a contestant uses the optional kernels."""
    return name.endswith(" native")


def precision_of(name: str) -> str:
    """Return the precision of a contestant."""
    return name.split()[1]
