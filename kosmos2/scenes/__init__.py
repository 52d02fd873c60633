"""Illustrated scenes: pictures composed of drawn things, with annotations exact by construction.

sprites      artwork packages → one file in the cache (the only place that rasterises)
gallery      that file → drawings in memory
nouns        what scenes can show, and its English
recipe       what kind of scenes to make
splits       what training never sees
compose      groups chosen, placed, painted; boxes from the alpha
backgrounds  what stands behind them
geometry     words for places and relations
language     captions, expressions, questions
maker        (recipe, index) → scene
"""

from kosmos2.scenes.gallery import Sprite, Sprites
from kosmos2.scenes.maker import SceneMaker
from kosmos2.scenes.nouns import noun_set
from kosmos2.scenes.recipe import SceneRecipe
from kosmos2.scenes.scene import Group, Question, Referring, Scene
from kosmos2.scenes.sprites import HELD_OUT_STYLES, TRAINING_STYLES, default_cache

__all__ = [
    "HELD_OUT_STYLES",
    "TRAINING_STYLES",
    "Group",
    "Question",
    "Referring",
    "Scene",
    "SceneMaker",
    "SceneRecipe",
    "Sprite",
    "Sprites",
    "default_cache",
    "noun_set",
]
