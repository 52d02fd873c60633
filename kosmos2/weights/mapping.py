"""The names of one parameter in our network and in both checkpoint formats; strict on every side.

One table with three columns. A `*` is the number of a layer, the same in all columns. Every rule
is a pure renaming: no tensor is transposed, split or joined.

    ours            decoder.blocks.3.query.bias
    Hugging Face    text_model.model.layers.3.self_attn.q_proj.bias
    original        gpt_model.decoder.layers.3.self_attn.q_proj.bias
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kosmos2.errors import WeightsError

Shape = tuple[int, ...]
EMBEDDING = "decoder.embedding.weight"
"""Our name of the matrix that is both the token embedding and the output projection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Rules that share a prefix in each column; tails are whole modules or single tensors."""

    ours: str
    huggingface: str
    original: str
    modules: tuple[tuple[str, str, str], ...] = ()
    """Modules with a weight and a bias."""
    tensors: tuple[tuple[str, str, str], ...] = ()


SECTIONS = (
    Section(
        ours="decoder.",
        huggingface="text_model.model.",
        original="gpt_model.decoder.",
        modules=(("norm", "layer_norm", "layer_norm"),),
        tensors=(("embedding.weight", "embed_tokens.weight", "embed_tokens.weight"),),
    ),
    Section(
        ours="decoder.blocks.*.",
        huggingface="text_model.model.layers.*.",
        original="gpt_model.decoder.layers.*.",
        modules=(
            ("attention_norm", "self_attn_layer_norm", "self_attn_layer_norm"),
            ("query", "self_attn.q_proj", "self_attn.q_proj"),
            ("key", "self_attn.k_proj", "self_attn.k_proj"),
            ("value", "self_attn.v_proj", "self_attn.v_proj"),
            ("mixed_norm", "self_attn.inner_attn_ln", "self_attn.inner_attn_ln"),
            ("output", "self_attn.out_proj", "self_attn.out_proj"),
            ("feedforward_norm", "final_layer_norm", "final_layer_norm"),
            ("expand", "ffn.fc1", "ffn.fc1"),
            ("expanded_norm", "ffn.ffn_layernorm", "ffn.ffn_layernorm"),
            ("contract", "ffn.fc2", "ffn.fc2"),
        ),
    ),
    Section(
        ours="resampler.",
        huggingface="image_to_text_projection.",
        original="img_connector.",
        modules=(
            ("input", "dense", "dense"),
            ("query", "x_attn.q_proj", "x_attn.q_proj"),
            ("key", "x_attn.k_proj", "x_attn.k_proj"),
            ("value", "x_attn.v_proj", "x_attn.v_proj"),
            ("output", "x_attn.out_proj", "x_attn.out_proj"),
        ),
        tensors=(("latents", "latent_query", "latent_query"),),
    ),
    Section(
        ours="vision.",
        huggingface="vision_model.model.",
        original="img_model.visual.",
        modules=(
            ("input_norm", "pre_layrnorm", "ln_pre"),  # the missing "e" is Hugging Face's
            ("output_norm", "post_layernorm", "ln_post"),
        ),
        tensors=(
            ("class_embedding", "embeddings.class_embedding", "class_embedding"),
            ("positions", "embeddings.position_embedding.weight", "positional_embedding"),
            ("patches.weight", "embeddings.patch_embedding.weight", "conv1.weight"),
        ),
    ),
    Section(
        ours="vision.blocks.*.",
        huggingface="vision_model.model.encoder.layers.*.",
        original="img_model.visual.transformer.resblocks.*.",
        modules=(
            ("attention_norm", "layer_norm1", "ln_1"),
            ("query", "self_attn.q_proj", "ts_attn.q_proj"),
            ("key", "self_attn.k_proj", "ts_attn.k_proj"),
            ("value", "self_attn.v_proj", "ts_attn.v_proj"),
            ("output", "self_attn.out_proj", "ts_attn.out_proj"),
            ("feedforward_norm", "layer_norm2", "ln_2"),
            ("expand", "mlp.fc1", "mlp.c_fc"),
            ("contract", "mlp.fc2", "mlp.c_proj"),
        ),
    ),
)


def _rules(column: int) -> tuple[tuple[str, str], ...]:
    """Return (ours, theirs) with the numbers of layers as `*`; column 1 or 2 of the table."""
    rules = []
    for section in SECTIONS:
        prefixes = (section.ours, section.huggingface, section.original)
        tails = [
            tuple(f"{name}.{end}" for name in row)
            for row in section.modules
            for end in ("weight", "bias")
        ]
        for row in (*tails, *section.tensors):
            rules.append((prefixes[0] + row[0], prefixes[column] + row[column]))
    return tuple(rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The names of one checkpoint format."""

    name: str
    rules: tuple[tuple[str, str], ...]
    """(ours, theirs), `*` for the number of a layer."""
    tied: str
    """A second name of the embedding matrix: absent, or equal to it."""
    ignored: tuple[str, ...]
    """Tensors such files may hold and nothing reads (`*`: any text)."""

    def theirs(self, ours: str) -> str:
        """Return the name in this format of one of our parameters."""
        generic, numbers = _generalise(ours)
        return _specialise(dict(self.rules)[generic], numbers)

    def ignores(self, theirs: str) -> bool:
        """Tell whether a tensor of this name may be there and is not read."""
        return any(
            re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), theirs)
            for pattern in self.ignored
        )


HUGGINGFACE = Layout(
    name="Hugging Face",
    rules=_rules(1),
    tied="text_model.lm_head.weight",
    # Buffers that files of older transformers releases hold; both are computed here.
    ignored=(
        "text_model.model.embed_positions.weights",
        "vision_model.model.embeddings.position_ids",
    ),
)

ORIGINAL = Layout(
    name="original",
    rules=_rules(2),
    tied="gpt_model.decoder.output_projection.weight",
    # A dummy that carries a device, the buffer of an xPos that is never called, unused heads.
    # Not ignored: segment_emb and chunk_emb of other trainings, which change every output.
    ignored=(
        "gpt_model.decoder.embed_positions._float_tensor",
        "gpt_model.decoder.self_attn_sope.scale",
        "gpt_model.classification_heads.*",
    ),
)


@dataclass(frozen=True, slots=True)
class Match:
    """How the tensors of one checkpoint fill the parameters of one network, completely."""

    sources: Mapping[str, str]
    """Our parameter -> the tensor's name in the checkpoint, in our order."""
    tied: str | None
    """The second copy of the embedding matrix, if the checkpoint has one."""


def match(layout: Layout, tensors: Mapping[str, Shape], parameters: Mapping[str, Shape]) -> Match:
    """Return which tensor fills which parameter, or refuse with everything that does not fit."""
    rules = {theirs: ours for ours, theirs in layout.rules}
    found: dict[str, str] = {}
    no_rule, no_parameter = [], []
    for name in tensors:
        if name == layout.tied or layout.ignores(name):
            continue
        generic, numbers = _generalise(name)
        if generic not in rules:
            no_rule.append(name)
            continue
        ours = _specialise(rules[generic], numbers)
        if ours in parameters:
            found[ours] = name
        else:
            no_parameter.append(name)

    generics = {_generalise(ours)[0] for ours in parameters}
    problems = {
        "tensors have no rule": no_rule,
        "tensors fit no parameter": no_parameter,
        "of our parameters got no tensor": [ours for ours in parameters if ours not in found],
        "rules name no parameter": [ours for ours, _ in layout.rules if ours not in generics],
        "shapes differ": _differing(layout, found, tensors, parameters),
    }
    if any(problems.values()):
        counts = ", ".join(
            f"{len(names)} {what} {_some(names)}" for what, names in problems.items()
        )
        raise WeightsError(f"{layout.name} checkpoint does not match this model: {counts}")
    tied = layout.tied if layout.tied in tensors else None
    return Match({ours: found[ours] for ours in parameters}, tied)


def _differing(
    layout: Layout,
    found: Mapping[str, str],
    tensors: Mapping[str, Shape],
    parameters: Mapping[str, Shape],
) -> list[str]:
    pairs = dict(found)
    if layout.tied in tensors and EMBEDDING in parameters:
        pairs[f"{EMBEDDING} (tied)"] = layout.tied
    shapes = {**parameters, f"{EMBEDDING} (tied)": parameters.get(EMBEDDING, ())}
    return [
        f"{theirs} {tensors[theirs]} for {ours} {shapes[ours]}"
        for ours, theirs in pairs.items()
        if tensors[theirs] != shapes[ours]
    ]


def _generalise(name: str) -> tuple[str, Sequence[str]]:
    """Return the name with `*` for the numbers between its dots, and the numbers."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name), re.findall(r"(?<=\.)\d+(?=\.)", name)


def _specialise(generic: str, numbers: Iterable[str]) -> str:
    for number in numbers:
        generic = generic.replace("*", number, 1)
    return generic


def _some(names: Sequence[str]) -> str:
    """Return the first few names; all of them would fill the screen."""
    rest = f", … {len(names) - 8} more" if len(names) > 8 else ""
    return f"[{', '.join(names[:8])}{rest}]"
