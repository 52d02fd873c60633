"""The command line: every format as output, wrong words refused, exit codes."""

import json
from pathlib import Path

import pytest
from annotate_cases import paint_many
from typer.testing import CliRunner

from kosmos2.cli import app
from kosmos2.records.formats.format import KEPT, Feature, Reading
from kosmos2.records.formats.registry import FORMATS

QUICK = ("--dtype", "fp32", "--device", "cpu", "--set", "max_new_tokens=10")
WRITTEN = sorted(name for name, form in FORMATS.items() if form.write is not None)


def annotate(*words: str | Path) -> tuple[int, str]:
    """Return the exit code and all that was printed, blanks as one."""
    result = CliRunner().invoke(app, ["annotate", *map(str, words), *QUICK])
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    paint_many(folder, 3)
    return folder


@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_that_can_be_written_is_an_output(
    name: str, pictures: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    code, said = annotate(pictures, target, "--to", name)
    assert code == 0, said
    assert "3 of 3 pictures annotated" in said
    assert target.exists() and not (tmp_path / "out.job").exists()
    read = FORMATS[name].read
    if read is not None:
        assert len(list(read(target, Reading()))) == 3
    carries = FORMATS[name].carries
    keeps_all = carries.get(Feature.EXTRA) == carries.get(Feature.PROVENANCE) == KEPT
    assert keeps_all or "does not keep everything" in said


def test_the_name_of_the_output_says_its_format(pictures: Path, tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet", "a.csv", "plain"):
        assert annotate(pictures, tmp_path / name)[0] == 0
    assert json.loads((tmp_path / "plain").read_text().splitlines()[0])["id"] == "0000"
    assert (tmp_path / "a.parquet").read_bytes()[:4] == b"PAR1"
    code, said = annotate(pictures, tmp_path / "a.xyz")
    assert code == 2 and "coco" in said


def test_bad_pictures_end_with_3_and_a_word_where_to_look(pictures: Path, tmp_path: Path) -> None:
    paint_many(tmp_path / "in", 2)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no picture")
    code, said = annotate(tmp_path / "in", tmp_path / "out.jsonl")
    assert code == 3
    assert "1 of 3 pictures failed" in said and "errors.jsonl" in said
    assert json.loads((tmp_path / "errors.jsonl").read_text())["id"] == "bad"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("missing", "out.jsonl"), "INPUT is"),
        (("in", "out.jsonl", "--to", "nothing"), "coco"),
        (("in", "out.jsonl", "--task", "find"), "--phrases"),
        (("in", "out.jsonl", "--task", "describe"), "boxes"),
        (("in", "out.jsonl", "--task", "ground"), "caption"),
        (("in", "out.jsonl", "--phrases", "list.txt"), "--task find"),
        (("in", "out.jsonl", "--task", "find", "--phrases", "none.txt"), "no phrases"),
        (("in", "out.jsonl", "--shard", "3/2"), "1 to n"),
        (("in", "out.jsonl", "--shard", "second"), "I/N"),
        (("in", "out.jsonl", "--limit", "0"), "1 picture or more"),
        (("in", "out.jsonl", "--workers", "2"), "pool"),
        (("in", "out.jsonl", "--address", "x"), "ray"),
        (("in", "out.jsonl", "--model", "nowhere/at-all/x"), "no file or folder"),
        (("in", "out.jsonl", "--set", "batch=2"), "batch_size"),
        (("web.txt", "out.jsonl"), "--fetch"),
        (("in", "there.jsonl"), "--fresh"),
    ],
)
def test_wrong_words_are_refused_with_2_and_write_no_output(
    words: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paint_many(tmp_path / "in", 1)
    (tmp_path / "list.txt").write_text("a dog\n")
    (tmp_path / "none.txt").write_text("\n")
    (tmp_path / "web.txt").write_text("https://x.example/a.png\n")
    (tmp_path / "there.jsonl").write_text("mine\n")
    code, said = annotate(*words)
    assert code == 2, said
    assert why in said
    assert not (tmp_path / "out.jsonl").exists()
    assert (tmp_path / "there.jsonl").read_text() == "mine\n"


def test_a_shard_has_its_own_errors_file_so_that_parts_may_share_a_folder(tmp_path: Path) -> None:
    paint_many(tmp_path / "in", 1)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no picture")
    assert annotate(tmp_path / "in", tmp_path / "2.jsonl", "--shard", "2/2")[0] == 3
    assert (tmp_path / "errors-2-of-2.jsonl").exists()
