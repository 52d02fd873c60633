"""Files that take the place of a store's files: all of them, however often somebody is killed.

New files lie in a hidden folder beside the store. A last line in the journal,

    {"merge": ["000000.jsonl", …]}

names them; they replace files of the same names. It decides: without it nothing has happened, with
it whoever opens the store next renames what is still to be renamed and archives the journal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from kosmos2.editor.journal import Journal, journal_of, sync_folder
from kosmos2.records.store import root_of

_MERGE = "merge"


def opened(store: Path) -> Journal:
    """Return the journal of a store, after a merge that was cut short has been finished."""
    journal = Journal(journal_of(store))
    try:
        if journal.last is None or _MERGE not in journal.last:
            return journal
        _rename(store, journal.last[_MERGE])
        journal.archive()
    except BaseException:
        journal.close()
        raise
    journal.close()
    return Journal(journal_of(store))


def fresh_folder(store: Path) -> Path:
    """Return the empty folder for files that will take the place of others."""
    folder = _folder(store)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def take_place(journal: Journal, store: Path, names: Sequence[str]) -> Path:
    """Have finished files replace those of the same name in the store; return the old journal."""
    folder = _folder(store)
    for name in names:
        _sync(folder / name)
    sync_folder(folder)
    journal.append({_MERGE: list(names)})
    _rename(store, names)
    return journal.archive()


def _rename(store: Path, names: Sequence[str]) -> None:
    folder = _folder(store)
    for name in names:
        if (folder / name).exists():  # else it was renamed before a kill
            target = (root_of(store.absolute()) / name).resolve()
            shutil.copymode(target, folder / name)
            os.replace(folder / name, target)
            sync_folder(target.parent)
    shutil.rmtree(folder, ignore_errors=True)


def _folder(store: Path) -> Path:
    store = store.absolute()
    return store.with_name(f".{store.name}.merging")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
