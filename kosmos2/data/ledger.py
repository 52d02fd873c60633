"""What became of samples: how many were used, and why the others, or parts of them, were not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from kosmos2.errors import RecordError

HOPELESS = 256
"""As many samples of a source in a row, and none of use, are a mistake in the recipe."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a sample, or one box or picture of it, is not learnt. Nothing is dropped otherwise."""

    reason: str
    """A few fixed words, to be counted."""
    detail: str
    """The place and the values."""


@dataclass(slots=True)
class Ledger:
    """Counts by the number of a source in the mixture. Ledgers add up."""

    used: Counter[int] = field(default_factory=Counter)
    rejected: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Samples and parts of samples by source and reason."""
    examples: dict[tuple[int, str], str] = field(default_factory=dict)
    """The first case of each."""

    def reject(self, source: int, cases: Iterable[Rejected]) -> None:
        """Count what was rejected of a sample."""
        for case in cases:
            self.rejected[source, case.reason] += 1
            self.examples.setdefault((source, case.reason), case.detail)

    def check_used(self) -> None:
        """Refuse to go on with a source of which one sample after the other is rejected."""
        tried: Counter[int] = Counter()
        for (source, _), count in self.rejected.items():
            tried[source] += count
        for source, count in tried.items():
            if count >= HOPELESS and not self.used[source]:
                reasons = {why: times for (of, why), times in self.rejected.items() if of == source}
                why = max(reasons, key=lambda each: reasons[each])
                raise RecordError(
                    f"source {source} of the recipe (counted from 0): none of its first {count} "
                    f"samples can be used; {reasons[why]} times: {why}, as "
                    f"{self.examples[source, why]}"
                )

    def add(self, other: Ledger) -> None:
        """Count what another ledger has counted."""
        self.used += other.used
        self.rejected += other.rejected
        self.examples = {**other.examples, **self.examples}
