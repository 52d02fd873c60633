"""`kosmos2 records` as a user runs it."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from kosmos2.cli import app
from kosmos2.cli.records import records as commands
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.store import Writer, read

COLOURS = ("red", "green", "blue", "white", "black", "gray")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six records, each with a picture of 60 x 40 pixels; the last has lost its own."""
    folder = tmp_path / "set"
    (folder / "pictures").mkdir(parents=True)
    with Writer(folder / "six.jsonl") as writer:
        for number, colour in enumerate(COLOURS):
            if colour != "gray":
                Image.new("RGB", (60, 40), colour).save(folder / "pictures" / f"{colour}.png")
            writer.write(made(number, colour))
    return folder / "six.jsonl"


def made(number: int, colour: str) -> GroundedRecord:
    caption = f"a {colour} dog in a field"
    size = len(f"a {colour} dog")
    return GroundedRecord(
        id=number,
        image=f"pictures/{colour}.png",
        width=60,
        height=40,
        caption=caption,
        noun_chunks=(Grounded(0, size, 0.1, 0.1, 0.6, 0.9, 0.9),),
        ref_exps=(
            Grounded(0, len(caption), 0.1, 0.1, 0.6, 0.9, 0.9),
            Grounded(0, size, 0.1, 0.1, 0.6, 0.9, 0.9),
            Grounded(len(caption) - 7, len(caption), 0, 0.5, 0.1, 0.6, 0.3),
            Grounded(len(caption) - 7, len(caption), 0, 0, 1, 1, None),
        ),
        extra={"licence": "CC0"},
    )


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["records", *(str(each) for each in arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def error_of(*arguments: object) -> str:
    """The one line of standard error of a command that fails."""
    lines = run(*arguments, code=2).stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(path: Path) -> list[object]:
    return [record.id for record in read(path)]


@pytest.mark.parametrize(
    "command",
    [each.name or each.callback.__name__ for each in commands.registered_commands if each.callback],
)
def test_help_shows_an_example(command: str) -> None:
    result = run(command, "--help")
    assert f"Example:  kosmos2 records {command}" in result.output


def test_head_prints_records_as_they_are(source: Path) -> None:
    result = run("head", source, "-n", 2, "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == rows(source)[:2]


def test_head_for_people_tells_boxes_in_pixels(source: Path) -> None:
    shown = run("head", source, "-n", 1).stdout
    assert "pictures/red.png  60 x 40" in shown
    assert "a red dog in a field" in shown
    assert "6, 4, 36, 36" in shown
    assert "green" not in shown


def test_show_draws_one_record_at_the_size_of_its_picture(source: Path, tmp_path: Path) -> None:
    run("show", source, "--number", 3, "--out", tmp_path / "third.png")
    with Image.open(tmp_path / "third.png") as drawn:
        assert drawn.size == (60, 40)
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(10_000) or ()}
    assert (0, 0, 255) in colours
    assert len(colours) > 1, "no box is drawn"


def test_show_makes_a_page_of_the_records_asked_for(source: Path, tmp_path: Path) -> None:
    run("show", source, "--id", 4, "--number", 2, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<article") == 2
    assert "1 · pictures/green.png" in page
    assert "4 · pictures/black.png" in page


def test_show_says_which_pictures_are_not_there(source: Path, tmp_path: Path) -> None:
    result = run("show", source, "--out", tmp_path / "sheet.png")
    assert "1 of 6 pictures are not here" in result.stderr
    assert "gray.png" in result.stderr
    assert (tmp_path / "sheet.png").is_file()


def test_show_finds_pictures_in_the_folder_named(source: Path, tmp_path: Path) -> None:
    moved = source.parent / "pictures" / "elsewhere.jsonl"
    source.rename(moved)
    result = run("show", moved, "-n", 5, "--images", source.parent, "-o", tmp_path / "a.png")
    assert "not here" not in result.stderr


def test_show_names_the_record_that_is_not_there(source: Path, tmp_path: Path) -> None:
    assert "no record 77" in error_of("show", source, "--id", 77, "--out", tmp_path / "a.png")
    assert "no record 9" in error_of("show", source, "--number", 9, "--out", tmp_path / "a.png")


def test_show_refuses_what_it_cannot_draw_into(source: Path, tmp_path: Path) -> None:
    assert "a.txt" in error_of("show", source, "--out", tmp_path / "a.txt")


def test_stats_counts_records_and_drops_and_writes_a_report(source: Path, tmp_path: Path) -> None:
    (source.parent / "errors.jsonl").write_text('{"reason": "no picture"}\n' * 3, encoding="utf-8")
    result = run("stats", source, "--html", tmp_path / "report.html", "--drawn", 2)
    assert "no picture 3" in result.stdout
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count('<article class="card"') == 2
    assert "mean 0.7, from 0.3 to 0.9; 18 boxes" in html


def test_stats_counts_lines_that_are_no_records(source: Path) -> None:
    with source.open("a", encoding="utf-8") as file:
        file.write('{"caption": 3, "noun_chunks": [], "ref_exps": []}\n')
    result = run("stats", source)
    assert "no valid record" in " ".join(result.stdout.split())


def test_check_is_content_with_good_records(source: Path) -> None:
    assert "no faults" in run("check", source).stderr


def test_check_names_record_field_and_value(source: Path) -> None:
    fields = rows(source)[1]
    bad = {**fields, "id": 99, "width": 0, "ref_exps": [[0, 5, 0.5, 0, 0.25, 1, 2.5]]}
    with source.open("a", encoding="utf-8") as file:
        file.write(json.dumps(bad) + "\n")
    result = run("check", source, "--json", code=3)
    faults = {fault["field"]: fault for fault in map(json.loads, result.stdout.splitlines())}
    assert faults.keys() == {"width", "ref_exps[0].box", "ref_exps[0].score"}
    assert {fault["record"] for fault in faults.values()} == {99}
    assert faults["width"]["value"] == 0
    assert faults["ref_exps[0].score"]["value"] == 2.5
    assert all(fault["where"].endswith("six.jsonl:7") for fault in faults.values())
    assert "3 faults" in run("check", source, "--limit", 1, code=3).stderr


def test_check_reads_other_formats_too(source: Path, tmp_path: Path) -> None:
    run("convert", source, tmp_path / "six.csv")
    assert "no faults" in run("check", tmp_path / "six.csv").stderr


def test_convert_there_and_back_keeps_everything_and_pictures_are_found(
    source: Path, tmp_path: Path
) -> None:
    there, back = tmp_path / "deep" / "six.parquet", source.parent / "again.jsonl"
    assert "lost" not in run("convert", source, there).stdout
    run("convert", there, back)
    assert rows(back) == rows(source)
    run("show", there, "-n", 5, "--out", tmp_path / "a.png")


def test_convert_tells_what_is_lost(source: Path, tmp_path: Path) -> None:
    shown = run("convert", source, tmp_path / "six.csv").stdout
    assert "noun chunks apart from" in shown
    assert "lost" in shown
    assert "6 records in" in shown


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (("--view", "longest"), [(0, 20, 1)]),
        (("--view", "one-box"), [(0, 20, 1), (0, 9, 1), (13, 20, 1)]),
        (("--view", "non-overlapping"), [(0, 9, 1), (13, 20, 2)]),
        (("--min-score", "0.5"), [(0, 20, 1), (0, 9, 1)]),
        (("--min-area", "0.9"), [(13, 20, 1)]),
        (("--min-area", "0.9", "--view", "longest"), [(13, 20, 1)]),
    ],
)
def test_convert_looks_at_records_by_rule(
    source: Path, tmp_path: Path, options: tuple[str, ...], left: list[tuple[int, int, int]]
) -> None:
    run("convert", source, tmp_path / "some.jsonl", *options)
    entries = next(read(tmp_path / "some.jsonl")).ref_exps or ()
    spans = [(entry.start, entry.end) for entry in entries]
    assert [(*span, spans.count(span)) for span in dict.fromkeys(spans)] == left


def test_convert_skips_what_is_no_record_and_says_so(source: Path, tmp_path: Path) -> None:
    with source.open("a", encoding="utf-8") as file:
        file.write('{"caption": 3, "noun_chunks": [], "ref_exps": []}\n')
    result = run("convert", source, tmp_path / "out.jsonl", code=3)
    assert "1 record is left out" in result.stderr
    assert "caption must be text" in result.stderr
    assert ids(tmp_path / "out.jsonl") == list(range(6))


def test_nothing_that_is_there_is_written_over_unless_asked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("mine\n", encoding="utf-8")
    for command in (("convert",), ("sample", "-n", 2)):
        assert "is there already" in error_of(*command, source, target)
    assert "is there already" in error_of("merge", source, target)
    assert target.read_text(encoding="utf-8") == "mine\n"
    run("sample", "-n", 2, "--replace", source, target)
    assert len(ids(target)) == 2


def test_no_command_replaces_what_it_reads(source: Path) -> None:
    before = source.read_bytes()
    for command in (("convert",), ("sample", "-n", 2), ("merge",)):
        error_of(*command, source, source, "--replace")
    assert source.read_bytes() == before


def test_split_shares_each_record_out_once_and_always_the_same(
    source: Path, tmp_path: Path
) -> None:
    run("split", source, tmp_path / "two", "--fractions", "0.5,0.5", "--names", "train,test")
    parts = {path.name: ids(path) for path in (tmp_path / "two").iterdir()}
    assert parts.keys() == {"train.jsonl", "test.jsonl"}
    assert sorted(number for part in parts.values() for number in part) == list(range(6))
    with Writer(source) as writer:
        writer.write(replace(made(0, "red"), id=100))
    run("split", source, tmp_path / "more", "--by", 2, "--to", "parquet")
    for name, again in (("train", "part-0"), ("test", "part-1")):
        kept = [number for number in ids(tmp_path / "more" / f"{again}.parquet") if number != 100]
        assert kept == parts[f"{name}.jsonl"]


def test_parts_still_know_where_their_pictures_are(source: Path, tmp_path: Path) -> None:
    run("split", source, tmp_path / "a" / "one", "--by", 1)
    part = tmp_path / "a" / "one" / "part-0.jsonl"
    result = run("show", part, "-n", 5, "--out", tmp_path / "a.png")
    assert "not here" not in result.stderr


def test_a_split_that_fails_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with source.open("a", encoding="utf-8") as file:
        file.write('{"caption": 3, "noun_chunks": [], "ref_exps": []}\n')
    assert "six.jsonl:7" in error_of("split", source, tmp_path / "parts", "--by", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--by", "2", "--fractions", "0.5,0.5"),
        ("--fractions", "0.5,0.6"),
        ("--fractions", "half"),
        ("--by", "2", "--names", "a"),
        ("--by", "2", "--names", "a,../b"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    source: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    error_of("split", source, tmp_path / "parts", *options)
    assert not (tmp_path / "parts").exists()


def test_merge_keeps_order_and_finds_pictures_of_all_sources(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (60, 40), "pink").save(other / "pink.png")
    with Writer(other / "one.jsonl") as writer:
        writer.write(replace(made(50, "pink"), image="pink.png"))
    merged = tmp_path / "third" / "all.jsonl"
    run("merge", other / "one.jsonl", source, merged)
    assert ids(merged) == [50, *range(6)]
    result = run("show", merged, "-n", 6, "--out", tmp_path / "a.png")
    assert "not here" not in result.stderr


def test_merge_refuses_keeps_or_drops_duplicates(source: Path, tmp_path: Path) -> None:
    both = (source, source)
    assert "--duplicates" in error_of("merge", *both, tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()
    for duplicates, left in (("keep", [*range(6), *range(6)]), ("drop", list(range(6)))):
        target = tmp_path / f"{duplicates}.jsonl"
        result = run("merge", *both, target, "--duplicates", duplicates)
        assert ids(target) == left
        assert "6 records with an id that was there before" in result.stderr


def test_a_sample_is_in_order_and_the_same_for_a_seed(source: Path, tmp_path: Path) -> None:
    taken = []
    for number, seed in enumerate((1, 1, 2, 3, 4)):
        run("sample", source, tmp_path / f"{number}.jsonl", "-n", 3, "--seed", seed)
        taken.append(ids(tmp_path / f"{number}.jsonl"))
    assert taken[0] == taken[1]
    assert len(set(map(tuple, taken))) > 1
    assert all(some == sorted(some) and len(some) == 3 for some in taken)


def test_packed_lines_are_read_like_plain_ones(source: Path) -> None:
    packed = source.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(source.read_bytes()))
    assert run("head", packed, "--json").stdout == run("head", source, "--json").stdout


def test_formats_tell_what_they_keep_and_lose() -> None:
    listed = run("formats").stdout
    for name in ("jsonl", "coco", "yolo", "voc", "odvg", "csv"):
        assert name in listed
    assert "width and height" in run("formats", "coco").stdout
    assert "coco" in error_of("formats", "cocoa")


def test_what_is_not_there_or_unknown_is_told_in_one_line(source: Path, tmp_path: Path) -> None:
    for command in ("head", "stats", "check"):
        assert "nowhere" in error_of(command, tmp_path / "nowhere.jsonl")
    assert "cocoa" in error_of("convert", source, tmp_path / "a", "--to", "cocoa")
    assert "does not say its format" in error_of("convert", source, tmp_path / "a")
