"""The house: size caps, a true map, a README whose commands exist, no path of one machine."""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from kosmos2.cli import app

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "kosmos2").rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 400, 50


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_or_function_outgrows_its_cap(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    long = [
        f"{node.name}: {length} lines"
        for node in functions(path)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not long


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_two_test_modules_share_a_name() -> None:
    # Test folders are no packages: pytest refuses a second module of a name.
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert not {name for name in names if names.count(name) > 1}


def test_the_map_in_architecture_names_every_module_and_no_other() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = re.search(r"```\nkosmos2/\n(.*?)```", text, re.DOTALL)
    assert tree is not None
    named, folders = set(), ["kosmos2"]
    for line in tree[1].splitlines():
        entry = line.split("  #")[0].rstrip()
        depth = (len(entry) - len(entry.lstrip())) // 2
        for name in entry.split():
            if name.endswith("/"):
                folders = [*folders[:depth], name.rstrip("/")]
            elif name.endswith(".py"):
                named.add("/".join([*folders[:depth], name]))
    present = {str(path.relative_to(ROOT)) for path in MODULES if path.name not in ("__main__.py",)}
    inits = {name for name in present if name.endswith("__init__.py")}
    assert named == present - inits


def commands_of(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:bash|console)\n(.*?)```", text, re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("kosmos2 ")]


@pytest.mark.parametrize("line", [*commands_of("README.md"), *commands_of("docs/evaluation.md")])
def test_a_command_of_the_documents_parses(line: str) -> None:
    command = get_command(app)
    words = shlex.split(line, comments=True)[1:]
    context = command.make_context(
        "kosmos2", ["--help"] if not words else [], resilient_parsing=True
    )
    while hasattr(command, "commands"):
        word = words.pop(0)
        if command.name == "train" and word not in command.commands:  # `train RECIPE`
            words, word = [word, *words], "run"
        command = command.commands[word]
    parser = command.make_parser(context)
    parser.parse_args(args=list(words))


def test_the_readme_shows_commands() -> None:
    assert len(commands_of("README.md")) >= 5


def test_no_tracked_file_names_a_path_of_one_machine_or_a_registry_host() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, text=True
    )
    if listed.returncode:
        pytest.skip("no git checkout")
    home = re.compile(
        rb"/(?:work|root|home/[a-z]+)/(?:main|shared|venv|\.)|(?:pypi|npmjs)\.(?:org|com)"
    )
    wrong = [
        name
        for name in listed.stdout.split("\0")
        if name
        and name != "tests/test_house_rules.py"
        and (ROOT / name).suffix in {".py", ".md", ".toml", ".txt", ".json", ""}
        and (ROOT / name).is_file()
        and home.search((ROOT / name).read_bytes())
    ]
    assert not wrong
