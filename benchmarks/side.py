"""What either side of a comparison can be asked."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, TypeVar

from torch import Tensor

from benchmarks.prompts import Prompts

RowsT = TypeVar("RowsT")


class Side(Protocol[RowsT]):
    """What a race can ask of either side."""

    name: str
    precision: str

    def encode(self, pixels_NCYX: Tensor) -> Tensor: ...

    def prefill(self, prompts: Prompts, latents_NQD: Tensor) -> RowsT: ...

    def filled(self, rows: int, past: int) -> RowsT: ...

    def rewind(self, rows: RowsT, past: int) -> None: ...

    def step(self, rows: RowsT) -> None: ...

    def caption(self, pixels_NCYX: Tensor, prompts: Prompts, count: int) -> list[list[int]]: ...

    def answer(self, prompts: Prompts, latents_QD: Tensor, count: int) -> list[list[int]]: ...

    def score(self, prompts: Prompts, latents_NQD: Tensor) -> Tensor: ...


Contestant: TypeAlias = Side[Any]
