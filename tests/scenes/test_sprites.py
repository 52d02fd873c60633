"""From packages to drawings, with packages made here; the real artwork only where it is at hand."""

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmos2.errors import MissingExtraError, SceneError
from kosmos2.scenes import sprites
from kosmos2.scenes.compose import COLOURS
from kosmos2.scenes.gallery import Sprite, Sprites, recoloured
from kosmos2.scenes.maker import SceneMaker
from kosmos2.scenes.nouns import all_nouns, noun_set
from kosmos2.scenes.recipe import SceneRecipe

DISC = '<circle cx="20" cy="16" r="8" fill="#d22"/>'
FEW = {name: all_nouns()[name] for name in ("dog", "hourglass")}


def silent(_: str) -> None:
    pass


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the one that `npm pack` and `pip download` fill, with two nouns."""
    monkeypatch.setattr(sprites, "all_nouns", lambda: FEW)
    folder = tmp_path / "packages"
    folder.mkdir()
    picture = encoded(Image.new("RGBA", (256, 128), (10, 20, 200, 255)), "WEBP")
    for package in sprites.PACKAGES:
        codes = [code for noun in FEW.values() for code in noun.sprites.get(package.style, ())]
        names = {} if package.style == "noto-v1" else {code: "other-name" for code in codes}
        icons = {
            "icons": {"disc": {"body": DISC}},
            "aliases": {"other-name": {"parent": "disc"}},
            "width": 32,
            "height": 32,
        }
        files = {
            "package/icons.json": json.dumps(icons).encode(),
            "package/chars.json": json.dumps(names).encode(),
        }
        if package.style == "fluent-3d":
            files = {f"package/assets/{code}-fe0f.webp": picture for code in codes}
        with tarfile.open(folder / package.archive, "w:gz") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    name, version = sprites.PHOTO_PACKAGE
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{version}-any.whl", "w") as wheel:
        for photo in sprites.PHOTOS:
            wheel.writestr(f"skimage/data/{photo}", encoded(Image.new("L", (600, 300)), "PNG"))
    return folder


def test_packages_become_trimmed_drawings_with_their_origin(packages: Path, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    sprites.prepare_from(packages, tmp_path, progress=silent)
    styles = [package.style for package in sprites.PACKAGES]
    loaded = Sprites.load(tmp_path, styles=styles, nouns=tuple(FEW), side=64)

    assert len(loaded.photos) == 8
    for style in styles:
        (drawing,) = loaded.of("dog", [style])
        height, width = drawing.levels[0].shape[:2]
        expected = (32, 64) if style == "fluent-3d" else (64, 64)  # 256x128 and a disc
        assert (height - 2, width - 2) == expected  # without the clear border
        assert drawing.levels[0][1:-1, 1:-1, 3].any(axis=0).all()
    with zipfile.ZipFile(tmp_path / sprites.ARCHIVE) as archive:
        index = json.loads(archive.read("index.json"))
    assert all(len(source["sha256"]) == 64 and source["licence"] for source in index["sources"])


def test_equal_packages_give_an_equal_file(packages: Path, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    for name in ("a", "b"):
        sprites.prepare_from(packages, tmp_path / name, progress=silent)
    one, other = ((tmp_path / name / sprites.ARCHIVE).read_bytes() for name in "ab")
    assert one == other


def test_a_missing_package_is_named_before_anything_is_written(
    packages: Path, tmp_path: Path
) -> None:
    pytest.importorskip("resvg_py")
    (packages / sprites.PACKAGES[2].archive).unlink()
    with pytest.raises(SceneError, match=r"fluent-emoji-flat-1\.2\.6\.tgz"):
        sprites.prepare_from(packages, tmp_path / "cache", progress=silent)
    assert not (tmp_path / "cache").exists()


def test_without_npm_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sprites, "resvg_py", object())
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SceneError, match=r"no `npm`.*folder"):
        sprites.prepare(tmp_path, progress=silent)


def test_without_the_rasteriser_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sprites, "resvg_py", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*kosmos2\[scenes\]"):
        sprites.prepare(tmp_path, progress=silent)


def test_an_empty_cache_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="kosmos2 scenes prepare"):
        Sprites.load(tmp_path, styles=("noto",), nouns=("dog",))


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("KOSMOS2_CACHE", raising=False)
    assert sprites.default_cache() == Path("/somewhere/kosmos2/scenes")
    monkeypatch.setenv("KOSMOS2_CACHE", "/own")
    assert sprites.default_cache() == Path("/own/scenes")


@pytest.mark.parametrize("colour", COLOURS)
def test_recolouring_gives_the_hue_and_leaves_alpha_and_foreign_colours(colour: str) -> None:
    image = Image.new("RGBA", (40, 40), (200, 40, 30, 255))
    image.paste((240, 240, 240, 255), (0, 0, 40, 10))
    image.paste((0, 0, 0, 0), (0, 35, 40, 40))
    sprite = Sprite.from_rgba(image, side=40)
    assert sprite.hue is not None
    before = sprite.levels[0]
    after = recoloured(before, sprite.hue, COLOURS[colour])

    assert np.array_equal(after[..., 3], before[..., 3])
    assert np.abs(after[1:11].astype(int) - before[1:11]).max() <= 2
    hue = int(Image.fromarray(after[20:21, 20:21, :3]).convert("HSV").getpixel((0, 0))[0])
    assert abs((hue - COLOURS[colour][0] + 128) % 256 - 128) <= 3


def test_a_grey_drawing_has_no_colour_of_its_own() -> None:
    assert Sprite.from_rgba(Image.new("RGBA", (40, 40), (90, 90, 95, 255)), side=40).hue is None


def test_the_real_artwork_makes_scenes() -> None:
    cache = sprites.default_cache()
    if not (cache / sprites.ARCHIVE).is_file():
        pytest.skip("needs the artwork: kosmos2 scenes prepare")
    nouns = noun_set("starter")[:6]
    styles = sprites.TRAINING_STYLES
    loaded = Sprites.load(cache, styles=styles, nouns=nouns)
    assert all(loaded.of(noun, [style]) for noun in nouns for style in styles)
    recipe = SceneRecipe(size=64, nouns=nouns, styles=styles, seed=0)
    assert SceneMaker(recipe, loaded).scene(0).image.std() > 5
