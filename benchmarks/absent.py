"""`python -m benchmarks.absent`: whether `find_or_absent` knows what a picture does not show.

Each picture is asked for the phrases of its own things, and for as many of the next pictures whose
noun it has not. So both halves have the same phrases, and only the picture can tell them apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos2 import config
from kosmos2.api import Kosmos2, questions
from kosmos2.evaluation.metrics import Number, auroc
from kosmos2.evaluation.scenes import FIND_ONE, Kind, cases_of
from kosmos2.scenes import Scene, Sprites, default_cache
from kosmos2.training.build import scene_maker
from kosmos2.training.recipe import TrainRecipe

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "train" / "embedded.toml"


@dataclass(frozen=True)
class Asked:
    """A phrase put to a picture."""

    scene: str
    is_shown: bool
    absent: float
    score: float
    """Of the best box, where a box has to be given."""


def main() -> None:
    """Print how well two scores tell phrases that are shown from those that are not."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=100, help="pictures")
    count = options.parse_args().count
    scenes = _scenes(count)
    asked = _asked(Kosmos2.load(device="cpu"), scenes, _phrases(scenes))
    sys.stdout.write(json.dumps(_numbers(asked), indent=1) + "\n")


def _scenes(count: int) -> list[Scene]:
    recipe = config.load(TrainRecipe, RECIPE, [])
    sprites = Sprites.load(default_cache(), styles=recipe.scenes.styles, nouns=recipe.scenes.nouns)
    maker = scene_maker(recipe, recipe.sources[0], sprites, split="iid")
    return [maker.scene(index) for index in range(count)]


def _phrases(scenes: Sequence[Scene]) -> list[list[tuple[str, bool]]]:
    """Return, for each picture, phrases and whether they are shown."""
    own = [
        [
            (case.asked, case.things[0].noun)
            for case in cases_of(scene)
            if case.kind in (*FIND_ONE, Kind.FIND_ALL)
        ]
        for scene in scenes
    ]
    asked = []
    for index, (scene, phrases) in enumerate(zip(scenes, own, strict=True)):
        shown = {group.noun for group in scene.groups}
        others = [pair for shift in range(1, len(own)) for pair in own[(index + shift) % len(own)]]
        foreign = [phrase for phrase, noun in others if noun not in shown][: len(phrases)]
        asked.append([(phrase, True) for phrase, _ in phrases] + [(it, False) for it in foreign])
    return asked


def _asked(
    model: Kosmos2, scenes: Sequence[Scene], phrases: Sequence[Sequence[tuple[str, bool]]]
) -> list[Asked]:
    vocabulary = model.tokenizer.vocabulary
    views = model.look([Image.fromarray(scene.image) for scene in scenes])
    put = [
        (scene.id, view, *pair)
        for scene, view, own in zip(scenes, views, phrases, strict=True)
        for pair in own
    ]
    doubted = model.answer(
        [((view,), questions.find_or_absent(phrase, vocabulary)) for _, view, phrase, _ in put]
    )
    found = model.answer(
        [((view,), questions.find(phrase, vocabulary)) for _, view, phrase, _ in put]
    )
    return [
        Asked(scene, is_shown, doubt.absent or 0.0, max(box.scores))
        for (scene, _, _, is_shown), doubt, box in zip(put, doubted, found, strict=True)
    ]


def _numbers(asked: Sequence[Asked]) -> dict[str, Any]:
    shown, scenes = [each.is_shown for each in asked], [each.scene for each in asked]
    return {
        "pictures": len(set(scenes)),
        "phrases shown": sum(shown),
        "phrases not shown": len(asked) - sum(shown),
        "AUROC of 1 - P(absent)": _rounded(auroc([-each.absent for each in asked], shown, scenes)),
        "AUROC of the best box's score": _rounded(
            auroc([each.score for each in asked], shown, scenes)
        ),
        "said to be absent, of shown": _share(each.absent > 0.5 for each in asked if each.is_shown),
        "said to be absent, of not shown": _share(
            each.absent > 0.5 for each in asked if not each.is_shown
        ),
        "median P(absent), shown": _median(each.absent for each in asked if each.is_shown),
        "median P(absent), not shown": _median(each.absent for each in asked if not each.is_shown),
        "median score, shown": _median(each.score for each in asked if each.is_shown),
        "median score, not shown": _median(each.score for each in asked if not each.is_shown),
    }


def _rounded(number: Number) -> list[float]:
    """Return the value and its 95 % interval."""
    return [round(number.value, 3), round(number.low, 3), round(number.high, 3)]


def _share(found: Iterable[bool]) -> float:
    return round(statistics.fmean(found), 3)


def _median(values: Iterable[float]) -> float:
    return float(f"{statistics.median(values):.3g}")


if __name__ == "__main__":
    main()
