"""Recipes: what is read equals what is meant, and what is wrong is named."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from kosmos2.config import as_tree, build, load
from kosmos2.errors import ConfigError
from kosmos2.training.recipe import TrainRecipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    rate: float = 0.5
    pair: tuple[float, float] = (1.0, 2.0)
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    steps: int
    kind: Literal["a", "b"] = "a"
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = ()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("train/*.toml")), ids=lambda path: path.name)
def test_every_training_recipe_of_the_repository_loads(path: Path) -> None:
    recipe = load(TrainRecipe, path)
    assert build(TrainRecipe, as_tree(recipe), where="again") == recipe


def test_a_recipe_is_read_with_its_tables_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('steps = 3\n[inner]\nrate = 1\nnames = ["x"]\n[[many]]\n[[many]]\nrate = 2.5\n')

    recipe = load(Outer, path, ["inner.rate=0.25", "kind=b", "inner.pair=[3, 4]"])

    assert recipe == Outer(
        steps=3,
        kind="b",
        inner=Inner(rate=0.25, pair=(3.0, 4.0), names=("x",)),
        many=(Inner(), Inner(rate=2.5)),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("step = 3", "unknown key 'step'. Did you mean 'steps'"),
        ("", "missing key 'steps'"),
        ("steps = 'three'", "steps must be of type int, got 'three'"),
        ("steps = true", "steps must be of type int, got True"),
        ("steps = 3\nkind = 'c'", "kind must be one of a, b, got 'c'"),
        ("steps = 3\ninner = 4", "inner must be a table"),
        ("steps = 3\n[inner]\nraet = 1", "unknown key 'raet'. Did you mean 'rate'"),
        ("steps = 3\n[inner]\npair = [1]", "pair must have 2 values"),
        ("steps = ", "no valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint.replace(".", r"\.")):
        load(Outer, path)


@pytest.mark.parametrize("override", ["steps", "=3", "inner.rate.x=1"])
def test_an_override_that_leads_nowhere_is_refused(tmp_path: Path, override: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text("steps = 3\n[inner]\nrate = 1.0")
    with pytest.raises(ConfigError):
        load(Outer, path, [override])


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        load(Outer, tmp_path / "nothing.toml")
