"""Words judged: against pycocoevalcap's own pipeline; expressions and captions by command."""

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import WIDTH, image_name, write_mdetr_refcoco, write_refcoco
from PIL import Image
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from kosmos2.cli import app, evaluate_benchmarks
from kosmos2.errors import MissingExtraError
from kosmos2.evaluation import words
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Prediction,
    Problem,
    prompt_text,
    read_split,
)
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.evaluation.words import judge_words, tokens
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.tokenizer import Tokenizer

cider = pytest.importorskip("pycocoevalcap.cider.cider")
bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
ptb = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")

REG, CAPTIONS = BENCHMARKS["refcocog-reg"], BENCHMARKS["flickr30k-captions"]
SENTENCES = """
A man's dog doesn't see the ice-cream, it's red.
Two men (one old) are running; U.S. flag -- 3.5 feet tall!
the t-shirt says "hello world" ...
a 3-year-old girl's 1st birthday at 10:30 & more
person w/ hat on left
can't won't I'm they're we've he'd
man in blue/white shirt
Mr. Smith vs. Dr. Jones, St. Louis
dogs' bowls 'quoted' words
the woman , standing .
girl in pink...with bag
left-most zebra’s head
A black-and-white photo of [something] {odd}
I cannot, gonna, wanna
e-mail @home a.m. p.m. 1980s 2nd
rock 'n' roll in no. 5 truck, A.J. and b&w
what's  that? ok!! hm??
1,000 people and 1/2 pizza
the “big” one, … wait
second from left* ~ red #2 i.e. this
man in t- shirt 10 - 12 kids
Skier's 'yellow' jacket
a woman in a red, white, and blue dress
the girl in the "31" jersey
""".strip().splitlines()
WORDS = [
    "a",
    "the",
    "man",
    "woman",
    "dog",
    "red",
    "blue",
    "left",
    "right",
    "standing",
    "sitting",
    "with",
    "hat",
    "ball",
    "on",
    "in",
]


@needs_java
def test_words_are_those_of_stanfords_tokenizer() -> None:
    theirs = ptb.PTBTokenizer().tokenize(
        {number: [{"caption": text}] for number, text in enumerate(SENTENCES)}
    )
    for number, text in enumerate(SENTENCES):
        assert " ".join(tokens(text)) == theirs[number][0]


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR takes seconds to start: one test has it."""
    monkeypatch.setattr(words.shutil, "which", lambda _: None)


def random_pairs(count: int) -> list[tuple[Problem, Prediction]]:
    rng = random.Random(0)

    def sentence() -> str:
        text = " ".join(rng.choices(WORDS, k=rng.randrange(1, 12)))
        return f"{text.capitalize()}, {rng.choice(WORDS)}'s hat." if rng.random() < 0.5 else text

    pairs = []
    for number in range(count):
        said = tuple(sentence() for _ in range(rng.randrange(1, 6)))
        answer = rng.choice([sentence(), said[0], said[0] + " on the left", ""])
        problem = Problem(
            id=str(number), picture=str(number // 2), width=9, height=9, references=said
        )
        pairs.append(
            (problem, Prediction(id=str(number), prompt="", answer="", boxes=(), text=answer))
        )
    return pairs


@needs_java
def test_numbers_are_those_of_the_official_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words.shutil, "which", lambda _: "java")
    pairs = random_pairs(60)
    tokenizer = ptb.PTBTokenizer()
    references = tokenizer.tokenize(
        {p.id: [{"caption": text} for text in p.references] for p, _ in pairs}
    )
    # Its lines would shift at an empty answer.
    said = {p.id: [""] for p, _ in pairs}
    said |= tokenizer.tokenize({p.id: [{"caption": a.text}] for p, a in pairs if a.text})
    judged = judge_words(pairs)
    corpus, each = cider.Cider().compute_score(references, said)
    assert [row["cider"] for row in judged.each] == pytest.approx(list(each))
    assert sum(row["cider"] for row in judged.each) / 60 == pytest.approx(corpus)
    theirs = bleu.Bleu(4).compute_score(references, said, verbose=0)[0]
    assert [judged.whole[f"bleu{n}"] for n in (1, 2, 3, 4)] == theirs
    assert "meteor_nltk" not in judged.each[0]
    meteor = pytest.importorskip("pycocoevalcap.meteor.meteor").Meteor()
    assert judged.whole["meteor"] == pytest.approx(meteor.compute_score(references, said)[0])


BLEUS = {"bleu1", "bleu2", "bleu3", "bleu4"}


def test_without_java_another_meteor_has_another_name_and_is_not_official() -> None:
    pytest.importorskip("nltk")
    judged = judge_words(random_pairs(5))
    assert judged.each[0].keys() == {"cider", "meteor_nltk", *BLEUS, "rouge_l", "answered"}
    assert judged.whole.keys() == BLEUS
    assert "NOT the official" in words.WORD_TITLES["meteor_nltk"]


def test_without_java_and_nltk_no_meteor_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "find_spec", lambda _: None)
    judged = judge_words(random_pairs(5))
    assert judged.each[0].keys() == {"cider", *BLEUS, "rouge_l", "answered"}


def hand_meteor(matches: int, chunks: int, said: int, true: int) -> float:
    """METEOR by the formula of its first paper, from counts made by hand."""
    precision, recall = matches / said, matches / true
    mean = 10 * precision * recall / (recall + 9 * precision)
    return mean * (1 - 0.5 * (chunks / matches) ** 3)


@pytest.mark.parametrize(
    ("said", "true", "counts"),
    [
        ("a red dog", "a red dog", (3, 1, 3, 3)),
        ("a dog red", "a red dog", (3, 3, 3, 3)),
        ("two dogs running", "a dog runs", (2, 1, 3, 3)),  # equal stems
        ("a puppy", "a dog", (1, 1, 2, 2)),  # no synonyms
    ],
)
def test_meteor_of_nltk_is_the_formula_on_equal_words_and_stems(
    said: str, true: str, counts: tuple[int, int, int, int]
) -> None:
    pytest.importorskip("nltk")
    assert words.meteor_nltk({"1": [true, "nothing alike"]}, {"1": [said]}) == [
        pytest.approx(hand_meteor(*counts))
    ]


def test_without_the_library_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(MissingExtraError, match=r"kosmos2\[eval\]"):
        words.check_installed()


def write_karpathy(folder: Path) -> Path:
    folder.mkdir()
    images = [
        {
            "filename": f"{number}.jpg",
            "split": "test" if number < 4 else "train",
            "imgid": number,
            "sentences": [
                {"raw": f"{who} number {number} stands near a wall .", "tokens": [], "sentid": n}
                for n, who in enumerate(("A man", "A person", "Somebody", "One guy", "A boy"))
            ],
        }
        for number in range(6)
    ]
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": images, "dataset": "f"}))
    (folder / "flickr30k-images").mkdir()
    for number in range(4):
        Image.new("RGB", (40, 30)).save(folder / "flickr30k-images" / f"{number}.jpg")
    return folder


def write_refcocog(folder: Path) -> Path:
    """The same as of RefCOCO, under RefCOCOg's names."""
    write_refcoco(folder)
    (folder / "refcoco").rename(folder / "refcocog")
    (folder / "refcocog" / "refs(unc).p").rename(folder / "refcocog" / "refs(umd).p")
    return folder


def test_things_are_asked_once_with_all_that_people_said(tmp_path: Path) -> None:
    ours = read_split(REG, write_refcocog(tmp_path), "val", own_data=True).problems
    assert [each.references for each in ours] == [
        ("the lady", "woman on  left"),
        ("man",),
        ("the dog that fills the whole picture",),
    ]
    assert [prompt_text(REG.prompt(each, LocationGrid())) for each in ours][::2] == [
        "<grounding><phrase> It</phrase><object><patch_index_0099><patch_index_0297></object> is",
        "<grounding><phrase> It</phrase><object><patch_index_0000><patch_index_1023></object> is",
    ]
    file = write_mdetr_refcoco(tmp_path / "m.json", name="refcocog")
    theirs = read_split(REG, file, "val", own_data=True).problems
    assert [each.references for each in theirs] == [each.references for each in ours]
    assert image_name(42) == ours[2].picture and ours[2].width == WIDTH


def test_captions_of_a_split_are_asked_without_grounding(tmp_path: Path) -> None:
    read = read_split(CAPTIONS, write_karpathy(tmp_path / "k"), "test", own_data=True).problems
    assert [each.picture for each in read] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert {prompt_text(CAPTIONS.prompt(each, LocationGrid())) for each in read} == {"An image of"}
    assert all(len(each.references) == 5 for each in read)


class Says:
    """Answers by rule."""

    def __init__(self, benchmark: Benchmark, rule: Callable[[Problem], str]) -> None:
        self._benchmark, self._rule = benchmark, rule

    def answers(
        self, pictures: Sequence[Path], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        return [[self._answer(problem) for problem in own] for own in asked]

    def _answer(self, problem: Problem) -> Prediction:
        prompt = prompt_text(self._benchmark.prompt(problem, LocationGrid()))
        text = self._rule(problem)
        return Prediction(id=problem.id, prompt=prompt, answer=text, boxes=(), text=text)


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def results_of(out: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return read


@pytest.mark.parametrize("name", ["refcocog-reg", "flickr30k-captions"])
def test_who_says_what_people_said_scores_all_and_who_is_silent_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    is_reg = name == "refcocog-reg"
    data = write_refcocog(tmp_path / "d") if is_reg else write_karpathy(tmp_path / "d")
    values = {}
    for who, rule in (("people", lambda p: p.references[0]), ("nobody", lambda _: "")):
        monkeypatch.setattr(
            evaluate_benchmarks, "_load", lambda benchmark, *_, rule=rule: Says(benchmark, rule)
        )
        out = tmp_path / who
        split = "val" if is_reg else "test"
        code, said = run(name, "--data", data, "--split", split, "--own-data", "--out", out)
        assert code == 0, said
        values[who] = {key: each["value"] for key, each in results_of(out)["numbers"].items()}
        first = results_of(out)["numbers"]
        assert run("score", out, "--data", data, "--own-data")[0] == 0
        assert results_of(out)["numbers"] == first
    assert values["people"]["rouge_l"] == pytest.approx(1)
    assert values["people"]["cider"] > 1
    assert set(values["nobody"].values()) == {0.0} or max(values["nobody"].values()) < 1e-6
    page = (tmp_path / "people" / "results.md").read_text(encoding="utf-8")
    assert "METEOR was not counted" in page
    assert "| ROUGE-L | 100.0 |" in page
    assert "| Kosmos-2 |" in page
    assert "the truth" in (tmp_path / "people" / "gallery.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["refcocog-reg", "flickr30k-captions"])
def test_a_real_model_describes_and_is_scored(
    tmp_path: Path, tiny_tokenizer: Tokenizer, name: str
) -> None:
    is_reg = name == "refcocog-reg"
    data = write_refcocog(tmp_path / "d") if is_reg else write_karpathy(tmp_path / "d")
    model, out = save_tiny_model(tmp_path / "model", tiny_tokenizer), tmp_path / "out"
    code, said = run(
        *(name, "--data", data, "--split", "val" if is_reg else "test", "--own-data"),
        *("--out", out, "--model", model, "--device", "cpu", "--set", "max_new_tokens=9"),
    )
    assert code == 0, said
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert all(row["boxes"] == [] for row in rows)
    assert rows[0]["decoding"]["beams"] == (1 if is_reg else 5)
    assert rows[0]["bins"] == 8
    assert results_of(out)["n"] == len(rows) == (3 if is_reg else 4)


def test_words_are_no_boxes(tmp_path: Path) -> None:
    data = write_refcocog(tmp_path)
    code, said = run("refcocog-reg", "--data", data, "--own-data", "--answer", "boxes")
    assert code == 2 and "refcocog-reg takes --answer free, got boxes" in said
