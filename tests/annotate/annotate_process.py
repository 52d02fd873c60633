"""The command `kosmos2 annotate` in a process of its own, which can be killed at any point."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree", "open")

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["kosmos2.annotate", "kosmos2.cli"])


def start(
    words: list[str], folder: Path, *, kill_at: int | None = None, kill_after: float | None = None
) -> BaseProcess:
    """Run the command in `folder`; it may kill itself at its n-th change of files, or in time."""
    process = _server.Process(target=_command, args=(words, folder, kill_at))
    process.start()
    process.join(kill_after)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process


def _command(words: list[str], folder: Path, kill_at: int | None) -> None:
    os.chdir(folder)
    if kill_at is not None:
        sys.addaudithook(_Killer(kill_at))
    from kosmos2.cli import main

    sys.argv = ["kosmos2", "annotate", *words]
    main()


class _Killer:
    """Kills its process at the n-th time that it is about to change a file."""

    def __init__(self, left: int) -> None:
        self._left = left

    def __call__(self, event: str, values: tuple[object, ...]) -> None:
        if event not in CHANGES or not any("out.jsonl" in str(value) for value in values):
            return
        if event == "open" and not set(str(values[1])) & set("wax+"):
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
