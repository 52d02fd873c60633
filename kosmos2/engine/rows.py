"""A request on its way through the scheduler: what it has read, what it has written."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Protocol

from torch import Tensor

from kosmos2.engine.constraint import Allowed
from kosmos2.engine.request import Generation, Request, Score, ScoreRequest, Step, StopReason
from kosmos2.engine.sampling import NoRepeat
from kosmos2.errors import RequestError
from kosmos2.vocab.special import Vocabulary


class Owner(Protocol):
    """What waits for its turn and is answered: it has rows of the batch until it stops."""

    stop: StopReason | None

    @property
    def num_rows(self) -> int:
        """Return the most rows it ever has."""
        ...

    @property
    def longest(self) -> int:
        """Return the most tokens that one of its rows will ever have read."""
        ...

    @property
    def rows(self) -> Sequence[Row | ScoreRow]:
        """Return its rows; it joins with one."""
        ...

    def jump(self) -> object:
        """Write the tokens that its constraint leaves no choice about."""
        ...


class Row:
    """A request that is answered token by token, or one text of a search."""

    num_rows = 1
    num_asked = 1
    """The next token is asked for behind this many of the last pending tokens."""

    def __init__(self, request: Request, vocabulary: Vocabulary) -> None:
        self.request = request
        self.steps: list[Step] = []
        self.stop: StopReason | None = None
        self.allowed: Allowed = None
        self.pending: list[int] = list(request.ids)
        """Tokens that belong to the row and have not been read by the network yet."""
        self._vocabulary = vocabulary
        self._logprobs: list[float] = []
        self._state: Hashable = None
        if request.constraint is not None:
            self._state = request.constraint.start(request.ids)
            self.allowed = request.constraint.allowed(self._state, request.max_new_tokens)
            if self.allowed == ():
                raise RequestError("the constraint allows no first token")

    @property
    def owner(self) -> Owner:
        return self

    @property
    def rows(self) -> Sequence[Row]:
        return [self]

    @property
    def longest(self) -> int:
        """Return the most tokens the row will ever have read: the last new one never is."""
        return len(self.request.ids) + self.request.max_new_tokens - 1

    def jump(self) -> list[int]:
        """Write the tokens that the constraint leaves no choice about; return them."""
        jumped: list[int] = []
        while self.stop is None and (id := self._forced()) is not None:
            self._write(Step(id=id, logprob=0.0, mass=None, forced=True))
            jumped.append(id)
        self.pending += jumped
        return jumped

    def take(self, step: Step) -> None:
        """Write a token that was chosen, and find out whether it was the last."""
        self._logprobs.append(step.logprob)
        if step.id == self._vocabulary.eos and self._ends_here():
            self.stop = StopReason.EOS
            return
        self.pending = [step.id]
        self._write(step)

    def generation(self) -> Generation:
        """Return the whole answer of a row that has stopped."""
        assert self.stop is not None
        mean = math.fsum(self._logprobs) / max(len(self._logprobs), 1)
        return Generation(steps=tuple(self.steps), stop=self.stop, mean_logprob=mean)

    def _write(self, step: Step) -> None:
        self.steps.append(step)
        room = self.request.max_new_tokens - len(self.steps)
        if self.request.constraint is not None:
            self._state = self.request.constraint.advance(self._state, step.id)
            self.allowed = self.request.constraint.allowed(self._state, max(room, 1))
        if self.allowed == ():
            self.stop = StopReason.CONSTRAINT
        elif room == 0:
            self.stop = StopReason.LENGTH

    def _forced(self) -> int | None:
        """Return the only id that is allowed. A location is always the model's to weigh."""
        if not isinstance(self.allowed, tuple) or sum(map(len, self.allowed)) != 1:
            return None
        id = next(id for ids in self.allowed for id in ids)
        return id if self._vocabulary.cell_of(id) is None else None

    def _ends_here(self) -> bool:
        # In the original an end of text is kept when it is the first new token, and is no end.
        original = self.request.rules.no_repeat is NoRepeat.ORIGINAL
        return bool(self.steps) or not original or self.request.constraint is not None


class ScoreRow:
    """A continuation whose probability is read off in one pass."""

    num_rows = 1

    def __init__(self, request: ScoreRequest) -> None:
        self.request = request
        self.stop: StopReason | None = None
        self.pending: list[int] = [*request.ids, *request.continuation[:-1]]
        self.num_asked = len(request.continuation)
        self._score: Score | None = None

    @property
    def owner(self) -> Owner:
        return self

    @property
    def rows(self) -> Sequence[ScoreRow]:
        return [self]

    @property
    def longest(self) -> int:
        """Return the number of tokens the row reads."""
        return len(self.pending)

    def jump(self) -> None:
        """Write nothing."""

    def hear(self, logits_TV: Tensor) -> None:
        """Read the score off the logits before each token of the continuation."""
        targets_T = logits_TV.new_tensor(self.request.continuation).long()
        chosen_T = logits_TV.gather(1, targets_T[:, None])[:, 0]
        logprobs_T = chosen_T - logits_TV.logsumexp(dim=-1)
        greedy = bool((logits_TV.argmax(dim=-1) == targets_T).all())
        self._score = Score(logprobs=tuple(logprobs_T.tolist()), greedy=greedy)
        self.stop = StopReason.LENGTH

    def score(self) -> Score:
        """Return the score of a row that has stopped."""
        assert self._score is not None
        return self._score
