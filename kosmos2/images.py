"""A file, bytes, an array or a PIL image -> an upright RGB picture -> the tensor the model sees.

Whatever a camera, an editor or a stranger hands over comes out right or as one `ImageError` with a
one-line message: rotation, alpha, CMYK, palettes, 16 bits, truncated files, size bombs.
Nothing is ever fetched from a network here, and no helper program is started (no EPS, no WMF).
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError
from torch import Tensor

from kosmos2.errors import ImageError, one_line

MAX_PIXELS = 178_956_970
"""The most pixels that are ever decoded: half a gigabyte as RGB, and the limit of Pillow itself."""

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP",
)  # fmt: skip

# The constants of CLIP, as in both references.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = (5, 6, 7, 8)
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright RGB image, and the size the picture has where it came from.

    The two sizes differ only for a gigantic JPEG, which is decoded at an eighth of its size.
    """

    image: Image.Image
    width: int
    height: int


Source: TypeAlias = Path | str | bytes | Image.Image | NDArray[Any] | Picture


def load(source: Source, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the upright RGB image of a path, encoded bytes, a PIL image or an array."""
    return open_picture(source, max_pixels=max_pixels).image


def open_picture(source: Source, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Return the picture with its own size; refuse to decode more than `max_pixels`.

    An array has rows, columns and 1, 3 or 4 channels (or none); 8 or 16 bits, bool, or 0..1 floats.
    """
    match source:
        case Picture():
            return source
        case str() | Path():
            return _open_path(source, max_pixels)
        case bytes() | bytearray() | memoryview():
            name = f"a picture of {len(source):,} bytes"
            return _open_stream(io.BytesIO(source), name, max_pixels)
        case Image.Image():
            return _guarded(lambda: _upright(source, *source.size), "this PIL image")
        case np.ndarray():
            image = _from_array(source)
            return Picture(image, *image.size)
    raise ImageError(
        f"a picture is a path, bytes, a PIL image or a numpy array, got {type(source).__name__}"
    )


def preprocess(image: Image.Image, size: int) -> Tensor:
    """Return tensor_CYX, float32: squashed to a square (aspect not kept), CLIP mean and deviation.

    As in both references the picture is resized by PIL's antialiased bicubic filter while it is
    still 8 bits. Unlike them, `load` has turned it upright before and laid it on white.
    """
    if image.mode != "RGB":
        raise ImageError(f"preprocess needs an RGB image, got {image.mode}; use images.load first")
    return normalise(to_tensor(np.asarray(to_square(image, size))))


def to_square(image: Image.Image, size: int) -> Image.Image:
    """Return the picture as every model reads it, in training and in use: size x size pixels."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def to_tensor(image_YXC: NDArray[np.uint8]) -> Tensor:
    """Return pixels_CYX, still 8 bits."""
    return torch.from_numpy(image_YXC.transpose(2, 0, 1).copy())


def normalise(pixels_CYX: Tensor) -> Tensor:
    """Return float32 pixels of CLIP's mean and deviation for 8-bit ones, (..., 3, Y, X)."""
    mean = torch.tensor(MEAN, device=pixels_CYX.device)[:, None, None]
    std = torch.tensor(STD, device=pixels_CYX.device)[:, None, None]
    return (pixels_CYX.float() / 255 - mean) / std


def _open_path(source: Path | str, max_pixels: int) -> Picture:
    name = one_line(source)
    if name.startswith(("http://", "https://")):
        raise ImageError(f"{name}: pictures are not fetched from the web; download it first")
    try:
        path = Path(source)
        if not path.is_file():
            raise ImageError(f"{name}: {_why_no_file(path)}")
        if path.stat().st_size == 0:
            raise ImageError(f"{name}: the file is empty")
        with path.open("rb") as stream:
            return _open_stream(stream, name, max_pixels)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: cannot be read ({one_line(error)})") from error


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "this is a folder, not a picture"
    return "this is no regular file" if path.exists() else "there is no such file"


def _open_stream(stream: IO[bytes], name: str, max_pixels: int) -> Picture:
    def decode() -> Picture:
        image = _identify(stream, name)
        width, height = image.size
        if width * height > min(max_pixels, MAX_PIXELS):
            _decode_at_an_eighth(image, name, max_pixels)
        return _upright(image, width, height)

    return _guarded(decode, name)


def _identify(stream: IO[bytes], name: str) -> Image.Image:
    """Return the image with its header read and its pixels not yet decoded."""
    with warnings.catch_warnings():
        # Pillow warns from half of MAX_PIXELS on; the limit here is checked by `_open_stream`.
        warnings.simplefilter("ignore")
        try:
            return Image.open(stream, formats=FORMATS)
        except UnidentifiedImageError:
            raise ImageError(
                f"{name}: this is no picture in a known format ({', '.join(FORMATS)})"
            ) from None
        except Image.DecompressionBombError as error:
            stream.seek(0)
            if stream.read(2) != b"\xff\xd8":
                raise ImageError(f"{name}: {_too_large(one_line(error))}") from None
            stream.seek(0)
            return JpegImagePlugin.JpegImageFile(stream)


def _decode_at_an_eighth(image: Image.Image, name: str, max_pixels: int) -> None:
    """Ask a baseline JPEG for an eighth of its size, which needs little memory; refuse the rest."""
    width, height = image.size
    size = f"{width:,} x {height:,} pixels are more than {min(max_pixels, MAX_PIXELS):,}"
    # A progressive JPEG keeps every coefficient in memory, whatever size is asked for.
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.info.get("progressive"):
        raise ImageError(f"{name}: {_too_large(size)}")
    image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
    if image.width * image.height > max_pixels:
        raise ImageError(f"{name}: {_too_large(size)}")


def _too_large(size: str) -> str:
    return f"too large to decode ({size}); shrink it or save it as a baseline JPEG"


def _guarded(decode: Callable[[], Picture], name: str) -> Picture:
    """Run a decoder; whatever Pillow stumbles upon in a broken file becomes one ImageError."""
    try:
        return decode()
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything, from struct.error to SyntaxError
        why = one_line(error) or type(error).__name__
        raise ImageError(f"{name}: the picture is damaged or unusual ({why})") from error


def _upright(image: Image.Image, width: int, height: int) -> Picture:
    """Decode an image of that size as RGB and turn it the way its camera was held."""
    image.load()
    orientation = _orientation(image)
    rgb = _to_rgb(image)
    if orientation in _UPRIGHT:
        # A deviation: both references ignore the orientation and see such a picture lying down.
        rgb = rgb.transpose(_UPRIGHT[orientation])
    if orientation in _QUARTER_TURNS:
        width, height = height, width
    return Picture(rgb, width, height)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF is no reason to refuse a picture whose pixels are fine
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:
        return _from_array(np.asarray(image))
    if image.mode in ("I", "F"):
        return _from_wide(np.asarray(image))
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image over white; the references drop alpha and show what lies under it."""
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def _from_wide(values: NDArray[Any]) -> Image.Image:
    """Return grey pixels of 32 bits by the narrowest of the usual ranges that holds them."""
    low, high = float(values.min()), float(values.max())
    for top in (1, 255, 65_535) if values.dtype.kind == "f" else (255, 65_535):
        if low >= 0 and high <= top:
            return _from_array((values / top).astype(np.float32))
    raise ImageError(
        f"grey values from {low:g} to {high:g} have no agreed brightness; scale them to 0..255"
    )


def _from_array(array: NDArray[Any]) -> Image.Image:
    """Return RGB for rows x columns [x channels]; also the way of 16-bit and float files."""
    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise ImageError(
            f"a picture array has rows, columns and 1, 3 or 4 channels, got shape {array.shape}"
        )
    eight_bits = _to_eight_bits(pixels)
    if eight_bits.shape[2] == 4:
        return _on_white(Image.fromarray(eight_bits))
    if eight_bits.shape[2] == 1:
        eight_bits = np.repeat(eight_bits, 3, axis=2)
    return Image.fromarray(eight_bits)


def _to_eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    kind = pixels.dtype
    if kind == np.uint8:
        return np.ascontiguousarray(pixels)
    if kind == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if kind.kind == "u" and kind.itemsize == 2:
        return np.asarray((pixels.astype(np.uint32) + 128) // 257, np.uint8)
    if kind.kind == "f" and np.isfinite(pixels).all() and 0 <= pixels.min() <= pixels.max() <= 1:
        return np.asarray(np.rint(pixels * 255), np.uint8)
    raise ImageError(
        "a picture array holds uint8, uint16, bool or floats from 0 to 1, got "
        f"{kind} from {pixels.min()} to {pixels.max()}"
    )
