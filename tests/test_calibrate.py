"""Rounding fitted to a model's own look at pictures, from the command line to the folder."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from model_cases import TINY, random_network, with_vocabulary
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import kosmos2.api.calibrate as calibrate
from kosmos2.api import Kosmos2
from kosmos2.api.calibrate import CalibratedRounding, look_around
from kosmos2.cli import app
from kosmos2.errors import RequestError
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.quantized import Int4, Int8
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface
from kosmos2.weights.convert import Step, convert_to_few_bits
from kosmos2.weights.quantized import read_quantized, rounding_to


@pytest.fixture(scope="module")
def folder(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose decoder has widths of whole groups."""
    from dataclasses import replace

    text = replace(TINY.text, width=128, feedforward_width=256)
    config = with_vocabulary(replace(TINY, text=text), tiny_tokenizer)
    target = tmp_path_factory.mktemp("calibrate") / "model"
    huggingface.save(random_network(config), tiny_tokenizer, target, dtype=torch.float32)
    return target


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 20 + number).save(
            target / f"{number}.png"
        )
    return target


def quiet(step: Step) -> None:
    assert step.done <= step.total


def load(folder: Path, dtype: str = "fp32") -> Kosmos2:
    return Kosmos2.load(folder, dtype=dtype, device="cpu")


def test_the_command_writes_a_folder_whose_matrices_are_fitted(
    folder: Path, pictures: Path, tmp_path: Path
) -> None:
    arguments = ["convert", str(folder), "--dtype", "int4"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "plain")])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(
        app, [*arguments, str(tmp_path / "fitted"), "--calibrate", str(pictures)]
    )
    assert done.exit_code == 0, done.output
    plain, fitted = (
        read_quantized(tmp_path / name, Precision.INT4) for name in ("plain", "fitted")
    )
    for name in ("decoder.blocks.0.qkv.weight", "resampler.query.weight"):
        ours, theirs = fitted.read(name), plain.read(name)
        assert isinstance(ours, Int4) and isinstance(theirs, Int4)
        assert not torch.equal(ours.packed_NK, theirs.packed_NK)
    name = "vision.blocks.0.qkv.weight"
    assert isinstance(fitted.read(name), Int8)
    assert load(tmp_path / "fitted", "auto").caption(pictures / "0.png").text is not None


def test_pictures_are_looked_at_again_where_not_all_moments_fit_into_memory(
    folder: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    held: list[int] = []

    def look(model: Kosmos2) -> None:
        looks.append(1)
        look_around(model, [pictures / "0.png"])

    collect = calibrate.collect_moments

    def collected(*arguments: object) -> Mapping[str, Tensor]:
        moments = collect(*arguments)  # type: ignore[arg-type]
        held.append(sum(each.nbytes for each in moments.values()))
        return moments

    def write(name: str, memory: int) -> None:
        monkeypatch.setattr(calibrate, "MEMORY", memory)
        monkeypatch.setattr(calibrate, "collect_moments", collected)
        rounding = CalibratedRounding(load(folder), look)
        convert_to_few_bits(
            folder, tmp_path / name, precision=Precision.INT4, rounding=rounding, progress=quiet
        )

    write("once", 1 << 30)
    assert len(looks) == 1
    write("often", 4 * 256**2)
    assert len(looks) > 3 and max(held[1:]) <= 4 * 256**2
    once, often = (
        (tmp_path / name / "model-int4.safetensors").read_bytes() for name in ("once", "often")
    )
    assert once == often


def test_a_matrix_that_was_never_read_is_rounded_as_it_is(folder: Path) -> None:
    rounding = CalibratedRounding(load(folder), lambda _: None)
    weight_NK = torch.randn(128, 128)
    name = "resampler.query.weight"
    ours, plain = rounding(name, weight_NK), rounding_to(Precision.INT4)(name, weight_NK)
    assert isinstance(ours, Int4) and isinstance(plain, Int4)
    assert torch.equal(ours.packed_NK, plain.packed_NK)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_model_that_is_rounded_already_is_no_teacher(folder: Path, dtype: str) -> None:
    with pytest.raises(RequestError, match=f"a {dtype} model cannot be calibrated with"):
        CalibratedRounding(load(folder, dtype), lambda _: None)


def test_no_picture_is_no_calibration(folder: Path) -> None:
    with pytest.raises(RequestError, match="at least one picture"):
        look_around(load(folder), [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "int8", "--calibrate", "."], "--calibrate is for --dtype int4"),
        (["--dtype", "int4", "--to", "original"], "a kosmos-2.pt cannot hold int4"),
        (["--dtype", "int4", "--calibrate", "nowhere"], "no pictures in nowhere"),
    ],
)
def test_what_cannot_be_is_said(
    folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = CliRunner().invoke(app, ["convert", str(folder), str(tmp_path / "new"), *arguments])
    assert done.exit_code and not (tmp_path / "new").exists()
    assert message in done.output or message in str(done.exception)
