"""What the README says of the server is run as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_cases import listening

from kosmos2.api import Kosmos2
from kosmos2.server import Limits, create_app

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"


def section() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^## Behind an API\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(), re.DOTALL)


CURLS = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl")]


@pytest.fixture(scope="module")
def address(served: Kosmos2) -> Iterator[str]:
    with listening(create_app(served, Limits())) as address:
        yield address


def test_the_readme_shows_curl_and_the_openai_client() -> None:
    assert len(CURLS) >= 2
    assert any("openai" in block for block in blocks("python"))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("line", CURLS)
def test_a_curl_line_of_the_readme_is_answered(address: str, line: str) -> None:
    assert ADDRESS in line
    words = shlex.split(line.replace(ADDRESS, address), comments=True)
    done = subprocess.run(
        [words[0], "--silent", "--show-error", "--fail-with-body", *words[1:]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert any(phrase["boxes"] for result in told["results"] for phrase in result["phrases"])


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_of_the_readme_runs_and_prints_something(address: str, block: str) -> None:
    pytest.importorskip("openai")
    assert ADDRESS in block
    done = subprocess.run(
        [sys.executable, "-c", block.replace(ADDRESS, address)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == block.count("print(") and all(lines)
