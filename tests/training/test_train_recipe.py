"""A recipe that cannot be run is refused when it is read, by the name of its key."""

import dataclasses

import pytest

from kosmos2 import config
from kosmos2.errors import ConfigError
from kosmos2.scenes.recipe import SceneRecipe
from kosmos2.training.recipe import SourceRecipe, TrainRecipe

TREE = {
    "scenes": {"nouns": ["dog"]},
    "sources": [{"kind": "scenes"}],
    "optimizer": {"steps": 1000},
}


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("run", "log_every", 0),
        ("run", "checkpoint_every", 0),
        ("run", "evaluate_every", -1),
        ("run", "evaluation_scenes", 0),
        ("run", "preview_scenes", 0),
        ("run", "pad_multiple", 0),
        ("run", "workers", -1),
        ("optimizer", "steps", 0),
        ("optimizer", "accumulation", 0),
        ("optimizer", "learning_rate", 0.0),
        ("optimizer", "learning_rate", float("nan")),
        ("optimizer", "clip", 0.0),
        ("optimizer", "betas", [0.9, 1.0]),
        ("optimizer", "weight_decay", -0.1),
        ("loss", "location_weight", -1.0),
        ("loss", "location_spread", float("nan")),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_name(
    table: str, key: str, value: object
) -> None:
    tree = {**TREE, table: {**TREE.get(table, {}), key: value}}  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=rf"{table}\.{key}"):
        config.build(TrainRecipe, tree, where="test")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sources": []}, "sources"),
        ({"sources": [{"kind": "records"}]}, "path"),
        ({"sources": [{"kind": "scenes", "weight": -1.0}]}, "weight"),
        ({"seed": -1}, "seed"),
        ({"bins": 0}, "bins"),
        ({"scenes": {}}, "scenes.nouns"),
    ],
)
def test_a_whole_that_cannot_work_is_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config.build(TrainRecipe, {**TREE, **changes}, where="test")


def test_a_source_s_scenes_are_by_default_those_of_the_scenes() -> None:
    # Both take them from `Crowd`, which has no seed, size or split.
    ours, theirs = (
        {field.name: field.default for field in dataclasses.fields(kind)}
        for kind in (SourceRecipe, SceneRecipe)
    )
    shared = ours.keys() & theirs.keys()
    assert len(shared) == 7
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
