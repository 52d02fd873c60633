"""Requests in, answers out: every caller of the one loop (`engine.scheduler`)."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from kosmos2.engine.beam import BeamSearch, begin
from kosmos2.engine.request import Generation, Request, Score, ScoreRequest, Step, StopReason
from kosmos2.engine.rows import Owner, Row, ScoreRow
from kosmos2.engine.runner import Runner
from kosmos2.engine.scheduler import Limits, Scheduler
from kosmos2.engine.turns import Turns
from kosmos2.errors import RequestError, VocabularyError
from kosmos2.model import ModelConfig
from kosmos2.vocab.special import Vocabulary

DEFAULT_LIMITS = Limits()
MOST_LOOKS = 16
"""Callers whose pictures are encoded together."""
KEPT_LOOKS = 64
"""Pictures whose encodings are kept, half a megabyte each at full size in float32."""
SMALL_BLOCK = 4_000_000
"""Weights of a decoder block below which a second processor thread costs more than it does."""


@dataclass(slots=True, eq=False)
class _Look:
    """Pictures that a thread wants to have encoded."""

    keys: Sequence[bytes]
    pixels_NCYX: Tensor
    latents: Future[tuple[Tensor, ...]] = field(default_factory=Future)


class Engine:
    """Answers requests with one runner. Threads may share it: their rows run together."""

    def __init__(
        self, runner: Runner, vocabulary: Vocabulary, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        if runner.config.text.vocab_size != vocabulary.size:
            raise VocabularyError(
                f"the network knows {runner.config.text.vocab_size} tokens, the vocabulary has "
                f"{vocabulary.size}. They belong to different models."
            )
        self.runner = runner
        self.vocabulary = vocabulary
        self.scheduler = Scheduler(runner, vocabulary, limits)
        self._turns = Turns(self.scheduler.step)
        self._eyes = Turns(lambda: None)
        self._encoding = threading.Lock()
        self._seen: dict[bytes, Tensor] = {}
        self._looks: deque[_Look] = deque()

    @property
    def config(self) -> ModelConfig:
        return self.runner.config

    @contextmanager
    def employed(self) -> Iterator[None]:
        """Have a thread of the engine's own compute for all callers meanwhile.

        For a server, whose many threads would each have processor threads of their own. A small
        network on a processor has two such threads, one for rows and one for pictures, and neither
        has helpers: products so small are done before those wake up.
        """
        text = self.config.text
        block = 4 * text.width**2 + 2 * text.width * text.feedforward_width
        is_small = self.runner.device.type == "cpu" and block < SMALL_BLOCK
        threads = 1 if is_small else None
        with ExitStack() as stack:
            stack.enter_context(self._turns.employed(threads))
            if is_small:
                stack.enter_context(self._eyes.employed(threads))
            yield

    @torch.inference_mode()
    def encode_images(self, pixels_NCYX: Tensor) -> Tensor:
        """Return latents_NQD; one encoding serves any number of requests."""
        return self.runner.encode_images(pixels_NCYX)

    def look(self, pixels_NCYX: Tensor) -> tuple[Tensor, ...]:
        """Return latents_QD of each picture; a picture seen lately is not encoded again.

        Pictures of threads that look at the same time are encoded together.
        """
        keys = [
            hashlib.blake2b(bytes_CYX.numpy()).digest()
            for bytes_CYX in pixels_NCYX.detach().cpu().contiguous().view(torch.uint8)
        ]
        look = _Look(keys, pixels_NCYX)
        self._looks.append(look)
        while not look.latents.done():
            turns = self._eyes if self._eyes.is_employed else self._turns
            turns.call(self._look_at_waiting)
        return look.latents.result()

    def _look_at_waiting(self) -> None:
        with self._encoding:  # rows' thread may still be here when that of pictures begins
            looks = [self._looks.popleft() for _ in range(min(len(self._looks), MOST_LOOKS))]
            try:
                self._encode(looks)
            except Exception as error:
                for look in looks:
                    look.latents.set_exception(error)

    def _encode(self, looks: Sequence[_Look]) -> None:
        unseen = {
            key: pixels_CYX
            for look in looks
            for key, pixels_CYX in zip(look.keys, look.pixels_NCYX, strict=True)
            if key not in self._seen
        }
        if unseen:
            encoded = self.encode_images(torch.stack(list(unseen.values())))
            self._seen.update(
                zip(unseen, (latents_QD.clone() for latents_QD in encoded), strict=True)
            )
        for key in (key for look in looks for key in look.keys):
            self._seen[key] = self._seen.pop(key)  # the latest are the last
        for look in looks:
            look.latents.set_result(tuple(self._seen[key] for key in look.keys))
        for key in list(self._seen)[:-KEPT_LOOKS]:
            del self._seen[key]

    def generate(
        self, requests: Sequence[Request], wanted: Callable[[], bool] = lambda: True
    ) -> list[Generation]:
        """Return the answers, in order; rows join as soon as others leave.

        `wanted` is asked after every step; when it says no the rows are freed, and a RequestError
        ends the call.
        """
        rows = [self._row(request) for request in requests]
        self._drive(rows, wanted)
        return [row.generation() for row in rows]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Return how probable each continuation is, in order; prompts alike are read once."""
        for request in requests:
            self._check(request)
            _check_ids(request.continuation, self.vocabulary, "the continuation")
        rows = [ScoreRow(request) for request in requests]
        self._drive(rows, lambda: True)
        return [row.score() for row in rows]

    def stream(self, request: Request) -> Generator[Step, None, Generation]:
        """Yield each new token when it is there; return the whole answer (`yield from`).

        A stream that is closed early frees its row. A beam search yields all tokens at its end.
        """
        return self._stream(self._row(request))

    def _stream(self, row: Row | BeamSearch) -> Generator[Step, None, Generation]:
        said = 0
        try:
            self._turns.call(partial(self.scheduler.submit, row))
            while True:
                is_over, new = row.stop is not None, row.steps[said:]
                said += len(new)
                yield from new  # meanwhile other callers may bring the row further
                if is_over:
                    self._check_answered(row)
                    return row.generation()
                self._turns.wait_for(partial(_has_news, row, said))
        finally:
            if row.stop is None:
                self._turns.post(partial(self.scheduler.cancel, row))

    def _drive(self, rows: Sequence[Owner], wanted: Callable[[], bool]) -> None:
        try:
            self._turns.call(partial(self._submit, rows))  # one call: they join at one step
            self._turns.wait_for(lambda: all(row.stop is not None for row in rows) or not wanted())
            if not wanted():
                raise RequestError("nobody wants the answer any more")
            for row in rows:
                self._check_answered(row)
        except BaseException:
            for row in rows:
                self._turns.post(partial(self.scheduler.cancel, row))
            raise

    def _submit(self, rows: Sequence[Owner]) -> None:
        for row in rows:
            self.scheduler.submit(row)

    def _check_answered(self, row: Owner) -> None:
        if row.stop is StopReason.CANCELLED:
            raise RequestError(
                "a step that this request shared with others has failed: "
                f"{self.scheduler.failure}. Ask again."
            )

    def _row(self, request: Request) -> Row | BeamSearch:
        self._check(request)
        return begin(request, self.vocabulary)

    def _check(self, prompt: Request | ScoreRequest) -> None:
        _check_ids(prompt.ids, self.vocabulary, "the prompt")
        width = self.config.text.width
        for latents_QD in prompt.latents:
            if latents_QD.shape[-1] != width:
                raise RequestError(
                    f"this model reads image vectors of width {width}, "
                    f"got {latents_QD.shape[-1]}. Encode the pictures with the same model."
                )


def _has_news(row: Row | BeamSearch, said: int) -> bool:
    return row.stop is not None or len(row.steps) > said


def _check_ids(ids: Sequence[int], vocabulary: Vocabulary, name: str) -> None:
    outside = [id for id in ids if not 0 <= id < vocabulary.size]
    if outside:
        raise RequestError(
            f"the vocabulary has the ids 0 to {vocabulary.size - 1}, {name} has {outside}"
        )
    if vocabulary.pad in ids:
        raise RequestError(
            f"{name} has the padding id {vocabulary.pad} at index {ids.index(vocabulary.pad)}. "
            "Pass prompts without padding."
        )
