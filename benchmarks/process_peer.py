"""`python -m benchmarks.process_peer PRECISION FOLDER THREADS`: see `process`."""

from __future__ import annotations

import sys

from benchmarks.peer import load
from benchmarks.process import report

if __name__ == "__main__":
    report(load, *sys.argv[1:])
