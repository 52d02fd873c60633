"""Drivers: whichever does the work, and whoever dies in it, the same files lie there once."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from toy_work import DRIVERS, SETTINGS, Fault, FaultsAhead, Toy, contents, job, units

from kosmos2.errors import ConfigError, MissingExtraError, WeightsError
from kosmos2.shards import (
    Counts,
    Done,
    JobFolder,
    Local,
    Outcome,
    Pool,
    Ray,
    Unit,
    driver_named,
    run,
)

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("toy_work.py")


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    """One Ray for all tests: it takes seconds to start."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (the extra `cluster`)")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Actors look for modules where their cluster does.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(SCRIPT.parent)]))
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    monkeypatch.undo()


@pytest.fixture(params=["local", "pool", "ray"])
def driver(request: pytest.FixtureRequest) -> str:
    """Return the name of each driver in turn, Ray started."""
    if request.param == "ray":
        request.getfixturevalue("_ray")
    return str(request.param)


@pytest.fixture(params=["pool", "ray"])
def others(request: pytest.FixtureRequest) -> str:
    """Return the name of each driver that works in other processes, Ray started."""
    if request.param == "ray":
        request.getfixturevalue("_ray")
    return str(request.param)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the parts of twelve units done without trouble."""
    folder = tmp_path_factory.mktemp("whole")
    job(folder, Local(), units())
    return contents(folder)


def names(told: list[Done], outcome: Outcome) -> list[str]:
    return sorted(done.unit.name for done in told if done.outcome is outcome)


# An actor takes seconds to start.
WHO_AND_WHERE = [("pool", Toy), ("pool", FaultsAhead), ("ray", Toy)]
ALL = [unit.name for unit in units()]


def test_every_driver_makes_the_same_files_and_tells_the_same(
    tmp_path: Path, driver: str, whole: dict[str, bytes]
) -> None:
    summary, told = job(tmp_path, DRIVERS[driver], units())
    assert contents(tmp_path) == whole
    assert names(told, Outcome.MADE) == ALL
    assert (summary.made, summary.kept, summary.counts) == (12, 0, {"records": 36})
    assert {done.counts["records"] for done in told} == {3}
    assert 0 <= summary.waiting_share <= 1
    assert not list((tmp_path / "making").iterdir())


def test_what_one_driver_did_another_keeps(tmp_path: Path, others: str) -> None:
    job(tmp_path, Local(), units(5))
    summary, told = job(tmp_path, DRIVERS[others], units(9))
    assert (summary.made, summary.kept, summary.counts) == (4, 5, {"records": 27})
    assert names(told, Outcome.KEPT) == ALL[:5]
    assert job(tmp_path, Local(), units(9))[0].kept == 9


@pytest.mark.parametrize(("others", "toy"), WHO_AND_WHERE, indirect=["others"])
def test_a_killed_worker_loses_and_doubles_nothing(
    tmp_path: Path, others: str, notes: Path, toy: type[Toy], whole: dict[str, bytes]
) -> None:
    faults = {number: Fault("kill", notes, times=2) for number in (1, 6)}
    summary, told = job(tmp_path / "job", DRIVERS[others], units(12, faults), toy)
    assert names(told, Outcome.MADE) == ALL
    assert summary.quarantined == ()
    made = contents(tmp_path / "job")
    # A unit with a fault has one item more.
    assert made.keys() == whole.keys()
    assert all(made[name] == whole[name] for name in whole if name[:6] not in ("000001", "000006"))


@pytest.mark.parametrize(("others", "toy"), WHO_AND_WHERE, indirect=["others"])
def test_a_unit_that_kills_every_worker_is_alone_in_quarantine(
    tmp_path: Path, others: str, notes: Path, toy: type[Toy]
) -> None:
    todo = units(12, {3: Fault("kill", notes)})
    summary, told = job(tmp_path / "job", DRIVERS[others], todo, toy)
    assert names(told, Outcome.MADE) == [name for name in ALL if name != "000003"]
    # Once beside another unit, so that nobody can tell which it was, and three times alone.
    assert len(list(notes.iterdir())) in (3, 4)
    (poison,) = summary.quarantined
    assert poison.name == "000003"
    assert "SIGKILL" in poison.reason or "died" in poison.reason
    # It is tried again next time, and is well now.
    summary, told = job(tmp_path / "job", Local(), units())
    assert (summary.made, summary.kept) == (1, 11)
    assert not list((tmp_path / "job/quarantine").iterdir())


@pytest.mark.parametrize("driver", ["local", "pool"])
def test_a_unit_that_raises_three_times_goes_to_quarantine_with_its_reason(
    tmp_path: Path, driver: str, notes: Path
) -> None:
    todo = units(6, {2: Fault("raise", notes)})
    summary, told = job(tmp_path / "job", DRIVERS[driver], todo)
    assert names(told, Outcome.QUARANTINED) == ["000002"]
    assert len(names(told, Outcome.MADE)) == 5
    assert summary.quarantined[0].reason.endswith("ValueError: item fails, time 3")
    with JobFolder.open(tmp_path / "job", SETTINGS) as folder:
        assert folder.quarantined() == summary.quarantined
        assert "000002" not in list(folder.names())


@pytest.mark.parametrize("driver", ["local", "pool"])
def test_a_unit_that_raises_twice_is_made_by_a_fresh_worker(
    tmp_path: Path, driver: str, notes: Path
) -> None:
    todo = units(6, {2: Fault("raise", notes, times=2)})
    summary, told = job(tmp_path / "job", DRIVERS[driver], todo)
    assert names(told, Outcome.MADE) == ALL[:6]
    assert summary.quarantined == ()
    if driver != "local":
        assert len({note.name.split("-")[1] for note in notes.iterdir()}) == 2


def unmade() -> Toy:
    raise WeightsError("no such weights")


class UnsendableError(Exception):
    """Cannot be pickled back: it needs two arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def unmade_unsendable() -> Toy:
    raise UnsendableError("weights", "less")


def test_a_worker_that_cannot_be_made_ends_the_run_with_its_own_error(
    tmp_path: Path, driver: str
) -> None:
    with (
        JobFolder.open(tmp_path, SETTINGS) as folder,
        pytest.raises(WeightsError, match="no such weights"),
    ):
        run(units(), unmade, folder, driver=DRIVERS[driver], on_done=print)
    assert not list((tmp_path / "quarantine").iterdir())


def test_an_error_that_cannot_travel_is_told_by_its_text(tmp_path: Path) -> None:
    with (
        JobFolder.open(tmp_path, SETTINGS) as folder,
        pytest.raises(RuntimeError, match="weightsless"),
    ):
        run(units(), unmade_unsendable, folder, driver=Pool(1), on_done=print)


def die_when_made() -> Toy:
    os.kill(os.getpid(), signal.SIGKILL)
    return Toy()


def test_a_worker_that_dies_while_it_is_made_is_no_unit_s_fault(tmp_path: Path) -> None:
    with (
        JobFolder.open(tmp_path, SETTINGS) as folder,
        pytest.raises(ConfigError, match="died 3 times while it was made"),
    ):
        run(units(), die_when_made, folder, driver=Pool(2), on_done=print)
    assert not list((tmp_path / "quarantine").iterdir())


class Full(Toy):
    def run(self, unit: Unit, prepared: list[str], out: Path) -> Counts:
        if unit.name == "000002":
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().run(unit, prepared, out)


@pytest.mark.parametrize("name", ["local", "pool"])
def test_a_full_disk_ends_the_run_and_blames_no_unit(tmp_path: Path, name: str) -> None:
    with JobFolder.open(tmp_path, SETTINGS) as folder:
        with pytest.raises(ConfigError, match="make room and start again"):
            run(units(), Full, folder, driver=DRIVERS[name], on_done=print)
        assert folder.quarantined() == ()
    assert job(tmp_path, Local(), units())[0].quarantined == ()


class Wrong(Toy):
    def prepare(self, unit: Unit) -> list[str]:
        raise ValueError("nothing works")


def test_a_run_in_which_nothing_works_ends_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"first 8 units all failed.*nothing works"):
        job(tmp_path, Local(), units(), Wrong)
    # One that has something to show for itself goes on.
    job(tmp_path, Local(), units(1))
    assert len(job(tmp_path, Local(), units(), Wrong)[0].quarantined) == 11


class Meeting(Toy):
    """Its `run` ends only when the next unit has been prepared meanwhile."""

    def __init__(self) -> None:
        self.met = {unit.name: threading.Event() for unit in units()}

    def prepare(self, unit: Unit) -> list[str]:
        self.met[unit.name].set()
        return super().prepare(unit)

    def run(self, unit: Unit, prepared: list[str], out: Path) -> Counts:
        following = f"{int(unit.name) + 1:06}"
        assert following not in self.met or self.met[following].wait(60)
        return super().run(unit, prepared, out)


@pytest.mark.parametrize("chosen", [Local(), Pool(1)], ids=["local", "pool"])
def test_the_next_unit_is_prepared_while_this_one_runs(
    tmp_path: Path, chosen: Local | Pool
) -> None:
    assert job(tmp_path, chosen, units(), Meeting)[0].made == 12


class Together(Toy):
    """Its `run` ends only when another process runs another unit."""

    def run(self, unit: Unit, prepared: list[str], out: Path) -> Counts:
        # Beside the folder in which all tries are made.
        meeting = out.parents[3]
        (meeting / f"runs {unit.name}").touch()
        for _ in range(3000):
            if len(list(meeting.glob("runs *"))) == 2:
                return super().run(unit, prepared, out)
            time.sleep(0.01)
        raise ValueError("nobody came")


def test_a_worker_without_work_takes_what_another_was_to_do_next(tmp_path: Path) -> None:
    assert job(tmp_path / "job", Pool(2), units(2), Together)[0].made == 2


def test_units_are_read_as_they_are_needed(tmp_path: Path) -> None:
    read: list[str] = []

    def reading() -> Iterator[Unit]:
        for unit in units():
            read.append(unit.name)
            yield unit

    def told(done: Done) -> None:
        # The next unit is prepared already, and none beyond it is read.
        assert len(read) <= int(done.unit.name) + 2

    with JobFolder.open(tmp_path, SETTINGS) as folder:
        assert run(reading(), Toy, folder, driver=Local(), on_done=told).made == 12


def test_no_worker_is_made_for_a_job_that_is_done(tmp_path: Path) -> None:
    job(tmp_path, Local(), units(3))
    with JobFolder.open(tmp_path, SETTINGS) as folder:
        assert run(units(3), unmade, folder, driver=Local(), on_done=print).kept == 3


def interrupt(done: Done) -> None:
    if done.unit.name == "000003":
        raise KeyboardInterrupt


def test_an_interrupt_leaves_no_process_and_a_job_that_goes_on(
    tmp_path: Path, driver: str, whole: dict[str, bytes]
) -> None:
    before = _children()
    folder = JobFolder.open(tmp_path, SETTINGS)
    with folder, pytest.raises(KeyboardInterrupt):
        run(units(), Toy, folder, driver=DRIVERS[driver], on_done=interrupt)
    if driver != "ray":
        assert _children() == before
    assert not list((tmp_path / "making").iterdir())
    summary, _ = job(tmp_path, Local(), units())
    assert summary.kept >= 2
    assert contents(tmp_path) == whole


def _children(of: int | None = None) -> set[int]:
    """Return the processes started by this one that do work, not those that only keep count."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (path / "cmdline").read_text()
        except (OSError, ValueError):
            continue
        if parent == (of or os.getpid()) and "spawn_main" in command:
            found.add(int(path.name))
    return found


def start(folder: Path, *fault: str) -> subprocess.Popen[bytes]:
    """Return a pool's run at work, with its two workers."""
    process = subprocess.Popen(
        [sys.executable, SCRIPT, folder, "pool", "2000", *fault],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        # Tests that run in the background may have inherited that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while len(list(folder.glob("done/*.json"))) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_of_a_killed_run_end_with_it(tmp_path: Path) -> None:
    # One of them is in the midst of a unit that has no end.
    with start(tmp_path, "hang") as process:
        workers = _children(process.pid)
        assert len(workers) == 2
        process.kill()
    for _ in range(1000):
        if not any(_alive(worker) for worker in workers):
            break
        time.sleep(0.02)
    assert not any(_alive(worker) for worker in workers)


def _alive(process: int) -> bool:
    try:
        return "spawn_main" in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False


def test_ctrl_c_in_the_terminal_ends_the_run_without_a_word_from_its_workers(
    tmp_path: Path,
) -> None:
    with start(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert complaints.count(b"Traceback") == 1
    assert complaints.rstrip().endswith(b"KeyboardInterrupt")
    assert not list((tmp_path / "making").iterdir())


class Telling(Toy):
    """Counts what its process was given."""

    def run(self, unit: Unit, prepared: list[str], out: Path) -> Counts:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES") or "0"
        threads = int(os.environ["OMP_NUM_THREADS"])
        return {"threads": threads, f"gpu {gpu}": 1} | dict(super().run(unit, prepared, out))


def test_workers_of_a_pool_share_cores_and_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kosmos2.shards.pool.allowed_cores", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,9")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    summary, _ = job(tmp_path, Pool(2, gpus=2), units(40), Telling)
    assert summary.counts["threads"] == 40 * 3
    assert summary.counts["gpu 5"] + summary.counts["gpu 7"] == 40
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7,9"
    assert "OMP_NUM_THREADS" not in os.environ
    with pytest.raises(ConfigError, match="4 GPUs are asked for"):
        job(tmp_path, Pool(4, gpus=4), units(60), Telling)


def test_actors_share_the_cores_of_the_cluster_and_lack_of_gpus_is_told(
    tmp_path: Path, _ray: None
) -> None:
    summary, _ = job(tmp_path, Ray(2), units(6), Telling)
    assert summary.counts["threads"] == 6 * 2
    with pytest.raises(ConfigError, match="999 GPUs are needed"):
        job(tmp_path, Ray(2, gpus=999), units(9))


def test_ray_is_asked_for_by_the_name_of_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"kosmos2\[cluster\]"):
        job(tmp_path, Ray(2), units())


def test_drivers_have_names() -> None:
    named = partial(driver_named, workers=1, gpus=0, address=None)
    assert named("local") == Local()
    assert driver_named("pool", workers=3, gpus=1, address=None) == Pool(3, 1)
    assert driver_named("ray", workers=3, gpus=1, address="auto") == Ray(3, 1, "auto")
    with pytest.raises(ConfigError, match="'spark': use local, pool or ray"):
        named("spark")
    with pytest.raises(ConfigError, match="use the driver pool"):
        driver_named("local", workers=2, gpus=0, address=None)
    with pytest.raises(ConfigError, match="address"):
        driver_named("pool", workers=2, gpus=0, address="auto")
    with pytest.raises(ConfigError, match="got 0"):
        driver_named("pool", workers=0, gpus=0, address=None)
