"""The options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Dtype(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"


class Unit(StrEnum):
    PIXELS = "pixels"
    NORMALISED = "normalised"


ImagesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE",
        help="Picture files of any usual format; - reads one from standard input.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="'embedded', a model folder, a kosmos-2.pt, or a hub name such as "
        "microsoft/kosmos-2-patch14-224.",
    ),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        help="Number type; auto: bf16 where the processor multiplies it, fp32 otherwise. "
        "int8 and int4 are smaller and faster, and a little less exact.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="How to answer: batch_size, max_new_tokens, temperature, top_k, top_p, min_p, seed, "
        "best_of, beams, length_penalty, repetition_penalty, no_repeat, ngram_size. Repeatable.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per picture, one per line.")
]
DrawOption = Annotated[
    Path | None,
    typer.Option(
        "--draw",
        help="Write the picture with its boxes: a file for one picture, else a folder.",
        metavar="OUT",
        show_default=False,
    ),
]
CropsOption = Annotated[
    Path | None,
    typer.Option(
        "--crops",
        help="Write what is inside each box into this folder.",
        metavar="DIR",
        show_default=False,
    ),
]
PageOption = Annotated[
    Path | None,
    typer.Option(
        "--page",
        help="Write one HTML page on which phrases light their boxes.",
        metavar="FILE",
        show_default=False,
    ),
]
UnitOption = Annotated[
    Unit | None,
    typer.Option(
        "--unit",
        help="Unit of --box: pixels of the upright picture, or fractions of it.",
        show_default=False,
    ),
]
BOX_HELP = "x0,y0,x1,y1: the upper left and the lower right corner; see --unit."
