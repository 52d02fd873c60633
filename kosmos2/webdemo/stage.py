"""The picture with its text: one component, in which words and boxes light each other up."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import gradio as gr

from kosmos2.grounding.page_assets import LINKS_SCRIPT, LINKS_STYLE
from kosmos2.webdemo.showing import NOTHING


def stage(examples: Sequence[dict[str, str]]) -> gr.HTML:
    """Return the component.

    Its value is the drawn box, in pixels of the picture; what else it shows are its other props.
    """
    assets = files("kosmos2.webdemo")
    return gr.HTML(
        value=None,
        html_template=(assets / "stage.html").read_text(encoding="utf-8"),
        css_template=LINKS_STYLE + (assets / "stage.css").read_text(encoding="utf-8"),
        js_on_load=LINKS_SCRIPT + (assets / "stage.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="k2-stage",
        examples=list(examples),
        picture=None,
        drawing=False,
        answer=NOTHING,
        error="",
        busy=False,
        log=[],
        files=None,
        saved=None,
    )
