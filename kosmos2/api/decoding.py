"""How answers are made, as flat words for a command line or a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kosmos2.api.settings import Settings
from kosmos2.engine import Beam, Greedy, NoRepeat, Rules, Sampling
from kosmos2.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """`Settings` without nesting; with a temperature answers are drawn, with beams searched for."""

    batch_size: int = 8
    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 takes the most probable token, as both references do by default."""
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    best_of: int = 1
    beams: int = 1
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat: Literal["words", "original", "transformers", "off"] = "words"
    ngram_size: int = 3

    def settings(self) -> Settings:
        """Return the settings that these words mean."""
        rules = Rules(
            no_repeat=NoRepeat(self.no_repeat),
            ngram_size=self.ngram_size,
            repetition_penalty=self.repetition_penalty,
        )
        return Settings(
            batch_size=self.batch_size,
            max_new_tokens=self.max_new_tokens,
            sampling=self._sampling(),
            best_of=self.best_of,
            rules=rules,
        )

    def _sampling(self) -> Greedy | Sampling | Beam:
        if self.beams > 1 and self.temperature:
            raise ConfigError(
                f"answers are drawn (temperature {self.temperature}) or searched for "
                f"(beams {self.beams}), not both"
            )
        if self.beams > 1:
            return Beam(width=self.beams, length_penalty=self.length_penalty)
        if self.temperature:
            return Sampling(
                seed=self.seed,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                min_p=self.min_p,
            )
        return Greedy()
