"""Boxes of phrases into a record: nothing goes without a reason; the published row returns."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kosmos2.boxes import Box, iou
from kosmos2.grit.linking import Candidate, link, suppress
from kosmos2.grit.phrases import Phrase
from kosmos2.grit.recipe import Linking
from kosmos2.records.record import GroundedRecord

corner = st.floats(0, 1, allow_nan=False)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x0, x1 = sorted((draw(corner), draw(corner)))
    y0, y1 = sorted((draw(corner), draw(corner)))
    return Box(x0, y0, x1, y1)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Phrase], list[Candidate]]:
    spans = draw(
        st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=5)
    )
    phrases = [Phrase(chunk=(a, a + n), expression=(a, a + n)) for a, n in spans]
    candidates = draw(
        st.lists(
            st.builds(
                Candidate,
                phrase=st.integers(0, len(phrases) - 1),
                box=boxes(),
                score=st.floats(0, 1),
            ),
            max_size=12,
        )
    )
    return phrases, candidates


@given(
    scenes(), st.floats(0, 1), st.floats(0, 1), st.integers(1, 3), st.sampled_from(["keep", "drop"])
)
def test_every_box_is_kept_or_dropped_for_a_reason(
    scene: tuple[list[Phrase], list[Candidate]],
    nms: float,
    threshold: float,
    most: int,
    contained: str,
) -> None:
    phrases, candidates = scene
    rules = Linking(
        nms_iou=nms,
        threshold=threshold,
        boxes_per_phrase=most,
        contained=contained,  # type: ignore[arg-type]
    )
    linked = link(phrases, candidates, rules)
    assert len(linked.ref_exps) + sum(count for _, count in linked.dropped) == len(candidates)
    assert len(linked.noun_chunks) == len(linked.ref_exps)
    scores = [entry.score or 0 for entry in linked.ref_exps]
    assert scores == sorted(scores, reverse=True)
    assert all(score > threshold for score in scores)


@given(
    st.lists(
        st.builds(Candidate, phrase=st.just(0), box=boxes(), score=st.floats(0, 1)), max_size=15
    ),
    st.floats(0, 1),
)
def test_of_boxes_that_overlap_the_surest_stays(
    candidates: list[Candidate], threshold: float
) -> None:
    ordered = sorted(candidates, key=lambda each: -each.score)
    kept = suppress(ordered, threshold)
    for index, each in enumerate(kept):
        assert all(iou(each.box, other.box) <= threshold for other in kept[:index])
    for each in ordered:
        if each not in kept:
            assert any(
                iou(each.box, surer.box) > threshold and surer.score >= each.score for surer in kept
            )


def test_only_spans_inside_other_spans_with_boxes_are_dropped() -> None:
    phrases = [
        Phrase(chunk=(0, 5), expression=(0, 26)),
        Phrase(chunk=(9, 16), expression=(9, 26)),
        Phrase(chunk=(19, 26), expression=(19, 26)),
    ]
    boxes = [
        Candidate(phrase=0, box=Box(0, 0, 0.5, 0.5), score=0.9),
        Candidate(phrase=1, box=Box(0.5, 0.5, 1, 1), score=0.8),
    ]
    drop = Linking(contained="drop")
    assert [entry[:2] for entry in link(phrases, boxes, drop).ref_exps] == [(0, 26)]
    assert [entry[:2] for entry in link(phrases, boxes[1:], drop).ref_exps] == [(9, 26)]
    assert len(link(phrases, boxes, Linking()).ref_exps) == 2


def test_the_published_row_comes_out_byte_for_byte(shared_data: Path) -> None:
    for line in (shared_data / "grit-records.jsonl").read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        if not fields["noun_chunks"]:
            continue
        pairs = list(zip(fields["noun_chunks"], fields["ref_exps"], strict=True))
        phrases = [Phrase(chunk=tuple(c[:2]), expression=tuple(e[:2])) for c, e in pairs]
        candidates = [
            Candidate(phrase=n, box=Box(*c[2:6]), score=c[6]) for n, (c, _) in enumerate(pairs)
        ]
        linked = link(phrases, [*reversed(candidates)], Linking(threshold=0.65))
        record = GroundedRecord.from_dict(
            {**fields, "noun_chunks": linked.noun_chunks, "ref_exps": linked.ref_exps}
        )
        assert json.dumps(record.to_dict(), ensure_ascii=False) == line
        return
    raise AssertionError("no row with numbers among the records")
