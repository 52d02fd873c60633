"""What a user of the demo does, in a browser."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from kosmos2.grounding.render import colour

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.jpg"))

Pixel = tuple[int, int, int]


def visit(page: Page, address: str, example: int = 0) -> None:
    """Open the demo, and one of its examples."""
    page.goto(address)
    page.wait_for_selector(".examples button[aria-pressed=true]")
    if example:
        page.locator(".examples button").nth(example).click()
        page.wait_for_selector(f".examples button:nth-child({example + 1})[aria-pressed=true]")


def choose(page: Page, task: str, text: str | None = None) -> None:
    page.get_by_label(task, exact=True).check()
    if text is not None:
        page.fill("#k2-text textarea", text)


def run(page: Page) -> str:
    """Press the button and return the caption of the finished answer."""
    before = page.locator(".log li").count()
    page.click("#k2-go")
    page.locator(".log li").nth(before).wait_for(state="attached")
    page.wait_for_selector(".card:not(.busy)")
    return page.inner_text(".caption")


def refused(page: Page) -> str:
    """Press the button and return why nothing was answered."""
    page.click("#k2-go")
    page.wait_for_selector(".alert:not([hidden])")
    return page.inner_text(".alert")


def drag(page: Page, corners: tuple[float, float, float, float]) -> None:
    """Draw a box on the picture, corners normalised."""
    frame = page.locator(".shown").bounding_box()
    assert frame is not None
    page.wait_for_selector(".drawing")
    x, y = frame["x"], frame["y"]
    x0, y0, x1, y1 = corners
    page.mouse.move(x + x0 * frame["width"], y + y0 * frame["height"])
    page.mouse.down()
    page.mouse.move(x + x1 * frame["width"], y + y1 * frame["height"], steps=3)
    page.mouse.up()


def seen(target: Locator) -> Image.Image:
    """Return what is on the screen where an element is."""
    return Image.open(io.BytesIO(target.screenshot())).convert("RGB")


def painted(index: int) -> Pixel:
    """Return the colour of the phrase with this number."""
    value = colour(index)
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


def near(one: Pixel, other: Pixel, most: int = 6) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= most
