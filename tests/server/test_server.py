"""The typed endpoints: right answers, and a clear word about everything that is wrong."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from server_cases import EXAMPLES, asked_of, base64_of, same

from kosmos2.api import Kosmos2
from kosmos2.server import Limits, create_app

PICTURE = EXAMPLES[0]


@pytest.mark.parametrize("kind", range(5))
def test_an_answer_is_the_offline_answer(client: TestClient, served: Kosmos2, kind: int) -> None:
    name, body, replies = asked_of(served, PICTURE, kind)
    sent = client.post(f"/v1/{name}", json={"image": base64_of(PICTURE), **body})
    assert sent.status_code == 200, sent.text
    told = sent.json()
    assert same(told["results"], replies)
    with Image.open(PICTURE) as image:
        assert (told["width"], told["height"]) == image.size
    for result in told["results"]:
        for phrase in result["phrases"]:
            assert phrase["text"] == result["text"][phrase["start"] : phrase["end"]]
            for box in phrase["boxes"]:
                sides = [told["width"], told["height"]] * 2
                wanted = [x * side for x, side in zip(box["normalised"], sides, strict=True)]
                assert box["pixels"] == pytest.approx(wanted)


@pytest.mark.parametrize("kind", range(5))
def test_a_form_with_a_file_is_answered_as_json(
    client: TestClient, served: Kosmos2, kind: int
) -> None:
    name, body, replies = asked_of(served, PICTURE, kind)
    fields = {key: json.dumps(value) if key == "boxes" else value for key, value in body.items()}
    file = {"image": ("photo.jpg", PICTURE.read_bytes(), "image/jpeg")}
    sent = client.post(f"/v1/{name}", files=file, data=fields)
    assert sent.status_code == 200, sent.text
    assert same(sent.json()["results"], replies)


def test_a_box_in_pixels_is_the_box_in_fractions(client: TestClient) -> None:
    with Image.open(PICTURE) as image:
        width, height = image.size
    answers = [
        client.post(
            "/v1/describe", json={"image": base64_of(PICTURE), "boxes": [box], "unit": unit}
        ).json()["results"]
        for box, unit in (
            ([0.25, 0.5, 0.75, 1.0], "normalised"),
            ([width / 4, height / 2, 3 * width / 4, height], "pixels"),
        )
    ]
    assert answers[0] == answers[1]


def test_the_drawn_picture_has_the_size_of_the_picture_and_is_another(client: TestClient) -> None:
    body = {"image": f"data:image/jpeg;base64,{base64_of(PICTURE)}", "drawn": True}
    told = client.post("/v1/caption", json=body).json()
    drawn = Image.open(io.BytesIO(base64.b64decode(told["drawn"])))
    plain = Image.open(PICTURE).convert("RGB")
    assert drawn.size == plain.size
    assert drawn.tobytes() != plain.tobytes()


def test_decoding_is_the_requests_own(client: TestClient) -> None:
    def texts(**decoding: object) -> str:
        body = {"image": base64_of(PICTURE), "decoding": decoding}
        return str(client.post("/v1/caption", json=body).json()["results"][0]["markup"])

    assert texts(max_new_tokens=3) != texts()
    drawn = [texts(temperature=3.0, seed=seed, max_new_tokens=8) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    assert texts() == texts()


def test_a_server_of_few_tokens_answers_who_asks_for_no_number(served: Kosmos2) -> None:
    with TestClient(create_app(served, Limits(max_new_tokens=3))) as client:
        told = client.post("/v1/caption", json={"image": base64_of(PICTURE)})
        more = {"image": base64_of(PICTURE), "decoding": {"max_new_tokens": 4}}
        assert client.post("/v1/caption", json=more).status_code == 422
    assert told.status_code == 200
    assert told.json()["results"][0]["stop"] == "length"


GOOD = {"image": base64_of(PICTURE)}
ABOUT = {"words": "it", "box": [0, 0, 1, 1], "unit": "normalised"}
WRONG: list[tuple[str, dict[str, Any], int, str]] = [
    ("caption", {}, 422, "image"),
    ("caption", {"image": "not base64 !"}, 422, "base64"),
    ("caption", {"image": base64.b64encode(b"no picture").decode()}, 422, "no picture"),
    ("caption", {"image": "data:image/png,abc"}, 422, "base64"),
    ("caption", {"image": "https://example.org/a.jpg"}, 403, "--allow-urls"),
    ("caption", {**GOOD, "details": True}, 422, "details"),
    ("caption", {**GOOD, "decoding": {"max_new_tokens": 100_000}}, 422, "max_new_tokens"),
    ("caption", {**GOOD, "decoding": {"temperature": -1}}, 422, "temperature"),
    ("find", {**GOOD, "phrases": []}, 422, "phrases"),
    ("find", {**GOOD, "phrases": ["  "]}, 422, "phrase"),
    ("find", {**GOOD, "phrases": ["a"] * 33}, 422, "33 phrases"),
    ("find", {**GOOD, "phrases": ["a" * 4001]}, 422, "4,001"),
    ("ground", {**GOOD, "caption": "a dog", "phrases": ["a cat"]}, 422, "a cat"),
    ("ground", {**GOOD, "caption": "a dog", "allow_absent": True}, 422, "phrases"),
    ("describe", {**GOOD, "boxes": [[0, 0, 1, 1]]}, 422, "unit"),
    ("describe", {**GOOD, "boxes": [[0, 0, 1]], "unit": "pixels"}, 422, "boxes"),
    ("describe", {**GOOD, "boxes": [[0, 0, 9, 9]], "unit": "normalised"}, 422, "0 <= x0"),
    ("describe", {**GOOD, "boxes": [[0, 0, 10**6, 9]], "unit": "pixels"}, 422, "pixel"),
    ("ask", {**GOOD, "question": "What?", "about": ABOUT}, 422, "does not occur"),
    ("ask", {**GOOD, "question": ""}, 422, "question"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "status", "word"), WRONG)
def test_what_is_wrong_is_said_as_problem_json(
    client: TestClient, name: str, body: dict[str, Any], status: int, word: str
) -> None:
    sent = client.post(f"/v1/{name}", json=body)
    assert sent.status_code == status, sent.text
    assert sent.headers["content-type"] == "application/problem+json"
    assert sent.json()["status"] == status
    assert word in sent.json()["detail"]
    assert "Traceback" not in sent.text


def test_bodies_that_are_no_request_are_refused(client: TestClient) -> None:
    json_type = {"content-type": "application/json"}
    assert client.post("/v1/ask", content=b"{", headers=json_type).status_code == 400
    assert client.post("/v1/ask", content=b"[" * 9999, headers=json_type).status_code == 400
    assert client.post("/v1/ask", content=b"\xff", headers=json_type).status_code == 400
    assert client.post("/v1/ask", content=b"[]", headers=json_type).status_code == 422
    assert client.post("/v1/ask", content=b"x", headers={"content-type": "a/b"}).status_code == 415
    assert client.post("/v1/caption", data={"image": "text"}).status_code == 415
    no_file = client.post("/v1/caption", files={"other": b"x"})
    assert no_file.status_code == 422 and "other" in no_file.json()["detail"]
    assert client.get("/v1/caption").status_code == 405
    assert client.get("/nothing").json()["status"] == 404


def test_a_body_that_is_too_large_is_refused_by_what_it_says_and_by_what_comes(
    served: Kosmos2,
) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    with TestClient(create_app(served, Limits(max_body=10_000))) as client:
        said = client.post("/v1/caption", json={"image": "A" * 20_000})
        came = client.post(
            "/v1/caption", content=pieces(), headers={"content-type": "application/json"}
        )
        small = client.post("/v1/caption", json={"image": "A" * 2_000})
    assert said.status_code == came.status_code == 413
    assert "10,000" in said.json()["detail"]
    assert small.status_code == 422


def test_a_decompression_bomb_is_refused_before_it_is_decoded(client: TestClient) -> None:
    def part(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", header)
        + part(b"IDAT", zlib.compress(b""))
        + part(b"IEND", b"")
    )
    sent = client.post("/v1/caption", json={"image": base64.b64encode(bomb).decode()})
    assert sent.status_code == 422
    assert "too large" in sent.json()["detail"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a.jpg", "http://169.254.169.254/x", "http://[::1]:80/", "http://10.0.0.1"]
)  # fmt: skip
def test_private_addresses_are_never_fetched(served: Kosmos2, url: str) -> None:
    with TestClient(create_app(served, Limits(allow_urls=True))) as client:
        sent = client.post("/v1/caption", json={"image": url})
    assert sent.status_code == 403, sent.text


def test_a_key_is_needed_where_there_are_any_and_care_needs_none(served: Kosmos2) -> None:
    with TestClient(create_app(served, Limits(api_keys=("right", "other")))) as client:
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Basic right"}, 401),
            ({"X-API-Key": "righ"}, 401),
            ({"X-API-Key": "schlüssel".encode()}, 401),
            ({"Authorization": "Bearer right"}, 200),
            ({"X-API-Key": "other"}, 200),
        ):
            assert client.get("/v1/models", headers=headers).status_code == status, headers
        assert client.get("/metrics").status_code == 401
        assert client.get("/health").status_code == client.get("/ready").status_code == 200


def test_our_own_fault_is_500_without_a_trace(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object) -> None:
        raise ZeroDivisionError("the inside of the server")

    monkeypatch.setattr("kosmos2.server.answering.picture_of", stumble)
    sent = client.post("/v1/caption", json=GOOD)
    assert sent.status_code == 500
    assert "inside" not in sent.text and "Zero" not in sent.text


def test_every_request_is_counted_and_no_path_of_a_stranger_becomes_a_name(
    client: TestClient,
) -> None:
    client.post("/v1/caption", json={})
    client.get("/a-path-of-my-own")
    text = client.get("/metrics").text
    assert 'kosmos2_requests_total{path="/v1/caption",status="422"}' in text
    assert "a-path-of-my-own" not in text
    assert "kosmos2_live_requests 0.0" in text
