"""`kosmos2 demo` as a command: what it serves, what it refuses, how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kosmos2.cli import app
from kosmos2.cli.demo import example_pictures


def test_the_examples_are_the_pictures_of_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").mkdir()
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / "examples" / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert [path.name for path in example_pictures()] == ["a.JPG", "b.png"]


def test_an_example_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", str(tmp_path / "none.jpg")])
    assert result.exit_code == 2
    assert "there is no such file" in result.stderr and len(result.stderr.splitlines()) == 1


def test_without_the_extra_its_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 2
    assert 'pip install "kosmos2[demo]"' in result.stderr


def test_a_port_in_use_is_one_line() -> None:
    pytest.importorskip("gradio", reason="needs the extra demo")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["demo", "--port", port, "--device", "cpu"])
    assert result.exit_code == 2
    assert "try another --port" in result.stderr and "Traceback" not in result.output


def test_the_command_serves_on_loopback_until_it_is_interrupted() -> None:
    pytest.importorskip("gradio", reason="needs the extra demo")
    command = [sys.executable, "-m", "kosmos2", "demo", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        address = process.stdout.readline().strip()
        try:
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(address, timeout=60) as page:
                assert b"Kosmos-2" in page.read()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stdout.read() == ""
        assert "Traceback" not in process.stderr.read()
