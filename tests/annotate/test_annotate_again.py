"""Killed, shared among processes, cut in parts: the output is that of one quiet run."""

import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from annotate_cases import EVERYTHING, job, lines, paint_many, plan, silent
from annotate_process import start

from kosmos2.annotate import annotate
from kosmos2.errors import ConfigError, RequestError
from kosmos2.shards import driver_named

COUNT = 40
"""Three units, the last not full."""
KILLS = 12
CHANGES_OF_FILES = 300
"""Fewer than a whole run makes."""
WORDS = [
    "in", "out.jsonl", "--draw", "drawn", "--crops", "cut", "--html", "page.html",
    "--dtype", "fp32", "--device", "cpu", "--set", "max_new_tokens=12",
]  # fmt: skip


def fill(folder: Path) -> Path:
    paint_many(folder / "in", COUNT)
    (folder / "in" / "0007.png").write_bytes(b"no picture")
    return folder


def outcome(folder: Path) -> dict[str, bytes]:
    """Return all files that a run leaves in its folder, besides the pictures it was given."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if path.relative_to(folder).parts[0] != "in"
    }


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A folder in which the command ran once, undisturbed, and how long that took."""
    folder = fill(tmp_path_factory.mktemp("quiet"))
    begun = time.perf_counter()
    process = start(WORDS, folder)
    assert process.exitcode == 3  # one picture is bad
    return folder, time.perf_counter() - begun


def test_the_quiet_run_leaves_its_outputs_and_no_work(quiet: tuple[Path, float]) -> None:
    files = outcome(quiet[0])
    assert {"out.jsonl", "errors.jsonl", "page.html", "drawn/0000.jpg"} <= files.keys()
    assert not [name for name in files if ".job" in name or "partial" in name or ".part" in name]
    ids = [line["id"] for line in lines(quiet[0] / "out.jsonl")]
    assert ids == [f"{number:04d}" for number in range(COUNT) if number != 7]


def test_killed_at_random_points_it_ends_with_the_same_bytes(
    quiet: tuple[Path, float], tmp_path: Path
) -> None:
    """Kill it by the clock and at changes of files, until it gets through; and again."""
    draw = random.Random(0)
    kills, rounds = 0, 0
    while kills < KILLS:
        rounds += 1
        folder = fill(tmp_path / str(rounds))
        process = None
        while process is None or process.exitcode == -signal.SIGKILL:
            if draw.random() < 0.5:
                process = start(WORDS, folder, kill_after=draw.uniform(0.2, 1.0) * quiet[1])
            else:
                process = start(WORDS, folder, kill_at=draw.randint(1, CHANGES_OF_FILES))
            kills += process.exitcode == -signal.SIGKILL
        # Killed behind its very last step it has nothing left to do, and says so with 2.
        assert process.exitcode in (2, 3)
        assert outcome(folder) == outcome(quiet[0])


@pytest.mark.parametrize("driver", ["pool", "ray"])
def test_several_processes_write_what_one_writes(driver: str, tmp_path: Path) -> None:
    paint_many(tmp_path / "in", COUNT)
    one = job(tmp_path / "in", tmp_path / "one.jsonl")
    annotate(one, silent)
    crew = driver_named(driver, workers=2, gpus=0, address=None)
    many = job(tmp_path / "in", tmp_path / "many.jsonl", driver=crew)
    report = annotate(many, silent)
    assert report.annotated == COUNT
    assert many.outputs.records.read_bytes() == one.outputs.records.read_bytes()


def test_the_parts_of_a_job_one_behind_the_other_are_the_job(tmp_path: Path) -> None:
    paint_many(tmp_path / "in", COUNT)
    whole = job(tmp_path / "in", tmp_path / "whole.jsonl")
    annotate(whole, silent)
    parts = []
    for number in (1, 2):
        part = job(tmp_path / "in", tmp_path / f"part-{number}.jsonl", shard=(number, 2))
        report = annotate(part, silent)
        assert report.total == report.annotated > 0
        parts.append(part.outputs.records.read_bytes())
    assert b"".join(parts) == whole.outputs.records.read_bytes()


def test_a_stopped_job_goes_on_with_its_list_and_does_no_unit_twice(tmp_path: Path) -> None:
    paint_many(tmp_path / "in", COUNT)
    this = job(tmp_path / "in", tmp_path / "out.jsonl")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotate(this, stop)
    assert not this.outputs.records.exists()
    paint_many(tmp_path / "in" / "new", 3)
    os.remove(tmp_path / "in" / "0039.png")
    report = annotate(this, silent)
    assert (report.kept, report.total, report.annotated, report.failed) == (1, COUNT, 39, 1)
    assert report.made == COUNT - 16


def test_unfinished_work_of_another_job_and_files_of_others_are_refused(tmp_path: Path) -> None:
    paint_many(tmp_path / "in", 2)
    this = job(tmp_path / "in", tmp_path / "out.jsonl")
    annotate(replace(this, keep=True), silent)
    annotate(this, silent)  # the same again: nothing to do, and no error
    with pytest.raises(RequestError, match="--fresh"):
        annotate(this, silent)
    annotate(replace(this, keep=True, anew=True), silent)
    other = replace(this, plan=plan(tmp_path, tokens=5))
    with pytest.raises(ConfigError, match="max_new_tokens"):
        annotate(other, silent)
    annotate(replace(other, anew=True), silent)
    assert len(lines(this.outputs.records)) == 2
    page = tmp_path / "page.html"
    page.write_text("somebody's")
    paged = job(tmp_path / "in", tmp_path / "paged.jsonl")
    with pytest.raises(RequestError, match=r"page\.html"):
        annotate(replace(paged, outputs=replace(paged.outputs, page=page)), silent)


def test_a_unit_that_fails_every_time_becomes_errors_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint_many(tmp_path / "in", COUNT)
    this = job(tmp_path / "in", tmp_path / "out.jsonl")
    with monkeypatch.context() as patch:
        from kosmos2.annotate import worker

        real = worker.record_of

        def stumble(item: object, *rest: object) -> object:
            if item.id == "0020":  # type: ignore[attr-defined]
                raise ZeroDivisionError("a fault of ours")
            return real(item, *rest)  # type: ignore[arg-type]

        patch.setattr(worker, "record_of", stumble)
        report = annotate(this, silent)
    assert (report.annotated, report.failed) == (24, 16)
    assert all("a fault of ours" in str(line["reason"]) for line in lines(this.outputs.errors))
    report = annotate(this, silent)
    assert (report.annotated, report.failed) == (COUNT, 0)
    assert not this.outputs.errors.exists() and not this.folder.exists()


def test_what_is_drawn_and_cut_is_there_for_every_box(tmp_path: Path) -> None:
    paint_many(tmp_path / "in", 3)
    of = replace(plan(tmp_path), makings=EVERYTHING)
    base = job(tmp_path / "in", tmp_path / "out.jsonl", of)
    outputs = replace(
        base.outputs, drawings=tmp_path / "d", crops=tmp_path / "c", page=tmp_path / "p.html"
    )
    report = annotate(replace(base, outputs=outputs), silent)
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [
        "0000.jpg", "0001.jpg", "0002.jpg",
    ]  # fmt: skip
    assert len(list((tmp_path / "c").iterdir())) == report.boxes > 0
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert page.count("<article") == 3 and "in/0001.png" in page


@pytest.mark.parametrize("fresh", [False, True])
def test_no_output_takes_the_place_of_what_is_read(fresh: bool, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (first, second) = paint_many(photos, 2)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{first}\n{second}\n", encoding="utf-8")
    before = first.read_bytes()
    good = job(listed, tmp_path / "out.jsonl")
    bad = [
        job(photos, photos),
        job(listed, photos),
        job(listed, listed),
        replace(good, outputs=replace(good.outputs, drawings=photos)),
        replace(good, outputs=replace(good.outputs, crops=tmp_path)),
        replace(good, outputs=replace(good.outputs, page=first)),
        replace(good, outputs=replace(good.outputs, errors=good.outputs.records)),
    ]
    for each in bad:
        with pytest.raises(RequestError):
            annotate(replace(each, anew=fresh), silent)
    assert first.read_bytes() == before
    assert second.is_file()
    assert listed.is_file()


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are text there")
def test_a_name_that_is_no_text_stands_in_records_and_on_the_page(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    _, second = paint_many(photos, 2)
    os.rename(second, os.path.join(os.fsencode(photos), b"z\xff.png"))
    plain = job(photos, tmp_path / "out.jsonl", plan(tmp_path, makings=EVERYTHING))
    page = tmp_path / "page.html"
    report = annotate(replace(plain, outputs=replace(plain.outputs, page=page)), silent)
    assert (report.annotated, report.failed) == (2, 0)
    assert "z\\udcff.png" in page.read_text(encoding="utf-8")
