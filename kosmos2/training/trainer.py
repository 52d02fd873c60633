"""The loop: batches in, steps out, checkpoints and evaluations between; the same on CPU and GPU."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kosmos2 import images
from kosmos2.data.collate import Batch
from kosmos2.data.lessons import Teacher
from kosmos2.data.mixture import Mixture, batches
from kosmos2.data.sources import Source
from kosmos2.errors import TrainingError, one_line
from kosmos2.model.network import Network
from kosmos2.training import checkpoint, journal
from kosmos2.training.loss import Losses, PatchHead, TargetLoss
from kosmos2.training.recipe import TrainRecipe
from kosmos2.training.schedule import learning_rate, optimizer_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the last steps were like; one line of `log.jsonl`. Losses in nats per target."""

    step: int
    pictures: int
    text_loss: float
    location_loss: float
    patch_loss: float
    learning_rate: float
    gradient_norm: float
    pictures_per_second: float
    waiting_share: float
    """Share of the time in which the step waited for data."""


class Trainer:
    """One run: its network, optimizer and place in the data."""

    def __init__(
        self,
        recipe: TrainRecipe,
        folder: Path,
        network: Network,
        teacher: Teacher,
        sources: list[Source],
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.network = network
        self.teacher = teacher
        self.sources = sources
        self.device = next(network.parameters()).device
        self.patch_head = PatchHead(
            recipe.model.vision.width, len(recipe.scenes.nouns), recipe.bins
        ).to(self.device)
        self.trained = nn.ModuleDict({"network": network, "patch_head": self.patch_head})
        self.optimizer = optimizer_of(self.trained, recipe.optimizer)
        self.loss = TargetLoss(recipe.loss, teacher.vocabulary, self.device)
        self.step = 0

    def resume(self) -> None:
        """Go on from the folder's checkpoint: weights, optimizer, random state, place in data."""
        state = checkpoint.read(self.folder)
        if changed := _differences(_must_match(self.recipe), state["recipe"]):
            raise TrainingError(
                f"the checkpoint in {self.folder} was made by another recipe "
                f"({'; '.join(changed)}). Resume with the recipe stored beside it, "
                "or start a new folder."
            )
        if state["step"] > self.recipe.optimizer.steps:
            raise TrainingError(
                f"the checkpoint in {self.folder} is of step {state['step']}, behind the end of "
                f"the recipe: optimizer.steps is {self.recipe.optimizer.steps}"
            )
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if "device_random" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_random"], self.device)
        self.step = state["step"]

    def start_from(self, folder: Path) -> None:
        """Take the weights of another run as the first ones; nothing else of it."""
        weights = checkpoint.read(folder)["trained"]
        try:
            self.trained.load_state_dict(weights)
        except RuntimeError as error:
            raise TrainingError(
                f"start_from: the run in {folder} has a network, vocabulary or noun list of "
                f"another size ({one_line(' '.join(str(error).split())[:200])} ...)"
            ) from error

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "recipe": _must_match(self.recipe),
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
        }
        if self.device.type == "cuda":  # dropout draws there
            state["device_random"] = torch.cuda.get_rng_state(self.device)
        checkpoint.write(self.folder, state)

    def train(self, report: Callable[[Progress], None], evaluate: Callable[[int], None]) -> None:
        """Run to the last step of the recipe; `evaluate` is called with a step's number.

        The checkpoint comes last: a run killed while it evaluates goes back and does it again.
        """
        recipe, run = self.recipe, self.recipe.run
        meter = _Meter()
        self.network.train()
        for group in self._groups():
            rate = learning_rate(recipe.optimizer, self.step)
            norm = self._update(group, rate, meter)
            self.step += 1
            if self._is_due(run.log_every):
                progress = meter.progress(self.step, recipe, rate, norm)
                journal.append(self.folder / journal.LOG, progress)
                report(progress)
                meter = _Meter()
            if self._is_due(run.evaluate_every):
                self.network.eval()
                evaluate(self.step)
                self.network.train()
            if self._is_due(run.checkpoint_every):
                self.save()
            meter.start_waiting()

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.recipe.optimizer.steps

    def _groups(self) -> Iterator[list[Batch]]:
        """Yield the batches of each step from here on."""
        optimizer, run = self.recipe.optimizer, self.recipe.run
        mixture = Mixture(
            [source.weight for source in self.recipe.sources],
            batch_size=optimizer.batch_size,
            seed=self.recipe.seed,
            first=self.step * optimizer.accumulation,
            stop=optimizer.steps * optimizer.accumulation,
        )
        group: list[Batch] = []
        for batch in batches(self.sources, mixture, workers=run.workers, multiple=run.pad_multiple):
            group.append(batch)
            if len(group) == optimizer.accumulation:
                yield group
                group = []

    def _update(self, group: list[Batch], rate: float, meter: _Meter) -> Tensor:
        meter.data_arrived()
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        for batch in group:
            losses = self.losses(batch.to(self.device))
            (losses.objective / len(group)).backward()  # type: ignore[no-untyped-call]
            meter.count(losses, len(batch.ids_BT))
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimizer.clip)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"step {self.step + 1}: the gradient is not finite ({norm.item()}). Start a new "
                f'run with a lower learning rate; start_from = "{self.folder}" gives it the '
                "weights of the last checkpoint."
            )
        self.optimizer.step()
        meter.step_done()
        return norm

    def losses(self, batch: Batch) -> Losses:
        """Return the losses of a batch on this device."""
        network = self.network
        with self._precision(), self._attention():
            features_NPE = network.vision(images.normalise(batch.pixels_BCYX))
            patch_loss = self.patch_head(features_NPE, batch.noun_BP, batch.sides_BP4)
            if len(batch.target_L):
                latents_BQD = network.resampler(features_NPE)
                embeds_BTD = network.embed(batch.ids_BT, batch.image_mask_BT, latents_BQD)
                hidden_BTD = network.decode(embeds_BTD, batch.positions_BT, batch.attention_mask())
                hidden_LD = hidden_BTD.flatten(0, 1)[batch.source_L]
            else:  # the tower alone
                hidden_LD = features_NPE.new_zeros(0, network.config.text.width)
            logits_LV = network.logits(hidden_LD)
        return self.loss(logits_LV, batch.target_L, patch_loss)

    def _precision(self) -> AbstractContextManager[object]:
        if self.recipe.run.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _attention(self) -> AbstractContextManager[object]:
        """On a CPU the plain form: its backward pass takes less time than the fused one's."""
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()


class _Meter:
    """Sums over the steps since the last line of the log, and where their time went.

    Checkpoints and evaluations are neither work nor waiting.
    """

    def __init__(self) -> None:
        self.waited = self.worked = 0.0
        self.pictures = 0
        self.sums = [torch.zeros(()) for _ in range(5)]
        self._since = time.perf_counter()

    def start_waiting(self) -> None:
        self._lap()

    def data_arrived(self) -> None:
        self.waited += self._lap()

    def step_done(self) -> None:
        self.worked += self._lap()

    def count(self, losses: Losses, pictures: int) -> None:
        parts = (
            losses.text_sum,
            losses.text_count,
            losses.location_sum,
            losses.location_count,
            losses.patch_loss * pictures,
        )
        # They stay on the device: reading them here would make it wait.
        self.sums = [total + part for total, part in zip(self.sums, parts, strict=True)]
        self.pictures += pictures

    def progress(self, step: int, recipe: TrainRecipe, rate: float, norm: Tensor) -> Progress:
        elapsed = self.waited + self.worked
        text, text_count, location, location_count, patch = (each.item() for each in self.sums)
        return Progress(
            step=step,
            pictures=step * recipe.optimizer.batch_size * recipe.optimizer.accumulation,
            text_loss=text / max(1, text_count),
            location_loss=location / max(1, location_count),
            patch_loss=patch / self.pictures,
            learning_rate=rate,
            gradient_norm=norm.item(),
            pictures_per_second=self.pictures / elapsed,
            waiting_share=self.waited / elapsed,
        )

    def _lap(self) -> float:
        before, self._since = self._since, time.perf_counter()
        return self._since - before


def _must_match(recipe: TrainRecipe) -> dict[str, Any]:
    """Return what a checkpoint needs unchanged: all but the length and the table `run`."""
    tree: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    del tree["run"], tree["optimizer"]["steps"]
    return tree


def _differences(here: dict[str, Any], there: dict[str, Any], table: str = "") -> list[str]:
    """Return one text for each key whose value the other tree has not."""
    found = []
    for key in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(key), there.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found += _differences(ours, theirs, f"{table}{key}.")
        elif ours != theirs or (key in here) != (key in there):
            found.append(f"{table}{key} was {_short(theirs)}, is {_short(ours)}")
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
