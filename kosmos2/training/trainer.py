"""The loop: batches in, steps out, checkpoints and evaluations between; the same on CPU and GPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kosmos2.data.collate import Batch
from kosmos2.data.lessons import Teacher
from kosmos2.data.mixture import Mixture, batches
from kosmos2.data.sources import Source
from kosmos2.errors import TrainingError, one_line
from kosmos2.model.network import Network
from kosmos2.training import checkpoint, failure, journal
from kosmos2.training.flops import forward_flops, load_of, peak_of, training_flops
from kosmos2.training.learner import Learner
from kosmos2.training.loss import Losses, PatchHead, TargetLoss
from kosmos2.training.meter import Meter, Progress
from kosmos2.training.ranks import ALONE
from kosmos2.training.recipe import TrainRecipe
from kosmos2.training.schedule import learning_rate, optimizer_of


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
        self.ranks = ALONE
        self.loss = TargetLoss(recipe.loss, teacher.vocabulary, self.device)
        head = PatchHead(network.config.vision.width, len(recipe.scenes.nouns), recipe.bins)
        self.trained = Learner(network, head.to(self.device), self.loss)
        self.optimizer = optimizer_of(self.trained, recipe.optimizer)
        self.peak = peak_of(self.device)
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
        meter = Meter(self.ranks)
        self.network.train()
        for group in self._groups():
            rate = learning_rate(recipe.optimizer, self.step)
            norm = self._update(group, rate, meter)
            self.step += 1
            if self._is_due(run.log_every):
                progress = meter.progress(
                    step=self.step,
                    samples=self.step * recipe.optimizer.samples,
                    rate=rate,
                    norm=norm,
                    peak=self.peak,
                )
                journal.append(self.folder / journal.LOG, progress)
                report(progress)
                meter = Meter(self.ranks)
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

    def _update(self, batches: list[Batch], rate: float, meter: Meter) -> Tensor:
        """Take one step, and return the norm of the gradient before it was clipped."""
        meter.data_arrived(batches, self._flops(batches))
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        moved = [batch.to(self.device) for batch in batches]
        totals_3 = self.totals(moved)
        objectives = []
        for batch in moved:
            losses = self.losses(batch, totals_3)
            losses.objective.backward()  # type: ignore[no-untyped-call]
            meter.count(losses)
            objectives.append(losses.objective.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimizer.clip)
        self._check_finite(moved, objectives, norm)
        self.optimizer.step()
        meter.step_done()
        return norm

    def totals(self, batches: list[Batch]) -> Tensor:
        """Return totals_3 of the step: what the sums of all its batches are divided by."""
        each = [
            self.loss.totals(batch.target_L, batch.noun_IP, batch.sides_IP4) for batch in batches
        ]
        return self.ranks.sum(torch.stack(each).sum(0))

    def losses(self, batch: Batch, totals_3: Tensor) -> Losses:
        """Return the losses of a batch on this device."""
        with self._precision(), self._attention():
            losses: Losses = self.trained(batch, totals_3)
        return losses

    def _check_finite(self, batches: list[Batch], objectives: list[Tensor], norm: Tensor) -> None:
        """End the run before weights change, and leave the batches behind."""
        loss = self.ranks.sum(torch.stack(objectives).sum())
        if torch.isfinite(loss + norm):
            return
        found = failure.Failure(
            step=self.step + 1,
            objectives=[each.item() for each in objectives],
            batches=batches,
        )
        path = failure.write(self.folder, self.ranks.rank, found)
        raise TrainingError(
            failure.not_finite(found.step, loss.item(), norm.item(), self.folder, path)
        )

    def _flops(self, batches: list[Batch]) -> float:
        flops = forward_flops(self.network.config, load_of(batches))
        return training_flops(flops, vision=True, resampler=True, decoder=True)

    def _precision(self) -> AbstractContextManager[object]:
        if self.recipe.run.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _attention(self) -> AbstractContextManager[object]:
        """On a CPU the plain form: its backward pass takes less time than the fused one's."""
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()


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
