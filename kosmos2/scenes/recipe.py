"""What kind of scenes to make; with an index it fixes a scene completely."""

from dataclasses import dataclass

from kosmos2.errors import SceneError
from kosmos2.scenes.nouns import find_nouns
from kosmos2.scenes.splits import check_styles, split_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """How many things a scene shows, and how large."""

    max_groups: int = 3
    max_instances: int = 3
    single_share: float = 0.5
    """Share of groups that have one thing before the others draw their count."""
    colour_share: float = 0.35
    """Share of groups that are chosen among the recolourable nouns."""
    min_side: float = 0.18
    """Longer side of the smallest things, as a share of the picture."""
    max_side: float = 0.55
    max_single_side: float = 0.85
    """Longer side of the largest thing that stands alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRecipe(Crowd):
    size: int
    """Pixels at each side of the square picture."""
    nouns: tuple[str, ...]
    styles: tuple[str, ...]
    seed: int
    split: str = "train"

    def __post_init__(self) -> None:
        split_number(self.split)
        check_styles(self.split, self.styles)
        find_nouns(self.nouns)
        if self.seed < 0:
            raise SceneError(f"a scene's seed must be at least 0, got {self.seed}")
        for name in ("single_share", "colour_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SceneError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        if self.size < 16:
            raise SceneError(f"a scene needs a size of at least 16 pixels, got {self.size}")
        if not self.nouns or not self.styles:
            raise SceneError(f"a scene needs nouns and styles, got {self.nouns}, {self.styles}")
        if not 1 <= self.max_groups <= 4 or not 1 <= self.max_instances <= 5:
            raise SceneError(
                "a scene has 1 to 4 groups of 1 to 5 things, got "
                f"max_groups={self.max_groups}, max_instances={self.max_instances}"
            )
        self._check_sides()

    @property
    def small_below(self) -> float:
        """Longer side under which a thing is called small."""
        return self.min_side + 0.25 * (self.max_side - self.min_side)

    @property
    def large_above(self) -> float:
        """Longer side over which a thing is called large."""
        return self.min_side + 0.62 * (self.max_side - self.min_side)

    @property
    def small_sides(self) -> tuple[float, float]:
        return (self.min_side, self.small_below * 0.96)

    @property
    def middle_sides(self) -> tuple[float, float]:
        return (self.small_below * 1.1, self.large_above * 0.96)

    @property
    def large_sides(self) -> tuple[float, float]:
        return (self.large_above * 1.1, self.max_side)

    def _check_sides(self) -> None:
        if not 0 < self.min_side < self.max_side <= self.max_single_side <= 1:
            raise SceneError(
                "sides need 0 < min_side < max_side <= max_single_side <= 1, got "
                f"{self.min_side}, {self.max_side}, {self.max_single_side}"
            )
        alone = (self.middle_sides[0], self.max_single_side)
        together = (self.small_sides, self.middle_sides, self.large_sides)
        several = self.max_groups * self.max_instances > 1
        if any(low > high for low, high in (alone, *(together if several else ()))):
            raise SceneError(
                f"min_side ({self.min_side}) and max_side ({self.max_side}) are too close to tell "
                "small, middle and large things apart; let max_side be at least 1.5 times min_side"
            )
