"""`demo`: the main job on the example pictures."""

from pathlib import Path
from typing import Annotated

import typer

import kosmos2
from kosmos2.cli.console import say
from kosmos2.cli.options import Device, DeviceOption, Dtype, DtypeOption, ModelOption
from kosmos2.cli.pictures import Style, caption
from kosmos2.cli.showing import DRAWABLE
from kosmos2.errors import ImageError


def demo(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", help="Pictures; without any, those in examples/."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the drawn pictures and the page.")
    ] = Path("demo-output"),
    model: ModelOption = "embedded",
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
) -> None:
    """Caption the example pictures, draw their boxes and write one page to look at.

    Example:  kosmos2 demo --out demo-output
    """
    page = out / "index.html"
    names = images or example_pictures()
    out.mkdir(parents=True, exist_ok=True)
    try:
        caption(
            names,
            style=Style.BRIEF,
            model=model,
            draw=out,
            page=page,
            device=device,
            dtype=dtype,
        )
    finally:
        if page.is_file():
            say(f"drawn pictures: {out}")
            say(f"page to open in a browser: {page.resolve().as_uri()}")


def example_pictures() -> list[str]:
    """Return the pictures in `examples`, here or beside the package (a clone of the repository)."""
    for folder in (Path("examples"), Path(kosmos2.__file__).resolve().parents[1] / "examples"):
        found = sorted(path for path in folder.glob("*") if path.suffix.lower() in DRAWABLE)
        if found:
            return [str(path) for path in found]
    raise ImageError(
        "there is no folder `examples` with pictures here; name some: kosmos2 demo photo.jpg"
    )
