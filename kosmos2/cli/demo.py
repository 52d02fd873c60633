"""`demo`: the model in a browser."""

from __future__ import annotations

import os
import threading
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

import kosmos2
from kosmos2.cli.asking import ModelChoice
from kosmos2.cli.console import note, say
from kosmos2.cli.options import Device, DeviceOption, Dtype, DtypeOption, ModelOption, SetOption
from kosmos2.cli.serve import ROWS
from kosmos2.cli.showing import DRAWABLE
from kosmos2.errors import ImageError, MissingExtraError


def demo(
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGE", help="Example pictures; without any, those in examples/."),
    ] = None,
    model: ModelOption = "embedded",
    host: Annotated[
        str,
        typer.Option("--host", help="127.0.0.1: this machine alone; 0.0.0.0: whoever reaches it."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 7860,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = False,
    max_mb: Annotated[int, typer.Option("--max-mb", min=1, help="MiB of a picture's file.")] = 32,
    max_megapixels: Annotated[
        float, typer.Option("--max-megapixels", min=0.01, help="Of a picture, in millions.")
    ] = 50.0,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    overrides: SetOption = None,
) -> None:
    """Open a page on which to try the model: caption, find, describe a drawn box, ask.

    Example:  kosmos2 demo --open
    """
    # As for `serve`: idle processor threads must not spin on cores that the page needs.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    examples = _checked(images) if images else example_pictures()
    _check_extra()
    from kosmos2.webdemo import Bounds, build, launch

    loaded = ModelChoice(model, device, dtype, [ROWS, *(overrides or ())]).load()
    bounds = Bounds(max_bytes=max_mb << 20, max_pixels=int(max_megapixels * 1_000_000))
    page = build(loaded, examples, bounds)
    with launch(page, loaded, host=host, port=port, bounds=bounds) as address:
        if host not in ("127.0.0.1", "localhost", "::1"):
            note(f"warning: whoever reaches {host} can use this page")
        note("press Ctrl+C to end")
        say(address)
        if open_browser:
            typer.launch(address)
        threading.Event().wait()


def example_pictures() -> list[Path]:
    """Return the pictures in `examples`, here or beside the package (a clone); none: no such."""
    for folder in (Path("examples"), Path(kosmos2.__file__).resolve().parents[1] / "examples"):
        found = sorted(path for path in folder.glob("*") if path.suffix.lower() in DRAWABLE)
        if found:
            return found
    return []


def _checked(images: list[Path]) -> list[Path]:
    for path in images:
        if not path.is_file():
            raise ImageError(f"{path}: there is no such file")
    return images


def _check_extra() -> None:
    try:
        import_module("gradio")
    except ImportError as error:
        raise MissingExtraError(
            f'the demo needs {error.name}: pip install "kosmos2[demo]"'
        ) from None
