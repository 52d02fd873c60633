"""`convert`: one checkpoint format into the other."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.console import bar, say

if TYPE_CHECKING:
    from kosmos2.weights.convert import Step, Written
    from kosmos2.weights.quantized import Rounding


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


FEW_BITS = (NewDtype.INT8, NewDtype.INT4)


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
            help="Number type to write; int8 and int4: a small folder that kosmos2 alone reads.",
        ),
    ] = NewDtype.KEEP,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="FOLDER",
            help="With int4: pictures of the kind that will be asked about, to err less on such.",
        ),
    ] = None,
) -> None:
    """Write a model in another format; print the sha256 of what was written.

    Example:  kosmos2 convert kosmos-2.pt kosmos-2-folder --dtype bf16
    """
    _check(to, dtype, calibrate)
    with bar("converting", 1) as progress:

        def report(step: "Step") -> None:
            progress.reach(step.done, step.total, step.tensor[-40:])

        if dtype in FEW_BITS:
            written = _to_few_bits(source, target, dtype, calibrate, report)
        else:
            written = _to_floats(source, target, to, dtype, report)
    for file in written:
        say(str(file))


def _check(to: To, dtype: NewDtype, calibrate: Path | None) -> None:
    from kosmos2.errors import ConfigError

    if dtype in FEW_BITS and to is To.ORIGINAL:
        raise ConfigError(f"a kosmos-2.pt cannot hold {dtype}. Leave out --to original.")
    if calibrate is not None and dtype is not NewDtype.INT4:
        raise ConfigError(
            f"--calibrate is for --dtype int4, {dtype} does without. Leave it out, or ask for int4."
        )


def _rounding(source: str, dtype: NewDtype, pictures: Path | None) -> "Rounding":
    from kosmos2.errors import ImageError
    from kosmos2.kernels.kind import Precision
    from kosmos2.weights.quantized import rounding_to

    if pictures is None:
        return rounding_to(Precision(dtype))

    from kosmos2.api import Kosmos2
    from kosmos2.api.calibrate import CalibratedRounding, look_around

    files = sorted(path for path in pictures.glob("*") if path.is_file())
    if not files:
        raise ImageError(f"there are no pictures in {pictures}")
    # In fp32 because only there every layer is one that tells what it reads (no native kernels).
    model = Kosmos2.load(source, dtype="fp32")
    return CalibratedRounding(model, lambda model: look_around(model, files))


def _to_few_bits(
    source: str,
    target: Path,
    dtype: NewDtype,
    pictures: Path | None,
    report: Callable[["Step"], None],
) -> Sequence["Written"]:
    from kosmos2.kernels.kind import Precision
    from kosmos2.weights.convert import convert_to_few_bits

    precision, rounding = Precision(dtype), _rounding(source, dtype, pictures)
    return [
        convert_to_few_bits(source, target, precision=precision, rounding=rounding, progress=report)
    ]


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
