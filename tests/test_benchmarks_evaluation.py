"""The evaluation's benchmark and pages: what they count and say; nothing depends on speed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from scene_shapes import recipe, shapes

from benchmarks import evaluation_guide, evaluation_page, evaluation_scenes
from benchmarks.evaluation import SPLIT, Heat, Meters, rounds_of, run
from benchmarks.evaluation_data import ABOUT
from benchmarks.evaluation_sides import BEST, LOOP, OURS, least, sides
from kosmos2.evaluation.benchmark import Problem
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.evaluation.scene_sets import FORMATS
from kosmos2.model import ModelConfig
from kosmos2.scenes import SceneMaker
from kosmos2.weights.pretrained import EMBEDDED, resolve

STAMP = {
    "commit": "abc", "date": "2026-01-01", "processor": "P", "features": ["avx2"], "cores": 2,
    "memory_gb": 24.0, "threads": 2, "python": "3.11", "torch": "2", "transformers": "5",
    "native": "none",
}  # fmt: skip
METERS = Meters(bandwidth=lambda: 1e10, rates=lambda: {"fp32": 1e11})


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep two threads from waiting for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(id: str, picture: str) -> Problem:
    return Problem(id=id, picture=picture, width=4, height=4)


def heat(benchmark: str, rounds: int, pictures: int) -> Heat:
    return Heat(model="embedded", benchmark=benchmark, rounds=rounds, pictures=pictures, tokens=16)


# --- speed


def test_no_picture_is_asked_about_in_two_rounds_and_none_in_half() -> None:
    problems = [problem(f"{n}-{k}", f"{n}.png") for n in range(9) for k in range(n % 3 + 1)]
    parts = rounds_of(problems, heat("refcoco", rounds=3, pictures=2))
    shown = [{each.picture for each in part} for part in parts]
    assert [len(names) for names in shown] == [1, 2, 2, 2]
    assert sum(map(len, shown)) == len(set().union(*shown))
    for part, names in zip(parts, shown, strict=True):
        assert part == [each for each in problems if each.picture in names]
    with pytest.raises(SystemExit, match="11 pictures are needed, there are 9"):
        rounds_of(problems, heat("refcoco", rounds=5, pictures=2))


class Read:
    """A loop that has read prompts of 80 tokens, the last 10 their own, and written 5."""

    def __init__(self, problems: list[Problem]) -> None:
        self.read: dict[str, tuple[int, ...]] = {
            each.id: (0,) * 70 + (int(each.id),) * 10 for each in problems
        }
        self.wrote: dict[str, tuple[int, ...]] = {each.id: (0,) * 5 for each in problems}


def test_the_least_work_has_each_picture_and_what_prompts_begin_with_alike_once() -> None:
    def work(problems: list[Problem]) -> list[float]:
        return [each.operations for each in least(ModelConfig(), Read(problems), [problems])]

    encode, reading, writing = work([problem("1", "a"), problem("2", "b")])
    encode_one, reading_one, writing_one = work([problem("1", "a"), problem("2", "a")])
    assert encode == 2 * encode_one
    assert writing == writing_one
    weights = 24 * 12 * 2048**2
    assert reading - reading_one == pytest.approx(2 * weights * 70)


@pytest.mark.parametrize("benchmark", ["refcoco", "flickr30k"])
def test_ours_and_both_loops_of_transformers_give_the_same_answers(
    benchmark: str, tmp_path: Path
) -> None:
    maker = SceneMaker(recipe(split=SPLIT, size=128), shapes())
    scenes = [maker.scene(index) for index in range(8)]
    list(FORMATS[benchmark](tmp_path / "data", scenes, SPLIT))
    folder = resolve(EMBEDDED)
    contestants = sides(folder, tokens=16)

    found = run(heat(benchmark, 2, 2), folder, contestants, tmp_path / "data", METERS)

    asked = sum(found["questions"])
    assert asked >= 4
    assert found["same_prompts"] == asked
    assert found["same"] == {OURS: asked, LOOP: asked, BEST: asked}
    page = evaluation_page.page(
        {
            "speed": {
                "heats": [json.loads(json.dumps(found))],
                "command": "python -m x",
                "stamp": STAMP,
            }
        }
    )
    assert f"{asked} of {asked}" in page
    assert "Required: 3 × the loop" in page


# --- pages


def test_the_page_of_protocols_says_what_the_code_does() -> None:
    written = evaluation_guide.PAGE.read_text(encoding="utf-8")
    assert written == evaluation_guide.page(), "run: python -m benchmarks.evaluation_guide"


def test_every_benchmark_says_where_its_data_comes_from_and_what_to_type() -> None:
    assert [*ABOUT] == [*BENCHMARKS]
    for name, about in ABOUT.items():
        assert about.data.endswith(".")
        assert all(line.startswith(f"kosmos2 eval {name} --data ") for line in about.commands)
        words = {word for line in about.commands for word in line.split()}
        assert words & {*BENCHMARKS[name].splits, "--own-data"}


def test_tags_of_prompts_are_seen_on_the_page() -> None:
    words = evaluation_guide.page()
    assert "&lt;grounding&gt;&lt;phrase&gt; EXPRESSION&lt;/phrase&gt;" in words
    assert "<phrase>" not in words


def test_the_page_tells_published_numbers_by_split_and_by_note() -> None:
    words = evaluation_guide.page()
    assert "| val 52.32, testA 57.42, testB 47.26 |" in words
    assert "| 60.3 (zero-shot), 62.2 (2 examples), 62.3 (4 examples) |" in words
    assert (
        "| Kosmos-2 | R@1, any true box / R@5, any true box / R@10, any true box | 77.8 / 79.2"
        in words
    )


def test_the_page_of_results_has_every_number_of_every_command() -> None:
    number = {"title": "right", "value": 0.5, "low": 0.25, "high": 1.0, "n": 1200}
    runs = [
        {"name": name, "command": f"kosmos2 eval {name}", "title": "T", "protocol": "how",
         "numbers": {"a": number}, "weights": "sha256:0123456789", "seconds": 4.2}
        for name in ("refcoco", "flickr30k")
    ]  # fmt: skip
    section = {
        "runs": runs, "split": "iid", "command": "python -m x", "written": "kosmos2 scenes",
        "without": {"raven": "no rows"}, "stamp": STAMP,
    }  # fmt: skip
    page = evaluation_page.page({"scenes": section})
    assert "| `refcoco` | right | 50.0 | 25.0 – 100.0 | 1,200 | 4 |" in page
    assert "kosmos2 eval flickr30k\n" in page
    assert "## Speed" not in page


def test_a_section_of_the_results_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    evaluation_page.keep(results, "one", {"a": 1})
    evaluation_page.keep(results, "two", {"b": 2})
    evaluation_page.keep(results, "one", {"c": 3})
    assert evaluation_page.read(results) == {"one": {"c": 3}, "two": {"b": 2}}


def test_what_has_no_scenes_is_named_and_all_else_is_run_on_them() -> None:
    asked = evaluation_scenes.with_scenes()
    assert {evaluation_scenes.FORM_OF.get(name, name) for name in asked} == {*FORMATS}
    assert {*BENCHMARKS} - {*asked} == {*evaluation_scenes.WITHOUT}


def test_the_first_table_of_a_page_is_found() -> None:
    page = "# Title\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n| c |\n"
    assert evaluation_scenes.first_table(page) == "| a | b |\n| - | - |\n| 1 | 2 |"
