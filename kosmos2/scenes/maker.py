"""Make scenes: a pure function of a recipe and an index."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from numpy.random import PCG64, Generator, SeedSequence

from kosmos2.boxes import Box
from kosmos2.errors import SceneError
from kosmos2.scenes import backgrounds, language
from kosmos2.scenes.compose import COLOURS, Drawn, draw_groups, paint, plan_groups
from kosmos2.scenes.gallery import Pixels, Sprites
from kosmos2.scenes.language import Described
from kosmos2.scenes.nouns import Noun, find_nouns
from kosmos2.scenes.recipe import SceneRecipe
from kosmos2.scenes.scene import Group, Scene
from kosmos2.scenes.splits import Combination, is_held_out, permits, split_number

_MOST_ATTEMPTS = 1000


@dataclass(frozen=True, slots=True)
class SceneMaker:
    recipe: SceneRecipe
    sprites: Sprites
    _nouns: tuple[Noun, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        nouns = find_nouns(self.recipe.nouns)
        drawn = tuple(n for n in nouns if self.sprites.of(n.singular, self.recipe.styles))
        if not drawn:
            raise SceneError(f"no noun of the recipe is drawn in the styles {self.recipe.styles}")
        if self.recipe.split == "background" and not self.sprites.photos:
            raise SceneError("split 'background' needs photographs and the sprites carry none")
        object.__setattr__(self, "_nouns", drawn)

    def scene(self, index: int) -> Scene:
        """Return the scene of this index, the same on every machine."""
        stream = split_number(self.recipe.split)
        rng = Generator(PCG64(SeedSequence([self.recipe.seed, stream, index])))
        for _ in range(_MOST_ATTEMPTS):
            plans = plan_groups(self.recipe, self._nouns, self.sprites, rng)
            drawn = draw_groups(plans, self.recipe.size, rng)
            if drawn is None:
                continue
            scene = self._described(drawn, index, rng)
            if scene is not None:
                return scene
        raise SceneError(f"no scene fits {self.recipe} at index {index}; allow smaller things")

    def _described(self, drawn: Sequence[Drawn], index: int, rng: Generator) -> Scene | None:
        """Return the scene, or None where it does not suit the split or cannot be told apart."""
        groups = [self._words(group) for group in drawn]
        if _cannot_be_told_apart(groups):
            return None
        known = language.relations(groups, self._permits)
        brief, ends, said = language.brief_caption(groups, known, rng)
        combinations = language.said_combinations(groups, said)
        if self.recipe.split == "combo" and not any(map(is_held_out, combinations)):
            return None
        detailed, _ = language.detailed_caption(groups, known, rng)
        phrases = [language.expressions(group, groups, known) for group in groups]
        return Scene(
            id=f"scene:{self.recipe.split}:{self.recipe.seed}:{index}",
            image=self._painted(drawn, rng),
            brief=brief,
            detailed=detailed,
            expression_ends=ends,
            groups=tuple(map(_group, groups, phrases)),
            referring=language.referring(groups, phrases),
            questions=language.questions(groups, known, self._absent(groups, rng), self._permits),
            # Last, so that whatever is drawn before stays what it was.
            absent=language.absent(self._absent(groups, rng), COLOURS, self._permits, rng),
        )

    def _permits(self, combination: Combination) -> bool:
        return permits(self.recipe.split, combination)

    def _words(self, group: Drawn) -> Described:
        size = self.recipe.size
        sides = [max(layer.pixels.shape[:2]) / size for layer in group.layers]
        boxes = tuple(Box(*(corner / size for corner in layer.corners)) for layer in group.layers)
        return Described(group.noun, group.colour, self._size_word(sides), boxes)

    def _size_word(self, sides: Sequence[float]) -> str | None:
        if max(sides) < self.recipe.small_below:
            return "small"
        return "large" if min(sides) > self.recipe.large_above else None

    def _painted(self, drawn: Sequence[Drawn], rng: Generator) -> Pixels:
        if self.recipe.split == "background":
            background = backgrounds.photographed(self.sprites.photos, self.recipe.size, rng)
        else:
            background = backgrounds.procedural(self.recipe.size, rng)
        shadow = rng.uniform(0.2, 0.5) if rng.random() < 0.6 else 0.0
        return paint(background, drawn, shadow=shadow)

    def _absent(self, groups: Sequence[Described], rng: Generator) -> list[Noun]:
        """Return up to two nouns of the recipe that the scene does not show."""
        shown = {group.noun.singular for group in groups}
        picks = rng.integers(len(self._nouns), size=2).tolist()
        nouns = {self._nouns[pick].singular: self._nouns[pick] for pick in picks}
        return [noun for name, noun in nouns.items() if name not in shown]


def _cannot_be_told_apart(groups: Sequence[Described]) -> bool:
    """Return whether two groups share their noun and no clear attribute separates them."""
    for i, first in enumerate(groups):
        for second in groups[:i]:
            if first.noun.singular != second.noun.singular:
                continue
            by_colour = first.colour and second.colour and first.colour != second.colour
            by_size = first.size and second.size and first.size != second.size
            if not by_colour and not by_size:
                return True
    return False


def _group(group: Described, expressions: tuple[str, ...]) -> Group:
    return Group(
        noun=group.noun.singular,
        plural=group.noun.plural,
        count=group.count,
        colour=group.colour,
        size=group.size,
        boxes=group.boxes,
        expressions=expressions,
    )
