"""The model as lm-evaluation-harness asks for one; the only file that imports the harness.

The harness has the tasks, the prompts and the metrics; here are log-likelihoods and texts. Every
text begins with `<s>`, as in training, and no picture is shown. Newlines are blanks to the
tokenizer, as to the original's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from lm_eval.api.instance import Instance  # type: ignore[import-untyped]
from lm_eval.api.model import TemplateLM  # type: ignore[import-untyped]
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # type: ignore[import-untyped]

from kosmos2.api import Kosmos2
from kosmos2.engine import Greedy, NoRepeat, Request, Rules, ScoreRequest
from kosmos2.errors import RequestError

AT_A_TIME = 128
"""Texts that are scored in one call and then kept."""
MAX_GEN_TOKENS = 256
Pair = tuple[tuple[str, str], list[int], list[int]]
"""(context, continuation) as texts, then as ids."""


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """The text side of a model, which is loaded when the first text is put to it."""

    def __init__(self, load: Callable[[], Kosmos2], progress: Callable[[int, int], None]) -> None:
        super().__init__()
        self._load = load
        self._progress = progress

    @cached_property
    def model(self) -> Kosmos2:
        """The model itself."""
        return self._load()

    @property
    def eot_token_id(self) -> int:
        return self.model.tokenizer.vocabulary.eos

    @property
    def prefix_token_id(self) -> int:
        return self.model.tokenizer.vocabulary.bos

    @property
    def max_length(self) -> int:
        """Return how many tokens can be read, the first one too; one more can be told behind."""
        return self.model.engine.config.text.max_positions

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
        """Return the ids of a text alone."""
        return self.model.tokenizer.encode_text(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        answers: list[tuple[float, bool]] = []
        for start in range(0, len(requests), AT_A_TIME):
            chunk = requests[start : start + AT_A_TIME]
            scores = self.model.engine.score([self._request(c, t) for _, c, t in chunk])
            for (texts, _, _), score in zip(chunk, scores, strict=True):
                answers.append((score.total, score.greedy))
                if texts != ("", ""):
                    self.cache_hook.add_partial("loglikelihood", texts, answers[-1])
            self._progress(len(answers), len(requests))
        return answers

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-likelihood of whole texts, in windows where they are too long."""
        totals = []
        for request in requests:
            (text,) = request.args
            windows = map(
                make_disjoint_window,
                get_rolling_token_windows(
                    token_list=self.tok_encode(text),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length - 1,
                    context_len=1,
                ),
            )
            pairs: list[Pair] = [(("", ""), context, told) for context, told in windows]
            totals.append(math.fsum(total for total, _ in self._loglikelihood_tokens(pairs)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), totals[-1])
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return what is written greedily behind each text, up to the first of its stops."""
        texts: list[str] = []
        for start in range(0, len(requests), AT_A_TIME):
            chunk = [request.args for request in requests[start : start + AT_A_TIME]]
            written = self.model.engine.generate([self._continued(*args) for args in chunk])
            for (context, settings), generation in zip(chunk, written, strict=True):
                text = self.model.tokenizer.decode(generation.ids)
                texts.append(_cut(text, _stops(settings)))
                self.cache_hook.add_partial("generate_until", (context, settings), texts[-1])
            self._progress(len(texts), len(requests))
        return texts

    def _request(self, context: Sequence[int], continuation: Sequence[int]) -> ScoreRequest:
        told = tuple(continuation)[-self.max_length :]
        ids = self._begun(context, self.max_length + 1 - len(told))
        return ScoreRequest(ids=ids, image_mask=(False,) * len(ids), continuation=told)

    def _continued(self, context: str, settings: dict[str, Any]) -> Request:
        if settings.get("do_sample") or settings.get("temperature"):
            raise RequestError(f"this adapter writes greedily only, the task wants {settings}")
        wanted = int(settings.get("max_gen_toks", MAX_GEN_TOKENS))
        ids = self._begun(self.tok_encode(context), self.max_length + 1 - wanted)
        return Request(
            ids=ids,
            image_mask=(False,) * len(ids),
            max_new_tokens=wanted,
            sampling=Greedy(),
            rules=Rules(no_repeat=NoRepeat.OFF),
        )

    def _begun(self, context: Sequence[int], room: int) -> tuple[int, ...]:
        """Return `<s>` and the last of a context's tokens, as many as there is room for."""
        if room < 1:
            raise RequestError(f"a text has at most {self.max_length} tokens, and `<s>` is one")
        first = self.prefix_token_id
        own = list(context[1:] if context[:1] == [first] else context)
        return (first, *own[max(0, len(own) - (room - 1)) :])


def _stops(settings: dict[str, Any]) -> list[str]:
    until = settings.get("until") or []
    return [until] if isinstance(until, str) else list(until)


def _cut(text: str, stops: Iterable[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0] if stop else text
    return text
