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
from kosmos2.errors import TrainingError
from kosmos2.model.network import Network
from kosmos2.training import checkpoint
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
        if state["recipe"] != _must_match(self.recipe):
            raise TrainingError(
                f"the checkpoint in {self.folder} was made by another recipe. "
                "Resume with the recipe stored beside it, or start a new folder."
            )
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step = state["step"]

    def start_from(self, folder: Path) -> None:
        """Take the weights of another run as the first ones; nothing else of it."""
        self.trained.load_state_dict(checkpoint.read(folder)["trained"])

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "recipe": _must_match(self.recipe),
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
        }
        checkpoint.write(self.folder, state)

    def train(self, report: Callable[[Progress], None], evaluate: Callable[[int], None]) -> None:
        """Run to the last step of the recipe; `evaluate` is called with a step's number."""
        recipe, run = self.recipe, self.recipe.run
        meter = _Meter()
        for group in self._groups():
            rate = learning_rate(recipe.optimizer, self.step)
            norm = self._update(group, rate, meter)
            self.step += 1
            if self.step % run.log_every == 0 or self.step == recipe.optimizer.steps:
                progress = meter.progress(self.step, recipe, rate, norm)
                self._log(progress)
                report(progress)
                meter = _Meter()
            last = self.step == recipe.optimizer.steps
            if last or self.step % run.checkpoint_every == 0:
                self.save()
            if last or self.step % run.evaluate_every == 0:
                self.network.eval()
                evaluate(self.step)
                self.network.train()

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
        self.network.train()
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
                f"step {self.step + 1}: the gradient is not finite ({norm.item()}). The last "
                f"checkpoint in {self.folder} is whole; lower the learning rate and resume."
            )
        self.optimizer.step()
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
        """On a CPU the plain form: its backward pass is three times as fast as the fused one's."""
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()

    def _log(self, progress: Progress) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(progress)) + "\n")


class _Meter:
    """Sums over the steps since the last line of the log."""

    def __init__(self) -> None:
        self.started = self.idle_since = time.perf_counter()
        self.waited = 0.0
        self.pictures = 0
        self.sums = [torch.zeros(()) for _ in range(5)]

    def data_arrived(self) -> None:
        self.waited += time.perf_counter() - self.idle_since

    def count(self, losses: Losses, pictures: int) -> None:
        parts = (
            losses.text_sum,
            losses.text_count,
            losses.location_sum,
            losses.location_count,
            losses.patch_loss * pictures,
        )
        self.sums = [total + part.cpu() for total, part in zip(self.sums, parts, strict=True)]
        self.pictures += pictures
        self.idle_since = time.perf_counter()

    def progress(self, step: int, recipe: TrainRecipe, rate: float, norm: Tensor) -> Progress:
        elapsed = time.perf_counter() - self.started
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


def _must_match(recipe: TrainRecipe) -> dict[str, Any]:
    """Return what a checkpoint needs unchanged: all but the run's length and how it is watched."""
    tree: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    del tree["run"], tree["optimizer"]["steps"]
    return tree
