"""A hundred million pictures on paper, from what was measured on few; plain arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAIRS = 100_000_000
GPUS = (8, 64, 512)
RATES = (6, 24, 56)
"""Pictures a second of one GPU: GLIP-T's published rate on an A100, and the two goals."""
UNIT_SECONDS = 60
DAY, HOUR = 86_400.0, 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What was measured, per pair or per unit; bytes and seconds."""

    list_bytes: float
    looked_bytes: float
    record_bytes: float
    marker_bytes: float
    unit_inodes: float
    unit_driver: float
    """Seconds of the one driver for a unit."""
    pair_worker: float
    """Seconds of one core for a pair, all but the detector."""
    pair_choose: float
    """Seconds of the one process that chooses records."""
    base_bytes: float
    """Peak of the driver's process at the fewest pairs."""
    pair_bytes: float
    """By which that peak grows with each pair."""
    hash_bytes: float

    @classmethod
    def of(cls, sections: Mapping[str, Any]) -> Constants:
        """Return the constants that sections of the results hold."""
        rows = sections["memory"]["rows"]
        first, last = rows[0], rows[-1]
        local = next(
            each for each in sections["drivers"]["drivers"] if each["driver"].startswith("pool, 1")
        )
        cores = sorted(sections["rate"]["core"])
        disk = last["disk"]
        return cls(
            list_bytes=disk["list"],
            looked_bytes=disk["looked"],
            record_bytes=disk["records"],
            marker_bytes=disk["marker"],
            unit_inodes=disk["inodes"],
            unit_driver=max(local["beyond"][0], 0.0),
            pair_worker=1 / cores[len(cores) // 2],
            pair_choose=last["select"]["seconds"] / last["select"]["pairs"],
            base_bytes=first["peak"] * 1e9,
            pair_bytes=max(0.0, (last["peak"] - first["peak"]) * 1e9)
            / (last["pairs"] - first["pairs"]),
            hash_bytes=sections["memory"]["hash_bytes"]["0"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a run leaves behind, for one rate of the detector: units are a minute of one GPU."""

    rate: int
    unit_pairs: int
    units: int
    inodes: float
    bytes_on_disk: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long a run takes on so many GPUs, in seconds."""

    rate: int
    gpus: int
    looking: float
    units_a_second: float
    driver_busy: float
    """Share of the driver's time, 0 to 1: above 1 it cannot keep up."""


def layout(known: Constants, rate: int) -> Layout:
    """Return files and bytes for all pairs."""
    unit_pairs = rate * UNIT_SECONDS
    units = -(-PAIRS // unit_pairs)
    pairs = known.list_bytes + known.looked_bytes + known.record_bytes
    return Layout(
        rate=rate,
        unit_pairs=unit_pairs,
        units=units,
        inodes=units * known.unit_inodes,
        bytes_on_disk=PAIRS * pairs + units * known.marker_bytes,
    )


def run(known: Constants, rate: int, gpus: int) -> Run:
    """Return the time of looking, where nothing but the detector and each unit's end take time."""
    units_a_second = gpus / (UNIT_SECONDS + known.unit_driver)
    return Run(
        rate=rate,
        gpus=gpus,
        looking=PAIRS / (gpus * rate) * (1 + known.unit_driver / UNIT_SECONDS),
        units_a_second=units_a_second,
        driver_busy=units_a_second * known.unit_driver,
    )


def choosing(known: Constants) -> float:
    """Return the seconds of choosing records from all pairs, in one process."""
    return PAIRS * known.pair_choose


def driver_memory(known: Constants) -> float:
    """Return bytes of the driver's process, if what was seen to grow goes on growing."""
    return known.base_bytes + PAIRS * known.pair_bytes


def hashes(known: Constants) -> float:
    """Return bytes of the hashes of all pictures, where duplicates are to be found."""
    return PAIRS * known.hash_bytes


def compared(bits: int) -> float:
    """Return with how many others the hash of the last picture is compared, to find those so near.

    `filters.Hashes` compares those that agree in one of bits + 1 bands; hashes are taken as random.
    """
    bands = bits + 1
    return bands * PAIRS / 2 ** (64 / bands)


def cores_for(known: Constants, rate: int) -> float:
    """Return how many cores feed one GPU of this rate."""
    return rate * known.pair_worker
