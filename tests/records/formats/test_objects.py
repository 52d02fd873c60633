"""JSON of lists and lines is read object by object, wherever the chunks of a file end."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.formats import objects
from kosmos2.records.formats.objects import located, read_objects, write_lines, write_list

VALUES = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8), lambda part: st.lists(part, max_size=3)
    ),
    max_size=4,
)


def parsed(path: Path) -> list[Any]:
    return [json.loads(item) if isinstance(item, str) else item for _, item in read_objects(path)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(VALUES, max_size=5), chunk=st.integers(2, 40), indent=st.sampled_from([0, 2]))
def test_a_list_is_read_whatever_the_chunks(
    items: list[dict[str, Any]],
    chunk: int,
    indent: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(items, indent=indent or None), encoding="utf-8")
    assert parsed(path) == items


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(VALUES, max_size=5))
def test_what_is_written_is_read(items: list[dict[str, Any]], tmp_path: Path) -> None:
    for write in (write_lines, write_list):
        path = tmp_path / "a"
        path.unlink(missing_ok=True)
        write(items, path)
        assert parsed(path) == items


def test_a_list_is_not_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "CHUNK", 64)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"n": n} for n in range(100)])[:-40], encoding="utf-8")
    found = read_objects(path)
    assert next(found)[1] == {"n": 0}  # though the end of the list is missing
    with pytest.raises(RecordError, match="breaks off"):
        list(found)


def test_a_mark_of_byte_order_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1}]', encoding="utf-8-sig")
    assert parsed(tmp_path / "a.json") == [{"a": 1}]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'[{"a": 1},'])
def test_what_is_no_json_text_is_refused_with_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"a\.json"):
        parsed(tmp_path / "a.json")


def test_labels_are_found_in_the_caption_or_added_to_it() -> None:
    box = Box(0, 0, 1, 1)
    labels = ["Dog", "tree", "İ"]
    caption, entries = located("İİ a dog", [(label, box, None) for label in labels])
    assert caption == "İİ a dog; tree"
    assert [caption[each.start : each.end] for each in entries] == ["dog", "tree", "İ"]
    with pytest.raises(RecordError, match="no label"):
        located("a dog", [(" ", box, None)])
