"""`kosmos2 finetune`: what it learns and leaves, what it refuses; stopped and gone on with."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_cases import record, squares, write
from tiny_model import save_tiny_model
from typer.testing import CliRunner, Result

from kosmos2 import Kosmos2
from kosmos2.cli import app
from kosmos2.data.captions import RecordSource
from kosmos2.training import lowrank
from kosmos2.training.finetune import TARGETS
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights.pretrained import load_pretrained

COMMAND = import_module("kosmos2.cli.finetune")
CPU = torch.device("cpu")
QUICK = (
    "--steps", "6", "--set", "optimizer.batch_size=2", "--set", "run.checkpoint_every=2",
    "--shown", "2", "--set", "run.log_every=1", "--set", "run.precision=fp32",
    "--set", "lora.rank=2",
)  # fmt: skip


MISTAKE = ("--set", "lora.rang=3")
"""Ends a command when it has looked at the records."""


class KilledError(BaseException):
    """What a test stops a run with."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), tiny_tokenizer)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory.mktemp("own"), 14)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, records: Path) -> Path:
    """The folder of a fine-tuning that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finetune(records, "--model", model, "--out", out, *QUICK)
    return out


def finetune(*arguments: object, code: int = 0) -> Result:
    words = ["finetune", *map(str, arguments), "--device", "cpu"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, result.output
    return result


def refusal(*arguments: object) -> str:
    result = finetune(*arguments, code=2)
    line = " ".join(result.stderr.strip().splitlines()[-1:])
    assert line.startswith("error: ")
    return line


def ids(path: Path) -> set[int]:
    return {json.loads(line)["id"] for line in path.read_text().splitlines()}


def state(folder: Path) -> dict[str, torch.Tensor]:
    network = load_pretrained(folder, dtype=torch.float32, device=CPU).network
    return dict(network.state_dict())


def test_it_leaves_a_model_and_a_report_and_says_where(whole: Path, records: Path) -> None:
    assert Kosmos2.load(whole / "model").caption(records.parent / "1.png").text is not None
    report = json.loads((whole / "report.json").read_text())
    kept = ids(whole / "held-out.jsonl")
    assert report["held_out"] == len(kept) > 0
    assert report["numbers"]["find"]["before"]["n"] == len(kept)
    assert "Before and after" in (whole / "report.html").read_text()
    assert (whole / "report.png").stat().st_size > 1000


def test_what_is_held_out_is_never_learnt(
    tmp_path: Path, model: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[int] = []
    sample = RecordSource.sample

    def watched(self: RecordSource, number: int, rng: np.random.Generator) -> Any:
        fields = self.lines.fields(number)
        assert isinstance(fields, dict)
        learnt.append(fields["id"])
        return sample(self, number, rng)

    monkeypatch.setattr(RecordSource, "sample", watched)
    out = tmp_path / "out"
    finetune(records, "--model", model, "--out", out, "--eval-share", "0.4", *QUICK)
    kept = ids(out / "held-out.jsonl")
    assert set(learnt) == ids(out / "train.jsonl") == set(range(14)) - kept
    assert len(kept) >= 2


def test_only_the_layers_of_the_recipe_change_and_all_others_stay_equal_to_the_bit(
    whole: Path, model: Path
) -> None:
    before, after = state(model), state(whole / "model")
    half = {name: each.to(torch.bfloat16).float() for name, each in before.items()}  # as written
    moved = {name for name in half if not torch.equal(half[name], after[name])}
    weights = {name for name in moved if name.endswith(".weight")}
    assert moved == weights
    assert all(any(fnmatchcase(name, target) for target in TARGETS) for name in moved)
    assert len(moved) > 10


def test_the_merged_model_gives_what_the_base_and_its_low_rank_layers_give(
    whole: Path, model: Path
) -> None:
    base = load_pretrained(model, dtype=torch.float32, device=CPU).network
    lowrank.merge_file(base, whole / lowrank.FILE)
    merged = load_pretrained(whole / "model", dtype=torch.float32, device=CPU).network
    ids_BT = torch.arange(4, 24).view(2, 10)
    with torch.no_grad():
        ours, theirs = (each(ids_BT).hidden_BTD for each in (merged, base))
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)  # written in bf16


@pytest.mark.parametrize("step", [0, 3, 6], ids=["before training", "between", "at the end"])
def test_a_killed_fine_tuning_goes_on_to_the_files_of_the_uninterrupted_one(
    tmp_path: Path,
    model: Path,
    records: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    out = tmp_path / "out"
    words = (records, "--model", model, "--out", out, *QUICK)
    line_of = COMMAND.line_of

    def killing(news: Any) -> str:
        if news.step == max(step, 1):
            raise KilledError
        return line_of(news)

    with monkeypatch.context() as patched:
        patched.setattr(COMMAND, "line_of", killing)
        with pytest.raises(KilledError):
            finetune(*words)
    finetune(*words, "--resume")
    for name in ("model/model.safetensors", "before.jsonl", "after.jsonl", "train.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    ours, theirs = (json.loads((each / "report.json").read_text()) for each in (out, whole))
    assert ours["numbers"] == theirs["numbers"]


def test_answers_of_another_model_are_not_taken_for_this_one_s(
    tmp_path: Path, model: Path, records: Path, whole: Path
) -> None:
    (tmp_path / "before.jsonl").write_text("left by a run that was killed before its first step\n")
    finetune(records, "--model", model, "--out", tmp_path, "--resume", code=2)
    finetune(records, "--model", model, "--out", tmp_path, *QUICK)
    assert (tmp_path / "before.jsonl").read_bytes() == (whole / "before.jsonl").read_bytes()


def test_records_of_their_own_are_asked_about_and_their_pictures_not_learnt(
    tmp_path: Path, model: Path
) -> None:
    own = squares(tmp_path / "own", 14)
    asked = squares(tmp_path / "asked", 6, first=12)  # two of them are there twice
    words = (own, "--eval-records", asked, "--model", model, "--out", tmp_path / "out", *QUICK)
    result = finetune(*words, "--flip", "0.5")
    stored = json.loads((tmp_path / "out/recipe.json").read_text())
    assert stored["sources"][0]["flip"] == 0.5
    assert "2 times: picture is held out" in result.stderr
    assert ids(tmp_path / "out/train.jsonl") == set(range(12))
    assert ids(tmp_path / "out/held-out.jsonl") == set(range(12, 18))


def test_another_format_is_read_as_well(tmp_path: Path, model: Path, records: Path) -> None:
    coco = records.parent / "coco"
    done = CliRunner().invoke(app, ["records", "convert", str(records), str(coco), "--to", "coco"])
    assert done.exit_code == 0, done.output
    result = finetune(coco, "--model", model, "--out", tmp_path / "out", *MISTAKE, code=2)
    assert "14 records can be used" in result.stderr


def test_pictures_may_lie_elsewhere(tmp_path: Path, model: Path, records: Path) -> None:
    alone = tmp_path / "records.jsonl"
    alone.write_bytes(records.read_bytes())
    words = (alone, "--model", model, "--out", tmp_path / "out", *MISTAKE)
    assert "14 times: picture missing" in finetune(*words, code=2).stderr
    assert "14 records can be used" in finetune(*words, "--images", records.parent, code=2).stderr


def test_too_few_records_are_counted_and_what_is_wrong_with_the_others_is_told(
    tmp_path: Path, model: Path
) -> None:
    rows = [record(tmp_path, number) for number in range(12)]
    for number in (3, 5, 7, 9):
        (tmp_path / f"{number}.png").unlink()
    path = write(tmp_path, rows)
    result = finetune(path, "--model", model, "--out", tmp_path / "out", code=2)
    assert "4 times: picture missing" in result.stderr
    assert "has 8 records that can be used; fine-tuning takes 10 to 10,000" in result.stderr
    assert not (tmp_path / "out").exists()


def test_records_without_any_box_are_refused(tmp_path: Path, model: Path) -> None:
    rows = [{**record(tmp_path, number), "ref_exps": []} for number in range(12)]
    said = refusal(write(tmp_path, rows), "--model", model, "--out", tmp_path / "out")
    assert "none of the 12 records has a phrase with a box" in said


def test_one_picture_called_by_twelve_names_cannot_be_parted(tmp_path: Path, model: Path) -> None:
    rows = [{**record(tmp_path, 0), "id": number} for number in range(12)]
    said = refusal(write(tmp_path, rows), "--model", model, "--out", tmp_path / "out")
    assert "12 records show 1 different pictures" in said


def test_words_that_the_vocabulary_cannot_spell_are_named(tmp_path: Path, model: Path) -> None:
    rows = [record(tmp_path, number, "犬" if number < 11 else "dog") for number in range(12)]
    path = write(tmp_path, rows)
    result = finetune(path, "--model", model, "--out", tmp_path / "out", code=2)
    assert "11 times: words cannot be spelt, such as 0: 犬" in result.stderr
    assert "has 1 records that can be used" in result.stderr


def test_mistakes_are_one_line_with_the_way_out(
    tmp_path: Path, model: Path, records: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = ("--model", model, "--out")
    assert "there is nothing at" in refusal(tmp_path / "none.jsonl", *to, tmp_path / "a")
    assert "Pass --resume" in refusal(records, *to, whole)
    assert "no fine-tuning to go on with" in refusal(records, *to, tmp_path / "b", "--resume")
    assert "--eval-share must lie" in refusal(records, *to, tmp_path / "c", "--eval-share", "1")
    assert "no file or folder 'nowhere'" in refusal(records, "--model", "nowhere")
    said = refusal(records, *to, tmp_path / "d", "--set", "lora.rang=3")
    assert "unknown key 'rang'. Did you mean 'rank'?" in said
    assert not (tmp_path / "d").exists()
    fewer = squares(tmp_path / "fewer", 12)
    assert "not those that the run" in refusal(fewer, *to, whole, "--resume")
    other = refusal(records, *to, whole, "--resume", *QUICK, "--set", "lora.rank=3")
    assert "lora.rank was 2, is 3" in other
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "one process" in refusal(records, *to, tmp_path / "e")


def test_what_the_records_say_is_learnt(tmp_path: Path) -> None:
    # The embedded model calls a white square many things; twelve others teach it one.
    own = squares(tmp_path / "own", 12, word="hamburger")
    asked = squares(tmp_path / "asked", 10, word="hamburger", first=100)
    finetune(
        own, "--eval-records", asked, "--out", tmp_path / "out", "--steps", "25",
        "--shown", "2", "--set", "optimizer.batch_size=4", "--set", "lora.rank=8",
        "--set", "run.precision=fp32",
    )  # fmt: skip
    numbers = json.loads((tmp_path / "out/report.json").read_text())["numbers"]
    describe, caption = numbers["describe"], numbers["caption_f1"]
    assert describe["before"]["value"] <= 0.2 < 0.8 <= describe["after"]["value"]
    assert caption["before"]["value"] < 0.2 < 0.5 <= caption["after"]["value"]
