"""Beam search in the one loop: several texts of one request, each in a row of the same batch.

At each step every text offers its best next tokens, the search names the texts that go on, and the
scheduler copies rows. Steps count choices: a text jumps over tokens that its constraint forces, so
rows of one search may differ in length, and what is compared has the same number of choices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from kosmos2.engine.chooser import Offer
from kosmos2.engine.request import Generation, Request, Step, StopReason
from kosmos2.engine.rows import Row
from kosmos2.engine.sampling import Beam, NoRepeat
from kosmos2.vocab.special import Vocabulary


def begin(request: Request, vocabulary: Vocabulary) -> Row | BeamSearch:
    """Return what answers a request."""
    match request.sampling:
        case Beam(width=width) if width > 1:
            original = request.rules.no_repeat is NoRepeat.ORIGINAL and request.constraint is None
            return (OriginalSearch if original else BeamSearch)(request, vocabulary)
    return Row(request, vocabulary)


class Hypothesis(Row):
    """One text of a search."""

    def __init__(self, search: BeamSearch, request: Request, vocabulary: Vocabulary) -> None:
        super().__init__(request, vocabulary)
        self.search = search
        self.total = 0.0
        """The sum of the scores of all choices."""
        self.num_choices = 0

    @property
    def owner(self) -> BeamSearch:
        return self.search

    def taking(self, offer: Offer) -> Hypothesis:
        """Return this text with one more token, and those that it forces."""
        child = copy(self)
        child.steps, child._logprobs = [*self.steps], [*self._logprobs]
        child.total += offer.score
        child.num_choices += 1
        child.take(offer.step)
        child.jump()
        return child

    def fallback(self) -> Offer:
        """Return an offer for when the network scores none of what is allowed."""
        id = self.allowed[0].start if isinstance(self.allowed, tuple) else self._vocabulary.eos
        return Offer(Step(id=id, logprob=-math.inf, mass=None), -math.inf)

    def num_shared(self, other: Hypothesis) -> int:
        """Return how many tokens, from the first of the prompt on, two texts have in common."""
        pairs = zip(self.steps, other.steps, strict=False)
        differing = (at for at, (ours, theirs) in enumerate(pairs) if ours.id != theirs.id)
        shortest = min(len(self.steps), len(other.steps))
        return len(self.request.ids) + next(differing, shortest)


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """A text that came to its end."""

    score: float
    text: Hypothesis


class Heir(NamedTuple):
    """A text that goes on, and the one that it goes on from."""

    parent: Hypothesis
    child: Hypothesis


class BeamSearch:
    """A request that is answered by several texts; ends and ranks them as transformers does."""

    def __init__(self, request: Request, vocabulary: Vocabulary) -> None:
        assert isinstance(request.sampling, Beam)
        self.request = request
        self.beam = request.sampling
        self.stop: StopReason | None = None
        self.steps: list[Step] = []
        """Those of the best text, when it is known."""
        self.rows = [self._first(vocabulary)]
        """The texts that go on, the best first."""
        self.longest = self.rows[0].longest
        self._ended: list[Ended] = []

    @property
    def num_rows(self) -> int:
        return self.beam.width

    def jump(self) -> None:
        """Write the tokens with which every text begins."""
        (first,) = self.rows
        first.jump()
        if first.stop is not None:
            self._end(first)
            self._close()

    def take(self, offers: Sequence[Sequence[Offer]]) -> list[Heir]:
        """Choose among what the rows offer, row for row; return who goes on, the best first.

        The best `width` offers may end a text. Those that go on are the best `width` of the others.
        """
        ranked = [
            (parent, offer) for parent, of_row in zip(self.rows, offers, strict=True)
            for offer in of_row
        ]  # fmt: skip
        ranked = ranked or [(self.rows[0], self.rows[0].fallback())]
        ranked.sort(key=lambda each: -(each[0].total + each[1].score))  # equals in their order
        heirs: list[Heir] = []
        for rank, (parent, offer) in enumerate(ranked):
            child = parent.taking(offer)
            if child.stop is None:
                heirs.append(Heir(parent, child))
            elif rank < self.beam.width:
                self._end(child)
            if len(heirs) == self.beam.width:
                break
        self.rows = [child for _, child in heirs]
        if not heirs or self._is_over():
            self._close()
        return heirs

    def generation(self) -> Generation:
        """Return the best answer, and with it the others that were asked for."""
        assert self._ended
        best, *others = (
            replace(ended.text.generation(), score=ended.score)
            for ended in self._ended[: self.beam.num_best]
        )
        return replace(best, others=tuple(others))

    def _first(self, vocabulary: Vocabulary) -> Hypothesis:
        return Hypothesis(self, self.request, vocabulary)

    def _score(self, text: Hypothesis) -> float:
        """Return the score of a text if it ended here."""
        return text.total / float(max(text.num_choices, 1) ** self.beam.length_penalty)

    def _end(self, text: Hypothesis) -> None:
        """Keep a text that has ended, if it is among the best."""
        self._ended.append(Ended(self._score(text), text))
        self._ended.sort(key=lambda ended: -ended.score)
        del self._ended[self.beam.width :]

    def _is_over(self) -> bool:
        full = len(self._ended) == self.beam.width
        return full and self._score(self.rows[0]) <= self._ended[-1].score

    def _close(self) -> None:
        best = self._ended[0].text
        self.steps, self.stop = best.steps, best.stop


class OriginalHypothesis(Hypothesis):
    """A text of the original's search: where its room ends, an end of text is scored, not kept."""

    def __init__(self, search: OriginalSearch, request: Request, vocabulary: Vocabulary) -> None:
        super().__init__(search, request, vocabulary)
        self.num_asked = len(request.ids)

    @property
    def longest(self) -> int:
        return super().longest + 1

    def hear(self, logits_TV: Tensor) -> None:
        """Read off how probable the prompt was, when the prompt is what was read."""
        if self.num_choices:
            return
        assert isinstance(self.search, OriginalSearch)
        self.num_asked = 1
        targets_T = logits_TV.new_tensor(self.request.ids[1:]).long()
        logprobs_TV = logits_TV[:-1].log_softmax(dim=-1)
        picked_T = logprobs_TV.gather(1, targets_T[:, None])[:, 0]
        self.search.prompt_total = float(picked_T.double().sum())

    def take(self, step: Step) -> None:
        """Write a token that was chosen; behind the last that has room comes the end."""
        if len(self.steps) == self.request.max_new_tokens:
            self.stop = StopReason.LENGTH
        else:
            super().take(step)

    def _write(self, step: Step) -> None:
        super()._write(step)
        if self.stop is StopReason.LENGTH:
            self.stop = None
            self.allowed = (range(self._vocabulary.eos, self._vocabulary.eos + 1),)

    def _forced(self) -> int | None:
        return None


class OriginalSearch(BeamSearch):
    """Ends and ranks texts as the original does."""

    prompt_total = 0.0
    """The sum of the log-probabilities of the prompt's tokens."""

    def _first(self, vocabulary: Vocabulary) -> Hypothesis:
        return OriginalHypothesis(self, self.request, vocabulary)

    def _score(self, text: Hypothesis) -> float:
        num_tokens = len(self.request.ids) - 1 + text.num_choices
        return (self.prompt_total + text.total) / float(num_tokens**self.beam.length_penalty)

    def _end(self, text: Hypothesis) -> None:
        if len(self._ended) < self.beam.width:
            super()._end(text)

    def _is_over(self) -> bool:
        return len(self._ended) == self.beam.width
