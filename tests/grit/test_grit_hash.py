"""`grit hash`: a line for each picture, which a recipe's `filters.excluded` reads."""

from pathlib import Path

import pytest
from PIL import Image
from tiny_detectors import picture
from typer.testing import CliRunner

from kosmos2.cli.console import FAILED
from kosmos2.cli.grit import grit
from kosmos2.cli.jobs import SOME_FAILED
from kosmos2.grit.filters import perceptual_hash, read_hashes

pytest.importorskip("imagehash", reason='needs pip install "kosmos2[grit]"')

PICTURES = {f"{n}.png": picture(60 + n, 40, n) for n in range(3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name, image in PICTURES.items():
        image.save(tmp_path / "in" / name)
    return tmp_path


def run(folder: Path, source: str = "in") -> tuple[int, str, list[str]]:
    out = folder / "out.hashes"
    result = CliRunner().invoke(grit, ["hash", str(folder / source), str(out)])
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    return result.exit_code, result.output + str(result.exception), lines


def test_each_line_has_the_hash_of_a_picture_and_its_name(folder: Path) -> None:
    code, _, lines = run(folder)
    assert code == 0
    for line, (name, image) in zip(lines, PICTURES.items(), strict=True):
        assert line == f"{perceptual_hash(image):016x}  # {folder / 'in' / name}"


def test_filters_read_what_is_written(folder: Path) -> None:
    run(folder)
    known = read_hashes([folder / "out.hashes"], 0)
    assert all(known.near(perceptual_hash(image)) for image in PICTURES.values())
    assert not known.near(perceptual_hash(picture(64, 64, 99)))


def test_a_list_of_paths_is_a_source_too(folder: Path) -> None:
    (folder / "two.txt").write_text("in/2.png\nin/0.png\n")
    _, _, lines = run(folder, "two.txt")
    assert [line.partition("  # ")[2] for line in lines] == ["in/2.png", "in/0.png"]


def test_bad_pictures_are_named_and_the_exit_code_tells(folder: Path) -> None:
    (folder / "in" / "1.png").write_bytes(b"no picture")
    code, output, lines = run(folder)
    assert code == SOME_FAILED and len(lines) == 2
    assert "1.png" in output and "1 could not be read" in output


def test_a_name_with_a_line_break_stays_on_its_line(folder: Path) -> None:
    Image.new("RGB", (9, 9)).save(folder / "in" / "a\nb.png")
    code, _, lines = run(folder)
    assert code == 0 and len(lines) == 4
    assert any(line.endswith("a\\nb.png") for line in lines)
    read_hashes([folder / "out.hashes"], 0)


def test_nothing_is_written_where_no_picture_can_be_read(folder: Path) -> None:
    for name in PICTURES:
        (folder / "in" / name).write_bytes(b"")
    code, output, lines = run(folder)
    assert code != 0 and lines == [] and "no picture of" in output
    assert not list(folder.glob(".*"))


def test_an_error_is_one_line_with_the_exit_code_of_failure(folder: Path) -> None:
    from kosmos2.cli import app

    result = CliRunner().invoke(app, ["grit", "hash", str(folder / "none"), str(folder / "out")])
    assert result.exit_code == FAILED and "nothing at" in result.output
