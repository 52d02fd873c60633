"""The published fine-tuning: its page says what its file says."""

import json

import numpy as np
from PIL import Image

from benchmarks.finetuning import RESULTS, blueprint, table


def test_the_page_shows_the_numbers_of_the_file() -> None:
    report = json.loads((RESULTS / "finetune.json").read_text(encoding="utf-8"))
    assert table(report) in (RESULTS / "finetune.md").read_text(encoding="utf-8")


def test_a_blueprint_shows_edges_and_no_colours_of_the_picture() -> None:
    pixels = np.full((64, 64, 3), (200, 30, 30), np.uint8)
    plain = np.asarray(blueprint(Image.fromarray(pixels)))
    pixels[16:48, 16:48] = (30, 200, 30)
    drawn = np.asarray(blueprint(Image.fromarray(pixels)))
    assert drawn.shape == (64, 64, 3)
    assert drawn[16, 40].sum() > 1.5 * plain[16, 40].sum()
    assert (drawn[40, 40] == plain[40, 40]).all()
