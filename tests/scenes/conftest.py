"""What the tests of scenes share."""

import pytest
from scene_shapes import shapes

from kosmos2.scenes.gallery import Sprites


@pytest.fixture(scope="session")
def sprites() -> Sprites:
    return shapes()
