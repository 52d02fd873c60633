"""The Dockerfile, without Docker: what it copies is there, what it runs is a command of ours."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from typer.main import get_command

from kosmos2.api import Kosmos2
from kosmos2.cli import app
from kosmos2.server import Limits, create_app

ROOT = Path(__file__).parents[2]
COMMENT = re.compile(r"^\s*#.*\n", re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    """Return what the Dockerfile says, line by line, with continued lines joined."""
    text = COMMENT.sub("", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def last(name: str) -> str:
    """Return what the last instruction of that name says, in the stage that is kept."""
    told = instructions()
    kept = [said for key, said in told[max(i for i, (key, _) in enumerate(told) if key == "FROM") :]
            if key == name]  # fmt: skip
    assert kept, f"the last stage has no {name}"
    return kept[-1]


def sources() -> list[str]:
    """Return what is copied out of the checkout."""
    copied = [shlex.split(said) for name, said in instructions() if name == "COPY"]
    return [word for words in copied if not words[0].startswith("--from") for word in words[:-1]]


def is_sent(path: str) -> bool:
    """Return whether .dockerignore lets a path of the checkout through; its last match decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = [path, *map(str, Path(path).parents), Path(path).name]
        if any(fnmatch.fnmatch(part, pattern) for part in parts):
            sent = rule.startswith("!")
    return sent


@pytest.mark.parametrize("source", sources())
def test_what_the_image_copies_is_there_and_is_sent(source: str) -> None:
    assert (ROOT / source).exists()
    assert is_sent(source)


def test_nothing_else_is_sent_to_the_build() -> None:
    sent = {path.name for path in ROOT.iterdir() if is_sent(path.name)}
    assert sent == set(sources())
    assert not is_sent("kosmos2/api/__pycache__/model.cpython-311.pyc")


def test_every_file_that_the_package_is_built_from_is_copied() -> None:
    told = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = [*re.findall(r'readme = "(.*)"', told), "LICENSE", "NOTICE", "licenses", "kosmos2"]
    assert {*named, "pyproject.toml"} <= set(sources())


def test_the_container_starts_the_server_that_its_health_check_and_port_mean(
    served: Kosmos2,
) -> None:
    words = json.loads(last("ENTRYPOINT")) + json.loads(last("CMD"))
    assert words[:2] == ["kosmos2", "serve"]
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    told = serve.make_context("serve", words[2:]).params
    assert told["host"] == "0.0.0.0"
    assert str(told["port"]) == last("EXPOSE")
    checked = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", last("HEALTHCHECK"))
    assert checked is not None and checked[1] == last("EXPOSE")
    paths = {route.path for route in create_app(served, Limits()).routes
             if isinstance(route, APIRoute)}  # fmt: skip
    assert checked[2] in paths


def test_the_container_has_no_rights_and_asks_no_hub() -> None:
    assert last("USER") not in ("root", "0")
    assert "HF_HUB_OFFLINE=1" in last("ENV")


def test_no_image_is_of_a_named_host() -> None:
    for name, said in instructions():
        assert name != "FROM" or "." not in said.split("/")[0].split(":")[0]
