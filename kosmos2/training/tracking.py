"""Curves for TensorBoard beside the JSONL, where the library is installed ("kosmos2[train]")."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from PIL import Image

FOLDER = "tensorboard"


class Board:
    """One run's curves; without the library it does nothing."""

    def __init__(self, folder: Path, step: int) -> None:
        """Curves go on from `step`: what an interrupted run drew behind it is taken back."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.writer = None
        else:
            self.writer = SummaryWriter(str(folder / FOLDER), purge_step=step + 1)

    def numbers(self, kind: str, news: object) -> None:
        """Draw every number of a dataclass that has a `step`."""
        if self.writer is None:
            return
        values = dataclasses.asdict(news)  # type: ignore[call-overload]
        step = values.pop("step")
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(f"{kind}/{name}", value, step)
        self.writer.flush()

    def picture(self, path: Path, step: int) -> None:
        """Show the drawn preview of an evaluation."""
        if self.writer is None:
            return
        import numpy as np

        with Image.open(path) as image:
            pixels_YXC = np.asarray(image.convert("RGB"))
        self.writer.add_image("preview", pixels_YXC, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
