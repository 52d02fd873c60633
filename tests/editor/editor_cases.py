"""Records, stores and changes for the tests of the editor."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st
from PIL import Image

from kosmos2.editor.changes import (
    Change,
    Delete,
    Draw,
    DropPhrase,
    Move,
    Relink,
    Respan,
    Reword,
)
from kosmos2.editor.session import Decide, Edit, Redo, Undo
from kosmos2.records.jsonl import text_of
from kosmos2.records.record import Grounded, GroundedRecord

CAPTION = "A dog in a field looks at a red ball."
DOG, FIELD, BALL = (0, 5), (9, 16), (26, 36)
LONG_DOG = (0, 16)
LEFT = (0.1, 0.2, 0.4, 0.8)
RIGHT = (0.6, 0.5, 0.9, 0.75)


def dog(name: int | str = 7) -> GroundedRecord:
    """A record as GRIT has it: the views are parallel, the expression is longer than its chunk."""
    return GroundedRecord(
        id=name,
        image="dog.png",
        width=200,
        height=100,
        caption=CAPTION,
        noun_chunks=(Grounded(*DOG, *LEFT, 0.9), Grounded(*BALL, *RIGHT, 0.4)),
        ref_exps=(Grounded(*LONG_DOG, *LEFT, 0.9), Grounded(*BALL, *RIGHT, 0.4)),
        extra={"licence": "CC0", "round_trip": [0.8, 0.3]},
    )


def write_store(path: Path, *records: GroundedRecord) -> Path:
    """Write lines, and the picture that they name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(text_of, records)))
    Image.new("RGB", (200, 100), "#88aa66").save(path.parent / "dog.png")
    return path


_SIDES = st.integers(0, 1000).map(lambda side: side / 1000)
_PAIRS = st.tuples(_SIDES, _SIDES).map(sorted)
corners = st.builds(lambda x, y: (x[0], y[0], x[1], y[1]), _PAIRS, _PAIRS)
_VIEWS = st.sampled_from(["noun_chunks", "ref_exps"])
_WORDS = st.text("ab é😀.\n", min_size=1, max_size=12)
captions = st.one_of(_WORDS, st.lists(st.sampled_from(CAPTION.split()), max_size=9).map(" ".join))


def spans(length: int = len(CAPTION)) -> st.SearchStrategy[tuple[int, int]]:
    """Spans that may lie a little outside."""
    ends = st.tuples(st.integers(0, length + 1), st.integers(0, length + 1))
    return ends.map(lambda pair: (min(pair), max(pair)))


_ENTRIES = st.integers(0, 4)
changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(Move, view=_VIEWS, entry=_ENTRIES, corners=corners),
    st.builds(Draw, view=_VIEWS, span=spans(), corners=corners, score=st.none() | _SIDES),
    st.builds(Delete, view=_VIEWS, entry=_ENTRIES),
    st.builds(DropPhrase, view=_VIEWS, span=st.sampled_from([DOG, FIELD, BALL, LONG_DOG])),
    st.builds(Relink, view=_VIEWS, entry=_ENTRIES, span=spans()),
    st.builds(Respan, view=_VIEWS, old=st.sampled_from([DOG, BALL, LONG_DOG]), new=spans()),
    st.builds(Reword, caption=captions),
)
edits: st.SearchStrategy[Edit] = st.one_of(
    changes,
    st.builds(Decide, status=st.sampled_from(["accepted", "rejected", "edited"])),
    st.builds(Undo),
    st.builds(Redo),
)


@st.composite
def records(draw: st.DrawFn) -> GroundedRecord:
    """Records whose views are known or not, parallel or not."""
    caption = draw(st.text("ab é😀. ", min_size=2, max_size=20))
    entries = st.builds(
        lambda ends, box, score: Grounded(min(ends), max(ends), *box, score),
        st.tuples(st.integers(0, len(caption)), st.integers(0, len(caption))).filter(
            lambda ends: ends[0] != ends[1]
        ),
        corners,
        st.none() | _SIDES,
    )
    views = st.none() | st.lists(entries, max_size=4).map(tuple)
    chunks, expressions = draw(views), draw(views)
    if draw(st.booleans()):
        expressions = chunks
    return GroundedRecord(
        id=draw(st.integers(0, 9)), caption=caption, noun_chunks=chunks, ref_exps=expressions
    )
