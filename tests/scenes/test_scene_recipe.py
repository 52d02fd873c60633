"""A recipe of scenes that cannot be made is refused at once."""

import pytest
from scene_shapes import recipe, shapes

from kosmos2.errors import SceneError
from kosmos2.scenes.maker import SceneMaker


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"seed": -1}, "seed"),
        ({"size": 15}, "16 pixels"),
        ({"nouns": ()}, "nouns and styles"),
        ({"single_share": 1.1}, "single_share"),
        ({"colour_share": -0.1}, "colour_share"),
        ({"max_groups": 5}, "max_groups=5"),
        ({"min_side": 0.6}, "min_side < max_side"),
        ({"min_side": 0.3, "max_side": 0.35}, "too close"),
        ({"min_side": 0.8, "max_side": 0.84, "max_groups": 1, "max_instances": 1}, "too close"),
    ],
)
def test_what_cannot_be_made_is_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(SceneError, match=complaint):
        recipe(**changes)


@pytest.mark.parametrize(("min_side", "max_side"), [(0.18, 0.27), (0.1, 0.15), (0.05, 0.55)])
def test_sides_that_are_just_far_enough_apart_make_scenes(min_side: float, max_side: float) -> None:
    maker = SceneMaker(recipe(min_side=min_side, max_side=max_side), shapes())
    assert all(maker.scene(index).groups for index in range(30))
