"""In which order a source of finitely many samples gives them: a permutation for every epoch.

The place of a sample is computed, not stored, so that the order costs no memory however long the
source is, and any draw is found at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from kosmos2.errors import ConfigError

_MASK = (1 << 64) - 1
_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Epochs:
    """Epoch after epoch of `length` samples, each once an epoch, each epoch in its own order."""

    length: int
    seed: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError("a source needs at least one sample")

    def place(self, index: int) -> tuple[int, int]:
        """Return (number of the sample, epoch) of draw `index`."""
        epoch, place = divmod(index, self.length)
        return permuted(place, self.length, _mixed(_mixed(self.seed) ^ epoch)), epoch


def permuted(place: int, length: int, key: int) -> int:
    """Return where a permutation of 0..length-1, chosen by `key`, sends `place`.

    A Feistel network on the next even number of bits; numbers behind the end walk on (Black and
    Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for number in range(_ROUNDS):
            left, right = right, left ^ (_mixed(key + number * 0x9E3779B97F4A7C15 + right) & low)
        place = left << half | right
        if place < length:
            return place


def _mixed(value: int) -> int:
    """Return 64 bits that hang on all bits of the value (the finaliser of SplitMix64)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
