"""Everything that the report and the card of a folder of `grit build` tell, counted in one pass.

Nothing is copied from the funnel that was written with the records: it is counted again from what
was looked at, the records and what was dropped, and where the two differ, `faults` says so.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kosmos2.errors import one_line
from kosmos2.grit import calibration
from kosmos2.grit.build import FUNNEL, RUNS, recipe_of
from kosmos2.grit.outcomes import Outcome, outcomes, settings_of
from kosmos2.grit.recipe import Filters, GritRecipe
from kosmos2.grit.select import Selection
from kosmos2.grit.spread import Columns
from kosmos2.grit.steps import LEVELS, Discarded, Funnel, Ledger, Looked
from kosmos2.records.formats.labels import class_name
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.stats import Histogram, Stats, Tally
from kosmos2.shards import JobFolder, Quarantined

UNDER_THE_FLOOR = "under the floor"
"""Why boxes are not in the side table: they are only counted."""
GALLERY = "records"
BARS = 20
WORDS = 10_000
COLUMNS = 24
UNKNOWN = "unknown"
Kind = tuple[str, str]
"""What an example is of: a level of the funnel and a reason; or (`GALLERY`, "")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which examples are shown."""

    examples: int = 4
    """Of each reason."""
    gallery: int = 12
    """Records."""
    seed: int = 0
    """Others with another one."""


class Samples:
    """Keeps of each kind the pairs whose ids have the smallest hashes: the same in any order."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kept: dict[Kind, list[tuple[int, int, Outcome]]] = {}

    def offer(self, kind: Kind, outcome: Outcome, at_most: int) -> None:
        """Keep a pair if it is among the first of its kind."""
        text = json.dumps([self._seed, *kind, outcome.id, outcome.number])
        rank = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        kept = self._kept.setdefault(kind, [])
        if len(kept) < at_most:
            heapq.heappush(kept, (-rank, outcome.number, outcome))
        elif -rank > kept[0][0]:
            heapq.heapreplace(kept, (-rank, outcome.number, outcome))

    def of(self, kind: Kind) -> list[Outcome]:
        """Return the pairs of a kind in the order of the source."""
        kept = sorted(self._kept.get(kind, ()), key=lambda each: each[1])
        return [outcome for _, _, outcome in kept]

    def all(self) -> Iterator[Outcome]:
        """Yield every pair that is kept, some of them twice."""
        for kept in self._kept.values():
            yield from (outcome for _, _, outcome in kept)


def _scores() -> Histogram:
    edges = [bar / BARS for bar in range(BARS)]
    return Histogram(edges=edges, labels=[f"{edge:.2f}–{edge + 1 / BARS:.2f}" for edge in edges])


def _words() -> Tally:
    return Tally(WORDS)


@dataclass(slots=True, kw_only=True)
class Survey:
    name: str
    """Of the folder."""
    settings: Mapping[str, Any]
    """What the looking depended on, as looked/job.json has it."""
    recipe: GritRecipe
    """As it was asked for."""
    chosen: GritRecipe
    """The same with the threshold that a calibration file gave, where it asks for one."""
    selection: Selection
    told: Funnel
    """The funnel that was written with the records."""
    runs: list[dict[str, Any]]
    quarantined: tuple[Quarantined, ...] = ()
    units: int = 0
    """Units that are done."""
    listed: int | None = None
    """Pairs that the source had; None where nobody counted them."""
    funnel: Funnel = field(default_factory=Funnel)
    """Counted again; what only the looking knew (boxes under the floor, phrases that were never
    looked for) is taken from `told`."""
    stats: Stats = field(default_factory=Stats)
    """Of the records."""
    kept_scores: Histogram = field(default_factory=_scores)
    dropped_scores: Histogram = field(default_factory=_scores)
    """Of boxes that linking dropped: for whatever reason, but for pairs that were refused."""
    asked: Tally = field(default_factory=_words)
    """Noun chunks that were looked for, lower case and without article."""
    found: Tally = field(default_factory=_words)
    """Those that have a box in the records."""
    asked_nouns: Tally = field(default_factory=_words)
    """The last words of what was looked for: mostly the noun."""
    found_nouns: Tally = field(default_factory=_words)
    columns: Columns = field(default_factory=lambda: Columns(COLUMNS))
    licences: Tally = field(default_factory=_words)
    hosts: Tally = field(default_factory=_words)
    samples: Samples
    wish: Wish

    @property
    def missing(self) -> int:
        """Return how many pairs of the source nobody looked at."""
        return max((self.listed or 0) - self.told.pairs.entered, 0)

    @property
    def faults(self) -> list[str]:
        """Return what does not agree; a report with faults must not be trusted."""
        found = []
        for level in LEVELS:
            told, counted = getattr(self.told, level), getattr(self.funnel, level)
            if not told.balances:
                found.append(
                    f"{level}: {told.entered:,} in, but {told.left:,} out and "
                    f"{told.dropped.total():,} dropped"
                )
            if told != counted:
                found.append(
                    f"{level}: the funnel says {_counts(told)}, the files hold {_counts(counted)}"
                )
        return found

    def add(self, outcome: Outcome) -> None:
        """Count a pair."""
        became = outcome.became
        self.funnel.pairs.entered += 1
        if isinstance(became, GroundedRecord):
            self.funnel.pairs.left += 1
            self._add_record(became)
            self.samples.offer((GALLERY, ""), outcome, self.wish.gallery)
        else:
            self._drop("pairs", became.reason, 1, outcome)
            self.stats.drop(became.reason)
        if isinstance(outcome.looked, Looked):
            self._add_looked(outcome, outcome.looked)

    def _add_record(self, record: GroundedRecord) -> None:
        self.stats.add(record)
        self.columns.add(record)
        self.licences.add(_licence(record))
        self.hosts.add(_host(record))

    def _add_looked(self, outcome: Outcome, looked: Looked) -> None:
        phrases, boxes = self.funnel.phrases, self.funnel.boxes
        phrases.entered += len(looked.phrases)
        boxes.entered += len(looked.candidates)
        if not outcome.is_linked:
            assert isinstance(outcome.became, Discarded)
            phrases.dropped[outcome.became.reason] += len(looked.phrases)
            self._drop("boxes", outcome.became.reason, len(looked.candidates), outcome)
            return
        self._add_phrases(outcome, looked)
        self._add_scores(outcome, looked)
        for level in ("phrases", "boxes"):
            for reason, count in getattr(self._chosen_again(looked), level).dropped.items():
                self._drop(level, reason, count, outcome)

    def _chosen_again(self, looked: Looked) -> Funnel:
        """Return the ledgers of one pair that no filter refuses as a whole."""
        self.selection.funnel = Funnel()
        self.selection.record(looked)
        return self.selection.funnel

    def _add_phrases(self, outcome: Outcome, looked: Looked) -> None:
        kept = {entry[:2] for entry in _entries(outcome)}
        for phrase in looked.phrases:
            words = class_name(looked.record.caption[slice(*phrase.chunk)])
            noun = words.rpartition(" ")[2]
            self.asked.add(words)
            self.asked_nouns.add(noun)
            if phrase.chunk in kept:
                self.funnel.phrases.left += 1
                self.found.add(words)
                self.found_nouns.add(noun)

    def _add_scores(self, outcome: Outcome, looked: Looked) -> None:
        entries = _entries(outcome)
        self.funnel.boxes.left += len(entries)
        kept = Counter((entry[:2], entry[2:]) for entry in entries)
        for each in looked.candidates:
            key = (looked.phrases[each.phrase].chunk, (*each.box.corners, each.score))
            (self.kept_scores if kept[key] > 0 else self.dropped_scores).add(each.score)
            kept[key] -= 1

    def _drop(self, level: str, reason: str, count: int, outcome: Outcome) -> None:
        if count:
            getattr(self.funnel, level).dropped[reason] += count
        if count and level != "phrases":
            self.samples.offer((level, reason), outcome, self.wish.examples)

    def close(self) -> None:
        """Add to the ledgers what only the looking knew: it is in the funnel that was written."""
        under = self.told.boxes.dropped[UNDER_THE_FLOOR]
        _take_over(self.funnel.boxes, UNDER_THE_FLOOR, under)
        for reason in self.told.phrases.dropped.keys() - self.funnel.phrases.dropped.keys():
            _take_over(self.funnel.phrases, reason, self.told.phrases.dropped[reason])


def survey(out: Path, wish: Wish, tell: Callable[[int, int], None]) -> Survey:
    """Read a folder of `grit build`; `tell` hears of units read, and of how many."""
    known = settings_of(out)
    recipe = recipe_of(out)
    chosen = calibration.resolved(recipe, _detector(known))
    with JobFolder.open(out / "looked", known) as folder:
        made = Survey(
            name=out.absolute().name,
            settings=known,
            recipe=recipe,
            chosen=chosen,
            selection=Selection(_without_whole(chosen), None),
            told=Funnel.from_counts(json.loads((out / FUNNEL).read_text(encoding="utf-8"))),
            runs=_runs(out / RUNS),
            quarantined=folder.quarantined(),
            units=sum(1 for _ in folder.names()),
            listed=_listed(folder.path / "parts" / "pairs.count"),
            samples=Samples(wish.seed),
            wish=wish,
        )
        for outcome in outcomes(folder, out, tell):
            made.add(outcome)
    made.close()
    return made


def _detector(known: Mapping[str, Any]) -> calibration.Known:
    return calibration.Known(identity=known["detector"], score=known.get("score", ""))


def _without_whole(recipe: GritRecipe) -> GritRecipe:
    """Return the recipe without the filters that refuse a whole pair: dropped.jsonl tells those."""
    off = Filters()
    filters = replace(
        recipe.filters,
        duplicate_bits=off.duplicate_bits,
        excluded=(),
        max_nsfw=off.max_nsfw,
        min_similarity=off.min_similarity,
    )
    return replace(recipe, filters=filters)


def _entries(outcome: Outcome) -> tuple[Grounded, ...]:
    became = outcome.became
    return (became.noun_chunks or ()) if isinstance(became, GroundedRecord) else ()


def _take_over(ledger: Ledger, reason: str, count: int) -> None:
    if count:
        ledger.entered += count
        ledger.dropped[reason] += count


def _counts(ledger: Ledger) -> str:
    dropped = ", ".join(f"{reason} {n:,}" for reason, n in sorted(ledger.dropped.items()) if n)
    return f"{ledger.entered:,} in, {ledger.left:,} out, dropped: {dropped or 'none'}"


def _licence(record: GroundedRecord) -> str:
    """Return what the source's own column says, whatever its spelling (LAION has LICENSE)."""
    for name, value in record.extra.items():
        if name.lower() in ("license", "licence") and value not in (None, ""):
            return one_line(value)
    return UNKNOWN


def _host(record: GroundedRecord) -> str:
    try:
        return one_line(urlsplit(record.url or "").hostname or UNKNOWN)
    except ValueError:
        return UNKNOWN


def _listed(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["count"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _runs(path: Path) -> list[dict[str, Any]]:
    """Return the runs that were noted; a line that a kill cut off is none."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            run = json.loads(line)
        except ValueError:
            continue
        if isinstance(run, dict):
            found.append(run)
    return found
