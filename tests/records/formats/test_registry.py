"""All formats: what each says it keeps comes back; names and files tell them; the docs are true."""

from pathlib import Path

import pytest
from format_law import assert_law

from examples import HEIGHT, WIDTH, example_records
from kosmos2.errors import RecordError
from kosmos2.records.convert import document
from kosmos2.records.formats.format import Feature, Format, Reading, Writing
from kosmos2.records.formats.labelstudio import INTERFACE
from kosmos2.records.formats.registry import FORMATS, format_named, format_of
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord

NAMES = {
    "jsonl": "a.jsonl",
    "parquet": "a.parquet",
    "webdataset": "a.tar",
    "grit": "a.jsonl",
    "grit-parquet": "a.parquet",
    "csv": "a.csv",
    "odvg": "a.jsonl",
    "qwen": "a.json",
    "florence": "a.jsonl",
    "llava": "a.json",
    "llava-square": "a.json",
    "markup": "a.txt",
    "labelstudio": "a.json",
}
"""What files of the formats are called; other formats are folders."""
SIDES_MOVE_BY = {
    "yolo": 1e-5,
    "voc": 0.5 / HEIGHT,
    "qwen": 0.5e-3,
    "florence": 1e-3,
    "llava": 0.5e-3,
    "llava-square": 0.5e-3 * WIDTH / HEIGHT,
    "markup": 1 / 32,
}
"""How far a side of a box may be from where it was, as a share of the picture; else not at all."""
BOTH_WAYS = [form for form in FORMATS.values() if form.read and form.write]
EXACT = 1e-9


def there_and_back(form: Format, records: list[GroundedRecord], root: Path) -> list[GroundedRecord]:
    path = root / NAMES.get(form.name, "folder")
    assert form.write is not None
    assert form.read is not None
    form.write(iter(records), path, Writing(pictures=Pictures(root)))
    return list(form.read(path, Reading()))


@pytest.mark.parametrize("form", BOTH_WAYS, ids=lambda form: form.name)
def test_what_a_format_keeps_comes_back_and_what_it_lacks_is_lost(
    form: Format, examples: list[GroundedRecord], tmp_path: Path
) -> None:
    again = there_and_back(form, examples, tmp_path)
    assert_law(form, examples, again)


@pytest.mark.parametrize("form", BOTH_WAYS, ids=lambda form: form.name)
def test_sides_of_boxes_move_by_no_more_than_the_numbers_of_a_format_are_apart(
    form: Format, examples: list[GroundedRecord], tmp_path: Path
) -> None:
    if Feature.BOXES not in form.carries:
        pytest.skip("boxes are not written")
    if Feature.NESTED not in form.carries:
        examples = [record for record in examples if record.id != 3]
    again = there_and_back(form, examples, tmp_path)
    furthest = SIDES_MOVE_BY.get(form.name, 0) + EXACT
    for old, new in zip(examples, again, strict=True):
        assert len(old.entries) == len(new.entries)
        for one, other in zip(old.entries, new.entries, strict=True):
            moved = [abs(a - b) for a, b in zip(one.box.corners, other.box.corners, strict=True)]
            assert max(moved) <= furthest, (old.id, one, other)


@pytest.mark.parametrize("form", BOTH_WAYS, ids=lambda form: form.name)
def test_a_format_is_known_by_what_it_wrote(
    form: Format, examples: list[GroundedRecord], tmp_path: Path
) -> None:
    there_and_back(form, examples, tmp_path)
    path = tmp_path / NAMES.get(form.name, "folder")
    if form.name in ("llava", "llava-square"):  # nothing in them tells which of the two
        with pytest.raises(RecordError, match="llava, llava-square"):
            format_of(path)
        return
    same = {"grit": "jsonl", "grit-parquet": "parquet"}  # whose readers read both
    assert format_of(path).name == same.get(form.name, form.name)


@pytest.mark.parametrize("form", BOTH_WAYS, ids=lambda form: form.name)
def test_a_set_of_no_records_is_written(form: Format, tmp_path: Path) -> None:
    if form.name in ("voc", "yolo"):  # a folder without labels is none of theirs
        with pytest.raises(RecordError, match="folder"):
            there_and_back(form, [], tmp_path)
    else:
        assert there_and_back(form, [], tmp_path) == []


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("new.jsonl", "jsonl"),
        ("new.jsonl.gz", "jsonl"),
        ("new.parquet", "parquet"),
        ("new.tar", "webdataset"),
        ("new.csv", "csv"),
    ],
)
def test_the_name_of_what_is_to_be_written_tells_its_format(
    name: str, form: str, tmp_path: Path
) -> None:
    assert format_of(tmp_path / name).name == form


@pytest.mark.parametrize("name", ["new.json", "new.txt", "new"])
def test_a_name_that_several_formats_have_is_refused_with_their_names(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(RecordError, match=r"new.* one of jsonl, parquet.*labelstudio"):
        format_of(tmp_path / name)


def test_a_name_that_no_format_has_is_refused_with_the_names() -> None:
    with pytest.raises(RecordError, match=r"'pascal'.*voc"):
        format_named("pascal")


def test_the_document_of_formats_is_what_the_registry_says() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
    made = document(FORMATS.values())
    # To bring it up to date, put `made` before its notes.
    assert text[: len(made)] == made
    assert INTERFACE in text


def test_examples_hold_every_feature(tmp_path: Path) -> None:
    from kosmos2.records.formats.format import features

    held = set().union(*(features(record) for record in example_records(tmp_path)))
    assert held == set(Feature)
