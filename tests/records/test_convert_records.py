"""Conversion: whole or not at all, pictures still found, everything lost or skipped is counted."""

import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from examples import example_records, known_record
from kosmos2.errors import RecordError
from kosmos2.records.convert import (
    Fate,
    Ledger,
    Skipped,
    convert,
    fates,
    losses,
    write_all,
)
from kosmos2.records.formats.format import KEPT, Feature, Format, Reading, Writing, each
from kosmos2.records.formats.registry import FORMATS
from kosmos2.records.formats.stores import JSONL
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord
from kosmos2.records.store import root_of

ENDINGS = {
    "jsonl": ".jsonl",
    "grit": ".jsonl",
    "parquet": ".parquet",
    "grit-parquet": ".parquet",
    "webdataset": ".tar",
    "csv": ".csv",
    "odvg": ".jsonl",
    "florence": ".jsonl",
    "qwen": ".json",
    "llava": ".json",
    "llava-square": ".json",
    "labelstudio": ".json",
    "markup": ".txt",
}
"""Of the formats that are one file."""
WHERE = [
    *((form.name, ENDINGS.get(form.name, "")) for form in FORMATS.values() if form.write),
    ("parquet", ""),
    ("webdataset", ""),
    ("coco", ".v1"),
]
BREAKS = "the disk is full"


def store(records: Iterable[GroundedRecord], path: Path) -> Path:
    assert JSONL.write is not None
    JSONL.write(records, path, Writing(pictures=Pictures(path.parent)))
    return path


def to_jsonl(source: Path, target: Path, ledger: Ledger | None = None) -> Ledger:
    return convert(source, target, source_format=JSONL, target_format=JSONL, ledger=ledger)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("name", "ending"), WHERE)
def test_records_find_their_pictures_from_wherever_they_are_converted_to(
    name: str, ending: str, tmp_path: Path
) -> None:
    form, here, target = FORMATS[name], tmp_path / "a" / "b", tmp_path / "c" / f"out{ending}"
    records = example_records(here)
    source = store(records, here / "a.jsonl")
    ledger = convert(source, target, source_format=JSONL, target_format=form)
    assert (ledger.read, ledger.written, ledger.skipped) == (8, 8, 0)
    again = tmp_path / "d" / "again.jsonl"
    back = convert(target, again, source_format=form, target_format=JSONL)
    assert (back.read, back.skipped) == (8, 0)
    assert JSONL.read is not None
    for path, told in ((target, form), (again, JSONL)):
        assert told.read is not None
        found = list(told.read(path, Reading()))
        assert [Pictures(root_of(path)).read(record) for record in found] == [
            Pictures(here).read(record) for record in records
        ]


def test_a_picture_in_a_tar_is_found_from_the_target(tmp_path: Path) -> None:
    record = known_record(tmp_path / "a")
    with tarfile.open(tmp_path / "a" / "shard.tar", "w") as tar:
        tar.add(tmp_path / "a" / "1-known.png", "known.png")
    source = store([replace(record, image="known.png", shard="shard.tar")], tmp_path / "a/a.jsonl")
    to_jsonl(source, tmp_path / "b" / "b.jsonl")
    (moved,) = JSONL.read(tmp_path / "b" / "b.jsonl", Reading())
    assert moved.shard == "../a/shard.tar"
    assert Pictures(tmp_path / "b").read(moved) == (tmp_path / "a/1-known.png").read_bytes()


def test_absolute_paths_urls_and_scenes_stay_as_they_are(tmp_path: Path) -> None:
    record = known_record(tmp_path / "a")
    images = [str(tmp_path / "a" / "1-known.png"), "scene:recipe/7", None]
    records = [replace(record, image=image, url="https://example.com/x.png") for image in images]
    to_jsonl(store(records, tmp_path / "a" / "a.jsonl"), tmp_path / "b.jsonl")
    assert [each.image for each in JSONL.read(tmp_path / "b.jsonl", Reading())] == images


def test_names_of_pictures_may_start_from_another_folder(tmp_path: Path) -> None:
    record = known_record(tmp_path / "pictures")
    source = store([record], tmp_path / "labels" / "a.jsonl")
    target = tmp_path / "b.jsonl"
    convert(
        source,
        target,
        source_format=JSONL,
        target_format=JSONL,
        images=tmp_path / "pictures",
    )
    (moved,) = JSONL.read(target, Reading())
    assert moved.image == "pictures/1-known.png"


def test_nothing_stands_at_the_target_before_all_of_it_does(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    target = tmp_path / "out.jsonl"
    seen = []

    def watched() -> Iterable[GroundedRecord]:
        for record in examples:
            seen.append(target.exists())
            yield record

    write_all(watched(), target, JSONL, root=tmp_path)
    assert not any(seen)
    assert len(list(JSONL.read(target, Reading()))) == len(examples)


@pytest.mark.parametrize("name", ["jsonl", "parquet", "yolo", "coco", "webdataset", "labelstudio"])
def test_what_breaks_off_leaves_nothing_behind_and_no_old_target_changed(
    name: str, examples: list[GroundedRecord], tmp_path: Path
) -> None:
    target = tmp_path / "out" / f"target{ENDINGS.get(name, '')}"
    form = FORMATS[name]
    write_all(examples[:1], target, form, root=tmp_path)
    before = contents(target)

    def breaking() -> Iterable[GroundedRecord]:
        yield examples[1]
        raise OSError(BREAKS)

    with pytest.raises(OSError, match=BREAKS):
        write_all(breaking(), target, form, root=tmp_path, existing="replace")
    assert names(target.parent) == [target.name]
    assert contents(target) == before


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.parametrize(("old", "new"), [("jsonl", "jsonl"), ("yolo", "yolo"), ("yolo", "jsonl")])
def test_a_target_that_is_there_is_replaced_only_when_asked(
    old: str, new: str, examples: list[GroundedRecord], tmp_path: Path
) -> None:
    target = tmp_path / "out" / "target.jsonl"
    write_all(examples[:1], target, FORMATS[old], root=tmp_path)
    before = contents(target)
    with pytest.raises(RecordError, match="there already"):
        write_all(examples, target, FORMATS[new], root=tmp_path)
    assert contents(target) == before
    write_all(examples, target, FORMATS[new], root=tmp_path, existing="replace")
    assert len(list(FORMATS[new].read(target, Reading()))) == len(examples)
    assert names(target.parent) == ["target.jsonl"]


def test_a_source_is_not_written_over(tmp_path: Path) -> None:
    source = store([known_record(tmp_path / "data")], tmp_path / "data" / "a.jsonl")
    before = source.read_bytes()
    for target in (source, tmp_path / "data", tmp_path / "data" / ".." / "data" / "a.jsonl"):
        with pytest.raises(RecordError, match="would replace the source"):
            convert(
                source,
                target,
                source_format=JSONL,
                target_format=JSONL,
                existing="replace",
            )
    assert source.read_bytes() == before


def test_lines_that_are_no_record_are_skipped_with_their_place_and_reason(tmp_path: Path) -> None:
    source = store([known_record(tmp_path)] * 2, tmp_path / "a.jsonl")
    good = source.read_text().splitlines()
    lines = [good[0], "{broken", '{"caption": "no views"}', good[1].replace("0.25", "2.5"), good[1]]
    source.write_text("\n".join(lines) + "\n")
    skipped: list[Skipped] = []
    ledger = to_jsonl(source, tmp_path / "b.jsonl", Ledger(skipped.append))
    assert (ledger.read, ledger.written, ledger.skipped) == (2, 2, 3)
    assert [each.where for each in skipped] == [f"{source}:{number}" for number in (2, 3, 4)]
    for one, reason in zip(skipped, ["JSON", "missing", "0 <= min"], strict=True):
        assert reason in one.reason
        assert one.step == "read"
    assert len(ledger.reasons.most(10)) == 3


def test_records_that_a_format_cannot_say_are_counted_but_not_their_features(
    tmp_path: Path,
) -> None:
    record = known_record(tmp_path)
    fault = replace(record, id="odd", image=None, url="https://example.com/a.png", width=None)
    skipped: list[Skipped] = []
    ledger = Ledger(skipped.append)
    write_all(
        [record, fault, record], tmp_path / "b", FORMATS["odvg"], root=tmp_path, ledger=ledger
    )
    assert (ledger.read, ledger.written, ledger.skipped) == (3, 2, 1)
    assert (skipped[0].step, skipped[0].where) == ("write", "record odd")
    assert ledger.held[Feature.URL] == 0
    assert ledger.held[Feature.BOXES] == 2


@pytest.mark.parametrize("name", ["csv", "odvg", "labelstudio", "parquet", "markup", "coco"])
def test_a_name_that_is_no_unicode_costs_its_record_alone(name: str, tmp_path: Path) -> None:
    good = known_record(tmp_path)
    bad = replace(good, id="bad", image="pictures/\udcff.png")
    source = store([good, bad], tmp_path / "a.jsonl")
    ledger = convert(source, tmp_path / "out", source_format=JSONL, target_format=FORMATS[name])
    assert (ledger.written, ledger.skipped) == (1, 1)


def test_losses_tell_what_and_in_how_many_records(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    form = FORMATS["markup"]
    ledger = write_all(examples, tmp_path / "a.txt", form, root=tmp_path)
    lines = losses(form, ledger)
    assert "scores: lost, in 5 of 8 records" in lines
    assert "spans inside or across other spans: lost, in 1 of 8 records" in lines
    assert any(line.startswith("boxes: on a grid of 32 x 32") for line in lines)
    assert not any(line.startswith("picture") for line in lines)
    kept = Fate(feature=Feature.PICTURE, how=KEPT, records=8)
    assert kept in fates(form, ledger)


def test_nothing_lost_is_nothing_told(examples: list[GroundedRecord], tmp_path: Path) -> None:
    ledger = write_all(examples, tmp_path / "a.jsonl", JSONL, root=tmp_path)
    assert losses(JSONL, ledger) == []


def test_a_format_that_cannot_be_read_or_written_is_refused_by_name(tmp_path: Path) -> None:
    source = store([known_record(tmp_path)], tmp_path / "a.jsonl")
    supervision = FORMATS["supervision"]
    with pytest.raises(RecordError, match=r"\(supervision\) can be read but not written|written"):
        write_all([], tmp_path / "b", supervision, root=tmp_path)
    with pytest.raises(RecordError, match=r"supervision.*not read"):
        convert(source, tmp_path / "b", source_format=supervision, target_format=JSONL)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nothing to convert"):
        to_jsonl(tmp_path / "none.jsonl", tmp_path / "b.jsonl")
    assert names(tmp_path) == []


def test_records_are_converted_one_at_a_time(tmp_path: Path) -> None:
    """A writer asks for a record, has it written, asks for the next: none waits in memory."""

    def lazy() -> Iterable[GroundedRecord]:
        for number in range(50):
            yield replace(known, id=number)

    def written(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
        named = ((str(record.id), record) for record in records)
        with path.open("w") as file:
            for record in each(named, lambda item: item, writing.refuse):
                file.write("x")
                assert ledger.read == int(record.id) + 1

    known, ledger = known_record(tmp_path), Ledger()
    form = Format(name="x", title="x", layout="x", coordinates="x", write=written)
    write_all(lazy(), tmp_path / "x", form, root=tmp_path, ledger=ledger)
    assert ledger.written == 50
