"""A resumed run doubles no line and keeps no half one."""

from dataclasses import dataclass
from pathlib import Path

from kosmos2.training.journal import append, forget_after


@dataclass
class Entry:
    step: int
    value: float = 0.5


def test_lines_of_later_steps_are_dropped_and_the_others_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for step in (10, 20, 30, 40):
        append(path, Entry(step))
    before = path.read_bytes().splitlines(keepends=True)

    forget_after(path, 30)
    assert path.read_bytes() == b"".join(before[:3])

    append(path, Entry(40))
    assert path.read_bytes() == b"".join(before)


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append(path, Entry(10))
    whole = path.read_bytes()
    for rest in (b'{"step": 2', b'{"step": 5, "value": 1.0}', b"\xff\xfe"):
        path.write_bytes(whole + rest)
        forget_after(path, 100)
        assert path.read_bytes() == whole


def test_a_new_run_begins_an_empty_log_and_no_log_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    forget_after(path, 0)
    assert not path.exists()
    append(path, Entry(1))
    forget_after(path, 0)
    assert path.read_bytes() == b""
