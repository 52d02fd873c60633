"""What a job answers is what the model answers to one picture at a time."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from annotate_cases import job, lines, paint, paint_many, plan, records_of, silent, write_lines
from PIL import Image

from kosmos2.annotate import Task, annotate
from kosmos2.annotate import worker as workers
from kosmos2.api import Kosmos2, Reply
from kosmos2.api.settings import Settings
from kosmos2.boxes import Box
from kosmos2.errors import RequestError
from kosmos2.records.record import GroundedRecord

COUNT = 20
"""More than a unit, and no multiple of the batch."""
PHRASES = ("a dog", "a red thing", "the tree")
ROUNDING = 2e-4
"""Scores in records have four digits; a batch of another size computes to about six."""


@pytest.fixture(scope="module")
def model() -> Kosmos2:
    settings = Settings(max_new_tokens=24)
    return Kosmos2.load(device="cpu", dtype="fp32", settings=settings)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, path in enumerate(paint_many(folder, COUNT)):
        path.with_suffix(".txt").write_text(f"a dog and {number} trees", encoding="utf-8")
    return folder


def assert_says(record: GroundedRecord, replies: list[Reply]) -> None:
    """Hold a record to the answers that a picture alone gets."""
    assert record.caption == "; ".join(reply.text for reply in replies)
    expected, shift = [], 0
    for reply in replies:
        for phrase in (each for each in reply.phrases if not each.is_anonymous):
            scores = phrase.scores or [None] * len(phrase.boxes)
            place = (phrase.start + shift, phrase.end + shift)
            expected += [
                ((*place, *box.corners), score)
                for box, score in zip(phrase.boxes, scores, strict=True)
            ]
        shift += len(reply.text) + 2
    assert [tuple(entry[:6]) for entry in record.entries] == [place for place, _ in expected]
    for entry, (_, score) in zip(record.entries, expected, strict=True):
        assert (entry.score is None) == (score is None)
        if score is not None:
            assert entry.score == pytest.approx(score, abs=ROUNDING)
            assert entry.score == round(entry.score, 4)


@pytest.mark.parametrize("task", ["caption", "detail", "ground", "find", "describe"])
def test_every_task_answers_as_one_at_a_time(
    task: str, model: Kosmos2, pictures: Path, tmp_path: Path
) -> None:
    boxes = [(0.25, 0.25, 0.75, 0.75), (0.0, 0.0, 0.5, 1.0)]
    rows = [{"image": str(path), "boxes": boxes} for path in sorted(pictures.glob("*.png"))]
    source = write_lines(tmp_path / "rows.jsonl", rows) if task == "describe" else pictures
    of = plan(tmp_path, Task(task))
    if task == "find":
        of = replace(of, phrases=PHRASES)
    base = job(source, tmp_path / "out.jsonl", of)
    records = records_of(replace(base, looking=replace(base.looking, captions=task == "ground")))
    assert len(records) == COUNT
    for number, (path, record) in enumerate(
        zip(sorted(pictures.glob("*.png")), records, strict=True)
    ):
        view = model.look(path)
        match task:
            case "caption":
                replies = [view.caption()]
            case "detail":
                replies = [view.caption_in_detail()]
            case "ground":
                replies = [view.ground(f"a dog and {number} trees")]
            case "find":
                replies = [view.find(phrase) for phrase in PHRASES]
            case _:
                replies = [view.describe(Box(*box)) for box in boxes]
        assert_says(record, list(replies))
        assert (record.width, record.height) == (64, 48)
        assert record.provenance is not None and record.provenance.task == task
        assert (tmp_path / str(record.image)).resolve() == path.resolve()


def test_a_phrase_may_be_absent_and_the_record_says_how_probable_that_is(
    model: Kosmos2, pictures: Path, tmp_path: Path
) -> None:
    of = replace(plan(tmp_path, Task.FIND), phrases=PHRASES, allow_absent=True)
    base = job(pictures, tmp_path / "out.jsonl", of, limit=3)
    for path, record in zip(sorted(pictures.glob("*.png")), records_of(base), strict=False):
        view = model.look(path)
        replies = [view.find_or_absent(phrase) for phrase in PHRASES]
        assert_says(record, list(replies))
        expected = {reply.phrase: reply.absent for reply in replies}
        assert record.extra["absent"] == pytest.approx(expected, abs=ROUNDING)


def break_pictures(folder: Path) -> dict[str, str]:
    """Write files that are no pictures; return what the error of each must say."""
    good = paint(folder / "0-good.png", 1)
    data = good.read_bytes()
    Image.open(good).convert("CMYK").save(folder / "1-good.jpg")
    files = {
        "empty.png": b"",
        "text.jpg": b"this is text\n",
        "cut.png": data[: len(data) // 2],
        "html.gif": b"<html><body>404</body></html>",
        "header.webp": b"RIFF\x00\x10\x00\x00WEBP",
        "vector.heic": b"\x00\x00\x00\x18ftypheic",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    bomb = Image.new("1", (1, 1))
    bomb.save(folder / "bomb.png")
    png = bytearray((folder / "bomb.png").read_bytes())
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    (folder / "bomb.png").write_bytes(bytes(png))
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "folder.png").mkdir()
    return {
        "empty.png": "empty",
        "text.jpg": "no picture",
        "cut.png": "damaged",
        "html.gif": "no picture",
        "header.webp": "",
        "vector.heic": "",
        "bomb.png": "",
        "gone.png": "no such file",
    }


def test_a_bad_picture_costs_one_line_with_its_reason_and_nothing_else(
    model: Kosmos2, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    bad = break_pictures(folder)
    this = job(folder, tmp_path / "out.jsonl")
    report = annotate(this, silent)
    assert (report.annotated, report.failed, report.total) == (2, len(bad), len(bad) + 2)
    errors = {Path(str(line["image"])).name: line for line in lines(this.outputs.errors)}
    assert errors.keys() == bad.keys()
    for name, reason in bad.items():
        assert reason in str(errors[name]["reason"]), name
        assert "picture of" not in str(errors[name]["reason"])
    assert [line["image"] for line in lines(this.outputs.errors)] == sorted(
        str(line["image"]) for line in errors.values()
    )
    for record in lines(this.outputs.records):
        assert record["caption"] == model.caption(tmp_path / str(record["image"])).text


def test_a_question_that_cannot_be_asked_costs_its_picture_alone(
    model: Kosmos2, tmp_path: Path
) -> None:
    paint(tmp_path / "a.png", 0)
    captions = ["a dog", "   ", "a tree", "word " * 100_000]
    rows = [{"image": "a.png", "caption": caption} for caption in captions]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    this = job(source, tmp_path / "out.jsonl", plan(tmp_path, Task.GROUND))
    report = annotate(this, silent)
    assert (report.annotated, report.failed) == (2, 2)
    assert [line["caption"] for line in lines(this.outputs.records)] == ["a dog", "a tree"]
    empty, long = lines(this.outputs.errors)
    assert "no caption" in str(empty["reason"]) and "tokens need" in str(long["reason"])


def test_boxes_in_pixels_are_described_as_their_shares_of_the_picture(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    rows = [
        {"image": "a.png", "boxes": [[0.25, 0.25, 0.75, 0.75]]},
        {"image": "a.png", "boxes_pixels": [[16, 12, 48, 36]]},
        {"image": "a.png", "boxes": [[16, 12, 48, 36]]},
    ]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    this = job(source, tmp_path / "out.jsonl", plan(tmp_path, Task.DESCRIBE))
    shares, pixels = records_of(this)
    assert shares.entries == pixels.entries and shares.caption == pixels.caption
    (wrong,) = lines(this.outputs.errors)
    assert "from_pixels" in str(wrong["reason"]) or "pixels" in str(wrong["reason"])


def test_other_columns_go_on_and_what_an_answer_replaces_is_kept_under_another_name(
    tmp_path: Path,
) -> None:
    paint(tmp_path / "a.png", 0)
    entries = [[0, 5, 0.1, 0.2, 0.5, 0.75, 0.9]]
    rows = [
        {
            "id": 7, "image": "a.png", "url": "http://x.example/a.png", "caption": "a dog",
            "noun_chunks": entries, "ref_exps": [], "licence": "CC0", "clip": 0.25,
            "width": 1, "height": 1, "sha256": "00", "provenance": {"model": "other"},
        }
    ]  # fmt: skip
    source = write_lines(tmp_path / "rows.jsonl", rows)
    (record,) = records_of(job(source, tmp_path / "out.jsonl"))
    assert (record.id, record.url, record.width, record.height) == (
        7, "http://x.example/a.png", 64, 48,
    )  # fmt: skip
    assert record.extra["licence"] == "CC0" and record.extra["clip"] == 0.25
    assert record.extra["source_caption"] == "a dog"
    assert record.extra["source_noun_chunks"] == entries
    assert record.extra["source_provenance"] == {"model": "other"}
    assert record.sha256 is not None and len(record.sha256) == 64
    grounded = job(source, tmp_path / "g.jsonl", plan(tmp_path, Task.GROUND))
    (record,) = records_of(replace(grounded, outputs=replace(grounded.outputs)))
    assert record.caption == "a dog" and "source_caption" not in record.extra


def test_a_source_of_which_nothing_can_be_asked_is_refused_and_leaves_no_output(
    pictures: Path, tmp_path: Path
) -> None:
    for task, why in (("find", "phrases"), ("describe", "boxes")):
        this = job(pictures, tmp_path / "out.jsonl", plan(tmp_path, Task(task)), anew=True)
        with pytest.raises(RequestError, match=why):
            annotate(this, silent)
        assert not this.outputs.records.exists() and not this.folder.exists()


def test_pictures_on_the_web_need_leave_and_go_through_the_guarded_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = paint(tmp_path / "a.png", 0).read_bytes()
    listed = tmp_path / "list.txt"
    listed.write_text("https://x.example/a.png\n", encoding="utf-8")
    this = job(listed, tmp_path / "out.jsonl")
    with pytest.raises(RequestError, match="--fetch"):
        annotate(this, silent)
    asked = []
    monkeypatch.setattr("kosmos2.sources.places.fetch", lambda url: asked.append(url) or data)
    (record,) = records_of(replace(this, download=True))
    assert asked == [record.url] == ["https://x.example/a.png"]
    assert record.image is None


def test_one_call_of_the_engine_answers_a_unit(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    answer = Kosmos2.answer

    def counted(self: Kosmos2, asked: list[object]) -> list[Reply]:
        sizes.append(len(asked))
        return answer(self, asked)  # type: ignore[arg-type]

    monkeypatch.setattr(workers.Kosmos2, "answer", counted)
    of = replace(plan(tmp_path, Task.FIND), phrases=PHRASES)
    records_of(job(pictures, tmp_path / "out.jsonl", of))
    assert sizes == [16 * len(PHRASES), (COUNT - 16) * len(PHRASES)]
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["id"] == "0000"
