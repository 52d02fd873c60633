"""How answers are made."""

from __future__ import annotations

from dataclasses import dataclass, field

from kosmos2.engine import Beam, Greedy, Rules, Sampling
from kosmos2.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How answers are made. As given here: greedily, as both references do by default."""

    batch_size: int = 8
    """Pictures that are encoded at a time, and questions that are answered at a time.

    The latter from when the model is loaded: `Limits.max_rows` of its engine.
    """
    max_new_tokens: int = 256
    """Of free text; a forced form has room for its longest answer."""
    sampling: Greedy | Sampling | Beam = field(default_factory=Greedy)
    """Every question is drawn with the same seed, so its answer does not depend on the others.

    A search needs as many rows as it has beams: no more than batch_size.
    """
    best_of: int = 1
    """Draw so many answers to each question, with seed, seed + 1, ...; keep the most probable."""
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_new_tokens", "best_of"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if isinstance(self.sampling, Beam) and self.sampling.width > self.batch_size:
            raise ConfigError(
                f"a search of {self.sampling.width} beams needs a batch_size of as many rows, "
                f"got {self.batch_size}"
            )
        if self.best_of > 1 and not isinstance(self.sampling, Sampling):
            raise ConfigError(
                f"best_of is {self.best_of}, but without sampling all answers are the same. "
                "Give sampling=Sampling(seed=0)."
            )


DEFAULTS = Settings()
