"""The law of every format: what it says it keeps comes back equal, what it lacks is really lost."""

from collections.abc import Sequence
from typing import Any

from kosmos2.records.formats.format import KEPT, Feature, Format, features
from kosmos2.records.record import GroundedRecord


def assert_law(
    format_: Format, before: Sequence[GroundedRecord], after: Sequence[GroundedRecord]
) -> None:
    """Compare records with what a format gave back of them, feature by feature."""
    assert len(before) == len(after)
    if format_.carries.get(Feature.VIEWS) == KEPT:
        assert list(map(_known_views, after)) == list(map(_known_views, before))
    for old, new in zip(before, after, strict=True):
        for feature in features(old):
            said = format_.carries.get(feature)
            if said == KEPT:
                assert told(new, feature) == told(old, feature), (old.id, feature)
            elif said is None:
                assert told(new, feature) != told(old, feature), (old.id, feature, "is not lost")


def assert_boxes_near(
    before: Sequence[GroundedRecord], after: Sequence[GroundedRecord], *, pixels: float
) -> None:
    """Demand the boxes in order, each edge within so many pixels of pictures of 40 x 30."""
    for old, new in zip(before, after, strict=True):
        assert len(old.entries) == len(new.entries)
        for one, other in zip(old.entries, new.entries, strict=True):
            pairs = zip(
                one.box.to_pixels(width=40, height=30),
                other.box.to_pixels(width=40, height=30),
                strict=True,
            )
            assert all(abs(a - b) <= pixels for a, b in pairs), (old.id, one, other)


def _known_views(record: GroundedRecord) -> tuple[bool, bool]:
    return record.noun_chunks is not None, record.ref_exps is not None


def told(record: GroundedRecord, feature: Feature) -> Any:
    """Return what a record says of one feature."""
    spans = [(entry.start, entry.end) for entry in record.entries]
    words = [record.caption[start:end] for start, end in spans]
    return {
        Feature.ID: record.id,
        Feature.PICTURE: (record.image, record.shard),
        Feature.URL: record.url,
        Feature.HASH: record.sha256,
        Feature.SIZE: (record.width, record.height),
        Feature.CAPTION: record.caption,
        Feature.SPANS: (spans, words),
        Feature.VIEWS: (record.noun_chunks, record.ref_exps),
        Feature.SEVERAL_BOXES: spans,
        Feature.NESTED: spans,
        Feature.BOXES: [entry.box for entry in record.entries],
        Feature.SCORES: [entry.score for entry in record.entries],
        Feature.PROVENANCE: record.provenance,
        Feature.EXTRA: dict(record.extra),
    }[feature]
