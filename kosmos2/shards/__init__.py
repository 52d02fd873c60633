"""Long work in units, each exactly once: on this process, on several, or on a Ray cluster.

    with JobFolder.open(path, settings) as folder:
        summary = run(units, make_worker, folder, driver=Local(), on_done=print)

A unit is done when its marker says so, and the marker is written last. Whoever is killed at any
moment starts again, with any driver, and every unit's files lie there once, as if nothing had been.
"""

from kosmos2.shards.bench import Driver
from kosmos2.shards.folder import JobFolder
from kosmos2.shards.local import Local
from kosmos2.shards.pool import Pool
from kosmos2.shards.ray_driver import Ray
from kosmos2.shards.run import driver_named, run
from kosmos2.shards.unit import Counts, Done, Outcome, Quarantined, Summary, Unit, Worker

__all__ = [
    "Counts",
    "Done",
    "Driver",
    "JobFolder",
    "Local",
    "Outcome",
    "Pool",
    "Quarantined",
    "Ray",
    "Summary",
    "Unit",
    "Worker",
    "driver_named",
    "run",
]
