"""Steps: the same samples whoever makes them, each once, with little padding."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from data_cases import MODEL, save, write_lines
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scene_shapes import recipe, shapes

from kosmos2.data.collate import Batch, Row, collate, pack
from kosmos2.data.ledger import Ledger, Rejected
from kosmos2.data.lessons import Lesson, Teacher
from kosmos2.data.loader import Loading, cut, steps
from kosmos2.data.mixture import Mixture
from kosmos2.data.opening import Reader, open_source
from kosmos2.data.order import Epochs
from kosmos2.data.patches import unknown
from kosmos2.data.preview import padding_share
from kosmos2.data.recipe import SourceRecipe
from kosmos2.data.sources import SceneSource
from kosmos2.errors import ConfigError, RecordError
from kosmos2.scenes.maker import SceneMaker
from kosmos2.vocab.tokenizer import Tokenizer

PIXELS = torch.zeros(3, 4, 4, dtype=torch.uint8)
MARK = 1000
"""The first target says which sample of which source a row is."""


@dataclass(frozen=True)
class Numbered:
    """Row n says n; rows differ in length."""

    source: int
    order: Epochs | None = None
    bad: int = -1

    def row(self, index: int) -> Row | Rejected:
        number = self.order.place(index)[0] if self.order else index
        if number == self.bad:
            return Rejected("bad", f"sample {number}")
        name = MARK * (self.source + 1) + number
        lesson = Lesson(prompt=(), answer=(name, *range(4, 5 + number * 7 % 23)))
        return pack(PIXELS, unknown(2), ((0,), (False,)), [lesson])


def sources(bad: int = -1) -> list[Numbered]:
    return [Numbered(0, Epochs(24, 3), bad), Numbered(1)]


def mixture(first: int = 0, stop: int = 12) -> Mixture:
    return Mixture([0.5, 0.5], batch_size=8, seed=1, first=first, stop=stop)


def loaded(
    mix: Mixture, ledger: Ledger | None = None, bad: int = -1, **settings: int
) -> list[list[Batch]]:
    loading = Loading(**{"workers": 0, "multiple": 4, **settings})
    return list(steps(sources(bad), mix, loading, ledger or Ledger()))


def names(batches: list[Batch]) -> list[int]:
    return [int(target) for batch in batches for target in batch.target_L if target >= MARK]


def content(found: list[list[Batch]]) -> list[list[list[object]]]:
    return [
        [[batch.ids_BT.tolist(), batch.target_L.tolist(), batch.source_L.tolist()] for batch in one]
        for one in found
    ]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("max_tokens", [0, 40])
def test_workers_do_not_change_what_comes_nor_its_order(workers: int, max_tokens: int) -> None:
    alone = content(loaded(mixture(), max_tokens=max_tokens))
    assert content(loaded(mixture(), workers=workers, max_tokens=max_tokens)) == alone


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_share_each_step_without_rest_or_overlap(ranks: int) -> None:
    whole = loaded(mixture())
    shares = [loaded(mixture(), rank=rank, ranks=ranks, max_tokens=40) for rank in range(ranks)]
    for number, step in enumerate(whole):
        shared = [name for share in shares for name in names(share[number])]
        assert sorted(shared) == sorted(names(step))
    sizes = [sum(len(names(step)) for step in share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 2), (3, 1)])
def test_each_sample_of_a_source_comes_once_an_epoch(ranks: int, workers: int) -> None:
    shares = [loaded(mixture(), rank=r, ranks=ranks, workers=workers) for r in range(ranks)]
    counts = Counter(name for share in shares for step in share for name in names(step))
    finite = Counter({name: n for name, n in counts.items() if name < 2 * MARK})
    epochs, rest = divmod(finite.total(), 24)
    assert epochs >= 1
    assert sorted(finite.values()) == [epochs] * (24 - rest) + [epochs + 1] * rest
    assert set(finite) == {MARK + n for n in range(24)}
    infinite = {name - 2 * MARK for name in counts if name >= 2 * MARK}
    assert infinite == set(range(len(infinite)))


@pytest.mark.parametrize("stopped_at", [1, 7])
def test_a_run_that_resumes_sees_what_it_would_have_seen(stopped_at: int) -> None:
    whole = content(loaded(mixture(), max_tokens=40))
    assert content(loaded(mixture(first=stopped_at), max_tokens=40)) == whole[stopped_at:]


def test_without_a_budget_a_step_is_one_batch_in_the_order_of_its_draws() -> None:
    mix = mixture()
    for draws, step in zip(mix, loaded(mix), strict=True):
        rows = [sources()[draw.source].row(draw.index) for draw in draws]
        assert len(step) == 1
        assert names(step) == [row.targets[0] for row in rows if isinstance(row, Row)]


def test_what_is_rejected_is_counted_and_the_rest_goes_on() -> None:
    ledger, clean = Ledger(), loaded(mixture())
    found = loaded(mixture(), ledger, bad=5, workers=2)
    times = sum(names(step).count(MARK + 5) for step in clean)
    assert times >= 1
    assert [names(step) for step in found] == [
        [name for name in names(step) if name != MARK + 5] for step in clean
    ]
    assert ledger.rejected == {(0, "bad"): times}
    assert ledger.examples == {(0, "bad"): "sample 5"}
    assert sum(ledger.used.values()) == 8 * 12 - times


def test_a_step_of_which_all_is_rejected_has_no_batch() -> None:
    only = Mixture([1.0], batch_size=1, seed=0, first=0, stop=1)
    ledger, source = Ledger(), Numbered(0, None, bad=0)
    assert list(steps([source], only, Loading(workers=0, multiple=1), ledger)) == [[]]
    assert ledger.rejected == {(0, "bad"): 1}


def test_a_source_of_which_nothing_can_be_used_ends_the_run_with_its_reason() -> None:
    mix = Mixture([1.0], batch_size=8, seed=0, first=0, stop=100)
    found = steps([Numbered(0, Epochs(1, 0), bad=0)], mix, Loading(workers=0, multiple=1), Ledger())
    with pytest.raises(RecordError, match="256 times: bad, as sample 0"):
        list(found)


def rows_of(lengths: list[int]) -> list[Row]:
    return [
        pack(PIXELS, unknown(2), ((0,), (False,)), [Lesson(prompt=(), answer=(n + 5,) * length)])
        for n, length in enumerate(lengths)
    ]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 300))
def test_no_batch_passes_the_budget_but_a_sample_that_does_alone(
    lengths: list[int], max_tokens: int
) -> None:
    batches = cut(rows_of(lengths), multiple=4, max_tokens=max_tokens)
    made = [collate(batch, multiple=4) for batch in batches]
    learnt = Counter(int(target) for batch in made for target in batch.target_L)
    assert learnt == {n + 5: length for n, length in enumerate(lengths)}
    assert sum(batch.num_samples for batch in made) == len(lengths)
    for batch in made:
        assert batch.ids_BT.numel() <= max_tokens or batch.num_samples == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_budget_leaves_little_padding_whatever_the_lengths(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    long, short = drawn.integers(60, 160, size=90), drawn.integers(15, 60, size=30)
    lengths = [*map(int, long), *map(int, short), *([255] * 8)]
    batches = [
        collate(batch, multiple=8) for batch in cut(rows_of(lengths), multiple=8, max_tokens=2048)
    ]
    assert padding_share(batches) <= 0.05


def test_scenes_records_and_text_leave_little_padding(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    teacher = Teacher(tiny_tokenizer, num_latents=3)
    maker = SceneMaker(recipe(size=16), shapes())
    scenes = [maker.scene(index) for index in range(24)]
    rows = []
    for number, scene in enumerate(scenes):
        save(tmp_path / f"{number}.png", Image.fromarray(scene.image))
        rows.append({**scene.record().to_dict(), "image": f"{number}.png", "shard": None})
    texts = [{"text": f"{each.detailed.text}\n{each.brief.text}"} for each in scenes]
    reader = Reader(teacher, MODEL, tmp_path / "cache")
    files = [
        SourceRecipe(kind="records", path=str(write_lines(tmp_path / "r.jsonl", rows))),
        SourceRecipe(kind="text", path=str(write_lines(tmp_path / "t.jsonl", texts)), block=128),
    ]
    live = SceneSource(maker, teacher, SourceRecipe(kind="scenes"), patches_per_side=4)
    mixed = [live, *(open_source(each, reader, seed=1) for each in files)]
    mix = Mixture([0.5, 0.3, 0.2], batch_size=96, seed=1, first=0, stop=2)
    loading = Loading(workers=0, multiple=8, max_tokens=1024)
    ledger = Ledger()
    made = [batch for step in steps(mixed, mix, loading, ledger) for batch in step]
    assert sum(batch.num_samples for batch in made) == sum(ledger.used.values()) > 150
    assert len(made) > 4
    assert padding_share(made) <= 0.05


def test_a_rank_outside_the_ranks_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank"):
        Loading(workers=0, multiple=1, rank=2, ranks=2)
