"""`supervision.Detections`: captions and spans that its own connector drops stay with the boxes."""

from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from format_law import assert_boxes_near, assert_law

from examples import KNOWN_BOX, KNOWN_PIXELS, known_record
from kosmos2.errors import RecordError
from kosmos2.records.formats.supervised import SUPERVISION, from_detections, to_detections
from kosmos2.records.record import GroundedRecord

SIZE = (40, 30)


def test_records_come_back_whole(examples: list[GroundedRecord]) -> None:
    again = [from_detections(to_detections(record, SIZE), SIZE) for record in examples]
    assert_law(SUPERVISION, examples, again)
    assert_boxes_near(examples, again, pixels=1e-9)


def test_the_known_box_is_corners_in_pixels_with_phrase_and_span(tmp_path: Path) -> None:
    detections = to_detections(known_record(tmp_path), SIZE)
    assert detections.xyxy.tolist() == pytest.approx(np.array([KNOWN_PIXELS]))
    assert detections.data["phrase"].tolist() == ["a white square"]
    assert detections.data["class_name"].tolist() == ["white square"]
    assert detections.data["span"].tolist() == [[0, 14]]
    assert np.isnan(detections.data["score"]).tolist() == [True]
    assert detections.confidence is None


def test_scores_are_the_confidence_where_every_box_has_one(
    examples: list[GroundedRecord],
) -> None:
    assert to_detections(examples[2], SIZE).confidence.tolist() == [0.875, 0.5, 0.25]
    some = to_detections(examples[5], SIZE)
    assert some.confidence is None
    assert some.data["score"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)


def test_filtered_detections_are_a_record_with_fewer_boxes(
    examples: list[GroundedRecord],
) -> None:
    nested = examples[2]
    detections = to_detections(nested, SIZE)
    kept = from_detections(detections[detections.confidence >= 0.5], SIZE)
    assert kept.caption == nested.caption
    assert [entry.score for entry in kept.entries] == [0.875, 0.5]
    none = from_detections(detections[detections.confidence > 1], SIZE)
    assert (none.caption, none.entries) == (nested.caption, ())


def test_a_picture_without_boxes_is_empty_detections(examples: list[GroundedRecord]) -> None:
    assert len(to_detections(examples[6], SIZE)) == 0


def test_annotators_and_suppression_take_the_detections(examples: list[GroundedRecord]) -> None:
    detections = to_detections(examples[2], SIZE)
    scene = np.zeros((30, 40, 3), dtype=np.uint8)
    assert sv.BoxAnnotator().annotate(scene, detections).any()
    assert len(detections.with_nms(0.1, class_agnostic=True)) < 3


def test_detections_of_others_give_class_names_as_the_caption() -> None:
    theirs = sv.Detections(
        xyxy=np.array([KNOWN_PIXELS, (-3, 0, 99, 30)], dtype=np.float32),
        confidence=np.array([0.5, 0.25]),
        data={"class_name": np.array(["dog", "cat"])},
    )
    record = from_detections(theirs, SIZE)
    assert (record.caption, record.width, record.height) == ("dog; cat", 40, 30)
    assert record.entries[0].box.corners == pytest.approx(KNOWN_BOX.corners)
    assert record.entries[1].box.corners == (0, 0, 1, 1)
    assert [entry.score for entry in record.entries] == [0.5, 0.25]


def test_detections_without_names_are_called_by_their_numbers() -> None:
    theirs = sv.Detections(xyxy=np.array([KNOWN_PIXELS]), class_id=np.array([3]))
    assert from_detections(theirs, SIZE).caption == "class 3"


def test_a_box_that_is_none_is_refused_by_its_number() -> None:
    theirs = sv.Detections(xyxy=np.array([(30, 5, 10, 20)]))
    with pytest.raises(RecordError, match="detection 0: a box needs"):
        from_detections(theirs, SIZE)
