"""What was promised, held against what was measured: met, missed, or not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from benchmarks.contest import Race
from benchmarks.names import BF16, FP32
from benchmarks.samples import Spread, spread


class Verdict(StrEnum):
    MET = "met"
    MISSED = "missed"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Ours must take at most the peer's time divided by `factor`."""

    text: str
    section: str
    ours: str
    peer: str
    factor: float

    def measured(self, sections: Mapping[str, Any]) -> Spread | None:
        """Return the ratio over the rounds of all heats in which both ran."""
        found = [
            ratio
            for race in races(sections, self.section)
            for ratio in race.ratios(self.peer, self.ours)
        ]
        return spread(found) if found else None

    def judge(self, sections: Mapping[str, Any]) -> tuple[str, str, Verdict]:
        """Return what is needed, what was measured, the verdict."""
        needed, ratio = f"≥ {self.factor:g} ×", self.measured(sections)
        if ratio is None:
            return needed, "–", Verdict.UNKNOWN
        said = f"{ratio.median:.2f} × ({ratio.low:.2f} – {ratio.high:.2f})"
        return needed, said, _verdict(ratio.median >= self.factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Ours must reach this share of the limit measured in the same moment."""

    text: str
    section: str
    ours: str
    share: float

    def judge(self, sections: Mapping[str, Any]) -> tuple[str, str, Verdict]:
        """Return what is needed, what was measured, the verdict."""
        needed = f"≥ {self.share:.0%}".replace("%", " %")
        shares = [
            share
            for race in races(sections, self.section)
            if (lane := race.lane(self.ours))
            for share in race.shares(lane)
        ]
        if not shares:
            return needed, "–", Verdict.UNKNOWN
        found = spread(shares)
        said = f"{found.median:.0%} ({found.low:.0%} – {found.high:.0%})"
        return needed, said.replace("%", " %"), _verdict(found.median >= self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The most that a whole process may have resident."""

    text: str
    setting: str
    gigabytes: float

    def judge(self, sections: Mapping[str, Any]) -> tuple[str, str, Verdict]:
        """Return what is needed, what was measured, the verdict."""
        needed = f"≤ {self.gigabytes:g} GB"
        for row in sections.get("memory", {}).get("rows", ()):
            if row["name"] == self.setting:
                peak = row["peak"]
                return needed, f"{peak:.2f} GB", _verdict(peak <= self.gigabytes)
        return needed, "–", Verdict.UNKNOWN


Requirement = Speed | Share | Memory


def _speed(text: str, section: str, ours: str, peer: str, factor: float) -> Speed:
    return Speed(text=text, section=section, ours=ours, peer=peer, factor=factor)


REQUIREMENTS: tuple[Requirement, ...] = (
    _speed("decode, 1 row: int8, nothing compiled", "decode-1", "ours int8", FP32, 5),
    _speed("decode, 1 row: int8, nothing compiled", "decode-1", "ours int8", BF16, 3.4),
    _speed("decode, 1 row: the same precision", "decode-1", "ours bf16", BF16, 1.2),
    _speed("decode, 1 row: the same precision", "decode-1", "ours fp32", FP32, 1.5),
    _speed("decode, 8 rows: int8, nothing compiled", "decode-8", "ours int8", BF16, 2.5),
    _speed("vision and prefill: bf16, nothing compiled", "look", "ours bf16", BF16, 1.3),
    _speed("vision and prefill: bf16, native", "look", "ours bf16 native", BF16, 1.3),
    _speed("vision and prefill: int8", "look", "ours int8", BF16, 1.3),
    _speed("picture to 64 tokens: int8, nothing compiled", "caption", "ours int8", BF16, 3),
    _speed("picture to 64 tokens: int8, nothing compiled", "caption", "ours int8", FP32, 5),
    _speed("goal: decode, 1 row: int4, native", "decode-1", "ours int4 native", BF16, 8),
    Share(text="goal: decode, 1 row: int8, native", section="decode-1",
          ours="ours int8 native", share=0.9),
    Share(text="aim: decode, 1 row: bf16", section="decode-1", ours="ours bf16", share=0.8),
    Share(text="aim: decode, 1 row: bf16, native", section="decode-1",
          ours="ours bf16 native", share=0.8),
    Share(text="aim: decode, 1 row: fp32", section="decode-1", ours="ours fp32", share=0.8),
    Share(text="aim: decode, 1 row: int8, nothing compiled", section="decode-1",
          ours="ours int8", share=0.8),
    Memory(text="peak memory, int8 from its file, nothing compiled", setting="ours int8",
           gigabytes=2.2),
    Memory(text="peak memory, int8 from its file, native", setting="ours int8 native",
           gigabytes=2.2),
)  # fmt: skip


def races(sections: Mapping[str, Any], name: str) -> list[Race]:
    """Return the heats of a section, none if it was not run."""
    return [Race.from_dict(data) for data in sections.get(name, {}).get("races", ())]


def judged(
    sections: Mapping[str, Any], requirements: Sequence[Requirement] = REQUIREMENTS
) -> list[list[str]]:
    """Return a table: requirement, compared with, needed, measured, verdict."""
    table = []
    for each in requirements:
        against = each.peer if isinstance(each, Speed) else ""
        if isinstance(each, Share):
            against = "the memory's bandwidth"
        table.append([each.text, against, *map(str, each.judge(sections))])
    return table


def _verdict(is_met: bool) -> Verdict:
    return Verdict.MET if is_met else Verdict.MISSED
