"""The job folder: what counts as done, whose it is, and that only one run is in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_work import SETTINGS, contents, job, units

from kosmos2.errors import ConfigError
from kosmos2.shards import JobFolder, Local, Outcome

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a job folder with three units done."""
    job(tmp_path / "job", Local(), units(3))
    return tmp_path / "job"


def _shorten(folder: Path) -> None:
    path = folder / "parts/000001/records.jsonl"
    path.write_bytes(path.read_bytes()[:-1])


def _alter(folder: Path) -> None:
    path = folder / "parts/000001/records.jsonl"
    path.write_bytes(path.read_bytes().swapcase())


def _lose_file(folder: Path) -> None:
    (folder / "parts/000001/crops/first.bin").unlink()


def _add_file(folder: Path) -> None:
    (folder / "parts/000001/more.txt").touch()


def _lose_marker(folder: Path) -> None:
    (folder / "done/000001.json").unlink()


def _lose_part(folder: Path) -> None:
    shutil.rmtree(folder / "parts/000001")


def _foreign_marker(folder: Path) -> None:
    marker = folder / "done/000001.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"job": "another"}))


@pytest.mark.parametrize(
    "damage",
    [_shorten, _alter, _lose_file, _add_file, _lose_marker, _lose_part, _foreign_marker],
)
def test_a_unit_is_done_only_with_its_marker_and_whole_files(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    before = contents(folder)
    damage(folder)

    summary, told = job(folder, Local(), units(3))

    assert (summary.made, summary.kept) == (1, 2)
    assert {done.unit.name for done in told if done.outcome is Outcome.MADE} == {"000001"}
    assert contents(folder) == before


def test_a_new_date_of_a_file_is_no_damage(folder: Path) -> None:
    os.utime(folder / "parts/000001/records.jsonl", (1, 1))
    assert job(folder, Local(), units(3))[0].kept == 3


def test_a_job_of_other_settings_is_refused_with_what_differs_and_the_way_out(
    folder: Path,
) -> None:
    before = contents(folder)
    with pytest.raises(ConfigError) as raised:
        JobFolder.open(folder, {"inputs": "toy", "threshold": 0.6, "model": "x" * 300})
    message = str(raised.value)
    assert "threshold was 0.5, now 0.6" in message
    assert "model was absent, now" in message
    assert "inputs" not in message
    assert "--fresh" in message
    assert len(message) < 500
    assert contents(folder) == before
    JobFolder.open(folder, SETTINGS).close()


def test_a_fresh_job_has_nothing_of_the_earlier_one(folder: Path) -> None:
    with JobFolder.fresh(folder, {"other": 1}) as opened:
        assert list(opened.names()) == []
        assert contents(folder) == {}
        with pytest.raises(ConfigError, match="another run"):
            JobFolder.fresh(folder, {"other": 1})


@pytest.mark.parametrize("enter", [JobFolder.open, JobFolder.fresh])
def test_a_folder_with_other_files_is_refused_and_left_as_it_is(
    tmp_path: Path, enter: Callable[..., JobFolder]
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/photo.jpg").touch()
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="no job's"):
        enter(tmp_path, SETTINGS)
    assert (tmp_path / "parts/photo.jpg").exists()


def test_a_second_run_is_refused_while_the_first_lives_and_let_in_when_it_is_killed(
    folder: Path,
) -> None:
    hold = (
        "import sys; from pathlib import Path; from kosmos2.shards import JobFolder\n"
        f"folder = JobFolder.open(Path(sys.argv[1]), {SETTINGS!r})\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=rf"another run.*process {holder.pid} on "):
            JobFolder.open(folder, SETTINGS)
        holder.kill()
    with JobFolder.open(folder, SETTINGS) as opened:
        assert list(opened.names()) == ["000000", "000001", "000002"]


def test_what_a_dead_run_half_made_goes_when_the_next_starts(folder: Path) -> None:
    dead = folder / "making" / "0123456789ab" / "000007.3"
    dead.mkdir(parents=True)
    (dead / "records.jsonl").write_text("half")
    with JobFolder.open(folder, SETTINGS):
        assert not dead.parent.exists()


def test_a_part_without_marker_is_replaced(folder: Path) -> None:
    before = contents(folder)
    (folder / "done/000002.json").unlink()
    (folder / "parts/000002/records.jsonl").write_text("of a run that died before its marker")
    (folder / "parts/000002/stale.txt").touch()
    job(folder, Local(), units(3))
    assert contents(folder) == before


def test_removing_leaves_nothing(folder: Path) -> None:
    with JobFolder.open(folder, SETTINGS) as opened:
        opened.remove()
    assert not folder.exists()


@pytest.mark.parametrize("removed", range(4))
def test_a_removal_cut_short_leaves_a_job_that_goes_on(
    folder: Path, removed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rmtree, left = contents(folder), shutil.rmtree, removed

    def cut(path: Path, *rest: object) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        rmtree(path)

    opened = JobFolder.open(folder, SETTINGS)
    monkeypatch.setattr("shutil.rmtree", cut)
    with pytest.raises(KeyboardInterrupt):
        opened.remove()
    monkeypatch.undo()
    opened.close()

    with pytest.raises(ConfigError, match="other settings"):
        JobFolder.open(folder, {"other": 1})
    assert job(folder, Local(), units(3))[0].quarantined == ()
    assert contents(folder) == before


@pytest.mark.parametrize("left", [("parts", "lock"), ("lock",), ()])
def test_sweeping_takes_what_a_removal_left_and_no_job_and_nothing_else(
    folder: Path, left: tuple[str, ...], tmp_path: Path
) -> None:
    before = contents(folder)
    JobFolder.sweep(folder)
    assert contents(folder) == before
    for path in folder.iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    JobFolder.sweep(folder)
    assert not folder.exists()
    somebodys = tmp_path / "somebodys/parts"
    somebodys.mkdir(parents=True)
    JobFolder.sweep(somebodys.parent)
    JobFolder.sweep(tmp_path / "nothing")
    assert somebodys.is_dir()


def test_a_run_that_finds_its_folder_removed_while_it_waits_for_the_lock_begins_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = JobFolder.open(folder, SETTINGS)
    lock = os.open(folder / "lock", os.O_RDWR)
    first.remove()
    opens = os.open
    stale = [lock]

    def open_stale(path: object, flags: int, *mode: int) -> int:
        return stale.pop() if stale else opens(path, flags, *mode)  # type: ignore[arg-type]

    monkeypatch.setattr("os.open", open_stale)
    second = JobFolder.open(folder, SETTINGS)
    with pytest.raises(ConfigError, match="another run"):
        JobFolder.open(folder, SETTINGS)
    second.close()
