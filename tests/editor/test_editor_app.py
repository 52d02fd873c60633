"""The editor's API: its own page alone may use it, and it tells what it refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from editor_cases import LEFT, dog, write_store
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from kosmos2.editor.app import create_app
from kosmos2.editor.served import THUMBNAIL, Served
from kosmos2.editor.session import Session

HERE = "http://127.0.0.1:8010"
MOVE = {"kind": "move", "view": "ref_exps", "entry": 0, "corners": [0.3, 0.3, 0.5, 0.5]}
DELETE = {"kind": "delete", "view": "ref_exps", "entry": 0}
MISSING = ("../secret.png", "note.svg", "missing.png", "secret.txt")
NAMED = (*MISSING, "turned.tif", "old.pcx", "turned.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = [replace(dog(name), image=name) for name in NAMED]
    write_store(tmp_path / "in" / "records.jsonl", dog(1), dog(2), *pictures)
    (tmp_path / "in" / "secret.txt").write_text("nothing to see")
    (tmp_path / "in" / "note.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.tif", "turned.jpg"):
        Image.new("RGB", (40, 20)).save(tmp_path / "in" / name, exif=exif)
    Image.new("RGB", (40, 20)).save(tmp_path / "in" / "old.pcx")
    return tmp_path / "in"


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with Session.open(folder / "records.jsonl") as session:
        app = create_app(session, Served(folder), "127.0.0.1")
        yield TestClient(app, base_url=HERE, raise_server_exceptions=False)


def edit(client: TestClient, body: object, **headers: str) -> Any:
    sent = {"Content-Type": "application/json", "Origin": HERE, **headers}
    return client.post("/api/records/0/edits", content=json.dumps(body), headers=sent)


def test_the_page_and_its_parts_are_served_and_nothing_else(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for name in ("main.js", "style.css", "icon.svg"):
        assert f"/assets/{name}" in page.text
        assert client.get(f"/assets/{name}").status_code == 200
    for path in ("/assets/app.py", "/assets/..%2Fapp.py", "/assets/", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 404


def test_an_edit_is_made_and_answered_with_the_record(client: TestClient) -> None:
    answer = edit(client, {"version": 0, "edit": MOVE})
    assert answer.status_code == 200
    assert answer.json()["record"]["ref_exps"][0] == [0, 16, 0.3, 0.3, 0.5, 0.5, None]
    assert answer.json()["statuses"]["edited"] == 1
    assert client.get("/api/records/0").json() == answer.json()["record"]


def test_an_edit_of_an_older_version_is_a_conflict_that_shows_the_record(
    client: TestClient,
) -> None:
    edit(client, {"version": 0, "edit": MOVE})
    answer = edit(
        client, {"version": 0, "edit": {"kind": "delete", "view": "ref_exps", "entry": 0}}
    )
    assert answer.status_code == 409
    assert answer.json()["record"]["version"] == 1
    assert len(answer.json()["record"]["ref_exps"]) == 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8010"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Length": "9999999"}, 413),
    ],
)
def test_a_page_elsewhere_cannot_edit(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    assert edit(client, {"version": 0, "edit": MOVE}, **headers).status_code == status
    assert client.get("/api/records/0").json()["version"] == 0


@pytest.mark.parametrize("path", ["/", "/api/store", "/api/records/0", "/api/records/0/picture"])
def test_a_page_elsewhere_cannot_read(client: TestClient, path: str) -> None:
    assert client.get(path, headers={"Host": "evil.example"}).status_code == 403
    assert client.get(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("host", ["localhost:8010", "127.0.0.1", "[::1]:8010", "10.1.2.3:8010"])
def test_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/store", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"version": 0, "edit": {**MOVE, "corners": [0, 0, 300, 100]}}, "Are these pixels"),
        ({"version": 0, "edit": {**MOVE, "corners": [0, 0, float("nan"), 1]}}, "finite"),
        ({"version": 0, "edit": {**MOVE, "entry": 9}}, "no box 9"),
        ({"version": 0, "edit": {**MOVE, "view": "boxes"}}, "view"),
        ({"version": 0, "edit": {"kind": "explode"}}, "kind"),
        ({"version": 0, "edit": {"kind": "undo"}}, "nothing to undo"),
        ({"edit": MOVE}, "version"),
        ([], "body"),
    ],
)
def test_a_bad_edit_is_told_in_one_line_without_a_trace(
    client: TestClient, body: object, told: str
) -> None:
    answer = edit(client, body)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]
    assert "Traceback" not in answer.text
    assert client.get("/api/records/0").json()["version"] == 0


def test_what_is_not_there_is_not_found(client: TestClient) -> None:
    for path in ("/api/records/99", "/api/records/99/picture", "/api/lists/77", "/api/x"):
        assert client.get(path).status_code == 404


def test_a_list_comes_in_pages(client: TestClient) -> None:
    made = client.get("/api/lists?text=dog&max_score=0.95&sort=score").json()
    assert made["total"] == 9
    page = client.get(f"/api/lists/{made['list']}?offset=1&limit=2").json()
    assert [row["number"] for row in page["rows"]] == [1, 2]
    assert client.get("/api/lists?max_score=7").status_code == 422
    assert client.get("/api/lists?colour=red").status_code == 422


@pytest.mark.parametrize("number", [2, 3, 4, 5, 7])
def test_only_pictures_are_served(client: TestClient, number: int) -> None:
    # What a record names is a missing file, a text, an SVG, which may hold scripts,
    # or of a format that nobody asked for.
    answer = client.get(f"/api/records/{number}/picture")
    assert answer.status_code == 404
    assert "nothing to see" not in answer.text
    assert client.get(f"/api/records/{number}/thumbnail").status_code == 404


def test_pictures_are_served_as_they_are_or_as_browsers_show_them(
    client: TestClient, folder: Path
) -> None:
    whole = client.get("/api/records/0/picture")
    assert whole.content == (folder / "dog.png").read_bytes()
    assert whole.headers["content-type"] == "image/png"
    turned = client.get("/api/records/6/picture")
    assert turned.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(turned.content)).size == (20, 40)
    upright = client.get("/api/records/8/thumbnail")
    assert Image.open(io.BytesIO(upright.content)).size == (20, 40)
    small = client.get("/api/records/0/thumbnail")
    assert Image.open(io.BytesIO(small.content)).size == (THUMBNAIL, THUMBNAIL // 2)


def test_a_fault_of_ours_shows_nothing_of_its_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(Session, "edit", broken)
    answer = edit(client, {"version": 0, "edit": MOVE})
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_a_full_disk_leaves_the_record_as_it_was(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kosmos2.editor.journal.os.write", full)
        answer = edit(client, {"version": 0, "edit": MOVE})
    assert answer.status_code == 422
    assert "not saved" in answer.json()["detail"]
    assert client.get("/api/records/0").json()["ref_exps"][0][2:6] == list(LEFT)
    assert edit(client, {"version": 0, "edit": MOVE}).status_code == 200
