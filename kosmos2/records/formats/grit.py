"""GRIT as it was released: the lines of `grit_coyo.jsonl`, and the columns of its Parquet files.

    {"key": "000373938", "clip_similarity_vitb32": 0.353, "id": 1795296605919, "url": "https://...",
     "caption": "a wire hanger with a paper cover", "width": 1024, "height": 693,
     "noun_chunks": [[0, 13, 0.019, 0.028, 0.959, 0.969, 0.675]], "ref_exps": [...]}

In Parquet both views are list<list<double>>, so that the ends of spans are floats there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kosmos2.records.formats.format import KEPT, Feature, Format, Writing
from kosmos2.records.formats.stores import ENTRIES, reader_of, write_lines
from kosmos2.records.record import GroundedRecord
from kosmos2.records.store import Kind, released_writer


def write_released(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write the released columns, and a further one for what GRIT has no column for."""
    with released_writer(path) as writer:
        for record in records:
            writer.write(record)


GRIT = Format(
    name="grit",
    title="GRIT as JSON lines",
    layout="a file .jsonl like grit_coyo.jsonl; what GRIT does not know follows as further keys",
    coordinates=ENTRIES,
    carries=dict.fromkeys(Feature, KEPT),
    read=reader_of(Kind.JSONL),
    write=write_lines,
)
GRIT_PARQUET = Format(
    name="grit-parquet",
    title="GRIT as Parquet",
    layout="a file .parquet, or a folder of such; views are list<list<double>>; an empty cell of "
    "another column is a key that is not there",
    coordinates=ENTRIES,
    carries=dict.fromkeys(Feature, KEPT),
    read=reader_of(Kind.PARQUET),
    write=write_released,
)
