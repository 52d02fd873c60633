"""The driver killed at any moment, again and again: every unit once, byte for byte."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_work import SETTINGS, contents, job, units

from kosmos2.shards import JobFolder, Local

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("toy_work.py")
UNITS = 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the parts of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    job(folder, Local(), units(UNITS))
    return contents(folder)


def start(folder: Path, driver: str, *fault: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, SCRIPT, folder, driver, str(UNITS), *fault],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def markers(folder: Path) -> int:
    return len(list(folder.glob("done/*.json")))


def kill_later(process: subprocess.Popen[bytes], folder: Path, rng: random.Random) -> None:
    """Kill the run when it has done one to four units more, and a little later."""
    target = markers(folder) + rng.randint(1, 4)
    while markers(folder) < target and process.poll() is None:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.03))
    process.kill()


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_points_and_resumed_by_another_driver_equals_uninterrupted(
    tmp_path: Path, whole: dict[str, bytes], seed: int
) -> None:
    rng, kills = random.Random(seed), 0
    while True:
        with start(tmp_path, rng.choice(["local", "pool"])) as process:
            kill_later(process, tmp_path, rng)
            output, complaints = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, complaints
        kills += 1
        # At every moment, what has a marker is whole.
        with JobFolder.open(tmp_path, SETTINGS) as folder:
            assert all(folder.done(name) is not None for name in folder.names())
    assert kills >= 5
    assert contents(tmp_path) == whole
    made, kept, quarantined = map(int, output.split())
    assert (made + kept, quarantined) == (UNITS, 0)
    assert not list((tmp_path / "making").iterdir())


@pytest.mark.parametrize("driver", ["local", "pool"])
def test_a_run_that_dies_between_the_files_and_their_marker_does_the_unit_again(
    tmp_path: Path, whole: dict[str, bytes], driver: str
) -> None:
    with start(tmp_path, driver, "000005") as process:
        assert process.wait() == -signal.SIGKILL
    assert (tmp_path / "parts/000005/records.jsonl").exists()
    assert not (tmp_path / "done/000005.json").exists()

    summary, told = job(tmp_path, Local(), units(UNITS))

    assert "000005" in {done.unit.name for done in told if done.seconds}
    assert summary.kept == UNITS - len([done for done in told if done.seconds])
    assert contents(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (the extra `cluster`)"
)
def test_a_run_on_ray_is_killed_and_resumed_in_one_process(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    with start(tmp_path, "ray") as process:
        kill_later(process, tmp_path, random.Random(0))
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    summary, _ = job(tmp_path, Local(), units(UNITS))
    assert summary.kept >= 1
    assert contents(tmp_path) == whole
