"""A headless Chromium for tests of pages: `browser_page`, or `browser` for several users at once.

Nothing outside this machine can be reached from it: a page that loads anything from elsewhere is
found out, and so is one whose script throws an error that nobody catches.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = "KOSMOS2_CHROMIUM"
"""Where Chromium is, if it is not on the path under a usual name."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WINDOW = (1280, 900)
PATIENCE = 30_000.0
"""Milliseconds that a test waits for what must come: a busy machine is no error."""


def chromium_path() -> str | None:
    """Return where Chromium is, or None."""
    told = os.environ.get(CHROMIUM)
    return told or next((path for name in NAMES if (path := shutil.which(name))), None)


# For one module and no longer: Playwright has an event loop running in this thread meanwhile, and
# tests with loops of their own cannot run then.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium without a window. Each `open_page(browser)` is another user of it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = chromium_path()
    if path is None:
        pytest.skip(f"needs Chromium on the path, or where {CHROMIUM} says (apt install chromium)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=path,
            args=["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def browser_page(browser: Browser) -> Iterator[Page]:
    """An empty page in a fresh profile, light, 1280 x 900."""
    with open_page(browser) as page:
        yield page


@contextmanager
def open_page(browser: Browser, size: tuple[int, int] = WINDOW) -> Iterator[Page]:
    """Open a page in a fresh profile; fail where it threw an error or asked another machine."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert not errors, f"the page's script failed: {errors}"
    foreign = [url for url in asked if not _is_near(url)]
    assert not foreign, f"the page asked other machines: {foreign}"


def _is_near(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob", "about") or parts.hostname in ("127.0.0.1", "localhost")
