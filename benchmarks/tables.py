"""The races: what is done in each, by whom, how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import prompts, work
from benchmarks.contest import Entry, Race, race, timed
from benchmarks.lineup import Lineup
from benchmarks.names import FP32, is_ours
from benchmarks.side import Contestant
from benchmarks.work import Work

MakeEntry = Callable[[Contestant, "Setup"], Entry]


@dataclass(frozen=True, slots=True)
class Setup:
    """What all races of one run share."""

    lineup: Lineup
    bandwidth: Callable[[], float]
    """Reads the memory's bandwidth, bytes a second."""
    rates: Callable[[], Mapping[str, float]]
    """Reads the rates of products, operations a second."""
    quick: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One race, and how to name it."""

    name: str
    title: str
    setting: str
    make: MakeEntry
    rounds: int
    quick_rounds: int = 2
    calculates: bool = False
    """Whether arithmetic limits it, so that the rates of products are read in each round."""
    without: tuple[str, ...] = ()
    """Contestants who sit this one out."""

    def run(self, names: Sequence[str], setup: Setup) -> Race | None:
        """Race those of the named contestants who take part; None if that leaves one side."""
        chosen = [name for name in names if name not in self.without]
        if len({is_ours(name) for name in chosen}) < 2:
            return None
        entries = [self.make(contestant, setup) for contestant in setup.lineup.get(chosen)]
        return race(
            entries,
            self.quick_rounds if setup.quick else self.rounds,
            setup.bandwidth,
            setup.rates if self.calculates else dict,
        )


def _decode(rows: int, past: int, steps: int) -> MakeEntry:
    def make(contestant: Contestant, setup: Setup) -> Entry:
        state = contestant.filled(rows, past)
        contestant.step(state)

        def sample() -> float:
            contestant.rewind(state, past)
            contestant.step(state)  # a step of another contestant has left the caches cold
            return timed(lambda: contestant.step(state), steps)

        least = work.decode(setup.lineup.config, contestant.precision, rows, past + 1 + steps / 2)
        return Entry(contestant.name, sample, (least,))

    return make


def _encode(contestant: Contestant, setup: Setup) -> Entry:
    pixels_NCYX = prompts.pictures(setup.lineup.config, 1)
    contestant.encode(pixels_NCYX)
    least = work.encode(setup.lineup.config, contestant.precision, 1)
    return Entry(contestant.name, lambda: timed(lambda: contestant.encode(pixels_NCYX)), (least,))


def _prefill(rows: int) -> MakeEntry:
    def make(contestant: Contestant, setup: Setup) -> Entry:
        config = setup.lineup.config
        asked = prompts.captions(config, rows)
        latents_NQD = contestant.encode(prompts.pictures(config, 1)).repeat(rows, 1, 1)
        least = work.prefill(config, contestant.precision, rows, asked.length)
        return Entry(
            contestant.name, lambda: timed(lambda: contestant.prefill(asked, latents_NQD)), (least,)
        )

    return make


def _look(contestant: Contestant, setup: Setup) -> Entry:
    config = setup.lineup.config
    asked, pixels_NCYX = prompts.captions(config, 1), prompts.pictures(config, 1)
    contestant.encode(pixels_NCYX)

    def sample() -> float:
        return timed(lambda: contestant.prefill(asked, contestant.encode(pixels_NCYX)))

    return Entry(contestant.name, sample, _look_work(contestant, setup, asked.length))


def _look_work(contestant: Contestant, setup: Setup, length: int) -> tuple[Work, ...]:
    config, precision = setup.lineup.config, contestant.precision
    return work.encode(config, precision, 1), work.prefill(config, precision, 1, length)


def _caption(rows: int, tokens: int) -> MakeEntry:
    def make(contestant: Contestant, setup: Setup) -> Entry:
        config = setup.lineup.config
        asked, pixels_NCYX = prompts.captions(config, rows), prompts.pictures(config, rows)
        contestant.caption(pixels_NCYX[:1], prompts.captions(config, 1), 2)

        def sample() -> float:
            return timed(lambda: contestant.caption(pixels_NCYX, asked, tokens))

        past = asked.length + tokens / 2
        steps = work.decode(config, contestant.precision, rows, past).times(tokens - 1)
        least = (*_look_work(contestant, setup, asked.length), steps)
        return Entry(contestant.name, sample, least)

    return make


def _phrases(count: int) -> MakeEntry:
    def make(contestant: Contestant, setup: Setup) -> Entry:
        config = setup.lineup.config
        asked, pixels_NCYX = prompts.phrases(config, count), prompts.pictures(config, 1)
        contestant.encode(pixels_NCYX)

        def sample() -> float:
            return timed(
                lambda: contestant.answer(asked, contestant.encode(pixels_NCYX)[0], PHRASE_TOKENS)
            )

        own = asked.length - prompts.shared_length(config)
        least = (
            *_look_work(contestant, setup, prompts.shared_length(config)),
            work.prefill(config, contestant.precision, count, own),
            work.decode(config, contestant.precision, count, asked.length),
        )
        return Entry(contestant.name, sample, least)

    return make


NUM_PHRASES = 20
PHRASE_TOKENS = 2
"""The corners of one box."""
CAPTION_TOKENS = 64

TABLES = (
    Table(
        name="decode-1",
        title="Decoding, one row",
        setting="a step after 101 to 105 tokens, mean of 4",
        make=_decode(rows=1, past=100, steps=4),
        rounds=11,
        quick_rounds=4,
    ),
    Table(
        name="decode-8",
        title="Decoding, eight rows",
        setting="a step after 101 to 103 tokens for all eight rows, mean of 2",
        make=_decode(rows=8, past=100, steps=2),
        rounds=7,
    ),
    Table(
        name="long",
        title="Decoding far into a text",
        setting="one row, a step after 1,001 to 1,004 tokens, mean of 3",
        make=_decode(rows=1, past=1000, steps=3),
        rounds=5,
    ),
    Table(
        name="encode",
        title="Vision tower and resampler, one picture",
        setting="224 x 224 pixels to 64 vectors",
        make=_encode,
        rounds=5,
        calculates=True,
    ),
    Table(
        name="prefill-1",
        title="Prefill, one prompt",
        setting="71 tokens, 64 of them the picture",
        make=_prefill(1),
        rounds=5,
        calculates=True,
    ),
    Table(
        name="look",
        title="Vision and prefill together: until the first token",
        setting="one picture, 71 tokens",
        make=_look,
        rounds=7,
        calculates=True,
    ),
    Table(
        name="prefill-8",
        title="Prefill, eight prompts",
        setting="8 x 71 tokens",
        make=_prefill(8),
        rounds=3,
        quick_rounds=1,
        calculates=True,
    ),
    Table(
        name="caption",
        title="Picture to caption, end to end",
        setting=f"pixels to {CAPTION_TOKENS} tokens, greedy, `generate` of both sides",
        make=_caption(1, CAPTION_TOKENS),
        rounds=3,
        quick_rounds=1,
        calculates=True,
    ),
    Table(
        name="phrases",
        title=f"{NUM_PHRASES} phrases about one picture",
        setting="pixels to a box for each; transformers encodes the picture once and answers all "
        "as one batch, ours also reads the common part of the prompts once",
        make=_phrases(NUM_PHRASES),
        rounds=3,
        quick_rounds=1,
        calculates=True,
        without=(FP32,),
    ),
)
