"""Folders of Hugging Face's `datasets` -> items: what `save_to_disk` wrote, and image folders.

    state.json  data-00000-of-00002.arrow  ...     a dataset; cache-*.arrow are not of it
    train/state.json ...  dataset_dict.json        a dictionary of them: each split is a folder
    metadata.csv | .jsonl | .parquet               beside pictures: rows with their `file_name`

The library itself is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kosmos2.errors import RecordError, one_line
from kosmos2.sources.containers import items_of_columns
from kosmos2.sources.places import arrow_library, open_arrow
from kosmos2.sources.rows import Item, Origin

ARROW = (".arrow",)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def belongs(path: Path) -> bool:
    """Tell whether an Arrow file is of the dataset in its folder, and not something kept aside."""
    try:
        state = json.loads((path.parent / "state.json").read_bytes())
        return path.name in {each["filename"] for each in state["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return not path.name.startswith("cache-")


def rows_of_arrow(origin: Origin) -> Iterator[Item]:
    """Yield the rows of an Arrow file; of a column of pictures only the place is taken."""
    arrow = arrow_library()
    try:
        with open_arrow(origin.path) as file:
            yield from items_of_columns(file.schema, partial(_numbered, file), arrow, origin)
    except (OSError, arrow.ArrowException) as error:
        raise RecordError(f"{one_line(origin.path)} cannot be read ({one_line(error)})") from error


def _numbered(
    file: Any,  # noqa: ANN401 (of a library without types)
    columns: list[str],
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield batch, number in it and values of each row."""
    for group, batch in enumerate(file):
        rows = batch.select(columns).to_pylist() if columns else [{}] * batch.num_rows
        for row, fields in enumerate(rows):
            yield group, row, fields
