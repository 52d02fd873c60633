"""Laws of the table of names: one to one, and strict on every side."""

import re

import pytest
import torch
from model_cases import TINY

from kosmos2.errors import WeightsError
from kosmos2.model import Network
from kosmos2.weights.mapping import HUGGINGFACE, ORIGINAL, Layout, Shape, match
from kosmos2.weights.tensors import parameter_shapes

LAYOUTS = pytest.mark.parametrize("layout", [HUGGINGFACE, ORIGINAL], ids=lambda each: each.name)


@pytest.fixture(scope="module")
def parameters() -> dict[str, Shape]:
    with torch.device("meta"):
        return parameter_shapes(Network(TINY))


def tensors_of(layout: Layout, parameters: dict[str, Shape]) -> dict[str, Shape]:
    return {layout.theirs(name): shape for name, shape in parameters.items()}


@LAYOUTS
def test_every_parameter_has_a_name_of_its_own_and_is_found_by_it(
    layout: Layout, parameters: dict[str, Shape]
) -> None:
    tensors = tensors_of(layout, parameters)
    assert len(tensors) == len(parameters)
    matched = match(layout, tensors, parameters)
    assert {ours: layout.theirs(ours) for ours in parameters} == matched.sources
    assert matched.tied is None


@LAYOUTS
def test_the_tied_matrix_and_the_declared_extras_may_be_there(
    layout: Layout, parameters: dict[str, Shape]
) -> None:
    embedding = parameters["decoder.embedding.weight"]
    extras = {pattern.replace("*", "some.weight"): (1,) for pattern in layout.ignored}
    tensors = {**tensors_of(layout, parameters), **extras, layout.tied: embedding}
    assert match(layout, tensors, parameters).tied == layout.tied


@LAYOUTS
def test_a_tensor_without_a_rule_is_refused_by_name(
    layout: Layout, parameters: dict[str, Shape]
) -> None:
    tensors = {**tensors_of(layout, parameters), "l.0.secret": (1,)}
    with pytest.raises(WeightsError, match=r"1 tensors have no rule \[l\.0\.secret\]"):
        match(layout, tensors, parameters)


@pytest.mark.parametrize("name", ["segment_emb", "chunk_emb"])
def test_an_embedding_of_other_trainings_that_changes_every_output_is_refused(
    name: str, parameters: dict[str, Shape]
) -> None:
    extra = f"gpt_model.decoder.{name}.weight"
    tensors = {**tensors_of(ORIGINAL, parameters), extra: (2, 32)}
    with pytest.raises(WeightsError, match=rf"no rule \[{re.escape(extra)}\]"):
        match(ORIGINAL, tensors, parameters)


@LAYOUTS
def test_a_tensor_of_a_layer_too_many_is_refused_by_name(
    layout: Layout, parameters: dict[str, Shape]
) -> None:
    extra = layout.theirs("decoder.blocks.2.query.bias")
    tensors = {**tensors_of(layout, parameters), extra: (32,)}
    with pytest.raises(WeightsError, match=rf"1 tensors fit no parameter \[{re.escape(extra)}\]"):
        match(layout, tensors, parameters)


@LAYOUTS
def test_a_parameter_without_a_tensor_is_named(
    layout: Layout, parameters: dict[str, Shape]
) -> None:
    tensors = tensors_of(layout, parameters)
    del tensors[layout.theirs("vision.blocks.1.query.weight")]
    message = r"1 of our parameters got no tensor \[vision\.blocks\.1\.query\.weight\]"
    with pytest.raises(WeightsError, match=message):
        match(layout, tensors, parameters)


@LAYOUTS
def test_a_rule_that_names_no_parameter_is_named(
    layout: Layout, parameters: dict[str, Shape]
) -> None:
    fewer = {name: shape for name, shape in parameters.items() if name != "resampler.latents"}
    message = r"1 rules name no parameter \[resampler\.latents\]"
    with pytest.raises(WeightsError, match=message):
        match(layout, tensors_of(layout, fewer), fewer)


@LAYOUTS
def test_a_shape_that_differs_is_told_with_both_shapes(
    layout: Layout, parameters: dict[str, Shape]
) -> None:
    theirs = layout.theirs("resampler.latents")
    tensors = {**tensors_of(layout, parameters), theirs: (4, 32)}
    message = rf"1 shapes differ \[{re.escape(theirs)} \(4, 32\) for resampler.latents \(3, 32\)\]"
    with pytest.raises(WeightsError, match=message):
        match(layout, tensors, parameters)


@LAYOUTS
def test_a_tied_matrix_of_another_shape_is_told_with_both_shapes(
    layout: Layout, parameters: dict[str, Shape]
) -> None:
    tensors = {**tensors_of(layout, parameters), layout.tied: (98, 32)}
    with pytest.raises(
        WeightsError, match=r"\(98, 32\) for decoder.embedding.weight .* \(97, 32\)"
    ):
        match(layout, tensors, parameters)


def test_everything_wrong_is_told_at_once(parameters: dict[str, Shape]) -> None:
    with pytest.raises(WeightsError) as caught:
        match(HUGGINGFACE, {f"foreign.{i}.x": (1,) for i in range(20)}, parameters)
    assert "20 tensors have no rule [foreign.0.x, " in str(caught.value)
    assert "… 12 more]" in str(caught.value)
    assert f"{len(parameters)} of our parameters got no tensor" in str(caught.value)
