"""Pictures that come with requests: bytes, base64, or a URL where these are allowed."""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus

from kosmos2 import fetch
from kosmos2.errors import ImageError
from kosmos2.images import Picture, open_picture
from kosmos2.server.limits import Limits
from kosmos2.server.problems import ProblemError


def picture_of(sent: str | bytes, limits: Limits) -> Picture:
    """Return the picture of what was sent: its bytes, base64, a `data:` URL, or a URL."""
    data = sent if isinstance(sent, bytes) else _bytes_of(sent, limits)
    return open_picture(data, max_pixels=limits.max_pixels)


def _bytes_of(sent: str, limits: Limits) -> bytes:
    if sent[:8].lower().startswith(("http://", "https://")):
        if not limits.allow_urls:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "this server fetches no pictures (serve --allow-urls lets it): send the picture "
                "itself, as base64 or multipart",
            )
        return fetch.fetch(sent, fetch.Limits(max_bytes=limits.max_body))
    if sent[:5].lower() == "data:":
        head, _, sent = sent.partition(",")
        if not head.lower().endswith(";base64"):
            raise ImageError("a data: URL of a picture must be base64: data:image/jpeg;base64,...")
    try:
        return base64.b64decode("".join(sent.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(
            f"the picture is no base64 ({error}), no data: URL and no http:// or https:// URL"
        ) from error
