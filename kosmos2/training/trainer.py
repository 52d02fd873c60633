"""The loop: batches in, steps out, checkpoints and evaluations between; the same on CPU and GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from kosmos2.data.collate import Batch
from kosmos2.data.ledger import Ledger
from kosmos2.data.lessons import Teacher
from kosmos2.data.loader import Loading, steps
from kosmos2.data.mixture import Mixture
from kosmos2.data.sources import Source
from kosmos2.errors import TrainingError, one_line
from kosmos2.model.network import Network
from kosmos2.training import checkpoint, failure, journal, lowrank, state
from kosmos2.training.attention import PlainAttention
from kosmos2.training.flops import forward_flops, load_of, peak_of, training_flops
from kosmos2.training.learner import EvenLearner, Learner, blank
from kosmos2.training.loss import Losses, PatchHead, TargetLoss
from kosmos2.training.match import differences, must_match
from kosmos2.training.meter import Meter, Progress
from kosmos2.training.parallel import spread, whole
from kosmos2.training.parts import Parts
from kosmos2.training.ranks import ALONE, Ranks
from kosmos2.training.recipe import TrainRecipe
from kosmos2.training.scale import fitting_tokens
from kosmos2.training.schedule import learning_rate, optimizer_of
from kosmos2.weights.tensors import skeleton

CPU_TOKENS = 4096
"""Positions of a batch on a processor, where `run.max_tokens` leaves it to the machine."""


class Trainer:
    """One run: its network, optimizer and place in the data; one of them on every rank."""

    def __init__(
        self,
        recipe: TrainRecipe,
        folder: Path,
        network: Network,
        teacher: Teacher,
        sources: list[Source],
        *,
        first: Mapping[str, Tensor] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """`first` are the weights of another run, its head included."""
        self.recipe = recipe
        self.folder = folder
        self.network = network
        self.teacher = teacher
        self.sources = sources
        self.ranks = ranks
        self.device = next(network.parameters()).device
        self.peak = peak_of(self.device)
        self.loss = TargetLoss(recipe.loss, teacher.vocabulary, self.device)
        head = PatchHead(network.config.vision.width, len(recipe.scenes.nouns), recipe.bins)
        kind = Learner if ranks.size == 1 else EvenLearner
        self.trained = kind(network, head.to(self.device), self.loss)
        if first is not None:
            _take(self.trained, first, recipe.start_from)
        if recipe.lora.rank:
            lowrank.add(network, recipe.lora, torch.Generator().manual_seed(recipe.seed))
        self.parts = Parts(recipe, teacher.vocabulary)
        self.parts.freeze(self.trained)
        self.called = spread(self.trained, recipe.parallel, recipe.run, ranks)
        self.optimizer = optimizer_of(self.trained, recipe.optimizer, self.parts)
        self.checkpoints = checkpoint.Checkpoints(folder, recipe.checkpoints, ranks)
        self.ledger = Ledger()
        self.step = 0

    def resume(self) -> None:
        """Go on from the folder's checkpoint: weights, optimizer, random state, place in data."""
        step = checkpoint.last(self.folder)
        old = checkpoint.read_old(self.folder) if step < 0 else {}
        place = checkpoint.place(self.folder, step)
        note = old or checkpoint.read_note(place)
        if changed := differences(self.recipe, note["recipe"]):
            raise TrainingError(
                f"the checkpoint in {self.folder} was made by another recipe "
                f"({'; '.join(changed)}). Resume with the recipe stored beside it, "
                "or start a new folder."
            )
        if note["step"] > self.recipe.optimizer.steps:
            raise TrainingError(
                f"the checkpoint in {self.folder} is of step {note['step']}, behind the end of "
                f"the recipe: optimizer.steps is {self.recipe.optimizer.steps}"
            )
        if old:
            if self.recipe.parallel.kind == "fsdp":
                raise TrainingError(
                    f"{self.folder / checkpoint.OLD_FILE} is of an earlier release, which had no "
                    "fsdp. Go on for one checkpoint with parallel.kind=none, then with fsdp."
                )
            state.restore_old(old, self.trained, self.optimizer, self.ranks)
        else:
            state.restore(place, self.trained, self.optimizer, self.ranks)
        self.step = note["step"]

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = state.collect(self.trained, self.optimizer, self.ranks)
        self.checkpoints.save(self.step, tensors, must_match(self.recipe))

    def plain(self) -> Network | None:
        """Return a network without low-rank layers, whole; None on all ranks but the first."""
        if self.recipe.parallel.kind != "fsdp" and not self.recipe.lora.rank:
            return self.network if self.ranks.is_first else None
        weights: dict[str, Tensor] = {}
        for name, parameter in self.network.named_parameters():
            tensor = whole(parameter)
            if self.ranks.is_first:
                weights[name] = tensor
        if not self.ranks.is_first:
            return None
        network = skeleton(self.network.config)
        if self.recipe.lora.rank:
            path = self.folder / lowrank.FILE
            lowrank.write(weights, self.recipe.lora, self.recipe.start_from, path)
            # On the processor: a small GPU has no room for the layers a second time.
            weights = {name: each.cpu() for name, each in weights.items()}
            weights = lowrank.merged(weights, self.recipe.lora)
        network.load_state_dict(weights, strict=True, assign=True)
        return network.eval()

    def train(
        self, report: Callable[[Progress], None], evaluate: Callable[[int, Network], None]
    ) -> None:
        """Run to the last step of the recipe; `evaluate` gets a step's number and network.

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
                self._report(meter, rate, norm, report)
                meter = Meter(self.ranks)
            if self._is_due(run.evaluate_every):
                self._evaluate(evaluate)
            if self._is_due(run.checkpoint_every):
                self.save()
            self.checkpoints.look()
            meter.start_waiting()
        self.checkpoints.finish()
        self.ranks.wait()

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.recipe.optimizer.steps

    def _report(
        self, meter: Meter, rate: float, norm: Tensor, report: Callable[[Progress], None]
    ) -> None:
        progress = meter.progress(
            step=self.step,
            samples=self.step * self.recipe.optimizer.samples,
            rate=rate,
            norm=norm,
            peak=self.peak,
        )
        if self.ranks.is_first:
            journal.append(self.folder / journal.LOG, progress)
            report(progress)

    def _evaluate(self, evaluate: Callable[[int, Network], None]) -> None:
        """Let the first rank evaluate, while the others wait in the next step."""
        network = self.plain()
        if network is not None:
            network.eval()
            evaluate(self.step, network)
        self.network.train()
        journal.write_ledger(self.folder, self.ranks.rank, self.ledger)

    def _groups(self) -> Iterator[list[Batch]]:
        """Yield this rank's batches of each step from here on; all ranks have equally many."""
        optimizer, run = self.recipe.optimizer, self.recipe.run
        mixture = Mixture(
            [source.weight for source in self.recipe.sources],
            batch_size=optimizer.batch_size,
            seed=self.recipe.seed,
            first=self.step * optimizer.accumulation,
            stop=optimizer.steps * optimizer.accumulation,
        )
        loading = Loading(
            workers=run.workers,
            multiple=run.pad_multiple,
            max_tokens=self._max_tokens(),
            rank=self.ranks.rank,
            ranks=self.ranks.size,
        )
        group: list[Batch] = []
        for number, share in enumerate(steps(self.sources, mixture, loading, self.ledger), 1):
            group += share
            if number % optimizer.accumulation == 0:
                missing = self.ranks.largest(len(group)) - len(group)
                yield group + missing * [blank(self.network.config, run.pad_multiple)]
                group = []

    def _max_tokens(self) -> int:
        asked, sizes = self.recipe.run.max_tokens, self.network.config
        if asked >= 0:
            return asked
        if self.device.type != "cuda":
            return CPU_TOKENS
        memory = torch.cuda.get_device_properties(self.device).total_memory
        recipe = self.recipe
        return fitting_tokens(sizes, memory, self.ranks.size, recipe.parallel, recipe.lora)

    def _update(self, batches: list[Batch], rate: float, meter: Meter) -> Tensor:
        """Take one step, and return the norm of the gradient before it was clipped."""
        meter.data_arrived(batches, self._flops(batches))
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate * parameters["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        moved = [batch.to(self.device) for batch in batches]
        totals_3 = self.totals(moved)
        objectives = []
        for number, batch in enumerate(moved, 1):
            # What blocks compute again, they compute with the same kind of attention.
            with self._attention(), self._apart() if number < len(moved) else nullcontext():
                losses = self.losses(batch, totals_3)
                # Wrappers take the mean over ranks; the totals are those of all ranks.
                (losses.objective * self.ranks.size).backward()  # type: ignore[no-untyped-call]
            meter.count(losses)
            objectives.append(losses.objective.detach())
        self.parts.mask_rows(self.network)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimizer.clip)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        self._check_finite(moved, objectives, norm)
        self.optimizer.step()
        meter.step_done()
        return norm

    def totals(self, batches: list[Batch]) -> Tensor:
        """Return totals_3 of the step: what the sums of all its batches are divided by."""
        each = [
            self.loss.totals(batch.target_L, batch.noun_IP, batch.sides_IP4) for batch in batches
        ]
        none_3 = torch.zeros(3, device=self.device)
        return self.ranks.sum(torch.stack([none_3, *each]).sum(0))

    def losses(self, batch: Batch, totals_3: Tensor) -> Losses:
        """Return the losses of a batch on this device."""
        with self._precision(), self._attention():
            losses: Losses = self.called(batch, totals_3)
        return losses

    def _apart(self) -> AbstractContextManager[object]:
        """Keep gradients on their rank until the last batch; shards are too dear to keep whole."""
        called = self.called
        return called.no_sync() if isinstance(called, DistributedDataParallel) else nullcontext()

    def _check_finite(self, batches: list[Batch], objectives: list[Tensor], norm: Tensor) -> None:
        """End the run before weights change, and leave the batches behind."""
        loss = self.ranks.sum(torch.stack([torch.zeros_like(norm), *objectives]).sum())
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
        vision, resampler, decoder = (
            self.parts.trains(self.trained, f"network.{part}.")
            for part in ("vision", "resampler", "decoder")
        )
        return training_flops(flops, vision=vision, resampler=resampler, decoder=decoder)

    def _precision(self) -> AbstractContextManager[object]:
        if self.recipe.run.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _attention(self) -> AbstractContextManager[object]:
        return PlainAttention() if self.device.type == "cpu" else nullcontext()


def _take(learner: Learner, weights: Mapping[str, Tensor], where: str) -> None:
    try:
        learner.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainingError(
            f"start_from: the run in {where} has a network, vocabulary or noun list of another "
            f"size ({one_line(' '.join(str(error).split())[:200])} ...). Its folder {where}/model "
            "can be started from with [adapt]."
        ) from error
