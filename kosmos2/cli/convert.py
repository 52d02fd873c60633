"""`convert`: one checkpoint format into the other."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.console import bar, say

if TYPE_CHECKING:
    from kosmos2.weights.convert import Step, Written


class To(StrEnum):
    HUGGINGFACE = "huggingface"
    ORIGINAL = "original"


class NewDtype(StrEnum):
    KEEP = "keep"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="'embedded', a model folder, a kosmos-2.pt or a hub name.",
            show_default=False,
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="A new folder for huggingface, a new .pt file for original.",
            show_default=False,
        ),
    ],
    to: Annotated[To, typer.Option("--to", help="What to write.")] = To.HUGGINGFACE,
    dtype: Annotated[
        NewDtype,
        typer.Option(
            "--dtype",
            help="Number type to write; keep: as it is. int8 and int4 make a folder that kosmos2 "
            "alone reads: small, and loaded in seconds.",
        ),
    ] = NewDtype.KEEP,
) -> None:
    """Write a model in another format; print the sha256 of what was written.

    Example:  kosmos2 convert kosmos-2.pt kosmos-2-folder --dtype bf16
    """
    from kosmos2.errors import ConfigError

    few_bits = dtype in (NewDtype.INT8, NewDtype.INT4)
    if few_bits and to is To.ORIGINAL:
        raise ConfigError(f"a kosmos-2.pt cannot hold {dtype}. Leave out --to original.")
    with bar("converting", 1) as progress:

        def report(step: "Step") -> None:
            progress.reach(step.done, step.total, step.tensor[-40:])

        if few_bits:
            written: Sequence[Written] = [_to_few_bits(source, target, dtype, report)]
        else:
            written = _to_floats(source, target, to, dtype, report)
    for file in written:
        say(str(file))


def _to_few_bits(
    source: str, target: Path, dtype: NewDtype, report: Callable[["Step"], None]
) -> "Written":
    from kosmos2.kernels.kind import Precision
    from kosmos2.weights.convert import convert_to_few_bits
    from kosmos2.weights.quantized import rounding_to

    precision = Precision(dtype)
    return convert_to_few_bits(
        source, target, precision=precision, rounding=rounding_to(precision), progress=report
    )


def _to_floats(
    source: str, target: Path, to: To, dtype: NewDtype, report: Callable[["Step"], None]
) -> Sequence["Written"]:
    import torch

    from kosmos2.weights.convert import Format
    from kosmos2.weights.convert import convert as write

    dtypes = {
        NewDtype.FP32: torch.float32,
        NewDtype.BF16: torch.bfloat16,
        NewDtype.FP16: torch.float16,
    }
    return write(source, target, to=Format(to), dtype=dtypes.get(dtype), progress=report)
