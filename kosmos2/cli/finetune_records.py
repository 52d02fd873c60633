"""What `finetune` does with records before it trains: look at all, tell, and keep some back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kosmos2.cli.console import note
from kosmos2.cli.records_checking import STORES
from kosmos2.cli.records_reading import format_at, opened, watching
from kosmos2.errors import Kosmos2Error, RecordError, TrainingError, one_line

if TYPE_CHECKING:
    from kosmos2.data.album import Album
    from kosmos2.data.ledger import Ledger
    from kosmos2.data.own import OwnRecord, Row
    from kosmos2.vocab.tokenizer import Tokenizer

LEARNT, KEPT = "train.jsonl", "held-out.jsonl"
_SUCH_AS = 5
"""Words in a message."""


@dataclass(frozen=True, slots=True)
class Store:
    """Records and their pictures, as the user names them."""

    path: Path
    images: Path | None
    """Where names of pictures start; None: at the records' own folder."""
    form: str | None
    """The name of the format; None: as it looks."""

    @property
    def root(self) -> Path:
        """Return the folder that the names in the records start from."""
        from kosmos2.records.store import root_of

        if self.images is not None and format_at(self.path, self.form).name in STORES:
            return self.images.resolve()
        return root_of(self.path).resolve()

    def album(self) -> Album:
        """Return what opens the pictures."""
        from kosmos2.data.album import Album
        from kosmos2.data.opening import data_cache

        return Album(self.root, data_cache())


def looked_at(store: Store, tokenizer: Tokenizer) -> list[OwnRecord]:
    """Return the records that can be learnt, and tell why others cannot."""
    from kosmos2.data.ledger import Ledger
    from kosmos2.data.own import OWN, spelt_by_letters, usable, with_words

    ledger = Ledger()
    with watching("looking at records") as watch:
        found = usable(watch(_rows(store)), store.album(), ledger)
        records = list(with_words(found, tokenizer, ledger))
    note(f"{store.path}: {len(records):,} records can be used")
    _tell(ledger)
    if letters := spelt_by_letters(records, tokenizer):
        such = ", ".join(word for word, _ in letters.most_common(_SUCH_AS))
        note(
            f"{letters.total():,} words ({len(letters):,} different) are new to this model's "
            f"vocabulary and will be spelt letter by letter, such as {such}: it needs many "
            "examples of each"
        )
    assert ledger.used[OWN] == len(records)
    return records


def check_enough(records: list[OwnRecord], store: Store) -> None:
    """Refuse to fine-tune on too few, too many, or on none with a box."""
    from kosmos2.training.finetune import LEAST, MOST

    if not LEAST <= len(records) <= MOST:
        way_out = (
            "`kosmos2 records check` names what is wrong with each"
            if len(records) < LEAST
            else "take some with `kosmos2 records sample`, or write a recipe for `kosmos2 train`"
        )
        raise TrainingError(
            f"{store.path} has {len(records):,} records that can be used; fine-tuning takes "
            f"{LEAST:,} to {MOST:,}. {way_out[0].upper()}{way_out[1:]}."
        )
    if not any(record.text.phrases for record in records):
        raise TrainingError(
            f"{store.path}: none of the {len(records):,} records has a phrase with a box, so there "
            "is nothing to ground; `kosmos2 grit build` makes boxes for captions"
        )


def parted(
    records: list[OwnRecord], share: float, store: Store
) -> tuple[list[OwnRecord], list[OwnRecord]]:
    """Return what is learnt and what is held out."""
    from kosmos2.data.own import held_out

    if not 0 < share < 0.9:
        raise TrainingError(
            f"--eval-share must lie above 0 and below 0.9, got {share:g}. To learn from all "
            "records, name others to be asked about with --eval-records"
        )
    learnt, kept = held_out(records, share)
    if not learnt or not any(record.text.phrases for record in kept):
        pictures = len({record.content for record in records})
        raise TrainingError(
            f"{store.path}: the {len(records):,} records show {pictures:,} different pictures, too "
            "few to hold some out with boxes. Give more records, a larger --eval-share, or others "
            "with --eval-records"
        )
    return learnt, kept


def kept_apart(learnt: list[OwnRecord], kept: list[OwnRecord], store: Store) -> list[OwnRecord]:
    """Return what is learnt without the pictures that are held out."""
    from kosmos2.data.ledger import Ledger
    from kosmos2.data.own import without_pictures_of

    if not any(record.text.phrases for record in kept):
        raise TrainingError(f"{store.path}: no record that can be used has a phrase with a box")
    ledger = Ledger()
    rest = list(without_pictures_of(learnt, kept, ledger))
    _tell(ledger)
    return rest


def lines_of(records: Iterable[OwnRecord]) -> str:
    """Return records as JSON lines, as they were."""
    from kosmos2.records.jsonl import as_json

    return "".join(json.dumps(dict(each.fields), default=as_json) + "\n" for each in records)


def write_parts(out: Path, learnt: str, kept: str) -> None:
    """Write both parts, which a run that goes on must find unchanged."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in ((LEARNT, learnt), (KEPT, kept)):
        partial = out / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(out / name)


def check_same(out: Path, learnt: str, kept: str) -> None:
    """Refuse to go on with other records than the run has begun with."""
    for name, text in ((LEARNT, learnt), (KEPT, kept)):
        path = out / name
        if not path.is_file():
            raise TrainingError(f"{out} holds no fine-tuning to go on with: no {name}")
        if path.read_text(encoding="utf-8") != text:
            raise TrainingError(
                f"the records are not those that the run in {out} began with ({name} differs). "
                "Go on with the same records and shares, or name another --out"
            )


def _rows(store: Store) -> Iterator[Row]:
    """Yield where a record lies and its fields, or why there are none."""
    from kosmos2.data.ledger import Rejected
    from kosmos2.records.store import rows

    form = format_at(store.path, store.form)
    if form.name in STORES:
        for row in rows(store.path):
            fault = Rejected("no record", f"{row.where}: {row.problem}")
            yield row.where, fault if row.fields is None else row.fields
        return
    told: list[tuple[str, Rejected]] = []

    def refuse(where: str, error: Kosmos2Error) -> None:
        told.append((where, Rejected("no record", f"{where}: {one_line(error)}")))

    try:
        for number, record in enumerate(opened(store.path, form, store.images, refuse), start=1):
            yield from told
            told.clear()
            yield f"{store.path}: record {number}", record.to_dict()
    except RecordError as error:
        raise RecordError(f"{store.path}, read as {form.title}: {error}") from error
    yield from told


def _tell(ledger: Ledger) -> None:
    for (source, reason), count in sorted(ledger.rejected.items(), key=lambda each: -each[1]):
        note(f"left out, {count:,} times: {reason}, such as {ledger.examples[source, reason]}")
