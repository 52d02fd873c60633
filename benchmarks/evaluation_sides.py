"""Who takes part in `benchmarks.evaluation`: ours and two loops of transformers, over one folder.

Each keeps what it was asked and what it wrote, so that answers can be held against each other.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.peer import Peer
from benchmarks.work import Work, decode, decoder_weights, encode, head_weights
from kosmos2.api import Kosmos2
from kosmos2.api.decoding import Decoding
from kosmos2.evaluation.asking import AT_A_TIME, ModelAnswerer, ask
from kosmos2.evaluation.benchmark import Benchmark, Form, Problem, prompt_text
from kosmos2.evaluation.predictions import Setting, Writer
from kosmos2.model import ModelConfig
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface

ROWS = 32
"""Questions that ours answers at a time: the command's own default."""
OURS, LOOP, BEST = "ours", "loop", "best"

Pictures = dict[str, Path]


class Side(Protocol):
    name: str

    def begin(self, benchmark: Benchmark) -> None:
        """Get ready for another benchmark; forget the answers to the last one."""
        ...

    def answer(self, problems: Sequence[Problem], pictures: Pictures) -> None:
        """Answer questions, from the files of their pictures to boxes."""
        ...

    def told(self) -> dict[str, str]:
        """Return question → what was written, for all that were answered."""
        ...


class Ours:
    """What `kosmos2 eval` does between loading and scoring."""

    name = OURS

    def __init__(self, folder: Path, tokens: int) -> None:
        decoding = Decoding(batch_size=ROWS, max_new_tokens=tokens, no_repeat="off")
        self.folder, self.settings = folder, decoding.settings()

    def begin(self, benchmark: Benchmark) -> None:
        # Anew: the engine keeps what it has seen, and all benchmarks may have the same pictures.
        self.model = Kosmos2.load(self.folder, device="cpu", dtype="fp32", settings=self.settings)
        self.benchmark = benchmark
        self._answerer = ModelAnswerer(self.model, benchmark, Form.FREE)
        self._setting = Setting(
            benchmark=benchmark.name, version=benchmark.version, split="", model="", weights="",
            dtype="fp32", bins=self.model.tokenizer.grid.bins, answer_form="free", decoding={},
            code="",
        )  # fmt: skip
        self._told: dict[str, str] = {}

    def answer(self, problems: Sequence[Problem], pictures: Pictures) -> None:
        with tempfile.TemporaryDirectory() as folder:
            writer = Writer(Path(folder) / "predictions.jsonl", self._setting)
            answers = ask(problems, pictures, lambda: self._answerer, at_a_time=AT_A_TIME * ROWS)
            for predictions in answers:
                writer.write(predictions)
                self._told |= {each.id: each.answer for each in predictions}

    def told(self) -> dict[str, str]:
        return self._told

    def prompt(self, problem: Problem) -> tuple[int, ...]:
        """Return the ids that a question is asked with."""
        tokenizer, num_latents = self.model.tokenizer, self.model.engine.config.num_latents
        prompt = self.benchmark.prompt(problem, tokenizer.grid)
        return tokenizer.encode(prompt.segments, num_latents=num_latents).ids


@dataclass(frozen=True, slots=True)
class Loaded:
    """transformers' model of a folder, with what reads and writes its texts."""

    model: Any
    processor: Any
    tokenizer: Tokenizer

    @classmethod
    def of(cls, folder: Path) -> Loaded:
        """Return it in float32 at its best setting."""
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        )
        processor: Any = AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
        return cls(model, processor, Tokenizer.from_folder(folder))


class Loop:
    """transformers, one question after the other."""

    name = LOOP

    def __init__(self, loaded: Loaded, tokens: int) -> None:
        self.model = loaded.model
        self.processor = loaded.processor
        self.tokenizer = loaded.tokenizer
        self.tokens = tokens

    def begin(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self.read: dict[str, tuple[int, ...]] = {}
        """Question → ids of its prompt."""
        self.wrote: dict[str, tuple[int, ...]] = {}
        """Question → ids of its answer, the end of text among them."""

    def answer(self, problems: Sequence[Problem], pictures: Pictures) -> None:
        for problem in problems:
            image = Image.open(pictures[problem.picture])
            inputs = self._inputs(problem, image)
            pixels = {"pixel_values": inputs["pixel_values"], "image_embeds": None}
            self._generate([problem], [inputs], pixels)

    def told(self) -> dict[str, str]:
        vocabulary = self.tokenizer.vocabulary
        return {
            id: self.tokenizer.decode([token for token in ids if token != vocabulary.eos])
            for id, ids in self.wrote.items()
        }

    def _inputs(self, problem: Problem, image: Image.Image | None) -> Any:  # noqa: ANN401
        prompt = self.benchmark.prompt(problem, self.tokenizer.grid)
        return self.processor(
            text=prompt_text(prompt),
            images=image,
            num_image_tokens=self.model.config.latent_query_num,
            return_tensors="pt",
        )

    def _generate(
        self, problems: Sequence[Problem], inputs: Sequence[Any], image: Mapping[str, Any]
    ) -> None:
        """Answer questions whose prompts are of equal length, and read their boxes."""
        ids_BT = torch.cat([each["input_ids"] for each in inputs])
        answers_BT = self.model.generate(
            **image,
            input_ids=ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            image_embeds_position_mask=torch.cat(
                [each["image_embeds_position_mask"] for each in inputs]
            ),
            use_cache=True,
            do_sample=False,
            no_repeat_ngram_size=0,
            max_new_tokens=self.tokens,
        )
        for text in self.processor.batch_decode(answers_BT, skip_special_tokens=True):
            self.processor.post_process_generation(text)
        length, pad = ids_BT.shape[1], self.tokenizer.vocabulary.pad
        for problem, ids in zip(problems, answers_BT.tolist(), strict=True):
            self.read[problem.id] = tuple(ids[:length])
            self.wrote[problem.id] = tuple(token for token in ids[length:] if token != pad)


class EachOnce(Loop):
    """transformers, each picture encoded once, prompts of equal length in one batch."""

    name = BEST

    def answer(self, problems: Sequence[Problem], pictures: Pictures) -> None:
        peer = Peer(self.model, "fp32")
        by_picture: dict[str, list[Problem]] = defaultdict(list)
        for problem in problems:
            by_picture[problem.picture].append(problem)
        for name, own in by_picture.items():
            image = Image.open(pictures[name])
            asked = [(problem, self._inputs(problem, image)) for problem in own[:1]]
            asked += [(problem, self._with_picture(problem, asked[0][1])) for problem in own[1:]]
            latents_1QD = peer.encode(asked[0][1]["pixel_values"])
            alike: dict[int, list[tuple[Problem, Any]]] = defaultdict(list)
            for problem, inputs in asked:
                alike[inputs["input_ids"].shape[1]].append((problem, inputs))
            for group in alike.values():
                them, inputs_of = zip(*group, strict=True)
                latents_NQD = latents_1QD.repeat(len(group), 1, 1)
                self._generate(them, inputs_of, {"image_embeds": latents_NQD})

    def _with_picture(self, problem: Problem, first: Any) -> Any:  # noqa: ANN401
        """Return inputs with the places of a picture that another question has brought."""
        prompt = prompt_text(self.benchmark.prompt(problem, self.tokenizer.grid))
        end = int(first["image_embeds_position_mask"][0].nonzero()[-1]) + 2  # </image> too
        words = self.processor.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        ids_1T = torch.cat([first["input_ids"][:, :end], words["input_ids"]], dim=1)
        mask_1T = torch.zeros_like(ids_1T)
        mask_1T[:, :end] = first["image_embeds_position_mask"][:, :end]
        return {"input_ids": ids_1T, "image_embeds_position_mask": mask_1T}


def sides(folder: Path, tokens: int) -> tuple[Ours, Loop, EachOnce]:
    """Return those who take part; both loops of transformers use one copy of the weights."""
    loaded = Loaded.of(folder)
    return Ours(folder, tokens), Loop(loaded, tokens), EachOnce(loaded, tokens)


class Counted(Protocol):
    """Who knows how many tokens prompts and answers have, by question."""

    read: dict[str, tuple[int, ...]]
    wrote: dict[str, tuple[int, ...]]


def least(
    config: ModelConfig, loop: Counted, parts: Iterable[Sequence[Problem]]
) -> tuple[Work, ...]:
    """Return the least work of a round, the mean over rounds: each picture encoded once, what
    prompts about it begin with alike read once, tokens written by as many rows as there may be."""
    pictures = questions = rounds = read = 0
    written = lengths = 0.0
    for problems in parts:
        beginnings: dict[str, set[tuple[int, ...]]] = defaultdict(set)
        rounds += 1
        questions += len(problems)
        for problem in problems:
            prompt, answer = loop.read[problem.id], loop.wrote[problem.id]
            beginnings[problem.picture] |= {prompt[:end] for end in range(1, len(prompt) + 1)}
            written += len(answer)
            lengths += len(prompt) + len(answer) / 2
        read += sum(map(len, beginnings.values()))
        pictures += len(beginnings)
    steps = decode(config, "fp32", ROWS, lengths / questions)
    reading = 2 * (read * decoder_weights(config) + questions * head_weights(config))
    work = (
        encode(config, "fp32", pictures),
        Work(0.0, reading, "fp32"),
        steps.times((written - questions) / ROWS),
    )
    return tuple(each.times(1 / rounds) for each in work)


def config_of(folder: Path) -> ModelConfig:
    """Return the sizes of a model folder."""
    return huggingface.read_config(folder)
