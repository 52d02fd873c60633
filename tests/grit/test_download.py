"""A table of URLs into tars: every failure has its name, nothing is asked for twice."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from polite_server import Web, answering, picture, serving
from typer.testing import CliRunner

from kosmos2.cli import app
from kosmos2.errors import ConfigError, RequestError
from kosmos2.fetch import Limits
from kosmos2.grit.download import Census, Download, download
from kosmos2.grit.polite import Politeness
from kosmos2.records import store
from kosmos2.records.pictures import Pictures
from kosmos2.shards import Local, Pool
from kosmos2.sources.inputs import Looking, items
from kosmos2.sources.places import read

pytest.importorskip("imagehash")
ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(allow_private=True, seconds=20, max_bytes=50_000)
QUICK = Politeness(limits=LIMITS, per_host=8, backoff=0.0)
SPANS = [[19, 32, 0.02, 0.31, 0.96, 0.96, 0.79], [0, 13, 0.02, 0.03, 0.96, 0.97, 0.68]]


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as state:
        yield state


def table_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def have(table: Path, out: Path, **changes: Any) -> Census:
    changes = {"driver": Local(), "politeness": QUICK, **changes}
    return download(Download(table=table, out=out, **changes), lambda done: None)


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as opened:
        return {each.name: opened.extractfile(each).read() for each in opened}  # type: ignore[union-attr]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_failure_has_its_name_in_the_census(web: Web, tmp_path: Path) -> None:
    whole = picture(3, (200, 150))
    web.robots = answering(200, b"User-agent: *\nDisallow: /private/")
    web.answers = {
        "/404": answering(404),
        "/403": answering(403),
        "/500": answering(500),
        "/500-then-good": web.in_turn(answering(500), answering(200, picture())),
        "/drip": web.dripping,
        "/html": answering(200, b"<html>gone</html>", Content_Type="image/jpeg"),
        "/empty": answering(200),
        "/truncated": answering(200, whole[: len(whole) // 2]),
        "/redirect": answering(301, Location="/good"),
        "/loop": answering(302, Location="/loop"),
        "/noai": answering(200, picture(), X_Robots_Tag="noai"),
        "/other-bot": answering(200, picture(), X_Robots_Tag="otherbot: noindex, noimageai"),
        "/large": answering(200, bytes(60_000)),
        "/cut": lambda handler: (
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 9000\r\n\r\nshort") and None
        ),
    }
    paths = [*web.answers, "/good", "/private/a.jpg"]
    rows: list[dict[str, Any]] = [{"url": web.url(path), "caption": path} for path in paths]
    rows += [
        {"url": "http://name.invalid/a.jpg", "caption": "dns"},
        {"url": "http://127.0.0.1:9/a.jpg", "caption": "closed"},
        {"url": "http://169.254.169.254/latest", "caption": "private"},
        {"url": "file:///etc/passwd", "caption": "no web address"},
        {"url": "", "caption": "no url"},
    ]
    table = table_of(tmp_path / "table.jsonl", rows)
    with table.open("a") as file:
        file.write("[1, 2]\n")
    hasty = Limits(allow_private=True, seconds=2, max_bytes=50_000)
    polite = Politeness(limits=hasty, per_host=8, backoff=0.0)

    census = have(table, tmp_path / "out", politeness=polite)

    failed = {row["url"]: row["status"] for row in lines(tmp_path / "out/00000_failed.jsonl")}
    by_path = {path: failed.get(web.url(path), "success") for path in paths}
    assert by_path == {
        "/404": "http 404",
        "/403": "http 403",
        "/500": "http 500",
        "/500-then-good": "success",
        "/drip": "timeout",
        "/html": "no picture",
        "/empty": "no picture",
        "/truncated": "damaged picture",
        "/redirect": "success",
        "/loop": "redirects",
        "/noai": "refused by X-Robots-Tag",
        "/other-bot": "success",
        "/large": "too large",
        "/cut": "cut short",
        "/good": "success",
        "/private/a.jpg": "refused by robots.txt",
    }
    assert failed["http://name.invalid/a.jpg"] in ("dns", "timeout")
    assert failed["http://127.0.0.1:9/a.jpg"] == "connection"
    assert failed["http://169.254.169.254/latest"] == "private address"
    assert failed["file:///etc/passwd"] == failed.get("", "no url") == "no url"
    times = {path: web.asked.count(path) for path in paths}
    again = {"/500": 3, "/500-then-good": 2, "/drip": 3, "/cut": 3, "/loop": 6, "/good": 2}
    assert times == {**dict.fromkeys(paths, 1), **again, "/private/a.jpg": 0}
    written = json.loads((tmp_path / "out/census.json").read_text())
    assert written["statuses"] == census.statuses
    assert (census.rows, census.successes) == (len(rows) + 1, 4)
    assert census.statuses["row cannot be read"] == 1
    stats = json.loads((tmp_path / "out/00000_stats.json").read_text())
    assert stats["status_dict"] == census.statuses
    assert (stats["count"], stats["successes"], stats["failed_to_resize"]) == (len(rows) + 1, 4, 3)


def test_private_addresses_are_refused_unless_allowed(web: Web, tmp_path: Path) -> None:
    table = table_of(tmp_path / "table.jsonl", [{"url": web.url("/a"), "caption": "a"}])
    census = have(table, tmp_path / "out", politeness=Politeness())
    assert (census.statuses, web.asked, web.robots_asked) == ({"private address": 1}, [], 0)


def grit_rows(web: Web) -> list[dict[str, Any]]:
    return [
        {
            "key": f"{number:09d}",
            "clip_similarity_vitb32": 0.35,
            "id": 1795296605919 + number,
            "url": web.url(f"/{number}.jpg"),
            "caption": "a wire hanger with a paper cover that reads we heart our customers",
            "width": 1024,
            "height": 693,
            "noun_chunks": SPANS,
            "ref_exps": SPANS,
        }
        for number in range(1, 4)
    ]


def test_a_sample_has_the_layout_of_img2dataset_and_all_columns_of_the_source(
    web: Web, tmp_path: Path
) -> None:
    png = picture(1, (60, 20), "PNG")
    web.answers["/2.jpg"] = answering(200, png)
    table = table_of(tmp_path / "grit.jsonl", grit_rows(web))

    have(table, tmp_path / "out")

    found = members(tmp_path / "out/00000.tar")
    assert list(found)[:3] == ["000000001.jpg", "000000001.json", "000000001.txt"]
    assert found["000000001.jpg"] == picture()
    assert found["000000002.png"] == png
    assert found["000000002.txt"].decode() == grit_rows(web)[1]["caption"]
    sample = json.loads(found["000000002.json"])
    phash = sample.pop("phash")
    assert len(phash) == 16 and int(phash, 16) >= 0
    assert sample == {
        **grit_rows(web)[1],
        "status": "success",
        "error_message": None,
        "width": 60,
        "height": 20,
        "original_width": 60,
        "original_height": 20,
        "source_width": 1024,
        "source_height": 693,
        "sha256": hashlib.sha256(png).hexdigest(),
    }


def test_grit_as_it_was_released_comes_back_as_records_with_whole_spans(
    web: Web, tmp_path: Path
) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = grit_rows(web)
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "coyo_0_snappy.parquet")

    have(tmp_path / "coyo_0_snappy.parquet", tmp_path / "out")

    samples = members(tmp_path / "out/00000.tar")
    ends = [entry[:2] for entry in json.loads(samples["000000001.json"])["noun_chunks"]]
    assert str(ends) == "[[19, 32], [0, 13]]"
    records = list(store.read(tmp_path / "out"))
    assert [record.id for record in records] == [row["id"] for row in rows]
    assert records[0].entries[0].box.corners == (0.02, 0.31, 0.96, 0.96)
    assert Pictures(tmp_path / "out").read(records[0]) == picture()


def test_what_grit_build_reads_are_the_pictures_with_their_captions(
    web: Web, tmp_path: Path
) -> None:
    table = table_of(tmp_path / "grit.jsonl", grit_rows(web))
    have(table, tmp_path / "out", unit=2)
    found = list(items(str(tmp_path / "out"), Looking(captions=True)))
    assert [item.id for item in found] == [row["id"] for row in grit_rows(web)]
    assert {item.caption for item in found} == {grit_rows(web)[0]["caption"]}
    assert all(item.place is not None and read(item.place) == picture() for item in found)


def test_larger_pictures_are_shrunk_upright_with_their_aspect_and_small_ones_stay(
    web: Web, tmp_path: Path
) -> None:
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.open(io.BytesIO(picture(0, (400, 100)))).save(turned, "JPEG", exif=exif)
    web.answers["/1.jpg"] = answering(200, turned.getvalue())
    table = table_of(tmp_path / "grit.jsonl", grit_rows(web))

    have(table, tmp_path / "out", longest_side=80)

    found = members(tmp_path / "out/00000.tar")
    sample = json.loads(found["000000001.json"])
    assert Image.open(io.BytesIO(found["000000001.jpg"])).size == (20, 80)
    sizes = [sample[name] for name in ("width", "height", "original_width", "original_height")]
    assert sizes == [20, 80, 100, 400]
    assert sample["sha256"] == hashlib.sha256(found["000000001.jpg"]).hexdigest()
    assert sample["original_sha256"] == hashlib.sha256(turned.getvalue()).hexdigest()
    assert found["000000003.jpg"] == picture()


def test_keys_are_the_sources_own_else_positions_and_each_is_there_once(
    web: Web, tmp_path: Path
) -> None:
    names = [{"key": "a.b/c"}, {"id": 7}, {}, {"id": 7}, {"key": "", "id": "x"}]
    rows = [{"url": web.url(f"/{n}"), "caption": "", **name} for n, name in enumerate(names)]
    table = table_of(tmp_path / "table.jsonl", rows)
    have(table, tmp_path / "out")
    found = members(tmp_path / "out/00000.tar")
    stems = ["a_b_c", "7", "000000002", "7-000000003", "x"]
    assert list(found) == [f"{stem}.{end}" for stem in stems for end in ("jpg", "json")]
    assert json.loads(found["a_b_c.json"])["source_key"] == "a.b/c"


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl.gz", ".parquet"])
def test_tables_of_other_kinds_and_column_names_are_read(
    web: Web, tmp_path: Path, ending: str
) -> None:
    rows = [{"URL": web.url(f"/{n}"), "TEXT": f"né {n}"} for n in range(3)]
    table = tmp_path / f"table{ending}"
    if ending == ".parquet":
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(rows), table)
    elif ending == ".jsonl.gz":
        table.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    else:
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(
                file, ["URL", "TEXT"], delimiter="\t" if ending == ".tsv" else ","
            )
            writer.writeheader()
            writer.writerows(rows)
    assert have(table, tmp_path / "out").statuses == {"success": 3}
    assert members(tmp_path / "out/00000.tar")["000000002.txt"].decode() == "né 2"


def test_killed_and_started_again_asks_for_nothing_twice_but_what_was_under_way(
    web: Web, tmp_path: Path
) -> None:
    free, threads, total = threading.Event(), 4, 30
    under_way: set[str] = set()
    good = answering(200, picture())

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if len(web.asked) > 14:
            under_way.add(handler.path)
            free.wait(60)
        good(handler)

    web.answers = {f"/{number}": answer for number in range(total)}
    web.answers |= {f"/{number}": answering(404) for number in (2, 13)}
    rows = [{"url": web.url(f"/{n}"), "caption": f"{n}"} for n in range(total)]
    table = table_of(tmp_path / "table.jsonl", rows)
    out = tmp_path / "out"
    script = (
        "import sys; from kosmos2.cli import main; "
        f"sys.argv = ['kosmos2', 'grit', 'download', {str(table)!r}, {str(out)!r}, "
        f"'--allow-private', '--shard-size', '10', '--threads', '{threads}', '--per-host', "
        f"'{threads}', '--delay', '0', '--max-mb', '1']; main()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as process:
        while len(under_way) < threads and process.poll() is None:
            time.sleep(0.01)
        asked_first = list(web.asked)
        process.send_signal(signal.SIGKILL)
    free.set()
    assert not (out / "census.json").exists()
    assert (out / "00000.tar").exists()
    web.asked.clear()

    polite = Politeness(limits=Limits(allow_private=True, max_bytes=1 << 20), per_host=8)
    census = have(table, out, unit=10, politeness=polite, driver=Pool(2, 0))

    assert census.statuses == {"success": 28, "http 404": 2}
    assert len(web.asked) == len(set(web.asked))
    assert set(web.asked) & set(asked_first) <= under_way
    assert set(web.asked) | set(asked_first) == {f"/{number}" for number in range(total)}
    keys = [name for part in range(3) for name in members(out / f"0000{part}.tar")]
    assert len(keys) == len(set(keys)) == 28 * 3
    web.asked.clear()
    assert have(table, out, unit=10, politeness=polite).statuses == census.statuses
    assert not web.asked
    assert not list((out / ".download/parts/.notes").iterdir())


def test_a_note_that_a_power_cut_spoilt_is_asked_for_again(web: Web, tmp_path: Path) -> None:
    from kosmos2.grit.downloader import Columns, Downloader, Numbered, Plan
    from kosmos2.shards import Unit

    plan = Plan(politeness=QUICK, columns=Columns(), longest_side=None, threads=2, notes=tmp_path)
    unit = Unit("00000", tuple(Numbered(n, {"url": web.url(f"/{n}")}) for n in range(3)))
    notes = Downloader(plan).fetch(unit)
    (notes / "000000000").write_bytes(b"")
    whole = (notes / "000000001").read_bytes()
    (notes / "000000001").write_bytes(whole[:-100])
    web.asked.clear()
    Downloader(plan).fetch(unit)
    assert sorted(web.asked) == ["/0", "/1"]
    assert (notes / "000000001").read_bytes() == whole


def test_fresh_forgets_what_an_earlier_run_had(web: Web, tmp_path: Path) -> None:
    table = table_of(tmp_path / "table.jsonl", grit_rows(web))
    have(table, tmp_path / "out", unit=1)
    (tmp_path / "out/mine.txt").write_text("stays")
    have(table, tmp_path / "out", unit=2, anew=True)
    assert len(web.asked) == 6
    names = {path.name for path in (tmp_path / "out").glob("[!.]*")}
    kinds = (".tar", "_stats.json", "_failed.jsonl")
    assert names == {f"0000{n}{kind}" for n in (0, 1) for kind in kinds} | {
        "census.json",
        "mine.txt",
    }


def test_workers_share_what_a_host_is_asked(tmp_path: Path) -> None:
    table = table_of(tmp_path / "table.jsonl", [{"url": "http://a.invalid", "caption": ""}])
    with pytest.raises(ConfigError, match="3 workers cannot share 2 requests"):
        have(table, tmp_path / "out", driver=Pool(3, 0), politeness=Politeness(per_host=2))


def test_a_table_that_is_not_there_or_has_no_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no table"):
        have(tmp_path / "none.csv", tmp_path / "out")
    (tmp_path / "empty.csv").write_text("url,caption\n")
    with pytest.raises(RequestError, match="there is no row"):
        have(tmp_path / "empty.csv", tmp_path / "out")


def test_the_command_prints_the_census(web: Web, tmp_path: Path) -> None:
    web.answers["/2.jpg"] = answering(404)
    table = table_of(tmp_path / "grit.jsonl", grit_rows(web))
    words = ["grit", "download", str(table), str(tmp_path / "out"), "--allow-private"]
    result = CliRunner().invoke(app, [*words, "--delay", "0"])
    assert result.exit_code == 0, result.output
    assert "http 404" in result.output
    assert "2 of 3 pictures" in result.output.replace("\n", "")
