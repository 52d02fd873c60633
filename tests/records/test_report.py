"""The report: well-formed, self-contained, true to what was counted."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from kosmos2.errors import RecordError
from kosmos2.records import report
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.stats import Stats, count


def charts(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def made(examples: list[GroundedRecord], root: Path) -> str:
    pictures = Pictures(root)
    items = [report.page_item(record, report.open_picture(record, pictures)) for record in examples]
    return report.report(count(examples, ["<b>no</b> picture"]), source="a & b", items=items)


def test_the_report_loads_nothing_from_anywhere(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    html = made(examples, tmp_path)
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert "default-src &#x27;none&#x27;" in html


def test_what_people_wrote_is_never_markup(examples: list[GroundedRecord], tmp_path: Path) -> None:
    html = made(examples, tmp_path)
    assert "&lt;b&gt;no&lt;/b&gt; picture" in html
    assert "Records of a &amp; b" in html
    assert "a & b" not in html
    assert "<b>no</b>" not in html
    assert "<Café>" not in html


def test_bars_are_as_high_as_their_counts() -> None:
    wide = [Grounded(0, 1, 0, 0, 1, 1, score) for score in (0.05, 0.95, 0.96, 0.97)]
    record = GroundedRecord(caption="a", noun_chunks=tuple(wide), ref_exps=None)
    scores = next(
        chart
        for chart in charts(report.report(count([record]), source="x", items=[]))
        if chart.get("aria-label") == "Scores"
    )
    bars = [float(bar.get("height", "")) for bar in scores.findall(".//rect[@class='bar']")]
    assert bars[9] == max(bars) > 0
    assert bars[0] == pytest.approx(bars[9] / 3, abs=0.1)
    assert not any(bars[1:9])
    titles = [title.text or "" for title in scores.findall(".//title")]
    assert titles[9].endswith("3 (75%)")


def test_every_bar_and_label_stays_on_its_chart(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    found = charts(made(examples, tmp_path))
    assert len(found) == 8
    for chart in found:
        _, _, width, height = map(float, chart.get("viewBox", "").split())
        for bar in chart.findall(".//rect"):
            x, y = float(bar.get("x", "")), float(bar.get("y", ""))
            assert 0 <= x <= x + float(bar.get("width", "")) <= width + 0.1
            assert 0 <= y <= y + float(bar.get("height", "")) <= height
        for words in chart.findall(".//text"):
            assert 0 < float(words.get("x", "")) < width
            assert 8 < float(words.get("y", "")) < height


def test_the_same_records_make_the_same_report(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    assert made(examples, tmp_path) == made(examples, tmp_path)


def test_nothing_is_reported_of_nothing() -> None:
    html = report.report(Stats(), source="empty.jsonl", items=[])
    assert "<svg" not in html
    assert ("records", "0") in report.lines(Stats())


def test_lines_tell_what_was_counted(examples: list[GroundedRecord]) -> None:
    lines = dict(report.lines(count(examples, ["no picture"])))
    assert lines["records"] == "8"
    assert lines["pictures that became none"] == "1"
    assert lines["– with provenance"] == "1  12%"
    assert lines["Why pictures became no record"] == "no picture 1"
    assert lines["Size of boxes (% of the picture)"].startswith("mean ")


def test_a_picture_is_opened_upright(tmp_path: Path) -> None:
    lying = Image.new("RGB", (40, 30))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(tmp_path / "a.jpg", exif=exif)
    record = GroundedRecord(caption="a", image="a.jpg", noun_chunks=(), ref_exps=None)
    assert report.open_picture(record, Pictures(tmp_path)).size == (30, 40)


def test_what_is_no_picture_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"<html>")
    record = GroundedRecord(id=7, caption="a", image="a.jpg", noun_chunks=(), ref_exps=None)
    with pytest.raises(RecordError, match=r"record 7: a\.jpg is no picture"):
        report.open_picture(record, Pictures(tmp_path))


def test_an_empty_picture_has_the_shape_of_the_record() -> None:
    record = GroundedRecord(caption="a", width=2000, height=500, noun_chunks=(), ref_exps=None)
    assert report.empty_picture(record).size == (640, 160)
