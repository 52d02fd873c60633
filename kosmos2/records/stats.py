"""What a set of records holds: counted in one pass, in memory that does not grow with the set.

Numbers go into histograms of fixed bars. Words (phrases, licences, reasons) go into a `Tally`,
which keeps the most frequent ones and says how far its counts can be off.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kosmos2.errors import RecordError
from kosmos2.records.formats.format import Feature, by_span, features
from kosmos2.records.formats.labels import class_name
from kosmos2.records.record import Grounded, GroundedRecord

LONGEST_WORD = 200
"""Characters of a counted word that are kept: a reason may hold a page of text."""


class Tally:
    """Counts words, but remembers at most `2 * capacity` of them (Misra and Gries' summary).

    When there are more, the `capacity`-th largest count is taken off every word, and words without
    a count left are forgotten. So a count is never too high, too low by at most `missed`, and
    `missed` is at most (all that was counted) / (capacity + 1). Until then every count is exact.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise RecordError(f"a tally needs room for at least 1 word, got {capacity}")
        self.capacity = capacity
        self.total = 0
        self.missed = 0
        self._counts: dict[str, int] = {}

    def add(self, word: str, count: int = 1) -> None:
        word = word[:LONGEST_WORD]
        self.total += count
        self._counts[word] = self._counts.get(word, 0) + count
        if len(self._counts) > 2 * self.capacity:
            self._forget()

    def __len__(self) -> int:
        """Return how many words are remembered; while `missed` is 0 these are all."""
        return len(self._counts)

    def most(self, number: int) -> list[tuple[str, int]]:
        """Return the most frequent words and their counts; equal counts by the alphabet."""
        ranked = sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return ranked[:number]

    def _forget(self) -> None:
        off = sorted(self._counts.values(), reverse=True)[self.capacity]
        self.missed += off
        self._counts = {word: n - off for word, n in self._counts.items() if n > off}


@dataclass(slots=True, kw_only=True)
class Histogram:
    """How many values fell between which edges; the last bar takes all that is above."""

    edges: Sequence[float]
    """Where each bar begins. A value below the first edge counts in the first bar."""
    labels: Sequence[str]
    counts: list[int] = field(default_factory=list)
    n: int = 0
    total: float = 0.0
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        assert len(self.edges) == len(self.labels)
        assert list(self.edges) == sorted(self.edges)
        self.counts = self.counts or [0] * len(self.edges)

    def add(self, value: float) -> None:
        self.counts[max(0, bisect.bisect_right(self.edges, value) - 1)] += 1
        self.n += 1
        self.total += value
        self.low = value if self.low is None else min(self.low, value)
        self.high = value if self.high is None else max(self.high, value)

    @property
    def mean(self) -> float | None:
        return self.total / self.n if self.n else None


def whole_numbers(first: int, last: int) -> Histogram:
    """Return a histogram with a bar for each whole number; the last one takes all from there on."""
    numbers = range(first, last + 1)
    return Histogram(edges=numbers, labels=[*map(str, numbers[:-1]), f"≥ {last}"])


def _caption_words() -> Histogram:
    edges = (0, 1, 5, 10, 15, 20, 30, 50, 100)
    labels = ("0", "1–4", "5–9", "10–14", "15–19", "20–29", "30–49", "50–99", "≥ 100")
    return Histogram(edges=edges, labels=labels)


def _box_shares() -> Histogram:
    """Return bars of half decades, in percent: equal bars would hide the many small boxes."""
    edges = (0, 0.1, 0.3, 1, 3, 10, 30, 90)
    labels = ("< 0.1", "0.1–0.3", "0.3–1", "1–3", "3–10", "10–30", "30–90", "≥ 90")
    return Histogram(edges=edges, labels=labels)


def _scores() -> Histogram:
    labels = [f".{tenth}–.{tenth + 1}" for tenth in range(9)] + [".9–1"]
    return Histogram(edges=[tenth / 10 for tenth in range(10)], labels=labels)


def _sides() -> Histogram:
    edges = (0, 128, 256, 512, 1024, 2048, 4096)
    labels = ("< 128", "128–255", "256–511", "512–1023", "1024–2047", "2048–4095", "≥ 4096")
    return Histogram(edges=edges, labels=labels)


def _few() -> Tally:
    return Tally(1_000)


@dataclass(slots=True, kw_only=True)
class Stats:
    """Everything counted of some records. Boxes are those of `GroundedRecord.entries`."""

    records: int = 0
    holding: dict[Feature, int] = field(default_factory=lambda: dict.fromkeys(Feature, 0))
    """How many records hold each feature, as `formats.format.features` says."""
    spans: int = 0
    boxes: int = 0
    dropped: int = 0
    """Pictures that became no record."""

    caption_words: Histogram = field(default_factory=_caption_words)
    expression_words: Histogram = field(default_factory=lambda: whole_numbers(1, 12))
    """Words of each span of `entries`."""
    chunk_words: Histogram = field(default_factory=lambda: whole_numbers(1, 8))
    """Words of each span of `noun_chunks`."""
    spans_a_record: Histogram = field(default_factory=lambda: whole_numbers(0, 10))
    boxes_a_span: Histogram = field(default_factory=lambda: whole_numbers(1, 8))
    box_shares: Histogram = field(default_factory=_box_shares)
    """Area of each box in percent of its picture."""
    scores: Histogram = field(default_factory=_scores)
    sides: Histogram = field(default_factory=_sides)
    """Longer side of each picture, in pixels."""

    phrases: Tally = field(default_factory=lambda: Tally(10_000))
    """Noun chunks where they are known, else expressions; lower case and without article."""
    shapes: Tally = field(default_factory=_few)
    """Landscape, portrait or square."""
    models: Tally = field(default_factory=_few)
    """What made the records, by their provenance."""
    licences: Tally = field(default_factory=_few)
    columns: Tally = field(default_factory=_few)
    """Other columns that records carry."""
    reasons: Tally = field(default_factory=_few)
    """Why pictures became no record."""

    def add(self, record: GroundedRecord) -> None:
        """Count one record."""
        self.records += 1
        for feature in features(record):
            self.holding[feature] += 1
        self.caption_words.add(len(record.caption.split()))
        if record.width is not None and record.height is not None:
            self._add_size(record.width, record.height)
        self._add_entries(record)
        self._add_words(record)
        if record.provenance is not None:
            made = (record.provenance.model, record.provenance.task)
            self.models.add(", ".join(part for part in made if part))
        for column in record.extra:
            self.columns.add(column)
        for column in ("license", "licence"):
            if record.extra.get(column) is not None:
                self.licences.add(str(record.extra[column]))

    def counting(self, records: Iterable[GroundedRecord]) -> Iterator[GroundedRecord]:
        """Yield the records as they come, each when it is counted."""
        for record in records:
            self.add(record)
            yield record

    def drop(self, reason: str) -> None:
        """Count a picture that became no record."""
        self.dropped += 1
        self.reasons.add(reason)

    def _add_size(self, width: int, height: int) -> None:
        self.sides.add(max(width, height))
        shape = "square" if width == height else "landscape" if width > height else "portrait"
        self.shapes.add(shape)

    def _add_entries(self, record: GroundedRecord) -> None:
        spans = by_span(record.entries)
        self.spans += len(spans)
        self.spans_a_record.add(len(spans))
        for (start, end), entries in spans.items():
            self.expression_words.add(len(record.caption[start:end].split()))
            self.boxes_a_span.add(len(entries))
            for entry in entries:
                self._add_box(entry)

    def _add_box(self, entry: Grounded) -> None:
        self.boxes += 1
        self.box_shares.add(100 * (entry.x1 - entry.x0) * (entry.y1 - entry.y0))
        if entry.score is not None:
            self.scores.add(entry.score)

    def _add_words(self, record: GroundedRecord) -> None:
        chunks = by_span(record.noun_chunks or ())
        for start, end in chunks:
            self.chunk_words.add(len(record.caption[start:end].split()))
        for start, end in chunks or by_span(record.entries):
            self.phrases.add(class_name(record.caption[start:end]))


def count(records: Iterable[GroundedRecord], reasons: Iterable[str] = ()) -> Stats:
    """Return the statistics of records, and of why pictures became none."""
    stats = Stats()
    for record in records:
        stats.add(record)
    for reason in reasons:
        stats.drop(reason)
    return stats


def read_reasons(path: Path) -> Iterator[str]:
    """Yield why each picture of an `errors.jsonl` became no record.

    A line is an object with a `reason`, such as {"image": "a.jpg", "reason": "no picture"}, and
    perhaps the `step` that gave it.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _reason(line, f"{path}:{number}")


def _reason(line: bytes, where: str) -> str:
    try:
        fields: Any = json.loads(line)
    except ValueError as error:
        raise RecordError(f"{where}: no JSON ({error})") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("reason"), str):
        raise RecordError(f'{where}: needs an object with a text "reason", got {line[:60]!r}')
    step = fields.get("step")
    return f"{step}: {fields['reason']}" if isinstance(step, str) else str(fields["reason"])
