"""The one loop that generates: a prefill of all rows, then one token for every live row a step.

Rows are padded on the left, with explicit positions and masks, so a row's answer does not depend
on its batch mates (up to the rounding of the matrix products).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import torch
from torch import Tensor

from kosmos2.engine.request import Generation, Request, Step, StopReason
from kosmos2.engine.sampling import (
    BREAK,
    NoRepeat,
    Sampling,
    draw,
    forbid,
    repeats,
    restrict,
)
from kosmos2.errors import RequestError, VocabularyError
from kosmos2.model import Cache, Network, causal_mask, positions_of
from kosmos2.model.decoder import PADDING_ID
from kosmos2.vocab.special import Vocabulary


class Engine:
    """Answers requests with one network. Its device and dtype are the network's."""

    def __init__(self, network: Network, vocabulary: Vocabulary) -> None:
        if network.config.text.vocab_size != vocabulary.size:
            raise VocabularyError(
                f"the network knows {network.config.text.vocab_size} tokens, the vocabulary has "
                f"{vocabulary.size}. They belong to different models."
            )
        self.network = network
        self.vocabulary = vocabulary

    @torch.inference_mode()
    def encode_images(self, pixels_NCYX: Tensor) -> Tensor:
        """Return latents_NQD; one encoding serves any number of requests."""
        self._check_mode()
        return self.network.encode_images(pixels_NCYX.to(self.network.decoder.embedding.weight))

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Return the answers, in order; all requests run together as one batch."""
        _check_generators(requests)
        rows = [self._row(request) for request in requests]
        for _ in self._run(rows):
            pass
        return [row.generation() for row in rows]

    def stream(self, request: Request) -> Generator[Step, None, Generation]:
        """Yield each new token when it is chosen; return the whole answer (`yield from`)."""
        return self._stream(self._row(request))

    def _stream(self, row: _Row) -> Generator[Step, None, Generation]:
        for _ in self._run([row]):
            if row.stop is not StopReason.EOS:
                yield row.steps[-1]
        return row.generation()

    def _row(self, request: Request) -> _Row:
        self._check_mode()
        _check_ids(request.ids, self.vocabulary)
        width = self.network.config.text.width
        if request.latents_NQD is not None and request.latents_NQD.shape[-1] != width:
            raise RequestError(
                f"this model reads image vectors of width {width}, "
                f"got {request.latents_NQD.shape[-1]}. Encode the pictures with the same model."
            )
        return _Row(request, self.vocabulary)

    @torch.inference_mode()
    def _run(self, rows: Sequence[_Row]) -> Iterator[None]:
        """Choose one token for every live row, then yield; until no row lives."""
        if not rows:
            return
        batch = _Batch(self.network, self.vocabulary, [row.request for row in rows])
        logits_BV = batch.prefill()
        while True:
            self._step(rows, logits_BV)
            yield
            live = [index for index, row in enumerate(rows) if row.stop is None]
            if not live:
                return
            if len(live) < len(rows):
                batch.keep_rows(live)
                rows = [rows[index] for index in live]
            logits_BV = batch.decode([row.steps[-1].id for row in rows])

    def _step(self, rows: Sequence[_Row], logits_BV: Tensor) -> None:
        raw_BV = logits_BV.float()
        scores_BV = torch.stack([row.ruled(raw_V) for row, raw_V in zip(rows, raw_BV, strict=True)])
        ids: list[int] = scores_BV.argmax(dim=-1).tolist()
        for index, row in enumerate(rows):
            if isinstance(row.request.sampling, Sampling):
                ids[index] = draw(scores_BV[index], row.request.sampling)

        logprobs_BV = raw_BV.log_softmax(dim=-1)
        chosen = torch.tensor(ids, device=logprobs_BV.device)[:, None]
        logprobs: list[float] = logprobs_BV.gather(1, chosen)[:, 0].tolist()
        for index, row in enumerate(rows):
            mass = self._mass(logprobs_BV[index], ids[index])
            row.take(Step(id=ids[index], logprob=logprobs[index], mass=mass))

    def _mass(self, logprobs_V: Tensor, id: int) -> float | None:
        cell = self.vocabulary.cell_of(id)
        if cell is None:
            return None
        bins = self.vocabulary.bins
        row, column = divmod(cell, bins)
        rows = range(max(row - 1, 0), min(row + 2, bins))
        columns = range(max(column - 1, 0), min(column + 2, bins))
        near = [self.vocabulary.location(y * bins + x) for y in rows for x in columns]
        return min(1.0, float(logprobs_V[near].exp().sum()))

    def _check_mode(self) -> None:
        if self.network.training:
            raise RequestError(
                "the network is in training mode, its dropout would change the answer. "
                "Call network.eval() first."
            )


class _Row:
    """A request on its way to a generation."""

    def __init__(self, request: Request, vocabulary: Vocabulary) -> None:
        self.request = request
        self.steps: list[Step] = []
        self.stop: StopReason | None = None
        self._vocabulary = vocabulary
        self._generated: list[int] = []
        self._logprob_sum = 0.0
        self._history = [
            self._as_history(id, in_image)
            for id, in_image in zip(request.ids, request.image_mask, strict=True)
        ]
        self._allowed = request.constraint.allowed(()) if request.constraint else None
        if self._allowed is not None and not self._allowed:
            raise RequestError("the constraint allows no first token")

    def ruled(self, scores_V: Tensor) -> Tensor:
        """Return scores_V in which only what the constraint or the rules permit can be chosen."""
        if self._allowed is not None:
            return restrict(scores_V, self._allowed)
        rules = self.request.rules
        forbidden: set[int] = set()
        if self._generated or rules.no_repeat is not NoRepeat.ORIGINAL:
            forbidden = repeats(self._history, rules.ngram_size)
        if rules.no_repeat is not NoRepeat.TRANSFORMERS:
            forbidden.add(self._vocabulary.pad)
        return forbid(scores_V, forbidden)

    def take(self, step: Step) -> None:
        """Add a token and find out whether it was the last."""
        first = not self._generated
        original = self.request.rules.no_repeat is NoRepeat.ORIGINAL
        self._logprob_sum += step.logprob
        self._generated.append(step.id)
        # In the original an end of text is kept when it is the first new token, and is no end.
        if step.id == self._vocabulary.eos and not (first and original):
            self.stop = StopReason.EOS
            return
        self.steps.append(step)
        self._history.append(self._as_history(step.id, False))
        if self.request.constraint is not None:
            self._allowed = self.request.constraint.allowed(self._generated)
        if self._allowed is not None and not self._allowed:
            self.stop = StopReason.CONSTRAINT
        elif len(self.steps) == self.request.max_new_tokens:
            self.stop = StopReason.LENGTH

    def generation(self) -> Generation:
        assert self.stop is not None
        return Generation(
            steps=tuple(self.steps),
            stop=self.stop,
            mean_logprob=self._logprob_sum / len(self._generated),
        )

    def _as_history(self, id: int, in_image: bool) -> int:
        match self.request.rules.no_repeat:
            case NoRepeat.OFF:
                return BREAK
            case NoRepeat.WORDS if in_image or not self._vocabulary.is_piece(id):
                return BREAK
            case _:
                return id


class _Batch:
    """The live rows as the network sees them: left padding, positions, masks and the cache."""

    def __init__(
        self, network: Network, vocabulary: Vocabulary, requests: Sequence[Request]
    ) -> None:
        weight = network.decoder.embedding.weight
        self._network = network
        self._device = weight.device
        self._requests = requests
        self._pad = vocabulary.pad
        self._width = max(len(request.ids) for request in requests)
        # The last new token is chosen, never read.
        capacity = self._width + max(request.max_new_tokens for request in requests) - 1
        self._cache = Cache(
            network.config.text, len(requests), capacity, weight.dtype, self._device
        )
        self._keep_BS = torch.ones(len(requests), capacity, dtype=torch.bool, device=self._device)
        for row, request in enumerate(requests):
            self._keep_BS[row, : self._width - len(request.ids)] = False
        self._next_B = positions_of(self._keep_BS[:, : self._width])[:, -1] + 1

    def prefill(self) -> Tensor:
        """Read all prompts; return logits_BV of the next token."""
        keep_BT = self._keep_BS[:, : self._width]
        embeds_BTD = self._network.embed(*self._inputs())
        hidden_BTD = self._network.decode(
            embeds_BTD, positions_of(keep_BT), causal_mask(keep_BT), self._cache
        )
        return self._network.logits(hidden_BTD[:, -1])

    def decode(self, ids: Sequence[int]) -> Tensor:
        """Read one more token of each row; return logits_BV of the next."""
        ids_BT = torch.tensor(ids, device=self._device)[:, None]
        keep_BS = self._keep_BS[:, : self._cache.length + 1]
        # Only under NoRepeat.TRANSFORMERS can padding be chosen; there it has padding's position.
        positions_BT = torch.where(ids_BT == self._pad, PADDING_ID, self._next_B[:, None])
        hidden_BTD = self._network.decode(
            self._network.embed(ids_BT),
            positions_BT,
            causal_mask(keep_BS, 1),
            self._cache,
        )
        self._next_B = self._next_B + 1
        return self._network.logits(hidden_BTD[:, -1])

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        index_B = torch.tensor(rows, device=self._device)
        self._cache.keep_rows(index_B)
        self._keep_BS = self._keep_BS[index_B]
        self._next_B = self._next_B[index_B]

    def _inputs(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return ids_BT, image_mask_BT and latents_NQD of all prompts, padded on the left."""
        ids, masks = [], []
        for request in self._requests:
            num_pads = self._width - len(request.ids)
            ids.append([self._pad] * num_pads + list(request.ids))
            masks.append([False] * num_pads + list(request.image_mask))
        ids_BT = torch.tensor(ids, device=self._device)
        latents = [request.latents_NQD for request in self._requests]
        present = [each.to(self._device) for each in latents if each is not None]
        if not present:
            return ids_BT, None, None
        return ids_BT, torch.tensor(masks, device=self._device), torch.cat(present)


def _check_ids(ids: Sequence[int], vocabulary: Vocabulary) -> None:
    outside = [id for id in ids if not 0 <= id < vocabulary.size]
    if outside:
        raise RequestError(
            f"the vocabulary has the ids 0 to {vocabulary.size - 1}, the prompt has {outside}"
        )
    if vocabulary.pad in ids:
        raise RequestError(
            f"the prompt has the padding id {vocabulary.pad} at index {ids.index(vocabulary.pad)}. "
            "Pass prompts without padding."
        )


def _check_generators(requests: Sequence[Request]) -> None:
    samplings = [each.sampling for each in requests if isinstance(each.sampling, Sampling)]
    if len({id(sampling.generator) for sampling in samplings}) < len(samplings):
        raise RequestError(
            "requests of one batch share a generator, so each would depend on the others. "
            "Give every request its own."
        )
