"""`kosmos2 eval language`: the harness's own evaluator over our adapter, on tasks made here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import save_tiny_model
from transformers import Kosmos2ForConditionalGeneration
from typer.testing import CliRunner

from kosmos2.api import Kosmos2
from kosmos2.cli import app
from kosmos2.evaluation import language
from kosmos2.vocab.tokenizer import Tokenizer

pytest.importorskip("lm_eval")
harness = pytest.importorskip("kosmos2.evaluation.harness")
from lm_eval.api.instance import Instance  # noqa: E402

FIRES = [
    {"goal": "two dogs", "sol1": "a red car", "sol2": "an old chair", "label": 0},
    {"goal": "a bird", "sol1": "a large tree", "sol2": "a yellow bird", "label": 1},
    {"goal": "a cat", "sol1": "three apples", "sol2": "a sleepy cat", "label": 1},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), tiny_tokenizer)


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Any:
    model = Kosmos2.load(folder, device="cpu", dtype="fp32")
    return harness.HarnessModel(lambda: model, lambda done, total: None)


@pytest.fixture(scope="module")
def logprobs(folder: Path) -> Any:
    """Return what transformers says of the tokens behind the first of some ids."""
    theirs = Kosmos2ForConditionalGeneration.from_pretrained(folder).eval()

    def of(ids: Sequence[int]) -> torch.Tensor:
        with torch.no_grad():
            logits_TV = theirs.text_model(input_ids=torch.tensor([ids])).logits[0].float()
        targets_T = torch.tensor(ids[1:])
        return logits_TV[:-1].log_softmax(-1).gather(1, targets_T[:, None])[:, 0]

    return of


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=each, idx=0, metadata=("t", 0, 1))
        for each in arguments
    ]


def test_log_likelihoods_are_those_of_transformers(
    adapter: Any, logprobs: Any, tiny_tokenizer: Tokenizer
) -> None:
    texts = [("two happy dogs", " and a cat"), ("", "a red car"), ("It is ", "the huge elephant")]
    found = adapter.loglikelihood(asked("loglikelihood", *texts))
    for (context, continuation), (total, _) in zip(texts, found, strict=True):
        ids = [tiny_tokenizer.vocabulary.bos, *tiny_tokenizer.encode_text(context + continuation)]
        told = len(ids) - 1 - len(tiny_tokenizer.encode_text(context.strip()))
        assert total == pytest.approx(float(logprobs(ids)[-told:].sum()), abs=1e-4)


def test_greedy_is_what_greedy_decoding_writes(adapter: Any, tiny_tokenizer: Tokenizer) -> None:
    engine, bos = adapter.model.engine, tiny_tokenizer.vocabulary.bos
    (written,) = engine.generate([adapter._continued("two dogs", {"max_gen_toks": 3})])
    ids = [bos, *tiny_tokenizer.encode_text("two dogs")]
    wrong = (*written.ids[:-1], (written.ids[-1] + 1) % 100)
    (_, right), (_, false) = adapter._loglikelihood_tokens(
        [(("", ""), ids, list(written.ids)), (("", ""), ids, list(wrong))]
    )
    assert right and not false


def test_a_long_text_is_the_sum_of_its_windows(
    adapter: Any, logprobs: Any, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "An image of two happy dogs and a sleepy cat in front of a wooden house."
    ids = [tiny_tokenizer.vocabulary.bos, *tiny_tokenizer.encode_text(text)]
    (whole,) = adapter.loglikelihood_rolling(asked("loglikelihood_rolling", (text,)))
    assert whole == pytest.approx(float(logprobs(ids).sum()), abs=1e-3)
    monkeypatch.setattr(type(adapter), "max_length", 8)
    (cut,) = adapter.loglikelihood_rolling(asked("loglikelihood_rolling", (text,)))
    windows = harness.get_rolling_token_windows(ids[1:], ids[0], max_seq_len=7, context_len=1)
    expected = 0.0
    for context, told in map(harness.make_disjoint_window, windows):
        begun = context if context[0] == ids[0] else [ids[0], *context]
        expected += float(logprobs([*begun, *told])[-len(told) :].sum())
    assert cut == pytest.approx(expected, abs=1e-3) and cut != pytest.approx(whole, abs=1e-3)


def test_a_context_that_is_too_long_loses_its_beginning(
    adapter: Any, logprobs: Any, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(adapter), "max_length", 8)
    told = tiny_tokenizer.encode_text("a cat")
    context = tiny_tokenizer.encode_text("two happy dogs and three apples near the river")
    ((total, _),) = adapter._loglikelihood_tokens([(("", ""), context, told)])
    kept = [tiny_tokenizer.vocabulary.bos, *context[-(8 - len(told)) :], *told]
    assert len(kept) == 9  # the last is not read
    assert total == pytest.approx(float(logprobs(kept)[-len(told) :].sum()), abs=1e-4)


def test_what_is_written_ends_before_the_first_stop(adapter: Any) -> None:
    settings = {"max_gen_toks": 8}
    (whole,) = adapter.generate_until(asked("generate_until", ("two dogs", settings)))
    assert len(whole) > 3
    stop = whole[2]
    until = ("two dogs", {**settings, "until": [stop]})
    (cut,) = adapter.generate_until(asked("generate_until", until))
    assert cut == whole.split(stop)[0]
    with pytest.raises(Exception, match="greedily only"):
        adapter.generate_until(asked("generate_until", ("two dogs", {"do_sample": True})))


class Oracle(harness.HarnessModel):  # type: ignore[misc]
    """Knows the right ends; it counts what it is asked."""

    right = ("a red car", "a yellow bird", "a sleepy cat")
    texts = 0

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        type(self).texts += len(requests)
        return [(float(each.args[1].strip() in self.right), False) for each in requests]


def copy_of(folder: Path) -> Path:
    (folder / "piqa").mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in FIRES)
    (folder / "piqa" / "validation.jsonl").write_text(lines, encoding="utf-8")
    return folder


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", "language", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_harness_scores_a_local_copy_resumes_and_keeps_every_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "HarnessModel", Oracle)
    data, out = copy_of(tmp_path / "data"), tmp_path / "out"
    wanted = ("--tasks", "piqa", "--data", data, "--out", out)
    code, said = run(*wanted)
    assert code == 0, said
    told = json.loads((out / "results.json").read_text(encoding="utf-8"))
    piqa = told["tasks"]["piqa"]
    assert piqa["numbers"]["acc"]["value"] == 1.0 and piqa["n"] == 3
    assert piqa["published"] == 72.9
    rows = [json.loads(line) for line in (out / "predictions-piqa.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["prompts"][0] == ["Question: two dogs\nAnswer:", " a red car"]
    assert rows[0]["weights"].startswith("sha256:")
    assert rows[0]["answers"] == [[1.0, False], [0.0, False]]
    Oracle.texts = 0
    assert run(*wanted)[0] == 0
    assert Oracle.texts == 0  # all was answered
    code, said = run(*wanted, "--dtype", "int8")
    assert code == 2 and "answers of another run: dtype" in said


def test_a_constant_model_has_the_share_of_first_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Constant(Oracle):
        right = ()

    monkeypatch.setattr(harness, "HarnessModel", Constant)
    data, out = copy_of(tmp_path / "data"), tmp_path / "out"
    assert run("--tasks", "piqa", "--data", data, "--out", out)[0] == 0
    told = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert told["tasks"]["piqa"]["numbers"]["acc"]["value"] == pytest.approx(1 / 3)


def test_a_task_of_ones_own_is_asked_of_a_real_model(tmp_path: Path, folder: Path) -> None:
    data = tmp_path / "colours.jsonl"
    data.write_text('{"text": "An image of", "ends": ["a dog", "a cat"], "right": 1}\n')
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "colours.yaml").write_text(
        f"task: colours\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: text\n"
        "doc_to_choice: ends\ndoc_to_target: right\nmetric_list:\n  - metric: acc\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    code, said = run(
        *("--tasks", "colours", "--include", tmp_path / "tasks", "--out", out),
        *("--model", folder, "--device", "cpu"),
    )
    assert code == 0, said
    (row,) = map(json.loads, (out / "predictions-colours.jsonl").read_text().splitlines())
    likelier = max(range(2), key=lambda place: row["answers"][place][0])
    assert row["acc"] == float(likelier == 1)
    assert (out / "results.md").read_text().count("| colours |") == 1


def test_without_network_and_copy_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def unreachable(**_: object) -> None:
        raise ConnectionError("Couldn't reach 'aps/super_glue' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    code, said = run("--tasks", "cb", "--out", tmp_path / "out")
    assert code == 2 and said.count("\n") == 1
    assert "give copies with --data" in said
    code, said = run("--tasks", "cb", "--data", copy_of(tmp_path / "data"), "--out", tmp_path / "o")
    assert code == 2 and "has no folder cb" in said


def test_our_names_are_tasks_of_the_harness() -> None:
    import lm_eval.tasks

    root = Path(lm_eval.tasks.__file__).parent
    manager = lm_eval.tasks.TaskManager(
        include_path=[root / folder for folder in language._FOLDERS], include_defaults=False
    )
    assert set(language.TASKS.values()) <= set(manager.all_subtasks)
    assert language.PUBLISHED.keys() == language.TASKS.keys()
