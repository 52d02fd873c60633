"""`finetune`: a model that knows your own pictures, from some records by one command."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from kosmos2.cli.console import bar, note, say
from kosmos2.cli.finetune_records import (
    LEARNT,
    Store,
    check_enough,
    check_same,
    kept_apart,
    lines_of,
    looked_at,
    parted,
    write_parts,
)
from kosmos2.cli.options import Device, DeviceOption, ModelOption
from kosmos2.cli.records_reading import FromOption, ImagesOption
from kosmos2.cli.train import line_of
from kosmos2.errors import TrainingError

if TYPE_CHECKING:
    import torch

    from kosmos2.data.own import OwnRecord
    from kosmos2.evaluation.own import Answered
    from kosmos2.training.evaluate import Evaluation
    from kosmos2.training.meter import Progress
    from kosmos2.training.recipe import TrainRecipe
    from kosmos2.vocab.tokenizer import Tokenizer

BEFORE, AFTER = "before.jsonl", "after.jsonl"
"""What both models said of the held-out records."""
AT_A_TIME = 32
MAX_NEW_TOKENS = 128


RecordsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RECORDS",
        help="10 to 10,000 grounded records with their pictures: any format of `kosmos2 records "
        "formats`.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder of the run; the model: DIR/model.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the same command where it was stopped.")
]
ShareOption = Annotated[
    float,
    typer.Option("--eval-share", help="Share of the records that is asked about, not learnt."),
]
AskedOption = Annotated[
    Path | None,
    typer.Option(
        "--eval-records",
        metavar="PATH",
        help="Ask about these, and learn from all RECORDS.",
        show_default=False,
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Steps of 16 records.", show_default="by the records"),
]
FlipOption = Annotated[
    float,
    typer.Option(
        "--flip",
        min=0,
        max=1,
        help="How often a picture is mirrored, its boxes and the words left and right too.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the order and first draws.")]
ChangeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Change one value of recipes/train/finetune.toml. Repeatable.",
        show_default=False,
    ),
]
ShownOption = Annotated[int, typer.Option("--shown", min=1, help="Held-out records on the report.")]


def finetune(
    records: RecordsArgument,
    model: ModelOption = "embedded",
    out: OutOption = Path("finetuned"),
    go_on: ResumeOption = False,
    eval_share: ShareOption = 0.2,
    eval_records: AskedOption = None,
    steps: StepsOption = None,
    flip: FlipOption = 0.0,
    seed: SeedOption = 1,
    overrides: ChangeOption = None,
    images: ImagesOption = None,
    source_format: FromOption = None,
    shown: ShownOption = 24,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Fine-tune a model on your own records, and measure it before and after on held-out ones.

    Low-rank layers are learnt and merged into plain weights; minutes on a CPU for the embedded
    model. DIR/report.html shows what changed.

    Example:  kosmos2 finetune my-records.jsonl --out mine
    """
    from kosmos2 import config
    from kosmos2.api.loading import choose_device
    from kosmos2.training.finetune import recipe_for, steps_for

    tokenizer = _begin(model, out, go_on=go_on)
    store = Store(records, images, source_format)
    asked = Store(eval_records, images, source_format) if eval_records else store
    learnt, kept = _parts(store, asked, eval_share, tokenizer)
    note(f"{len(learnt):,} records to learn from, {len(kept):,} held out")
    steps = steps or steps_for(len(learnt))
    recipe = recipe_for(out / LEARNT, store.root, model, steps=steps, flip=flip)
    recipe = config.changed(recipe, [f"seed={seed}", *(overrides or [])])
    (check_same if go_on else write_parts)(out, lines_of(learnt), lines_of(kept))
    run = _Run(recipe, out, choose_device(device), asked, kept)
    before = run.asked(model, out / BEFORE)
    run.train()
    after = run.asked(str(out / "model"), out / AFTER)
    run.report(before, after, learnt=len(learnt), shown=shown)


def _begin(model: str, out: Path, *, go_on: bool) -> Tokenizer:
    """Refuse what cannot end well before anything takes time; return the model's vocabulary."""
    from kosmos2.training import checkpoint
    from kosmos2.weights.pretrained import open_checkpoint, resolve

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "fine-tuning is one process's work. On several GPUs: copy recipes/train/finetune.toml "
            "and start `torchrun ... -m kosmos2 train` with it"
        )
    if checkpoint.exists(out) and not go_on:
        raise TrainingError(f"{out} holds a run already. Pass --resume, or another --out.")
    if not checkpoint.exists(out):
        for name in (BEFORE, AFTER):  # of who knows which model
            (out / name).unlink(missing_ok=True)
    return open_checkpoint(resolve(model)).read_tokenizer()


def _parts(
    store: Store, asked: Store, share: float, tokenizer: Tokenizer
) -> tuple[list[OwnRecord], list[OwnRecord]]:
    """Return what is learnt and what is held out of it, or lies in another store."""
    records = looked_at(store, tokenizer)
    check_enough(records, store)
    if asked is store:
        return parted(records, share, store)
    kept = looked_at(asked, tokenizer)
    records = kept_apart(records, kept, asked)
    check_enough(records, store)
    return records, kept


@dataclass(frozen=True, slots=True)
class _Run:
    """A fine-tuning whose records are there."""

    recipe: TrainRecipe
    out: Path
    device: torch.device
    store: Store
    """Of the records that are held out."""
    kept: list[OwnRecord]

    def asked(self, name: str, file: Path) -> list[Answered]:
        """Return a model's answers about the held-out records; those of a file that is there."""
        from kosmos2.api import Kosmos2, Settings
        from kosmos2.evaluation import own

        if file.is_file():
            return own.read(file)
        settings = Settings(batch_size=AT_A_TIME, max_new_tokens=MAX_NEW_TOKENS)
        model = Kosmos2.load(name, device=str(self.device), settings=settings)
        answered = []
        with bar(f"asking {name}", len(self.kept)) as it:
            for each in own.answers(model, self.kept, self.store.album(), at_a_time=AT_A_TIME):
                answered.append(each)
                it.reach(len(answered), len(self.kept), f"asking {name}")
        own.save(file, answered)
        return answered

    def train(self) -> None:
        """Learn, from the last checkpoint on if there is one."""
        from kosmos2.scenes import Sprites
        from kosmos2.training import checkpoint, run

        start = run.resume if checkpoint.exists(self.out) else run.run
        (self.out / AFTER).unlink(missing_ok=True)
        steps = self.recipe.optimizer.steps
        with bar("training", steps) as it:

            def report(news: Progress | Evaluation) -> None:
                note(line_of(news))
                it.reach(news.step, steps, "training")

            start(self.recipe, self.out, Sprites({}), self.device, report=report)

    def report(
        self, before: list[Answered], after: list[Answered], *, learnt: int, shown: int
    ) -> None:
        """Write and print what changed."""
        from kosmos2.evaluation import before_after, own

        story = before_after.Story(facts=self._facts(learnt), numbers=own.compare(before, after))
        album = self.store.album()
        rows = [
            (own.opened(record, album), old, new)
            for record, old, new in zip(self.kept[:shown], before, after, strict=False)
        ]
        page = before_after.page(story, rows, len(self.kept))
        (self.out / "report.html").write_text(page, encoding="utf-8")
        content = before_after.as_dict(story, len(self.kept))
        text = json.dumps(content, indent=1) + "\n"
        (self.out / "report.json").write_text(text, encoding="utf-8")
        before_after.picture(rows[: 2 * before_after.SHEET]).save(self.out / "report.png")
        _show(before_after.lines(story.numbers))
        say(f"model: {self.out / 'model'}")
        say(f"report: {self.out / 'report.html'}")

    def _facts(self, learnt: int) -> dict[str, str]:
        from kosmos2.evaluation.report import code_now, machine_now
        from kosmos2.weights.pretrained import resolve, weights_hash

        code, machine = code_now(), machine_now(self.device)
        recipe, lora = self.recipe, self.recipe.lora
        changed = " with changes that are not committed" if code.changed else ""
        return {
            "model before": f"{recipe.start_from}, {weights_hash(resolve(recipe.start_from))}",
            "records": f"{learnt:,} to learn from, {len(self.kept):,} held out",
            "training": f"{recipe.optimizer.steps:,} steps of {recipe.optimizer.samples} records, "
            f"low-rank layers of rank {lora.rank} on {', '.join(lora.targets) or 'nothing'}",
            "command": shlex.join(["kosmos2", *sys.argv[1:]]),
            "code": f"{code.commit}{changed}",
            "machine": f"{machine.processor}, {machine.cores} cores; on {machine.device}; torch "
            f"{machine.torch}",
        }


def _show(lines: list[tuple[str, str, str, str, str]]) -> None:
    table = Table("", "n", "before", "after", "change")
    for line in lines:
        table.add_row(*line)
    Console().print(table)
